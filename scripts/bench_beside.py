"""What `python run.py` costs here, beside another checkout: a whole run, and a finished one that is shown.

    git worktree add ../before ee86ee0
    python scripts/bench_beside.py ../before [--rounds 20] [--json FILE] [KEY=VALUE ...]

The two take turns, each in a process of its own, after a round that does not count. Printed are medians, and the median
of the ratios of each round with its 95 % interval (bootstrap over rounds).
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_start import ROOT, measure_run
from benchmark import markdown, save

COLUMNS = {
    "what": ("", ""),
    "before": ("there, s", ".2f"),
    "now": ("here, s", ".2f"),
    "ratio": ("ratio", ".3f"),
    "low": ("from", ".3f"),
    "high": ("to", ".3f"),
}


def ratio(before: list[float], now: list[float], samples: int = 10_000) -> tuple[float, float, float]:
    """The median of the ratios now / before, pair by pair, and its 95 % interval."""
    ratios = np.array(now) / np.array(before)
    drawn = np.random.default_rng(0).choice(ratios, size=(samples, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def compare(other: Path, rounds: int, overrides: list[str]) -> list[dict[str, Any]]:
    """Rows of CPU and of wall time, of a whole run and of a finished one."""
    times: dict[tuple[str, str, Path], list[float]] = {}
    for counted in [False, *[True] * rounds]:
        for root in (other, ROOT):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, str(root / "run.py")]
                for what in ("a run", "a finished run"):
                    wall, cpu = measure_run(command, overrides, f"{folder}/outputs", folder)
                    if counted:
                        times.setdefault((what, "CPU", root), []).append(cpu)
                        times.setdefault((what, "wall", root), []).append(wall)
    rows = []
    for what in ("a run", "a finished run"):
        for kind in ("CPU", "wall"):
            before, now = times[what, kind, other], times[what, kind, ROOT]
            middle, low, high = ratio(before, now)
            medians = {"before": statistics.median(before), "now": statistics.median(now)}
            rows.append({"what": f"{what}, {kind}", **medians, "ratio": middle, "low": low, "high": high})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("overrides", nargs="*", help="keys of run.py (tracker=none, unless told otherwise)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="keep the rows there")
    args = parser.parse_intermixed_args()
    rows = compare(args.other.resolve(), args.rounds, ["tracker=none", *args.overrides])
    print(markdown(rows, COLUMNS))
    save(args.json, {"other": args.other.name, "rounds": args.rounds, "overrides": args.overrides}, rows=rows)


if __name__ == "__main__":
    main()
