"""Where the time of ``python run.py`` goes, from the start of the interpreter to its end, and what imports cost.

    python scripts/bench_start.py [--rounds 5] [--json FILE] [KEY=VALUE ...]

KEY=VALUE are keys of run.py (tracker=none, unless told otherwise). Everything is measured in fresh processes with
warm files, one round that does not count first; printed are medians. A library is charged to the stage that imports
it first. CPU time is that of the process: on a busy machine it says more than wall time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from benchmark import markdown, save

ROOT = Path(__file__).parent.parent

IMPORT = """
import json, time
wall, cpu = time.perf_counter(), time.process_time()
{code}
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""
IMPORTS = {
    "`streamllm`": "import streamllm",
    "`mlx.core`, `mlx.nn`": "import mlx.core, mlx.nn",
    "`streamllm.models.loading`, with mlx": "import streamllm.models.loading",
    "`streamllm.cache.dual`, with `mlx_lm` and transformers": "import streamllm.cache.dual",
    "of these: transformers, for its tokenizers": "from transformers import AutoTokenizer, PreTrainedTokenizerFast",
    "hydra": "import hydra",
    "sacrebleu": "from sacrebleu.metrics.bleu import BLEU",
    "pandas": "import pandas",
    "matplotlib": "import matplotlib.pyplot",
    "datasets": "import datasets",
    "wandb": "import wandb",
}

# Runs run.py with a mark at the end of each stage; what it would import anyway is imported one by one before.
STAGED = """
import atexit, json, os, runpy, sys, time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
def now():
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return time.time(), sum(each.ru_utime + each.ru_stime for each in used)
marks = {"interpreter": now()}
def mark(stage):
    if stage not in marks:
        marks[stage] = now()
def bracket(owner, name, before, after):
    call = getattr(owner, name)
    def marked(*args, **kwargs):
        mark(before)
        result = call(*args, **kwargs)
        mark(after)
        return result
    setattr(owner, name, marked)
def write():
    mark("writing the results")
    with open(out, "w") as file:
        json.dump(marks, file)
out, sys.argv = sys.argv[1], sys.argv[2:]
atexit.register(write)
import streamllm; mark("`import streamllm`")
import mlx.core, mlx.nn; mark("mlx")
os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
from transformers import AutoTokenizer, PreTrainedTokenizerFast; mark("transformers")
import mlx_lm; mark("the rest of `mlx_lm`")
import hydra; mark("hydra")
from sacrebleu.metrics import bleu, chrf; mark("sacrebleu")
from streamllm.batching import scheduler
from streamllm.engine import session
from streamllm.evaluation import runner
from streamllm.models import loading; mark("the rest of streamllm")
bracket(loading.ModelConfig, "load", "configuration and data", "loading the model")
bracket(session.Session, "write", "preparing the folder", "first word")
bracket(runner.Gathered, "finish", "all other words", "scoring")
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""

Times = tuple[float, float]  # seconds of wall and of CPU time


def measure_import(code: str) -> Times:
    """Of ``code``, in a process of its own, without the start of the interpreter."""
    done = subprocess.run([sys.executable, "-c", IMPORT.format(code=code)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{code!r} failed:\n{done.stderr}")
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu


def measure_run(command: Sequence[str], overrides: Sequence[str], folder: str, cwd: str | Path = ROOT) -> Times:
    """Of one run of run.py, whole."""
    before, started = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    # With modules compiled beforehand, as they are for whoever does not forbid it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [*command, *overrides, f"output.root={folder}"], cwd=cwd, env=environment, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - started, getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"run.py {' '.join(overrides)} failed:\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_stages(overrides: Sequence[str]) -> dict[str, Times]:
    """Of each stage of one run, and of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "marks.json")
        command = [sys.executable, "-c", STAGED, str(out), str(ROOT / "run.py")]
        started = time.time()
        whole = measure_run(command, overrides, folder)
        marks: dict[str, list[float]] = json.loads(out.read_text())
    ends = sorted(marks.items(), key=lambda item: item[1])
    begins = [[started, 0.0], *(end for _, end in ends)]
    stages = {
        stage: (wall - begin[0], cpu - begin[1]) for (stage, (wall, cpu)), begin in zip(ends, begins[:-1], strict=True)
    }
    rest = tuple(total - sum(times[i] for times in stages.values()) for i, total in enumerate(whole))
    return stages | {"exit": (rest[0], rest[1]), "all of these": whole}


def rows(found: Mapping[str, Sequence[Times]]) -> list[dict[str, str | float]]:
    """Medians, in seconds."""
    return [
        {
            "what": what,
            "wall_s": statistics.median(wall for wall, _ in times),
            "cpu_s": statistics.median(cpu for _, cpu in times),
        }
        for what, times in found.items()
    ]


def in_turn(steps: Mapping[str, Callable[[], Times]], rounds: int) -> dict[str, list[Times]]:
    """Times of each step, round by round; the first round is not kept."""
    found: dict[str, list[Times]] = {what: [] for what in steps}
    for number in range(rounds + 1):
        for what, step in steps.items():
            times = step()
            if number:
                found[what].append(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of run.py")
    args = parser.parse_args()
    overrides = ["tracker=none", *args.overrides]
    columns = {"wall_s": ("wall, s", ".2f"), "cpu_s": ("CPU, s", ".2f")}

    imports = rows(in_turn({what: partial(measure_import, code) for what, code in IMPORTS.items()}, args.rounds))
    print(markdown(imports, {"what": ("import", "")} | columns), flush=True)

    stages: dict[str, list[Times]] = {}
    program = [sys.executable, str(ROOT / "run.py")]
    whole: dict[str, list[Times]] = {"a first run": [], "the same again: it has finished": []}
    for number in range(args.rounds + 1):
        found = measure_stages(overrides)
        with tempfile.TemporaryDirectory() as folder:
            plain = {what: measure_run(program, overrides, folder) for what in whole}
        if number:
            for what, times in plain.items():
                whole[what].append(times)
            for stage, times in found.items():
                stages.setdefault(stage, []).append(times)
    shares = rows(stages)
    for row in shares:
        row["share"] = float(row["cpu_s"]) / float(shares[-1]["cpu_s"])
    print(f"\n{markdown(shares, {'what': ('stage', '')} | columns | {'share': ('share of CPU', '.0%')})}")
    runs = rows(whole)
    command = f"`python run.py {' '.join(overrides)}`"
    print(f"\n{markdown(runs, {'what': (command, '')} | columns)}")
    save(args.json, {"rounds": args.rounds}, imports=imports, stages=shares, runs=runs)


if __name__ == "__main__":
    main()
