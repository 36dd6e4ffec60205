"""Kills run, sweep and train at random, goes on with the same command, and compares the end with an unkilled one.

    python scripts/check_kills.py [--kills 200] [--seed 0] [--only run|sweep|documents|continuous|train]
        [--side-by-side 2]

Each kill is SIGKILL to the process group: at a random moment, or after the n-th change that is seen among the files of
the output folder (a line appended, a file begun, a file renamed). After up to six kills the command is left to end;
then predictions, scores, weights and logs must be those of the unkilled one, but for times. The seed draws jobs, kinds
and numbers; at which instruction a kill falls is up to the machine. Ends with 1 where anything differs, and then keeps
the folders.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.runs.folder import CONFIG, CONTENTS, INSTANCES, LOCK, METRICS, PREDICTIONS, TIMINGS
from streamllm.runs.load import load_traces

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = "outputs"
KILLS_IN_A_ROW = 6  # at most, before the command is left to end
POLL = 0.003  # seconds
PATIENCE = 30.0  # times the unkilled command's seconds; more is a hang

Parts = dict[str, Any]
"""What must be the same in the end, by name. A lock file that a kill leaves in a finished run holds nobody up."""


# --- what must be the same


def of_runs(outputs: Path) -> Parts:
    """Of all run folders: their files by name, the content of those that repeat, scores without times."""
    found: Parts = {}
    for run in _folders(outputs):
        found[run.name] = sorted(path.name for path in run.iterdir() if path.name != LOCK)
        for name in (PREDICTIONS, INSTANCES, CONFIG, CONTENTS):
            found[f"{run.name}/{name}"] = (run / name).read_bytes()
        scores = json.loads((run / METRICS).read_text())
        found[f"{run.name}/{METRICS}"] = {key: value for key, value in scores.items() if not is_time(key)}
        ids = [json.loads(line)["id"] for line in (run / TIMINGS).read_text().splitlines()]
        found[f"{run.name}/{TIMINGS} (ids)"] = ids
    return found


def of_training(outputs: Path) -> Parts:
    """Of a training: its files by name, scores, loss curve, and every weight and state."""
    found: Parts = {}
    for run in _folders(outputs):
        files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name != LOCK]
        found[run.name] = [path.relative_to(run).as_posix() for path in files]
        lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
        found[f"{run.name}/train.jsonl"] = [
            {key: value for key, value in line.items() if not is_time(key) and key != "peak_memory_gb"}
            for line in lines
        ]
        for path in files:
            name = f"{run.name}/{path.relative_to(run).as_posix()}"
            if path.name == "last.safetensors":
                found[name] = _checkpoint(path)
            elif path.name not in ("env.json", "run.log", "train.jsonl"):
                found[name] = path.read_bytes()
    return found


def _folders(outputs: Path) -> list[Path]:
    return sorted(path for path in outputs.iterdir() if path.is_dir() and not path.name.startswith("."))


def is_time(key: str) -> bool:
    return key.endswith(("seconds", "_ca", "per_second")) or key == "seconds_per_sentence"


def _checkpoint(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and arrays of a checkpoint, but for the tokens that this very process has seen."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    counters = json.loads(header["__metadata__"]["counters"])
    counters["window"].pop("tokens_since_start")
    header["__metadata__"]["counters"] = counters
    return header, content[start:]


def stored_lines(outputs: Path) -> Iterator[tuple[str, bytes]]:
    """The whole lines that are stored so far, each with the name of its run and file."""
    for name in (PREDICTIONS, "train.jsonl"):
        for path in sorted(outputs.glob(f"*/{name}")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                yield f"{path.parent.name}/{name}", line


def _wrong_lines(outputs: Path, end: Mapping[str, Any]) -> list[str]:
    """What a reader would find wrong right after a kill: lines that the unkilled run does not have."""
    for path in outputs.glob(f"*/{PREDICTIONS}"):
        load_traces(path.parent)  # raises where a line is damaged
    known = {name: set(value.split(b"\n")) for name, value in end.items() if name.endswith(PREDICTIONS)}
    return [name for name, line in stored_lines(outputs) if name in known and line not in known[name]]


# --- the jobs


@dataclass(frozen=True)
class Job:
    """A command of ``streamllm`` that writes below ``outputs``, and what must be the same in its end."""

    name: str
    words: tuple[str, ...]
    parts: Callable[[Path], Parts]


TINY = "{model_type: qwen2, hidden_size: 32, num_hidden_layers: 1, intermediate_size: 32, num_attention_heads: 2, "
TINY += "num_key_value_heads: 2, rms_norm_eps: 1.0e-6, tie_word_embeddings: true}"

TALKS = ("policy=waitk", "k=3", "dataset.sentences_per_document=6", "dataset.limit=5", "tracker=none")

JOBS = (  # another kind of run joins here
    Job("run", ("run", "policy=waitk", "k=3", "dataset.limit=24", "batch_size=1", "tracker=none"), of_runs),
    Job("sweep", ("run", "-m", "policy=waitk", "k=1,4", "dataset.limit=8", "batch_size=3", "tracker=none"), of_runs),
    Job("documents", ("run", "paradigm=sentences", "batch_size=1", *TALKS), of_runs),
    Job("continuous", ("run", "paradigm=continuous", "batch_size=2", *TALKS), of_runs),
    Job(
        "train",
        (
            *("train", "dataset=sample", "dataset@validation=sample", "dataset.limit=32", "validation.limit=4"),
            *("fresh=tiny", "fresh.vocab_size=300", f"fresh.architecture={TINY}", "data.batch_tokens=250"),
            *("training.epochs=2", "training.warmup_steps=2", "training.checkpoint_every=3", "training.log_every=1"),
            *("training.average=2", "training.dropout=0.1", "score.sentences=0", "tracker=none", "name=small"),
        ),
        of_training,
    ),
)


# --- one process


@dataclass(frozen=True)
class Straight:
    """The unkilled command: what it left, after how many seconds it began to write and ended, and how many changes
    were seen."""

    end: Parts
    lines: int
    began: float
    seconds: float
    changes: int


@dataclass(frozen=True)
class Point:
    """When to kill: after ``seconds``, or a little after so many ``changes``."""

    seconds: float | None = None
    changes: int | None = None


class Failure(Exception):
    """What is not as promised, in words."""


def _state(outputs: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for folder, _, names in os.walk(outputs):
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except FileNotFoundError:  # renamed meanwhile
                continue
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


def _run(job: Job, folder: Path, point: Point | None, patience: float) -> tuple[int, float, float, int]:
    """Start the command in ``folder`` and kill it at ``point``.

    Returns: exit status, seconds until the first change and in all, and how many changes were seen.
    """
    outputs = folder / OUTPUTS
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    environment |= {"STREAMLLM_THREADS": "1", "COLUMNS": "120"}
    with (folder / "stderr").open("ab") as errors, (folder / "stdout").open("ab") as out:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "streamllm", *job.words, f"output.root={OUTPUTS}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        before, changes, began = _state(outputs), 0, 0.0
        try:
            while process.poll() is None:
                now, seconds = _state(outputs), time.monotonic() - started
                if now != before:
                    before, changes, began = now, changes + 1, began or seconds
                if point is not None and (
                    (point.seconds is not None and seconds >= point.seconds)
                    or (point.changes is not None and changes >= point.changes)
                ):
                    break
                if seconds > patience:
                    raise Failure(f"{job.name} has not ended after {seconds:.0f} s")
                time.sleep(POLL)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), began, time.monotonic() - started, changes


def straight(job: Job, folder: Path) -> Straight:
    """Run the command to its end, unkilled."""
    folder.mkdir(parents=True)
    status, began, seconds, changes = _run(job, folder, None, 600)
    if status:
        raise Failure(f"{job.name} fails without a kill: {_said(folder)}")
    outputs = folder / OUTPUTS
    return Straight(job.parts(outputs), sum(1 for _ in stored_lines(outputs)), began, seconds, changes)


def _said(folder: Path) -> str:
    lines = (folder / "stderr").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing on stderr"


# --- many kills


@dataclass
class Life:
    """A command that is killed some times and then ends."""

    job: Job
    kills: int
    where: Counter[str]
    wrong: list[str]


def drawn_point(draw: random.Random, known: Straight, done: float, kills: int) -> Point:
    """Half of the kills by changes, half by the clock: anywhere in what is left to do, and where several kills are to
    fit into it, rather in its first part. Every twentieth falls before anything is written.

    Args:
        done: the share of the lines that is stored.
        kills: how many are to come, with this one.
    """
    at = draw.random() * (1 - done) * min(1, 2 / kills)
    if draw.random() < 0.5:
        return Point(changes=max(1, round(known.changes * at)))
    if draw.random() < 0.1:
        return Point(seconds=draw.uniform(0, known.began))
    return Point(seconds=known.began + (known.seconds - known.began) * at)


def live(job: Job, kills: int, draw: random.Random, known: Straight, folder: Path) -> Life:
    """Kill the command so many times, going on in the same folder, and compare the end. Where it ends before its kill,
    what it left is compared and the rest of the kills falls on a new folder."""
    life = Life(job, 0, Counter(), [])
    patience = PATIENCE * known.seconds + 60
    try:
        number = 0
        while life.kills < kills:
            number += 1
            one = folder / str(number)
            one.mkdir(parents=True)
            status = -signal.SIGKILL
            while life.kills < kills and status == -signal.SIGKILL:
                done = min(1, sum(1 for _ in stored_lines(one / OUTPUTS)) / known.lines)
                status = _run(job, one, drawn_point(draw, known, done, kills - life.kills), patience)[0]
                if status == -signal.SIGKILL:
                    life.kills += 1
                    life.where[_where(one / OUTPUTS, known)] += 1
                    life.wrong += [f"after a kill: {name}" for name in _wrong_lines(one / OUTPUTS, known.end)]
            if status == -signal.SIGKILL:
                status = _run(job, one, None, patience)[0]
            if status:
                raise Failure(f"exit status {status} in {one}: {_said(one)}")
            end = job.parts(one / OUTPUTS)
            names = [*known.end, *(name for name in end if name not in known.end)]
            life.wrong += [f"{one}: {name}" for name in names if end.get(name) != known.end.get(name)]
    except (Failure, OSError, ValueError, KeyError) as error:
        life.wrong.append(f"{folder}: {error}")
    if not life.wrong:
        shutil.rmtree(folder)
    return life


def _where(outputs: Path, known: Straight) -> str:
    """Where a kill fell, by what is stored."""
    if not any(outputs.glob("*/*")):
        return "before"
    lines = sum(1 for _ in stored_lines(outputs))
    return "begun" if not lines else "under way" if lines < known.lines else "ending"


WHERE = {"before": "before a file", "begun": "before a line", "under way": "between lines", "ending": "after the last"}


def shares(kills: int, draw: random.Random, jobs: tuple[Job, ...]) -> list[tuple[Job, int]]:
    """The lives that make up so many kills, the jobs in turn."""
    found: list[tuple[Job, int]] = []
    while kills:
        found.append((jobs[len(found) % len(jobs)], min(kills, draw.randint(1, KILLS_IN_A_ROW))))
        kills -= found[-1][1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[job.name for job in JOBS])
    parser.add_argument("--side-by-side", type=int, default=2, metavar="N", help="processes at a time")
    given = parser.parse_args()
    jobs = tuple(job for job in JOBS if given.only in (None, job.name))
    started, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="kills-"))
    lives = shares(given.kills, random.Random(given.seed), jobs)
    with ThreadPoolExecutor(given.side_by_side) as pool:
        try:
            known = dict(zip(jobs, pool.map(lambda job: straight(job, folder / job.name), jobs), strict=True))
        except Failure as error:
            sys.exit(f"{error} ({folder})")
        done = [
            *pool.map(
                lambda number: live(
                    *lives[number],
                    draw=random.Random(f"{given.seed}/{number}"),
                    known=known[lives[number][0]],
                    folder=folder / f"life-{number}",
                ),
                range(len(lives)),
            )
        ]
    print(f"{'job':<10} {'lives':>5} {'kills':>5}  " + "  ".join(WHERE.values()) + "  wrong")
    for job in jobs:
        own = [life for life in done if life.job is job]
        where = sum((life.where for life in own), Counter[str]())
        columns = "  ".join(f"{where[key]:>{len(label)}}" for key, label in WHERE.items())
        wrong = sum(bool(life.wrong) for life in own)
        print(f"{job.name:<10} {len(own):>5} {sum(life.kills for life in own):>5}  {columns}  {wrong:>5}")
    wrong_parts = [line for life in done for line in life.wrong]
    seconds = time.monotonic() - started
    print(f"{sum(life.kills for life in done)} kills (seed {given.seed}), {seconds:.0f} s", end=": ")
    if wrong_parts:
        print(f"not the same ({folder}):")
        print(*(f"  {line}" for line in wrong_parts), sep="\n")
        sys.exit(1)
    shutil.rmtree(folder)
    print("the same bytes each time")


if __name__ == "__main__":
    main()
