"""What a curve costs: its points together in one batch, and one after the other; and one run on several processes.

    python scripts/bench_together.py [--before CHECKOUT] [--points 1,2,3,4,5,7,9] [--rounds 1] [KEY=VALUE ...]
    python scripts/bench_together.py --processes 2 [--rounds 1] [KEY=VALUE ...]

KEY=VALUE are keys of run.py (tracker=none, unless told otherwise). Each measurement is one command in a new process
and a new folder, from its start to its end; the ways take turns. Processor time (user and system, of all processes)
says more than the clock on a busy machine, but for --processes, which gain time on the clock alone. *different* counts
sentences that do not come out as they do the first way.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import markdown, save

from streamllm.runs.folder import PREDICTIONS

ROOT = Path(__file__).parent.parent
COLUMNS = {
    "way": ("way", ""),
    "cpu_s": ("CPU s", ".1f"),
    "cpu_ratio": ("ratio", ".2f"),
    "wall_s": ("wall s", ".1f"),
    "wall_ratio": ("ratio of wall time", ".2f"),
    "different": ("different", ""),
}


def measure(checkout: Path, arguments: Sequence[str], root: Path) -> tuple[float, float]:
    """Processor and wall time of a command, in seconds."""
    command = [sys.executable, str(checkout / "run.py"), *arguments, f"output.root={root}"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "STREAMLLM_THREADS": "1"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=root.parent, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def sentences(root: Path) -> dict[tuple[str, str], str]:
    """What was written, by the order of the points and the ids of sentences: names may differ between checkouts."""
    found = {}
    for path in root.glob(f"*/{PREDICTIONS}"):
        config = (path.parent / "run.yaml").read_text(encoding="utf-8")
        (k,) = [line for line in config.splitlines() if line.startswith("k: ")] or [""]
        for line in path.read_text(encoding="utf-8").splitlines():
            trace = json.loads(line)
            found[k, trace["id"]] = json.dumps([trace["prediction"], trace["delays"]])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout whose points follow each other, too")
    parser.add_argument("--points", default="1,2,3,4,5,7,9", help="values of k (default: %(default)s)")
    parser.add_argument("--processes", type=int, help="compare one run on so many processes with one process")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each way (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="of run.py")
    options = parser.parse_args()
    sweep = ["-m", f"k={options.points}"]
    ways: dict[str, tuple[Path, list[str]]] = {}
    if options.processes:
        ways = {f"processes={n}": (ROOT, [f"processes={n}"]) for n in (1, options.processes)}
    else:
        if options.before:
            ways["before, one after the other"] = options.before.resolve(), sweep
        ways["one after the other"] = ROOT, [*sweep, "sweep.together=false"]
        ways["together"] = ROOT, [*sweep, "sweep.together=true"]
    load, took = os.getloadavg()[0], {name: list[tuple[float, float]]() for name in ways}
    found = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for number, (name, (checkout, arguments)) in enumerate(ways.items()):
                root = Path(folder) / str(number)
                took[name].append(measure(checkout, [*arguments, "tracker=none", *options.keys], root))
                found[name] = sentences(root)
                print(f"{name}: {took[name][-1][0]:.1f} CPU s, {took[name][-1][1]:.1f} s", file=sys.stderr)
    first = next(iter(ways))
    rows: list[dict[str, Any]] = []
    for name, each in took.items():
        cpu, wall = (statistics.median(one[i] for one in each) for i in range(2))
        row: dict[str, Any] = {"way": name, "cpu_s": cpu, "wall_s": wall}
        base = rows[0] if rows else row
        row |= {"cpu_ratio": cpu / base["cpu_s"], "wall_ratio": wall / base["wall_s"]}
        row["different"] = sum(found[name].get(key) != value for key, value in found[first].items())
        rows.append(row)
    print(markdown(rows, COLUMNS))
    print(f"\n({os.cpu_count()} cores; load of the machine when it began: {load:.1f})")
    if options.json:
        save(options.json, {**vars(options), "json": None, "before": str(options.before), "load": load}, rows=rows)


if __name__ == "__main__":
    main()
