"""Latency in other units than those that were read and written: in characters, or in subwords of a tokenizer.

Source, output and reference are measured alike. A character or subword of the source counts as read with the unit that
it ends in, and one of the output has the delay of the unit that it ends in. Invariant: white space is none of them."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

from streamllm.metrics.latency import METRICS, Metric, latency_signature
from streamllm.metrics.longform import LAGGINGS, document, longform_signature, resegment
from streamllm.metrics.own import MetricError
from streamllm.records import Trace
from streamllm.units import Unit, join, unit_of

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
    total = _totals(ends(trace.source), source)
    text, written = _output(trace)
    delays = [
        float(total[delay])
        for delay, count in zip(trace.delays, _counts(ends(text), written), strict=True)
        for _ in range(count)
    ]
    return metric(delays, total[-1], len(ends(trace.reference)))


def latencies_of_document(ends: Ends, trace: Trace, language: str, unit: Unit, metric: Metric) -> list[float]:
    """A latency of each sentence of a document, as `streamllm.metrics.longform` cuts it, with subwords of ``ends`` as
    its units: LongAL, LongLAAL and so on.

    Args:
        language, unit: of the target.

    Returns: in such units of the source; nan where a latency is undefined, as in a document that is cut short.
    Raises: ValueError: the source has not as many units as the trace counts.
    """
    source = _ends_of_units(trace.source, trace.source_units, trace.id)
    total = _totals(ends(trace.source), source)
    found: list[float] = []
    for one in resegment([document(trace, unit)], language, unit):
        if one.cut_short:
            found.append(math.nan)
            continue
        start, length = int(one.segment.start), int(one.segment.units)
        counts = _counts(ends(one.prediction), _ends_of_output(one.units, unit))
        delays = [
            float(total[int(delay) + start] - total[start])
            for delay, count in zip(one.delays, counts, strict=True)
            for _ in range(count)
        ]
        found.append(metric(delays, total[start + length] - total[start], len(ends(one.reference))))
    return found


def _totals(ends: Sequence[int], units: Sequence[int]) -> list[int]:
    """How many subwords are read with the first 0, 1, 2 … units."""
    return [0, *accumulate(_counts(ends, units))]


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
    unit: Unit = "word" if trace.prediction == join(trace.units, "word") else "character"
    return (" " if unit == "word" else "").join(trace.units), _ends_of_output(trace.units, unit)


def _ends_of_output(units: Sequence[str], unit: Unit) -> list[int]:
    """Where each unit ends in the text of all."""
    ends: list[int] = []
    for text in units:
        ends.append((ends[-1] + (unit == "word") if ends else 0) + len(text))
    return ends


class InCharacters:
    """A latency in characters of the source, for any language: white space does not count.

    Args:
        latency: "al", "laal" or the key of another latency (docs/metrics.md).
        language: the code of the target language; documents need it, to be cut at their reference sentences.

    Raises: ValueError: no such latency.
    """

    of = "characters"
    digits, higher_is_better = 2, False

    def __init__(self, latency: str = "laal", language: str | None = None):
        if latency not in METRICS:
            raise ValueError(f"latency is {latency!r}; accepted are {', '.join(METRICS)}")
        self._language = language
        self._latency = latency
        self._metric = METRICS[latency]
        self.key = f"{latency}_{self.of}"
        self.label = f"{latency.upper().replace('_', ' ')} ({self.of})"
        self.signature: str | None = None
        self.of_sentences: dict[str, float] = {}

    @property
    def units(self) -> str:
        """What the units are, for the signature."""
        return "unit:character|space:no"

    def ends(self, text: str) -> Sequence[int]:
        return ends_of_characters(text)

    def __call__(self, traces: Sequence[Trace]) -> float | None:
        """The mean over the sentences that define it, of documents over those that are cut out of them."""
        self.signature = self._signature(any(trace.segments for trace in traces))
        values: list[tuple[str, float]] = []
        for trace in traces:
            if trace.segments:
                values += [(f"{trace.id}#{n}", lag) for n, lag in enumerate(self._of_document(trace), start=1)]
            else:
                values.append((trace.id, latency_in(self.ends, trace, self._metric)))
        self.of_sentences = dict(values)
        defined = [value for _, value in values if not math.isnan(value)]
        return math.fsum(defined) / len(defined) if defined else None

    def _signature(self, documents: bool) -> str:
        """That of latency in source units, with these units in place of those."""
        usual = latency_signature("")
        if documents and self._language:
            usual = longform_signature(self._language, unit_of(self._language)).replace("|", "|len:ref|", 1)
        return f"{self.units}|{usual.partition('|')[2]}"

    def _of_document(self, trace: Trace) -> list[float]:
        if not self._language:
            raise MetricError(f"{self.key} of documents needs the target language: add dataset.target_language=…")
        if self._metric not in LAGGINGS.values():
            accepted = (key.removeprefix("long_") for key in LAGGINGS)
            raise MetricError(
                f"latency is {self._latency!r}, which documents have not; accepted are {', '.join(accepted)}"
            )
        return latencies_of_document(self.ends, trace, self._language, unit_of(self._language), self._metric)
