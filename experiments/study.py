"""What studies share: they launch run.py, wait, and write a table into their README."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent


def help_if_asked(text: str | None) -> None:
    """With ``--help``, print what a study says of itself, and end: it would start all its runs."""
    if {"--help", "-h"} & {*sys.argv[1:]}:
        print(text)
        sys.exit()


def launch(script: str, *overrides: str) -> None:
    """``python SCRIPT overrides…`` in the checkout. Finished runs are only named, so a study that was stopped goes
    on by the same command.

    Raises:
        SystemExit: the command failed; it has said why.
    """
    print("$", _shown(script, overrides), flush=True)
    code = subprocess.run([sys.executable, script, *overrides], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def launch_all(script: str, commands: Sequence[Sequence[str]], processes: int) -> None:
    """As `launch`, with the overrides of each command, so many commands at a time and the first ones first. What a
    command prints stands together, when it has ended.

    Raises:
        SystemExit: a command failed; the others have been run all the same.
    """

    def run(overrides: Sequence[str]) -> int:
        shown = _shown(script, overrides)
        print(f"$ {shown} &", flush=True)
        ended = subprocess.run(
            [sys.executable, script, *overrides],
            cwd=ROOT,
            env=threads | os.environ,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(f"# of {shown}\n{ended.stdout}", flush=True)
        return ended.returncode

    threads = {"STREAMLLM_THREADS": "1"} if processes > 1 else {}  # each: they share the cores
    pool = ThreadPoolExecutor(processes)
    try:
        failed = [code for code in pool.map(run, commands) if code]
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C reaches the commands too: they end, and no other begins
    if failed:
        sys.exit(1)


def _shown(script: str, overrides: Sequence[str]) -> str:
    return " ".join(["python", script, *overrides])


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers are to be formatted already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a Markdown file.

    Raises:
        ValueError: the file has no such marks.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path} has no {start} … {end}: put them where the table is to stand")
    path.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")
