"""Latency of simultaneous translation from delays, in plain Python, equal to SimulEval 1.1.4 to 1e-9.

A value that is undefined (no output, no source, no reference unit) is nan, never an exception: where
SimulEval raises ZeroDivisionError or IndexError, nan is returned and the corpus mean leaves it out.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Metric = Callable[[Sequence[float], float, float], float]
"""``metric(delays, source_length, target_length)`` of one sentence.

``delays[t]`` is how much source had been read when target unit t (0-based) was written; ``source_length``
is in the same measure as the delays (units, or milliseconds for timed input); ``target_length`` is the
reference length in units, or the hypothesis length where no reference is to be used. The hypothesis length
is always ``len(delays)``.
"""


def average_lagging(delays: Sequence[float], source_length: float, target_length: float) -> float:
    """Average Lagging, AL (Ma et al. 2019, arXiv 1810.08398).

    AL = 1/tau * sum_{t=1..tau} (d_t - (t - 1) * |x| / |y|), where tau is the first t with d_t >= |x|, or the
    hypothesis length when the hypothesis ends before the source does. |y| is ``target_length``. A first
    delay past the source is returned as it is. Negative when the hypothesis runs ahead of the diagonal.

    Returns: AL in the measure of the delays; nan without delays, source or target length.
    """
    _check_lengths(source_length, target_length)
    if not delays:
        return math.nan
    if delays[0] > source_length:
        return float(delays[0])
    if not source_length or not target_length:
        return math.nan
    tau = next((t for t, delay in enumerate(delays, 1) if delay >= source_length), len(delays))
    source_per_target = source_length / target_length
    return math.fsum(delay - t * source_per_target for t, delay in enumerate(delays[:tau])) / tau


def length_adaptive_average_lagging(delays: Sequence[float], source_length: float, target_length: float) -> float:
    """Length-Adaptive Average Lagging, LAAL (Papi et al. 2022, arXiv 2206.05807).

    AL with |y| = max(reference length, hypothesis length), so that writing too much is not rewarded:
    LAAL >= AL, and LAAL = AL unless the hypothesis is the longer one.

    Returns: LAAL in the measure of the delays; nan without delays or source.
    """
    _check_lengths(source_length, target_length)
    return average_lagging(delays, source_length, max(len(delays), target_length))


def average_proportion(delays: Sequence[float], source_length: float, target_length: float) -> float:
    """Average Proportion, AP (Cho & Esipova 2016, arXiv 1606.02012).

    AP = sum_t d_t / (|x| * |y|), |y| being ``target_length``; so it passes 1 when the hypothesis is longer
    than the reference and late.

    Returns: a proportion; nan without delays, source or target length.
    """
    _check_lengths(source_length, target_length)
    if not delays or not source_length or not target_length:
        return math.nan
    return math.fsum(delays) / (source_length * target_length)


def differentiable_average_lagging(delays: Sequence[float], source_length: float, target_length: float = 0) -> float:
    """Differentiable Average Lagging, DAL (Cherry & Foster 2019, arXiv 1906.00048).

    DAL = 1/|y| * sum_{t=1..|y|} (d'_t - (t - 1) * |x| / |y|) with d'_1 = d_1 and
    d'_t = max(d_t, d'_{t-1} + |x| / |y|): each target unit takes at least its share of the source. |y| is the
    hypothesis length: ``target_length`` is not used, and is here so that all metrics are called alike.

    Returns: DAL in the measure of the delays; nan without delays or source.
    """
    _check_lengths(source_length, target_length)
    if not delays or not source_length:
        return math.nan
    source_per_target = source_length / len(delays)
    spread = float(delays[0])
    lags = [spread]
    for t, delay in enumerate(delays[1:], 1):
        spread = max(delay, spread + source_per_target)
        lags.append(spread - t * source_per_target)
    return math.fsum(lags) / len(lags)


METRICS: dict[str, Metric] = {
    "al": average_lagging,
    "laal": length_adaptive_average_lagging,
    "ap": average_proportion,
    "dal": differentiable_average_lagging,
}
"""What ``latency`` computes. A further metric is a function here and a line in this dict; one that is not
defined for a sentence returns nan."""


def reference_length(text: str, unit: str) -> int:
    """The number of units of a reference as SimulEval counts them, which is not as ``segment.split`` does.

    Words are what single spaces divide, so double and outer spaces count as empty words and an empty
    reference has length 1. Characters are all between the outer white space, inner spaces included.

    Raises: ValueError: ``unit`` is neither "word" nor "character".
    """
    if unit == "word":
        return len(text.split(" "))
    if unit == "character":
        return len(text.strip())
    raise ValueError(f"unit is {unit!r}; accepted are 'word' and 'character'")


def latency(
    delays: Sequence[float],
    source_length: float,
    reference: str | None,
    unit: str,
    metrics: Mapping[str, Metric] = METRICS,
) -> dict[str, float]:
    """All latency metrics of one sentence.

    Args:
        delays: source read when each target unit was written; empty for a sentence without output.
        source_length: length of the source in the measure of the delays (``Trace.source_units``).
        reference: the reference, or None to use the hypothesis length in its place (SimulEval's
            ``--no-use-ref-len``).
        unit: "word" or "character", the unit of the target.
        metrics: functions by name.

    Returns: the value of each metric by its name, nan where it is undefined.
    Raises: ValueError: an unknown unit, or a negative length.
    """
    target_length = len(delays) if reference is None else reference_length(reference, unit)
    return {name: metric(delays, source_length, target_length) for name, metric in metrics.items()}


@dataclass(frozen=True)
class CorpusLatency:
    """Corpus means by metric, and over how many sentences each was taken; a mean over none is nan."""

    means: dict[str, float]
    counted: dict[str, int]


def corpus_latency(sentences: Iterable[Mapping[str, float]]) -> CorpusLatency:
    """The plain mean of each metric over the sentences where it is defined.

    ``sentences`` are what ``latency`` returned. Sentences without output are nan there and left out, as
    SimulEval does; when nothing is left SimulEval raises, and here the mean is nan and the count 0.
    """
    rows = list(sentences)
    names = dict.fromkeys(name for row in rows for name in row) or METRICS
    defined = {name: [row[name] for row in rows if not math.isnan(row.get(name, math.nan))] for name in names}
    return CorpusLatency(
        means={n: math.fsum(values) / len(values) if values else math.nan for n, values in defined.items()},
        counted={name: len(values) for name, values in defined.items()},
    )


def _check_lengths(source_length: float, target_length: float) -> None:
    for name, length in (("source_length", source_length), ("target_length", target_length)):
        if not (length >= 0 and math.isfinite(length)):
            raise ValueError(f"{name} is {length!r}; give a finite length of 0 or more")
