"""The flat content of metrics.json: quality, latency, cost and counts over all traces of a run.

Every value is a JSON value: what is undefined or was not measured is None, never nan. Traces are taken in one after the
other, in any order, and of a sentence some numbers are kept: the summary is that of all traces, to the last digit.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from streamllm.metrics.arrival import KEYS as SECONDS
from streamllm.metrics.arrival import ArrivalClock, arrival_latency
from streamllm.metrics.behaviour import (
    DISPLAYED,
    alternations,
    cut_short,
    early_ends,
    erased,
    forced_reads,
    source_after_last_write,
    stops,
)
from streamllm.metrics.latency import METRICS, latency, latency_signature
from streamllm.metrics.quality import RunningBLEU, RunningQuality
from streamllm.records import State, Trace
from streamllm.units import Unit

Value = float | int | str | None


def summarise(
    traces: Sequence[Trace],
    target_language: str,
    unit: Unit,
    arrival: ArrivalClock | None = None,
    at_limit: Callable[[State], bool] | None = None,
    tokenizer: str | None = None,
) -> dict[str, Value]:
    """All metrics of a run.

    Args:
        traces: one for each sentence. ``Trace.stats`` may hold "seconds", "forward_passes",
            "source_tokens" and "target_tokens"; a ratio is taken over the traces that hold both its parts.
        target_language: chooses the tokenizer of BLEU, where ``tokenizer`` does not.
        unit: unit of the target, "word" or "character".
        arrival: the clock for latency in seconds.
        at_limit: the length limit of the run (`streamllm.engine.limits.Limits.reached`), which ``early_ends`` needs.

    Returns:
        ``sentences``, ``sentences_without_output``; ``bleu``, ``chrf``, ``length_ratio`` over all sentences;
        ``al``, ``laal``, ``dal``, ``yaal``, ``atd``, ``cw``, ``cw_max`` (units) and ``ap``, each the mean over the
        sentences where it is defined; ``al_seconds``, ``laal_seconds``, ``al_ca``, ``laal_ca`` likewise, None without
        ``arrival``; ``ne``; ``alternations`` (mean); ``seconds_per_sentence``, ``target_tokens_per_second``,
        ``forward_passes`` (their sum), ``forward_passes_per_target_token``; ``forced_reads`` (events),
        ``early_stops`` (sentences ended by the end token while source remained), ``early_ends`` (end tokens while
        source remained; None without ``at_limit``), ``sentences_cut_short`` and ``source_after_last_write``
        (`metrics.behaviour`), ``max_units_stops`` and ``max_tokens_stops`` (sentences cut at the
        limit of units, and of tokens);
        ``bleu_signature``, ``chrf_signature``, ``latency_signature``. What each means is in docs/metrics.md.
        Of documents, sentences and quality are those after re-segmentation, and latencies are what
        `longform.longform` gives besides; those of sentences are None.
    Raises: ValueError: no traces, or an unknown unit. ImportError: as ``quality``.
    """
    summary = Summary(
        *(target_language, unit, arrival, at_limit, tokenizer),
        documents=any(trace.segments for trace in traces),
    )
    for trace in traces:
        summary.add(trace)
    return summary.metrics()


RUNNING_BLEU = "document_bleu"
"""What the BLEU of whole documents is called, which is known while a run goes on."""


class Summary:
    """The metrics of a run, from its traces as they come.

    Args:
        target_language, unit, arrival, at_limit, tokenizer: as for `summarise`.
        documents: the traces are of documents. Those are kept whole, since they are scored together.
    """

    def __init__(
        self,
        target_language: str,
        unit: Unit,
        arrival: ArrivalClock | None = None,
        at_limit: Callable[[State], bool] | None = None,
        tokenizer: str | None = None,
        documents: bool = False,
    ):
        self._language, self._unit, self._arrival, self._tokenizer = target_language, unit, arrival, tokenizer
        self._at_limit = at_limit
        self._documents: list[Trace] | None = [] if documents else None
        self._bleu = RunningBLEU(target_language, tokenizer) if documents else None
        self._quality = None if documents else RunningQuality(target_language, tokenizer)
        self._lags: dict[str, array[float]] = {}  # of the sentences where they are defined
        self._in_seconds: dict[str, array[float]] = {}
        self._lagging, self._sentences_with_lagging = 0.0, 0
        self._counts: dict[str, int] = dict.fromkeys(_COUNTS, 0)
        self._units = self._erased = self._with_outputs = self._recorded = self._alternations = 0
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, trace: Trace) -> None:
        """Take one more trace in.

        Raises: ValueError: an unknown unit; as `arrival_latency`.
        """
        if self._documents is not None:
            self._documents.append(trace)
        if self._bleu is not None:
            self._bleu.add(trace.prediction, trace.reference)
        if self._quality is not None:
            self._quality.add(trace.prediction, trace.reference)
            self._add_latency(trace)
        kinds = {event.kind for event in trace.events}
        self._units += len(trace.units)
        if not kinds.isdisjoint(DISPLAYED):
            self._with_outputs += 1
            self._erased += erased(trace, self._unit)
        if trace.events:
            self._recorded += 1
            self._alternations += alternations(trace)
        counts = self._counts
        counts["sentences_without_output"] += not trace.delays
        counts["forced_reads"] += forced_reads(trace)
        for key, reason in _STOPS.items():
            counts[key] += stops(trace, reason)
        if self._at_limit is not None:
            counts["early_ends"] += early_ends(trace, self._at_limit)
        counts["sentences_cut_short"] += cut_short(trace)
        measured = (trace.stats.get(key) for key in ("seconds", "forward_passes", "target_tokens"))
        self._rows.append(_Row(trace.id, len(trace.segments) or 1, source_after_last_write(trace), *measured))

    def _add_latency(self, trace: Trace) -> None:
        lags = latency(trace.delays, trace.source_units, trace.reference, self._unit)
        _add_defined(self._lags, lags)
        if not math.isnan(lagging := lags.get("laal", math.nan)):  # nan: a sentence without output
            self._lagging += lagging
            self._sentences_with_lagging += 1
        if self._arrival is not None:
            _add_defined(self._in_seconds, arrival_latency(trace, self._arrival, self._unit))

    @property
    def running(self) -> dict[str, float]:
        """BLEU and LAAL of the sentences so far. Of documents, `RUNNING_BLEU` of whole ones alone: it is not the BLEU
        of their sentences, and a LAAL of hundreds of words says nothing."""
        if self._bleu is not None:
            return {RUNNING_BLEU: self._bleu.score}
        assert self._quality is not None
        figures = {"bleu": self._quality.bleu}
        count = self._sentences_with_lagging
        return figures | {"laal": self._lagging / count} if count else figures

    def metrics(self, order: Sequence[str] | None = None) -> dict[str, Value]:
        """What `summarise` returns of all traces so far.

        Args:
            order: the ids of the traces, each once, in which sums of fractions are taken; None is that of their coming.

        Raises: as `summarise`.
        """
        rows = _in_order(self._rows, order)
        if not rows:
            raise ValueError("0 traces; a summary needs at least one sentence")
        of_documents: Mapping[str, Value] = {}
        scores: Mapping[str, Value]
        lags: Mapping[str, Value] = dict.fromkeys(METRICS)
        if self._documents is not None:
            scores = of_documents = self._of_documents(order)
        else:
            assert self._quality is not None
            scores, lags = self._quality.scores, _means(self._lags or dict.fromkeys(METRICS, array("d")))
        in_seconds = _means(self._in_seconds)
        counts = self._counts
        summary: dict[str, Value] = {
            "sentences": sum(row.sentences for row in rows),
            "sentences_without_output": counts["sentences_without_output"],
            "bleu": scores["bleu"],
            "chrf": scores["chrf"],
            "length_ratio": scores["length_ratio"],
            **lags,
            **{key: in_seconds.get(key) for key in SECONDS},
            "ne": self._erased / self._units if self._units and self._with_outputs else None,
            "alternations": self._alternations / self._recorded if self._recorded else None,
            "seconds_per_sentence": _per_sentence(rows),
            "target_tokens_per_second": _ratio((row.target_tokens, row.seconds) for row in rows),
            "forward_passes": sum(passes) if (passes := [p for row in rows if (p := row.passes) is not None]) else None,
            "forward_passes_per_target_token": _ratio((row.passes, row.target_tokens) for row in rows),
            "forced_reads": counts["forced_reads"],
            "early_stops": counts["early_stops"],
            "early_ends": counts["early_ends"] if self._at_limit else None,
            "sentences_cut_short": counts["sentences_cut_short"],
            "source_after_last_write": sum(row.source_after for row in rows) / len(rows),
            "max_units_stops": counts["max_units_stops"],
            "max_tokens_stops": counts["max_tokens_stops"],
            "bleu_signature": scores["bleu_signature"],
            "chrf_signature": scores["chrf_signature"],
            "latency_signature": None if of_documents else latency_signature(self._unit),
        }
        summary |= of_documents
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in summary.items()}

    def _of_documents(self, order: Sequence[str] | None) -> Mapping[str, Value]:
        from streamllm.metrics.longform import document, longform  # runs over sentences do not wait for it

        arrival, traces = self._arrival, _in_order(self._documents or [], order)
        documents = [document(trace, self._unit, arrival) for trace in traces]
        rate = arrival.words_per_second if arrival else None
        return longform(documents, self._language, self._unit, units_per_second=rate, tokenizer=self._tokenizer).metrics


_STOPS = {"early_stops": "early_stop", "max_units_stops": "max_units", "max_tokens_stops": "max_tokens"}
_COUNTS = ("sentences_without_output", "forced_reads", "early_ends", "sentences_cut_short", *_STOPS)


class _Row(NamedTuple):
    """What is kept of each trace: sums of fractions depend on their order."""

    id: str
    sentences: int
    source_after: float
    seconds: float | None
    passes: float | None
    target_tokens: float | None


class _Named(Protocol):
    @property
    def id(self) -> str: ...


One = TypeVar("One", bound=_Named)


def _in_order(found: list[One], order: Sequence[str] | None) -> list[One]:
    if order is None:
        return found
    by_id = {one.id: one for one in found}
    return [by_id[id] for id in order]


def _add_defined(values: dict[str, "array[float]"], of_sentence: Mapping[str, float]) -> None:
    for name, value in of_sentence.items():
        defined = values.setdefault(name, array("d"))
        if not math.isnan(value):
            defined.append(value)


def _means(values: Mapping[str, "array[float]"]) -> dict[str, float]:
    """As `latency.corpus_latency`: sums are rounded once, so that they do not depend on the order."""
    return {name: math.fsum(defined) / len(defined) if defined else math.nan for name, defined in values.items()}


def _per_sentence(rows: Sequence[_Row]) -> float | None:
    """Seconds over sentences, those of documents too; None where nothing was measured."""
    complete = [(row.seconds, row.sentences) for row in rows if row.seconds is not None]
    sentences = sum(count for _, count in complete)
    return sum(seconds for seconds, _ in complete) / sentences if sentences else None


def _ratio(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Sum over sum, of the pairs that have both; None when nothing divides."""
    complete = [(above, below) for above, below in pairs if above is not None and below is not None]
    divisor = sum(below for _, below in complete)
    return sum(above for above, _ in complete) / divisor if divisor else None
