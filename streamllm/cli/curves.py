"""The curves of many runs as text, for `streamllm compare --curves`: areas under and between them, differences at equal
latency, and what each point loses against full-sentence translation; test sets side by side."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamllm.cli.arguments import Parser, one_line_errors
from streamllm.metrics.scores import Score, scores
from streamllm.runs.curve_tests import Bounds, curve_table, equal_latency_table, loss_table
from streamllm.runs.load import load_runs
from streamllm.runs.points import SEEDS, by_test_set, curves_of, points_of, side_by_side
from streamllm.runs.sums import SEED

if TYPE_CHECKING:
    import pandas

FULL = "full"  # the policy that waits for the end


def curves_text(
    folders: Sequence[Path],
    by: str = "policy",
    baseline: str | None = None,
    bounds: Bounds | None = None,
    latency: str = "laal",
    quality: str = "bleu",
    seeds: Sequence[str] = SEEDS,
    samples: int = 1000,
    seed: int = SEED,
) -> str:
    """What the curves of the runs in ``folders`` say, for each test set.

    Args:
        by: a column of `load_runs` whose values are the curves.
        baseline: one of the curves; None is "waitk" where there is one.
        bounds, latency, quality, samples, seed: as for `curve_table`.
        seeds: keys that seeds differ in.

    Raises: as `load_runs` and `curve_table`; ValueError: there are no runs, or no curve.
    """
    import pandas

    frames = [frame for folder in folders if not (frame := load_runs(folder)).empty]
    if not frames:
        raise ValueError(
            f"{', '.join(map(str, folders))}: no finished run; give folders that hold runs, such as outputs"
        )
    runs = pandas.concat(frames, ignore_index=True).drop_duplicates("folder")
    names = scores(documents=True)
    if unknown := [key for key in (latency, quality) if key not in names]:
        raise ValueError(f"{unknown[0]!r} is no score; `streamllm list metrics` names them")
    of = names[latency], names[quality]
    sets, parts = by_test_set(runs), []
    without = {name: alone for name, rows in sets.items() if (alone := _no_curve(rows, by, seeds))}
    if len(without) == len(sets):
        name, alone = next(iter(without.items()))
        raise ValueError(f"no curve of {name} has two points or more ({alone}): run more settings of a policy")
    parts += [f"{name}: left out, no curve has two points or more ({alone})" for name, alone in without.items()]
    sets = {name: rows for name, rows in sets.items() if name not in without}
    for name, rows in sets.items():
        parts.append("\n".join([f"{name}: {of[1].label} over {of[0].label}, [95 % intervals] by bootstrap", ""]))
        parts[-1] += _of_test_set(rows, of, by, baseline, bounds, seeds, samples, seed)
    if len(sets) > 1:
        parts.append(_side_by_side(pandas.concat(list(sets.values())), of, seeds, samples, seed))
    return "\n\n".join(parts)


def _no_curve(rows: "pandas.DataFrame", by: str, seeds: Sequence[str]) -> str:
    """The names of the curves where none has two points; else nothing."""
    curves = curves_of(rows, by, seeds)
    return "" if any(len(curve) > 1 for curve in curves.values()) else ", ".join(curves)


def _of_test_set(
    rows: "pandas.DataFrame",
    of: tuple[Score, Score],
    by: str,
    baseline: str | None,
    bounds: Bounds | None,
    seeds: Sequence[str],
    samples: int,
    seed: int,
) -> str:
    latency, quality = of
    how: dict[str, Any] = {"latency": latency.key, "quality": quality.key, "samples": samples, "seed": seed}
    curves = curves_of(rows, by, seeds)
    full = curves.get(FULL, [])
    lines = {name: curve for name, curve in curves.items() if len(curve) > 1}
    baseline = baseline or ("waitk" if "waitk" in lines else None)
    offline = full[0] if len(full) == 1 else None
    table = curve_table(lines, baseline, offline, bounds, **how)
    first = table.iloc[0]
    text = [f"from {latency.label} {first['from']:.2f} to {first['to']:.2f}"]
    cells = []
    for _, row in table.iterrows():
        cells.append([row["curve"], f"{row['points']} points", f"mean {_text(row, 'mean', quality.digits)}"])
        if offline is not None:
            cells[-1].append(f"NoSE {_text(row, 'nose', 3)}")
        if baseline is not None:
            cells[-1].append(_text(row, "difference", quality.digits, f"above {baseline} ", "+"))
    text += _aligned(cells)
    if baseline is not None and len(curves) > 1:
        cells = []
        for name, curve in curves.items():
            if name not in (baseline, FULL):
                for _, row in equal_latency_table(lines[baseline], curve, **how).iterrows():
                    cells.append(
                        [
                            name,
                            f"{latency.label} {latency.text(row[latency.key])}",
                            f"{quality.label} {quality.text(row['system'])}",
                            _at_equal_latency(row, quality) or f"{baseline} does not reach it",
                        ]
                    )
        if cells:
            text += ["", f"against {baseline} at equal latency", *_aligned(cells)]
    if offline is not None:
        points = {name: runs for name, runs in points_of(rows, seeds).items() if runs != offline}
        text += ["", f"loss against {FULL}"]
        cells = [
            [
                row["point"],
                f"{latency.label} {latency.text(row[latency.key])}",
                f"{quality.label} {quality.text(row[quality.key])}",
                f"loss {_text(row, 'loss', quality.digits)}",
                f"{_text(row, 'loss_percent', 1)} in percent",
            ]
            for row in _by_curve(loss_table(offline, points, **how), latency.key)
        ]
        text += _aligned(cells)
    return "\n".join(text)


def _by_curve(table: "pandas.DataFrame", latency: str) -> list[Any]:
    """Points from early to late, policy by policy."""
    rows = [row for _, row in table.iterrows()]
    return sorted(rows, key=lambda row: (row["point"].partition(" ")[0], row[latency]))


def _side_by_side(
    runs: "pandas.DataFrame", of: tuple[Score, Score], seeds: Sequence[str], samples: int, seed: int
) -> str:
    table = side_by_side(runs, [score.key for score in of], seeds, samples, seed)
    sets = list(dict.fromkeys(table.columns.get_level_values(0)))
    cells = [["", *(f"{name}: {score.label}" for name in sets for score in of)]]
    for point, row in table.iterrows():
        cells.append([str(point), *(_text(row[name], score.key, score.digits) for name in sets for score in of)])
    return "\n".join(["test sets side by side", *_aligned(cells)])


def _at_equal_latency(row: Any, quality: Score) -> str:
    text = _text(row, "difference", quality.digits, "", "+")
    p = row["p_value"]
    return text and f"{text}, {f'p = {p:.3f}' if p >= 0.001 else 'p < 0.001'}"


def _text(row: Any, key: str, digits: int, before: str = "", sign: str = "") -> str:
    """A value with its interval; "" where it is not defined."""
    if math.isnan(row[key]):
        return ""
    value, low, high = (f"{row[name]:{sign}.{digits}f}" for name in (key, f"{key}_low", f"{key}_high"))
    return f"{before}{value}" + ("" if math.isnan(row[f"{key}_low"]) else f" [{low}, {high}]")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def command() -> None:
    """``streamllm compare --curves``."""
    parser = Parser(
        prog="streamllm compare",
        description="The curves of finished runs: the area under each and between them (NoSE where policy=full is "
        "there), differences at equal latency, and what each run loses against full. Intervals are by bootstrap over "
        "sentences.",
    )
    parser.add_argument("--curves", action="store_true", required=True, help="compare curves, and not two runs")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders that hold runs")
    parser.add_argument("--by", default="policy", metavar="COLUMN", help="of load_runs: its values are the curves")
    parser.add_argument("--baseline", metavar="CURVE", help="waitk, where there is one")
    parser.add_argument(
        "--bounds", nargs=2, type=float, metavar=("FROM", "TO"), help="latencies; what all curves cover"
    )
    parser.add_argument("--latency", default="laal", metavar="KEY", help="of metrics.json (%(default)s)")
    parser.add_argument("--quality", default="bleu", metavar="KEY", help="of metrics.json (%(default)s)")
    parser.add_argument(
        "--seeds",
        default="seed",
        metavar="KEYS",
        help="what seeds differ in, with commas: seed,model.path (%(default)s)",
    )
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="of the bootstrap (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="of the bootstrap (%(default)s)")
    given = parser.parse_args()
    with one_line_errors():
        bounds = (given.bounds[0], given.bounds[1]) if given.bounds else None
        chosen = (given.by, given.baseline, bounds, given.latency, given.quality, given.seeds.split(","))
        print(curves_text(given.folders, *chosen, given.samples, given.seed))
