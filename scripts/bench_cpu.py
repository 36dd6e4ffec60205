"""What each part of the room `cpu` is worth: CPU time of `python run.py` with all of it, without each part, and plain.

    python scripts/bench_cpu.py [--rounds 3] [--limit 60] [--json FILE] [KEY=VALUE ...]

The ways take turns. Every run is a process of its own, since a BLAS is chosen once; what a run of one sentence costs
(the start) is subtracted. Predictions of all must be the same, but for near-ties.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark import markdown, save

ROOT = Path(__file__).parents[1]
RUN = "import runpy, sys; sys.argv = ['run.py', *sys.argv[1:]]; runpy.run_path('run.py', run_name='__main__')"
# streamllm loads the BLAS when it is imported; the other parts ask at each forward whether they are wanted.
NO_BLAS = "import os; os.environ['STREAMLLM_CPU'] = 'plain'; import streamllm; os.environ['STREAMLLM_CPU'] = 'fast'; "
WITHOUT = (
    "import contextlib, streamllm, streamllm.engine.forward as forward; "
    "forward.{name} = lambda *_: contextlib.nullcontext(); "
)
WAYS = {
    "all of it": "",
    "without the BLAS": NO_BLAS,
    "without numpy's exponentials": WITHOUT.format(name="numpy_exponentials"),
    "without fewer operations": WITHOUT.format(name="fewer_operations"),
    "plain": "import os; os.environ['STREAMLLM_CPU'] = 'plain'; ",
}
COLUMNS = {
    "way": ("room `cpu`", ""),
    "alone": ("one at a time, CPU ms/sentence", ".1f"),
    "alone_ratio": ("ratio", ".2f"),
    "batched": ("in batches, CPU ms/sentence", ".1f"),
    "batched_ratio": ("ratio", ".2f"),
    "different": ("different", ""),
}


def run(way: str, root: Path, *overrides: str) -> float:
    """CPU seconds of a run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", WAYS[way] + RUN, "tracker=none", f"output.root={root}", *overrides]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def predictions(root: Path) -> list[str]:
    (file,) = root.glob("*/predictions.jsonl")
    return file.read_text(encoding="utf-8").splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=60, help="sentences of the sample corpus")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args, overrides = parser.parse_known_args()
    seconds: dict[tuple[str, str], list[float]] = {}
    written: dict[tuple[str, str], list[str]] = {}
    for _ in range(args.rounds):
        for way in WAYS:
            for kind, size in (("alone", "batch_size=1"), ("batched", "batch_size=null")):
                with tempfile.TemporaryDirectory() as folder:
                    one, all_of_them = Path(folder, "one"), Path(folder, "all")
                    start = run(way, one, size, "dataset.limit=1", *overrides)
                    whole = run(way, all_of_them, size, f"dataset.limit={args.limit}", *overrides)
                    written[way, kind] = predictions(all_of_them)
                seconds.setdefault((way, kind), []).append((whole - start) / (args.limit - 1))
    rows = []
    for way in WAYS:
        row: dict[str, Any] = {"way": way, "different": 0}
        for kind in ("alone", "batched"):
            row[kind] = 1000 * statistics.median(seconds[way, kind])
            row[f"{kind}_ratio"] = statistics.median(seconds[way, kind]) / statistics.median(seconds["all of it", kind])
            pairs = zip(written[way, kind], written["all of it", "alone"], strict=True)
            row["different"] += sum(mine != first for mine, first in pairs)
        rows.append(row)
    print(markdown(rows, COLUMNS))
    save(args.json, {"rounds": args.rounds, "limit": args.limit, "command": sys.argv}, rows=rows)


if __name__ == "__main__":
    main()
