"""Latency of simultaneous translation from delays, in plain Python: AL, LAAL, AP, DAL and ATD equal SimulEval 1.1.4
and YAAL equals OmniSTEval 0.1.10 to 1e-9 (docs/metrics.md).

A value that is undefined (no output, no source, no reference unit) is nan, never an exception: where
SimulEval raises ZeroDivisionError or IndexError, nan is returned and the corpus mean leaves it out.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

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


def yet_another_average_lagging(delays: Sequence[float], source_length: float, target_length: float) -> float:
    """Yet Another Average Lagging, YAAL (Polák et al. 2025, arXiv 2509.17349), as OmniSTEval computes it.

    LAAL over the target units with d_t < |x| only: what is written once the whole source is there says nothing
    about how simultaneous the system is. LAAL counts the first of those as well.

    Returns: YAAL in the measure of the delays; nan without delays, or when the first one is |x| or more.
    """
    _check_lengths(source_length, target_length)
    simultaneous = list(takewhile(lambda delay: delay < source_length, delays))
    if not simultaneous:
        return math.nan
    source_per_target = source_length / max(len(delays), target_length)
    return math.fsum(delay - t * source_per_target for t, delay in enumerate(simultaneous)) / len(simultaneous)


def average_token_delay(delays: Sequence[float], source_length: float = 0, target_length: float = 0) -> float:
    """Average Token Delay, ATD (Kano et al. 2023, arXiv 2211.13173), by the rule for text: a unit lasts 1.

    Source unit j ends at time j, target unit t at e_t = max(d_t, e_{t-1}) + 1, and
    ATD = 1/|y| * sum_t (e_t - a_t) with a_t = min(t - max(0, Y - X), d_t). X source units had been read and Y
    target units written before the chunk of t began; a chunk is a run of target units with one delay. So a late
    end of the translation counts too, which AL does not see. Neither length is used.

    Returns: ATD in units, for delays in units only; nan without delays.
    """
    _check_lengths(source_length, target_length)
    if not delays:
        return math.nan
    end: float = 0
    read_before: float = 0
    written_before = 0
    lags = []
    for t, delay in enumerate(delays, 1):
        if t > 1 and delay != delays[t - 2]:
            read_before, written_before = delays[t - 2], t - 1
        end = max(delay, end) + 1
        lags.append(end - min(t - max(0, written_before - read_before), delay))
    return math.fsum(lags) / len(lags)


def consecutive_waits(delays: Sequence[float]) -> list[float]:
    """How much source was read before each target unit since the one before it, where any was.

    Source that is read after the last target unit is in none of them.
    """
    return [wait for before, delay in pairwise([0, *delays]) if (wait := delay - before) > 0]


def mean_consecutive_wait(delays: Sequence[float], source_length: float = 0, target_length: float = 0) -> float:
    """Consecutive Wait, CW (Gu et al. 2017, arXiv 1610.00388): the mean of ``consecutive_waits``.

    Neither length is used. Returns: CW in the measure of the delays; nan without a wait.
    """
    _check_lengths(source_length, target_length)
    waits = consecutive_waits(delays)
    return math.fsum(waits) / len(waits) if waits else math.nan


def max_consecutive_wait(delays: Sequence[float], source_length: float = 0, target_length: float = 0) -> float:
    """The longest of ``consecutive_waits``. Neither length is used. Returns: as ``mean_consecutive_wait``."""
    _check_lengths(source_length, target_length)
    return float(max(consecutive_waits(delays), default=math.nan))


METRICS: dict[str, Metric] = {
    "al": average_lagging,
    "laal": length_adaptive_average_lagging,
    "ap": average_proportion,
    "dal": differentiable_average_lagging,
    "yaal": yet_another_average_lagging,
    "atd": average_token_delay,
    "cw": mean_consecutive_wait,
    "cw_max": max_consecutive_wait,
}
"""What ``latency`` computes. A further metric is a function here and a line in this dict; one that is not
defined for a sentence returns nan."""


def reference_length(text: str, unit: str) -> int:
    """The number of units of a reference as SimulEval counts them, which is not what ``units.split`` does.

    Words are what single spaces divide, so double and outer spaces count as empty words and an empty
    reference has length 1. Characters are all between the outer white space, inner spaces included.

    Raises: ValueError: ``unit`` is neither "word" nor "character".
    """
    if unit == "word":
        return len(text.split(" "))
    if unit == "character":
        return len(text.strip())
    raise ValueError(f"unit is {unit!r}; accepted are 'word' and 'character'")


def latency_signature(unit: str) -> str:
    """What latencies are in, as sacrebleu's signatures say it of BLEU: the unit of the target, the length that lags are
    relative to, and whose formulas they are."""
    return f"unit:{unit}|len:ref|formulas:simuleval.1.1.4"


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
