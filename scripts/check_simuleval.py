"""Runs SimulEval and OmniSTEval themselves on what streamllm writes and serves, and compares every digit they print.

    python scripts/check_simuleval.py [--venv FOLDER] [--limit N] [--policy "policy=waitk k=3"]... [KEY=VALUE ...]

KEY=VALUE are keys of run.py, for all policies; units must be words. Ends with 1 where anything differs, and with 2
where the packages cannot be installed. docs/simuleval.md says what is compared.
"""

import argparse
import contextlib
import csv
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamllm.live.simuleval import as_sent
from streamllm.metrics.summary import summarise
from streamllm.records import Trace
from streamllm.runs.folder import INSTANCES, RunFolder
from streamllm.runs.load import load_traces, read_config

ROOT = Path(__file__).parent.parent
TOOLS = ("simuleval==1.1.4", "omnisteval==0.1.10")
# What the two import for text. Left to themselves, they also want compilers and tools for speech.
THEIR_IMPORTS = ("sacrebleu", "pandas", "pyyaml", "requests", "textgrid", "tornado", "tqdm==4.64.1")
POLICIES = ("policy=waitk k=3", "policy=full", "policy=confidence")
LATENCIES = ("LAAL", "AL", "AP", "DAL")


@dataclass(frozen=True)
class Row:
    """One line of the table: what we say, and what the tool says."""

    policy: str
    check: str
    what: str
    ours: float
    theirs: float
    decimals: int

    @property
    def difference(self) -> float:
        ours = round(self.ours, self.decimals)
        if math.isnan(ours) and math.isnan(self.theirs):
            return 0.0
        return round(self.theirs - ours, self.decimals)

    def __str__(self) -> str:
        numbers = (f"{value:>10.{self.decimals}f}" for value in (self.ours, self.theirs, self.difference))
        return f"{self.policy:<20} {self.check:<12} {self.what:<20} {' '.join(numbers)}"


class CannotInstall(RuntimeError):
    pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="folder of the tools' virtual environment; made if it is not there")
    parser.add_argument("--limit", type=int, help="only the first so many sentences")
    parser.add_argument("--policy", action="append", help="keys that choose a policy; may be given again")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    chosen = parser.parse_args()
    keys = [*chosen.keys, *([] if chosen.limit is None else [f"dataset.limit={chosen.limit}"])]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            tools = Tools(chosen.venv or Path(scratch) / "venv")
        except CannotInstall as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"{'policy':<20} {'check':<12} {'what':<20} {'ours':>10} {'theirs':>10} {'difference':>10}")
        different = 0
        for number, policy in enumerate(chosen.policy or POLICIES):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            for row in check(tools, folder, policy, [*shlex.split(policy), *keys]):
                different += row.difference != 0  # nan counts
                print(row, flush=True)
    print(f"{different} differences" if different else "no difference")
    return 1 if different else 0


class Tools:
    """The two programs, in an environment of their own: SimulEval wants an older tqdm than ours."""

    def __init__(self, folder: Path):
        self._programs = folder / "bin"
        if not all((self._programs / name).exists() for name in ("simuleval", "omnisteval")):
            self._install(folder)

    def _install(self, folder: Path) -> None:
        pip = [str(self._programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        try:
            venv.create(folder, with_pip=True)
            # Last, since their presence says that all is there.
            for packages in (THEIR_IMPORTS, ("--no-deps", *TOOLS)):
                subprocess.run([*pip, *packages], check=True, capture_output=True, text=True)
        except (subprocess.CalledProcessError, OSError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
            raise CannotInstall(f"cannot install {' and '.join(TOOLS)} in {folder}: {said}") from error

    def run(self, name: str, *arguments: str | Path) -> str:
        """What a program prints.

        Raises:
            SystemExit: it failed.
        """
        return run([self._programs / name, *arguments], env=os.environ | {"PYTHONUTF8": "1"})


def run(command: Sequence[str | Path], **settings: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, text=True, **settings)
    if done.returncode:
        sys.exit(f"error: {shlex.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def check(tools: Tools, folder: Path, policy: str, keys: Sequence[str]) -> Iterator[Row]:
    """All comparisons for one policy; ``folder`` is empty."""
    outputs = folder / "outputs"
    run([sys.executable, ROOT / "run.py", *keys, "tracker=none", f"output.root={outputs}"], cwd=ROOT)
    (metrics,) = outputs.glob("*/metrics.json")
    results = RunFolder(metrics.parent)
    traces = load_traces(results.path)
    language = read_config(results.path)["dataset"]["target_language"]
    write_lines(folder / "source.txt", (trace.source for trace in traces))
    write_lines(folder / "reference.txt", (trace.reference for trace in traces))
    yield from check_score_only(tools, folder, policy, results)
    yield from check_omnisteval(tools, folder, policy, results)
    yield from check_remote(tools, folder, policy, keys, traces, language)


def write_lines(path: Path, texts: Iterator[str]) -> None:
    path.write_text("".join(" ".join(text.split("\n")) + "\n" for text in texts), encoding="utf-8")


def check_score_only(tools: Tools, folder: Path, policy: str, results: RunFolder) -> Iterator[Row]:
    copy = folder / "score-only"  # SimulEval writes to the folder that it scores
    copy.mkdir()
    (copy / INSTANCES).write_bytes((results.path / INSTANCES).read_bytes())
    (copy / "config.yaml").write_text("source_type: text\ntarget_type: text\n")
    # Without ATD: a row of a log does not say that it is of text, and SimulEval takes it for speech.
    printed = tools.run("simuleval", "--score-only", "--output", copy, "--latency-metrics", *LATENCIES)
    names, values = (line.split() for line in printed.strip().splitlines())
    ours = results.metrics()
    for name, value in zip(names, values[1:], strict=True):
        yield Row(policy, "score-only", name, number(ours[name.lower()]), float(value), 3)


def check_omnisteval(tools: Tools, folder: Path, policy: str, results: RunFolder) -> Iterator[Row]:
    log, references, scores = results.path / INSTANCES, folder / "reference.txt", folder / "omnisteval"
    files = ("--hypothesis_file", log, "--ref_sentences_file", references, "--output_folder", scores)
    tools.run("omnisteval", "shortform", "--word_level", *files)
    theirs = dict(read_table(scores / "scores.tsv"))
    ours = results.metrics()
    for name in ("BLEU", "chrF", *LATENCIES, "YAAL"):
        value = theirs[name if name in theirs else f"{name} (CU)"]  # computation-unaware
        yield Row(policy, "omnisteval", name, number(ours[name.lower()]), float(value), 4)
    yield Row(policy, "omnisteval", "(CA) columns", 0, sum("(CA)" in name for name in theirs), 0)


def check_remote(
    tools: Tools, folder: Path, policy: str, keys: Sequence[str], traces: Sequence[Trace], language: str
) -> Iterator[Row]:
    output = folder / "remote"
    texts = ("--source", folder / "source.txt", "--target", folder / "reference.txt")
    kinds = ("--source-type", "text", "--target-type", "text", "--latency-metrics", *LATENCIES, "ATD")
    with serving(keys) as port:
        where = ("--remote-eval", "--remote-address", "127.0.0.1", "--remote-port", port, "--no-progress-bar")
        fixes = ("--user-dir", ROOT / "scripts" / "simuleval_fixes")
        tools.run("simuleval", *where, *fixes, *texts, *kinds, "--output", output)
    sent = [as_sent(trace) for trace in traces]
    rows = [json.loads(line) for line in (output / INSTANCES).read_text().splitlines()]
    recorded = [(row["prediction"].split(), row["delays"]) for row in rows]
    of_run = [(list(trace.units), list(trace.delays)) for trace in traces]
    yield Row(policy, "remote", "sentences as sent", len(sent), equal(recorded, sent), 0)
    whole = sum(
        len(words) == len(trace.units) and 0 not in trace.delays for trace, (words, _) in zip(traces, sent, strict=True)
    )  # nothing in them was extended after it was sent
    yield Row(policy, "remote", "sentences as run", whole, equal(of_run, recorded), 0)
    as_traces = [
        replace(trace, units=tuple(words), delays=tuple(delays), prediction=" ".join(words))
        for trace, (words, delays) in zip(traces, sent, strict=True)
    ]
    ours = summarise(as_traces, language, "word")
    names, values = read_table(output / "scores.tsv")
    for name, value in zip(names, values, strict=True):
        yield Row(policy, "remote", name, number(ours[name.lower()]), float(value), 3)


def equal(some: Sequence[object], others: Sequence[object]) -> int:
    return sum(one == other for one, other in zip(some, others, strict=True))


def read_table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


def number(value: Any) -> float:
    """A metric; None is one that is undefined."""
    return math.nan if value is None else float(value)


@contextlib.contextmanager
def serving(keys: Sequence[str]) -> Iterator[str]:
    """The port of a server of the model and policy that ``keys`` choose."""
    command = [sys.executable, "-m", "streamllm", "serve", *keys, "port=0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if "serving" not in line:
                sys.exit(f"error: {shlex.join(command)} does not serve: {line!r}")
            yield line.rpartition(":")[2].partition(";")[0]
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main())
