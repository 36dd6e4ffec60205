"""Statistics on quality-latency curves of runs, each with its interval: differences at equal latency, the area between
curves and under them (NoSE), what is lost against full-sentence translation.

Intervals are by percentile bootstrap over sentences (over documents where there are `documents.FEW`): each sample draws
the same sentences for every run, moves every point in both directions, and computes the statistic anew. Several runs of
one point are its seeds, of which scores are the means; an interval is that of these seeds on other sentences.
Invariant: every value comes from the runs as they are, never from a sample.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from streamllm.metrics.scores import scores
from streamllm.runs.compare import matched, warn_of_few
from streamllm.runs.curves import areas, heights
from streamllm.runs.randomisation import TIE
from streamllm.runs.scored import BLEU_NAME, RunPath, Scored
from streamllm.runs.sums import SEED, Array, p_of_samples, percentiles, resampled_sums

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

Point = RunPath | Sequence[RunPath]
"""A run, or several that differ in their seeds alone."""
Curve = Sequence[Point]
"""The points of one policy, in any order."""
Bounds = tuple[float, float]


def curve_table(
    curves: Mapping[str, Curve],
    baseline: str | None = None,
    offline: Point | float | None = None,
    bounds: Bounds | None = None,
    latency: str = "laal",
    quality: str = BLEU_NAME,
    samples: int = 1000,
    seed: int = SEED,
    scored: Mapping[str, Scored] = MappingProxyType({}),
) -> "pandas.DataFrame":
    """The mean quality of curves over a range of latencies, NoSE, and how far they lie above a baseline.

    The mean is the exact area under the piecewise linear curve between two latencies, over their distance. NoSE
    (arXiv 2508.04946) is the mean over the offline score, that of full-sentence translation.
    The bounds are part of every value: write them beside it, and compare only what has the same.

    Args:
        curves: by name, each of two points or more.
        baseline: one of the names; the others' ``difference`` is the mean height above it, that is the area between
            both over the width of the range.
        offline: a point (``policy=full``) over the same sentences, or its score; None leaves NoSE out.
        bounds: the range; None is the widest that all curves cover.
        latency, quality: of `Scored`: "laal", "al" …, of documents "long_laal" …; "bleu".
        samples, seed: of the bootstrap.
        scored: runs whose sentences have been scored already, by folder.

    Returns: a row for each curve: ``curve``, ``points`` (how many), ``from``, ``to`` (the bounds), ``mean``,
        ``mean_low``, ``mean_high``; with ``offline``, ``nose`` and its ends; with ``baseline``, ``difference`` and its
        ends, nan for the baseline itself.
    Raises: ValueError: a curve of one point, bounds that a curve does not cover, no range that all cover, an unknown
        baseline or score. RunError: runs over other sentences, or one that has not finished. FileNotFoundError.
    """
    import pandas

    if baseline is not None and baseline not in curves:
        raise ValueError(f"baseline is {baseline!r}; the curves are {', '.join(map(repr, curves))}")
    for name, curve in curves.items():
        if len(curve) < 2:
            raise ValueError(f"the curve {name!r} has {len(curve)} point; an area needs two or more")
    extra = [] if offline is None or isinstance(offline, int | float) else [offline]
    drawn = _Drawn({**curves, _OFFLINE: extra}, (latency, quality), samples, seed, scored)
    x, y = drawn.of[latency], drawn.of[quality]
    low, high = _bounds({name: x[name][0] for name in curves}, bounds)
    _warn_of_unequal({name: x[name][0] for name in curves}, low, high)
    means = {name: areas(x[name], y[name], low, high) / (high - low) for name in curves}
    whole: Any = y[_OFFLINE][:, 0] if extra else offline
    rows = []
    for name, curve in curves.items():
        row = {"curve": name, "points": len(curve), "from": low, "to": high, **_estimate("mean", means[name])}
        if offline is not None:
            row |= _estimate("nose", means[name] / whole)
        if baseline is not None:
            same = np.full(len(means[name]), np.nan)
            row |= _estimate("difference", same if name == baseline else means[name] - means[baseline])
        rows.append(row)
    return pandas.DataFrame(rows)


def equal_latency_table(
    baseline: Curve,
    system: Curve,
    latency: str = "laal",
    quality: str = BLEU_NAME,
    samples: int = 1000,
    seed: int = SEED,
) -> "pandas.DataFrame":
    """How much better the points of one curve are than another at the same latency, where a line between the points of
    the baseline says what that has there.

    Args:
        baseline: two points or more.
        system: one point or more.
        latency, quality, samples, seed: as for `curve_table`.

    Returns: a row for each point of ``system``, from early to late: the latency under its own name, ``system`` and
        ``baseline`` (the qualities), ``difference``, ``difference_low``, ``difference_high`` and ``p_value``
        (`p_of_samples`: two-sided, by the samples of the interval); nan where the baseline does not reach that latency,
        since nothing is extrapolated.
    Raises: as `curve_table`.
    """
    import pandas

    if len(baseline) < 2:
        raise ValueError(f"the baseline has {len(baseline)} point; a line needs two or more")
    if not system:
        raise ValueError("the system has 0 points; give one or more")
    drawn = _Drawn({"baseline": baseline, "system": system}, (latency, quality), samples, seed)
    x, y = drawn.of[latency], drawn.of[quality]
    rows = []
    for place in np.argsort(x["system"][0], kind="stable").tolist():
        at, found = x["system"][:, place], y["system"][:, place]
        theirs = heights(x["baseline"], y["baseline"], at)
        row = {latency: float(at[0]), "system": float(found[0]), "baseline": float(theirs[0])}
        row |= _estimate("difference", found - theirs)
        row["p_value"] = p_of_samples((found - theirs)[1:], TIE * max(1.0, abs(float(found[0]))))
        if not x["baseline"][0].min() <= at[0] <= x["baseline"][0].max():
            row |= dict.fromkeys(
                ("baseline", "difference", "difference_low", "difference_high", "p_value"), float("nan")
            )
        rows.append(row)
    return pandas.DataFrame(rows)


def loss_table(
    offline: Point,
    points: Mapping[str, Point],
    latency: str = "laal",
    quality: str = BLEU_NAME,
    samples: int = 1000,
    seed: int = SEED,
) -> "pandas.DataFrame":
    """What points lose against full-sentence translation.

    Args:
        offline: full-sentence translation (``policy=full``) of the same sentences.
        points: by name.
        latency, quality, samples, seed: as for `curve_table`.

    Returns: a row for each point: ``point``, its latency and quality under their own names, ``loss`` (offline - point,
        so that more is worse; point - offline where a lower quality score is the better one) and ``loss_percent`` of
        the offline score, each with ``_low`` and ``_high``.
    Raises: as `curve_table`.
    """
    import pandas

    drawn = _Drawn({_OFFLINE: [offline], "points": list(points.values())}, (latency, quality), samples, seed)
    x, y = drawn.of[latency]["points"], drawn.of[quality]["points"]
    whole = drawn.of[quality][_OFFLINE][:, 0]
    known = scores(documents=True).get(quality)
    sign = -1 if known is not None and known.higher_is_better is False else 1
    rows = []
    for place, name in enumerate(points):
        lost = sign * (whole - y[:, place])
        row = {"point": name, latency: float(x[0, place]), quality: float(y[0, place])}
        rows.append({**row, **_estimate("loss", lost), **_estimate("loss_percent", 100 * lost / whole)})
    return pandas.DataFrame(rows)


def point_table(
    points: Mapping[str, Point],
    metrics: Sequence[str] = ("laal", BLEU_NAME),
    samples: int = 1000,
    seed: int = SEED,
) -> "pandas.DataFrame":
    """Scores of points with intervals, and their spread over seeds.

    Returns: a row for each point: ``point``, ``seeds`` (how many runs it has), and for each metric its mean over them,
        ``_low`` and ``_high`` (bootstrap over sentences) and ``_sd``, the standard deviation over seeds (by n - 1; nan
        for a single one).
    Raises: as `curve_table`.
    """
    import pandas

    drawn = _Drawn({"points": list(points.values())}, metrics, samples, seed)
    rows = []
    for place, (name, point) in enumerate(points.items()):
        row: dict[str, Any] = {"point": name, "seeds": len(_runs(point))}
        for metric in metrics:
            row |= _estimate(metric, drawn.of[metric]["points"][:, place])
            of_seeds = drawn.seeds[metric]["points"][place]
            row[f"{metric}_sd"] = float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else float("nan")
        rows.append(row)
    return pandas.DataFrame(rows)


# --- what is computed from samples

_OFFLINE = "\0offline"  # no name of a curve


class _Drawn:
    """The scores of the points of curves, those of samples too.

    ``of[metric][curve]`` is (1 + samples, points): the first row is that of the runs as they are, the others are of
    samples of the same sentences. ``seeds[metric][curve]`` holds the scores of the runs of each point.
    """

    def __init__(
        self,
        curves: Mapping[str, Curve],
        metrics: Sequence[str],
        samples: int,
        seed: int,
        known: Mapping[str, Scored] = MappingProxyType({}),
    ) -> None:
        if type(samples) is not int or samples < 1:
            raise ValueError(f"samples is {samples!r}; at least 1 is needed, and 1000 is usual")
        names = list(dict.fromkeys(metrics))
        runs = dict.fromkeys(os.fspath(run) for curve in curves.values() for point in curve for run in _runs(point))
        scored = _scored(list(runs), names, known)
        first = next(iter(scored.values()))
        warn_of_few(first)
        statistics = {(run, name): one.statistics(name) for run, one in scored.items() for name in names}
        values = {
            (run, name): np.concatenate([[scored[run].value(name)], scored[run].score(name, sums)])
            for (run, name), sums in resampled_sums(statistics, first.drawn, samples, seed).items()
        }
        self.of: dict[str, dict[str, Array]] = {name: {} for name in names}
        self.seeds: dict[str, dict[str, list[Array]]] = {name: {} for name in names}
        for name in names:
            for curve, points in curves.items():
                runs_of = [[values[os.fspath(run), name] for run in _runs(point)] for point in points]
                if runs_of:
                    self.of[name][curve] = np.stack([np.mean(found, axis=0) for found in runs_of], 1)
                self.seeds[name][curve] = [np.array([one[0] for one in found]) for found in runs_of]


def _scored(runs: Sequence[str], metrics: Sequence[str], known: Mapping[str, Scored]) -> dict[str, Scored]:
    """The runs, all over the same sentences, in the order of their ids."""
    found: dict[str, Scored] = {}
    first: Scored | None = None
    for run in runs:
        scored = known[run] if run in known else Scored.of(run, metrics)
        if first is None:
            first = scored
        found[run] = matched(first, scored)[1].by_id()
        for name in (name for name in metrics if name in scored.means):
            if missing := len(scored.texts) - scored.sentences_with(name):
                log.warning("%s: %s is a mean without the %d sentences that do not define it", run, name, missing)
    return found


def _runs(point: Point) -> list[RunPath]:
    runs = [point] if isinstance(point, str | os.PathLike) else list(point)
    if not runs:
        raise ValueError("a point has 0 runs; give one, or several that differ in their seeds alone")
    return runs


def _estimate(name: str, values: Array) -> dict[str, float]:
    """The value, which is the first, and the interval of the rest."""
    low, high = percentiles(values[1:])
    return {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}


def _bounds(found: Mapping[str, Array], bounds: Bounds | None) -> Bounds:
    ranges = {name: (float(x.min()), float(x.max())) for name, x in found.items()}
    told = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in ranges.items())
    if bounds is None:
        low, high = max(low for low, _ in ranges.values()), min(high for _, high in ranges.values())
        if low >= high:
            raise ValueError(f"no range of latencies is covered by all curves ({told}): run more points")
        return low, high
    low, high = bounds
    if not low < high:
        raise ValueError(f"bounds are {low!r} and {high!r}; the first must be below the second")
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    if any(low < start - slack or high > end + slack for start, end in ranges.values()):
        raise ValueError(
            f"bounds are {low:g} to {high:g}, which not all curves cover ({told}): nothing is extrapolated"
        )
    return low, high


def _warn_of_unequal(found: Mapping[str, Array], low: float, high: float) -> None:
    counts = {name: int(np.sum((x >= low) & (x <= high))) for name, x in found.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        log.warning(
            "curves have different numbers of points between %.2f and %.2f (%s): lines between few points cut off what "
            "bends, so fewer points mean less area",
            *(low, high, told),
        )
