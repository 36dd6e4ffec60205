"""What grows with the work: python scripts/bench_scale.py TASK [--size N]

Each measurement is a process of its own, with inputs that are made up, and beside it one of the same over little. What
is told is the processor time (user and system, of child processes too) and the largest memory of each.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import yaml
from made_up_runs import stored

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "STREAMLLM_THREADS": "1"}
PLAIN = ["tracker=none", "dataset.limit=10"]


def measure(what: str, command: Sequence[str], folder: Path, root: Path = ROOT) -> float:
    """Run a command of the checkout ``root``, and say what it took. Returns its processor time in seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = ENVIRONMENT | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    lines = [(time.perf_counter() - begun, line) for line in process.stdout]
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{what} failed: {' '.join(command)[:200]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    first = f", first line after {lines[0][0]:.1f} s, {len(lines)} lines" if lines else ""
    print(f"{what}: {seconds:.2f} CPU s, {used.ru_maxrss / 1e3:.0f} MB{first}", flush=True)  # KB on Linux
    return seconds


def copies(root: Path, count: int) -> None:
    """One finished run of the sample, and copies of it as runs with other seeds."""
    from streamllm.runs.naming import digest

    command = [sys.executable, str(ROOT / "run.py"), *PLAIN, f"output.root={root}"]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    (run,) = root.glob("*-*")
    config = yaml.safe_load((run / "run.yaml").read_text())
    for seed in range(1, count):
        other = config | {"seed": seed}
        folder = shutil.copytree(run, run.with_name(f"{config['name']}-{digest(other)}"))
        (folder / "run.yaml").write_text(yaml.safe_dump(other, sort_keys=False, allow_unicode=True))


def lengthened(root: Path, sentences: int) -> None:
    """Give the runs in ``root`` so many sentences, each again and again under other ids."""
    for file in [*root.glob("*-*/predictions.jsonl"), *root.glob("*-*/timings.jsonl")]:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        every = ({**lines[n % len(lines)], "id": f"s-{n}"} for n in range(sentences))
        file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in every))


def sweep(folder: Path, size: int) -> None:
    """``-m`` over points that have all finished before."""
    copies(folder / "outputs", size)
    for count in (1, size):
        seeds = ",".join(map(str, range(count)))
        command = [str(ROOT / "run.py"), "-m", f"seed={seeds}", *PLAIN, "output.root=outputs"]
        measure(f"-m over {count} finished points", command, folder)


def report(folder: Path, size: int) -> None:
    """A page about runs of ``size`` sentences."""
    copies(folder / "outputs", 25)
    lengthened(folder / "outputs", size)
    measure(f"report of 25 runs of {size} sentences", ["-m", "streamllm.report", "outputs", "-o", "page.html"], folder)


LOAD = """
import sys, time
import streamllm
from streamllm.data.text import ParallelText
list(ParallelText(source=sys.argv[1] + '.en', target=sys.argv[1] + '.de', limit=100).load())
"""


def limit(folder: Path, size: int) -> None:
    """The first hundred pairs of two files of ``size`` lines."""
    for count in (100, size):
        for language, line in (("en", "a small dog runs over the green grass"), ("de", "ein Hund rennt über das Gras")):
            (folder / f"{count}.{language}").write_text(f"{line}\n" * count)
        measure(f"dataset.limit=100 of {count} lines", ["-c", LOAD, str(count)], folder)


BEGUN = """
import os, sys
from streamllm.runs.folder import RunFolder
def stored(folder, trace):
    os._exit(0)
RunFolder.append = stored
from streamllm.cli import run
run.command()
"""


def stream(folder: Path, size: int) -> None:
    """A run over all of two files of ``size`` lines, to its first sentence."""
    seconds = []
    for count in (10, size):
        for language, line in (("en", "a small dog runs over the green grass"), ("de", "ein Hund rennt über das Gras")):
            (folder / f"{count}.{language}").write_text(f"{line}\n" * count)
        files = [f"dataset.{side}={folder / str(count)}.{end}" for side, end in (("source", "en"), ("target", "de"))]
        words = ["-c", BEGUN, "tracker=none", "dataset=files", *files, f"output.root={folder}"]
        seconds.append(measure(f"the first sentence of {count} lines", words, folder))
    print(f"{seconds[1] - seconds[0]:.2f} CPU s more")


TOLD = """
import sys
from pathlib import Path
import streamllm
from streamllm.tracking.tracker import RunInfo
from streamllm.tracking.wandb_tracker import WandbTracker
root = Path(sys.argv[1])
tracker = WandbTracker()
tracker.start(RunInfo('a' * 12, 'run-a', root / 'run-a', {}))
for step in range(1, int(sys.argv[2]) + 1):
    tracker.log({'running/bleu': 20 + step / 1e4, 'running/laal': 3.0}, step=step)
tracker.summary({'bleu': 20.0})
tracker.finish()
"""


def wandb(folder: Path, size: int) -> None:
    """What W&B is told of the scores while a run goes on, offline."""
    few, many = (
        measure(f"W&B offline, {count} sentences", ["-c", TOLD, str(folder / str(count)), str(count)], folder)
        for count in (10, size)
    )
    print(f"{1000 * (many - few) / (size - 10):.2f} CPU ms a sentence")


FIRST = """
import sys, time
import streamllm
from streamllm.data.sample import Sample
from streamllm.models.loading import ModelConfig
from streamllm.training.data import DataConfig, TrainingData
model = ModelConfig('bundled:tiny-en-de').load()
pairs = Sample().load()
words = [word for pair in pairs for word in pair.source.split()]
pairs = (pairs * (int(sys.argv[1]) // len(pairs) + 1))[: int(sys.argv[1])]
data = TrainingData(pairs, model.prompt, DataConfig(), seed=1)
begun = time.process_time()
next(iter(data.blocks(0)))[0]
print(f'first batch of {len(pairs)} pairs: {time.process_time() - begun:.2f} CPU s', file=sys.stderr)
"""


def train(folder: Path, size: int) -> None:
    """From the pairs in memory to the first batch."""
    subprocess.run([sys.executable, "-c", FIRST, str(size)], env=ENVIRONMENT, check=True)


def made_up(task: str, folder: Path, size: int) -> dict[str, float]:
    """What `made_up_runs` measures, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(ROOT / "scripts" / "made_up_runs.py"), task, str(folder), str(size)]
    done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {key: value for line in lines for key, value in line.items()} | {"processor": processor}


def end(folder: Path, size: int) -> None:
    """A whole run, and what of it comes after its last sentence."""
    found = made_up("evaluate", folder, size)
    figures = f"{found['end']:.1f} CPU s after its last sentence ({found['whole']:.1f} in all)"
    print(f"end of a run of {size}: {figures}, {found['memory']:.0f} MB")


def resume(folder: Path, size: int) -> None:
    """A run that is stopped in the middle, and one that goes on when nine tenths are stored."""
    fresh = made_up("interrupted", folder, size)
    stored(folder, 0.5, size)
    pressed = made_up("interrupted", folder, size)
    left = pressed["processor"] - pressed["pressed"]
    print(f"Ctrl-C in the middle of {size}: {left:.2f} CPU s until the process has ended, {pressed['memory']:.0f} MB")
    stored(folder, 0.9, size)
    found = made_up("evaluate", folder, size)
    figures = f"{found['begin'] - fresh['begin']:.2f} CPU s to the next sentence more than a new run takes to its first"
    print(f"going on at 90 % of {size}: {figures}; {found['end']:.1f} after the last, {found['memory']:.0f} MB")


def bootstrap(folder: Path, size: int) -> None:
    """The intervals of a run's scores, from 1000 samples."""
    stored(folder, 1, size)
    (folder / "run-1" / "metrics.json").write_text('{"bleu": 0.0}')
    found = made_up("drawn", folder, size)
    figures = f"{found['seconds']:.1f} CPU s, {found['memory']:.0f} MB (sum of the intervals: {found['checksum']!r})"
    print(f"bootstrap of {size} sentences: {figures}")


WORDS = "a small dog runs over the green grass and two men in red coats look at it ."


def long(folder: Path, size: int, keys: Sequence[str] = ()) -> None:
    """Sentences of ``size`` words among short ones, 25 among 1,000 (one among 40, if ``keys`` of run.py name another
    model): both together cost what they cost apart."""
    many, few = (40, 1) if keys else (1000, 25)
    short = [" ".join(WORDS.split()[: 6 + i % 12]) for i in range(many)]
    of_many = [" ".join((WORDS.split() * size)[i : size + i]) for i in range(few)]
    seconds = []
    for name, lines in (("start", short[:1]), ("short", short), ("long", of_many), ("both", [*short, *of_many])):
        for language in ("en", "de"):
            (folder / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines))
        files = [f"dataset.{side}={folder / name}.{end}" for side, end in (("source", "en"), ("target", "de"))]
        command = [str(ROOT / "run.py"), "tracker=none", "dataset=files", *files, f"output.root={folder}"]
        seconds.append(measure(f"{len(lines)} sentences ({name})", [*command, "policy=full", *keys], folder))
    start, alone, others, both = seconds
    print(f"both: {(both - start) / (alone + others - 2 * start):.2f} times the sum of both alone, starts left out")


def peak(folder: Path, size: int, other: Path | None = None, keys: Sequence[str] = ()) -> None:
    """The memory of a run of ``size`` sentences, 128 at a time, or of the data that ``keys`` of run.py name; also of
    another checkout."""
    for language in ("en", "de"):
        lines = (" ".join(WORDS.split()[: 6 + i % 12]) for i in range(size))
        (folder / f"talk.{language}").write_text("".join(f"{line}\n" for line in lines))
    files = [f"dataset.{side}={folder / 'talk'}.{end}" for side, end in (("source", "en"), ("target", "de"))]
    ENVIRONMENT.pop("STREAMLLM_THREADS")  # as people run it
    for root in (ROOT, *([other.resolve()] if other else [])):
        for policy in ("waitk", "full"):
            command = [str(root / "run.py"), "tracker=none", *(keys or ["dataset=files", *files]), "batch_size=128"]
            command += [f"policy={policy}", f"output.root={folder / root.name}"]
            measure(f"{root.name}, policy={policy}", command, folder, root)


TASKS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "sweep": (sweep, 500),
    "report": (report, 1000),
    "limit": (limit, 1_000_000),
    "stream": (stream, 1_000_000),
    "wandb": (wandb, 1000),
    "train": (train, 100_000),
    "end": (end, 29_000),
    "resume": (resume, 29_000),
    "bootstrap": (bootstrap, 29_000),
    "long": (long, 400),
    "peak": (peak, 1000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--size", type=int, help="points, sentences, lines or pairs; each task has its own")
    parser.add_argument("--other", type=Path, help="another checkout, for peak")
    parser.add_argument("keys", nargs="*", help="of run.py, for peak and long")
    arguments = parser.parse_intermixed_args()
    task, size = TASKS[arguments.task]
    if task is peak:
        task = partial(peak, other=arguments.other, keys=arguments.keys)
    elif task is long:
        task = partial(long, keys=arguments.keys)
    with tempfile.TemporaryDirectory() as folder:
        task(Path(folder), arguments.size or size)


if __name__ == "__main__":
    main()
