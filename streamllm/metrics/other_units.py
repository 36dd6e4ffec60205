"""Latency in other units than those that were read and written: in characters, or in subwords of a tokenizer.

Source, output and reference are measured alike. A character or subword of the source counts as read with the unit that
it ends in, and one of the output has the delay of the unit that it ends in. Invariant: white space is none of them."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence

from streamllm.metrics.latency import METRICS, Metric
from streamllm.records import Trace
from streamllm.units import join

Ends = Callable[[str], Sequence[int]]
"""Where each subword of a text ends, as a number of characters from its beginning, in rising order."""


def ends_of_characters(text: str) -> list[int]:
    """Every character but white space."""
    return [place for place, char in enumerate(text, start=1) if not char.isspace()]


def latency_in(ends: Ends, trace: Trace, metric: Metric) -> float:
    """A latency of one sentence with subwords of ``ends`` as its units.

    Returns: in such units of the source; nan where it is undefined.
    Raises: ValueError: the source has not as many units as the trace counts.
    """
    source = _ends_of_units(trace.source, trace.source_units, trace.id)
    read = _counts(ends(trace.source), source)  # how many are read with each unit
    total = [0, *read]
    for place in range(1, len(total)):
        total[place] += total[place - 1]
    text, written = _output(trace)
    delays = [
        float(total[delay])
        for delay, count in zip(trace.delays, _counts(ends(text), written), strict=True)
        for _ in range(count)
    ]
    return metric(delays, total[-1], len(ends(trace.reference)))


def _counts(ends: Sequence[int], units: Sequence[int]) -> list[int]:
    """How many subwords end in each unit; what ends after the last unit (it is white space) ends in that."""
    counts = [0] * len(units)
    for end in ends if units else ():
        counts[min(bisect_left(units, end), len(units) - 1)] += 1
    return counts


def _ends_of_units(text: str, count: int, name: str) -> list[int]:
    """Where each unit ends: words, else characters, whichever are ``count``."""
    words = [found.end() for found in re.finditer(r"\S+", text)]
    characters = ends_of_characters(text)
    for found in (words, characters):
        if len(found) == count:
            return found
    raise ValueError(
        f"sentence {name!r} has {count} source units, but {len(words)} words and {len(characters)} characters: latency "
        "in other units needs one of the two"
    )


def _output(trace: Trace) -> tuple[str, list[int]]:
    """The output, and where each of its units ends there. Without the spaces between them, units are characters."""
    unit = "word" if trace.prediction == join(trace.units, "word") else "character"
    between = unit == "word"
    ends: list[int] = []
    for text in trace.units:
        ends.append((ends[-1] + between if ends else 0) + len(text))
    return (" " if between else "").join(trace.units), ends


class InCharacters:
    """A latency in characters of the source, for any language: white space does not count.

    Args:
        latency: "al", "laal" or another of `streamllm.metrics.latency.METRICS`.

    Raises: ValueError: no such latency.
    """

    of = "characters"
    digits, higher_is_better = 2, False

    def __init__(self, latency: str = "laal"):
        if latency not in METRICS:
            raise ValueError(f"latency is {latency!r}; accepted are {', '.join(METRICS)}")
        self._metric = METRICS[latency]
        self.key = f"{latency}_{self.of}"
        self.label = f"{latency.upper().replace('_', ' ')} ({self.of})"

    def ends(self, text: str) -> Sequence[int]:
        return ends_of_characters(text)

    def __call__(self, traces: Sequence[Trace]) -> float | None:
        """The mean over the sentences that define it; None over documents, whose latencies are those of sentences that
        are cut out of them."""
        values = []
        for trace in traces:
            if trace.segments:
                return None
            if not math.isnan(value := latency_in(self.ends, trace, self._metric)):
                values.append(value)
        return math.fsum(values) / len(values) if values else None
