"""Wall time of a sweep, its points one after the other and on several processes of joblib.

    python scripts/bench_sweep.py [--points 1,3,5,7,9] [--jobs 2] [--rounds 3] [--json FILE] [KEY=VALUE ...]

KEY=VALUE are keys of run.py (tracker=none, unless told otherwise); needs pip install -e '.[sweeps]'. Each measurement
is one command in a new process and a new folder, from its start to its end, imports included; both ways take turns,
and medians are printed. That both leave the same predictions is checked each time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmark import markdown, save

from streamllm.runs.folder import PREDICTIONS

ROOT = Path(__file__).parent.parent
COLUMNS = {"launcher": ("launcher", ""), "wall_s": ("wall time (s)", ".1f"), "all": ("all rounds (s)", "")}


def sweep(root: Path, arguments: Sequence[str]) -> float:
    """Seconds that a sweep takes; its runs are in ``root``."""
    command = [sys.executable, str(ROOT / "run.py"), "-m", *arguments, f"output.root={root}"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=root.parent, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"the sweep failed: {' '.join(command)}\n{done.stderr}")
    return seconds


def predictions(root: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in root.glob(f"*/{PREDICTIONS}")}


def measure(ways: dict[str, list[str]], arguments: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round.

    Raises:
        SystemExit: a sweep failed, or two ways gave different predictions.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found: list[dict[str, bytes]] = []
            for name, options in ways.items():
                root = Path(folder) / str(len(found))
                seconds[name].append(sweep(root, [*arguments, *options]))
                found.append(predictions(root))
                print(f"round {number + 1}, {name}: {seconds[name][-1]:.1f} s", file=sys.stderr)
            if any(each != found[0] for each in found):
                raise SystemExit("the ways gave different predictions")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="1,3,5,7,9", help="values of k (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes of joblib (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="of run.py")
    options = parser.parse_args()
    ways = {
        "basic": [],
        f"joblib, {options.jobs} processes": ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"],
    }
    load = os.getloadavg()[0]
    seconds = measure(ways, [f"k={options.points}", "tracker=none", *options.keys], options.rounds)
    rows = [
        {"launcher": name, "wall_s": statistics.median(each), "all": ", ".join(f"{one:.1f}" for one in each)}
        for name, each in seconds.items()
    ]
    print(markdown(rows, COLUMNS))
    print(f"\n({os.cpu_count()} cores; load of the machine when it began: {load:.1f})")
    if options.json:
        save(options.json, {**vars(options), "json": None, "load": load}, rows=rows)


if __name__ == "__main__":
    main()
