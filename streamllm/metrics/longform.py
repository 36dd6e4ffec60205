"""Latency and quality of documents: streams of many sentences, written without a boundary and cut at the reference
sentences afterwards (`resegment`).

LongYAAL, LongAL, LongLAAL, LongAP and LongDAL are OmniSTEval 0.1.10's, StreamLAAL is simulstream 1.0.0's, to 1e-9, in
source units: one word counts as one second there, and never as a millisecond (docs/longform.md).
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Literal

from streamllm.metrics.arrival import ArrivalClock, computation_aware_delays
from streamllm.metrics.behaviour import cut_short
from streamllm.metrics.latency import (
    Metric,
    average_lagging,
    average_proportion,
    corpus_latency,
    differentiable_average_lagging,
    length_adaptive_average_lagging,
    reference_length,
    yet_another_average_lagging,
)
from streamllm.metrics.moses import moses_language
from streamllm.metrics.quality import quality
from streamllm.metrics.resegment import mweralign_version, soft_segmentation, word_error_segmentation
from streamllm.records import Segment, Trace
from streamllm.units import Unit, check_unit, join, split

Value = float | int | str | None
Segmenter = Literal["soft", "word_error"]

OMNISTEVAL, SIMULSTREAM = "0.1.10", "1.0.0"
"""Whose formulas these are: OmniSTEval 0.1.6, 0.1.8 and 0.1.10 each changed scores."""

LAGGINGS: dict[str, Metric] = {
    "long_al": average_lagging,
    "long_laal": length_adaptive_average_lagging,
    "long_ap": average_proportion,
    "long_dal": differentiable_average_lagging,
}
"""The formulas that OmniSTEval takes from sentences as they are. LongYAAL also knows the end of the document."""
LATENCIES = ("long_yaal", *LAGGINGS)
DEGENERATE = 20
"""From which difference on, in points of percent, OmniSTEval calls a policy degenerate."""


# --- records


@dataclass(frozen=True)
class Document:
    """What was written of one document, and its sentences.

    Args:
        units: of the target: words without white space, or characters without it.
        delays: how many source units since the start of the document had been read when each was written.
        segments: the sentences, each with a source; in the measure of the delays.
        elapsed: seconds since the document began to arrive when each unit was written, compute included; None where
            there is no clock.
        cut_short: whether the output ended long before the source did. Such a document has no latency: what it lacks
            was never written, and the alignment gives what is there to sentences that had not been read, which makes
            lags of minus dozens of units. The tools know no such document.

    Raises: ValueError: unequal lengths, no sentence, one without source, or no reference with a word.
    """

    id: str
    units: Sequence[str]
    delays: Sequence[float]
    segments: Sequence[Segment]
    elapsed: Sequence[float] | None = None
    cut_short: bool = False

    def __post_init__(self) -> None:
        counts = {"delays": len(self.delays), "elapsed": len(self.units if self.elapsed is None else self.elapsed)}
        for name, count in counts.items():
            if count != len(self.units):
                raise ValueError(
                    f"document {self.id!r} has {len(self.units)} units but {count} {name}; give one for each unit"
                )
        if not self.segments:
            raise ValueError(f"document {self.id!r} has no sentences; scores need its references")
        for place, segment in enumerate(self.segments):
            if not 0 < segment.units < math.inf:
                raise ValueError(
                    f"sentence {place} of document {self.id!r} has a source of {segment.units} units, so it has no "
                    "latency; merge it with its neighbour"
                )
        if not any(segment.reference.strip() for segment in self.segments):
            raise ValueError(f"document {self.id!r} has blank references only; give at least one that has words")

    @property
    def end(self) -> float:
        """Where the source of the last sentence ends, which is what OmniSTEval takes for the end of a recording."""
        return max(segment.start + segment.units for segment in self.segments)


@dataclass(frozen=True)
class Sentence:
    """One reference sentence, and what was written of a document that belongs to it.

    Args:
        document, index: the document, and the place of the sentence in it.
        segment: as the document has it.
        reference, prediction: the texts as they are scored; characters without spaces.
        units, places: the target units, and where each stands in the document.
        delays: source units read since the start of the *sentence*; below 0 for what was written before it began.
        elapsed: the same with compute, in source units; None without a clock.
        to_end: source units from the start of the sentence to the end of the document.
        cut_short: whether the document is (`Document`), so that the sentence has no latency.
    """

    document: str
    index: int
    segment: Segment
    reference: str
    prediction: str
    units: tuple[str, ...]
    places: tuple[int, ...]
    delays: tuple[float, ...]
    elapsed: tuple[float, ...] | None
    to_end: float
    cut_short: bool = False


@dataclass(frozen=True)
class Scores:
    """Of a run over documents.

    Args:
        metrics: the flat dict of `longform`.
        sentences: cut by soft alignment, those of each document in order.
        by_word_error: the same cut by minimum word error; None where that was left out.
    """

    metrics: dict[str, Value]
    sentences: list[Sentence]
    by_word_error: list[Sentence] | None


def document(trace: Trace, unit: Unit, clock: ArrivalClock | None = None) -> Document:
    """A trace of a document, to be scored; ``elapsed`` is `computation_aware_delays` where there is a clock; whether it
    is cut short is what `streamllm.metrics.behaviour.cut_short` says.

    A unit that has white space in it, such as a no-break space, becomes several: all tools count it so.

    Raises: ValueError: as `Document`, and as `computation_aware_delays`.
    """
    times = computation_aware_delays(trace, clock, unit) if clock else None
    parts = [split(text, unit) for text in trace.units]
    return Document(
        id=trace.id,
        units=[part for those in parts for part in those],
        delays=[delay for delay, those in zip(trace.delays, parts, strict=True) for _ in those],
        segments=trace.segments,
        elapsed=None if times is None else [time for time, those in zip(times, parts, strict=True) for _ in those],
        cut_short=cut_short(trace),
    )


def one_line(text: str) -> str:
    """A text without outer white space and line breaks, as it stands in a file of references."""
    return re.sub("[\r\n]+", " ", text.strip())


# --- sentences again


def resegment(
    documents: Sequence[Document],
    target_language: str,
    unit: Unit,
    segmenter: Segmenter = "soft",
    units_per_second: float | None = None,
) -> list[Sentence]:
    """Documents cut at their reference sentences.

    Args:
        target_language: chooses the tokens of the soft alignment.
        unit: of the target.
        segmenter: "soft" (OmniSTEval) or "word_error" (mweralign).
        units_per_second: source units a second, to have ``elapsed`` in source units (1000 for milliseconds); None
            leaves it out.

    Returns: one for each segment of each document, those without output included. A unit is in one sentence at most:
        the soft alignment drops some (see `sentences_of_tokens`).
    Raises: ImportError: "word_error" without mweralign. ValueError: an unknown unit.
    """
    check_unit(unit)
    references = [[one_line(segment.reference) for segment in one.segments] for one in documents]
    found: Sequence[Sequence[int | None]]
    if segmenter == "soft":
        language = moses_language(target_language)
        found = [
            soft_segmentation(lines, one.units, unit, language)
            for lines, one in zip(references, documents, strict=True)
        ]
    else:
        texts = [(lines, one.units) for lines, one in zip(references, documents, strict=True)]
        found = word_error_segmentation(texts, unit)
    return [
        sentence
        for one, of in zip(documents, found, strict=True)
        for sentence in _sentences(one, of, unit, units_per_second)
    ]


def _sentences(
    one: Document, of: Sequence[int | None], unit: Unit, units_per_second: float | None
) -> Iterable[Sentence]:
    places: list[list[int]] = [[] for _ in one.segments]
    for place, index in enumerate(of):
        if index is not None:
            places[index].append(place)
    elapsed = None
    if one.elapsed is not None and units_per_second is not None:
        elapsed = [second * units_per_second for second in one.elapsed]
    for index, (segment, here) in enumerate(zip(one.segments, places, strict=True)):
        units = tuple(one.units[place] for place in here)
        reference = one_line(segment.reference)
        yield Sentence(
            document=one.id,
            index=index,
            segment=segment,
            reference=reference if unit == "word" else reference.replace(" ", ""),
            prediction=join(units, unit),
            units=units,
            places=tuple(here),
            delays=tuple(one.delays[place] - segment.start for place in here),
            elapsed=None if elapsed is None else tuple(elapsed[place] - segment.start for place in here),
            to_end=one.end - segment.start,
            cut_short=one.cut_short,
        )


# --- formulas


def long_yaal(delays: Sequence[float], source_length: float, target_length: float, to_end: float) -> float:
    """LongYAAL of a sentence (Polák et al. 2025, arXiv 2509.17349).

    1/tau * sum_{t=1..tau} (d_t - (t - 1) / gamma), gamma = max(n, |y|) / |x|, over the units before the first that was
    written at the end of the document or after it. What is written after the end of the sentence itself counts, which
    it does not in YAAL.

    Args:
        delays: since the start of the sentence.
        to_end: from the start of the sentence to the end of the document.

    Returns: in the measure of the delays; nan without delays, or where the first is at ``to_end`` or later.
    """
    early = list(takewhile(lambda delay: delay < to_end, delays))
    if not early:
        return math.nan
    source_per_target = source_length / max(len(delays), target_length)
    return math.fsum(delay - t * source_per_target for t, delay in enumerate(early)) / len(early)


def sentence_latency(sentence: Sentence, unit: Unit, computation_aware: bool = False) -> dict[str, float]:
    """`LATENCIES` of one sentence; nan where undefined, all of them for a sentence without output or without times, or
    of a document that is cut short."""
    delays = sentence.elapsed if computation_aware else sentence.delays
    if not delays or sentence.cut_short:
        return dict.fromkeys(LATENCIES, math.nan)
    source, target = sentence.segment.units, reference_length(sentence.reference, unit)
    lags = {name: metric(delays, source, target) for name, metric in LAGGINGS.items()}
    return {"long_yaal": long_yaal(delays, source, target, sentence.to_end), **lags}


def sentence_stream_laal(sentence: Sentence, unit: Unit, computation_aware: bool = False) -> float:
    """LAAL as simulstream has it: |y| is the number of words that are not empty, or of characters with inner spaces.

    For sentences cut by minimum word error. Returns: source units; nan for a sentence without output or without times,
    or of a document that is cut short.
    """
    delays = sentence.elapsed if computation_aware else sentence.delays
    if sentence.cut_short:
        return math.nan
    reference = one_line(sentence.segment.reference)
    target = len(list(filter(None, reference.split(" ")))) if unit == "word" else len(reference)
    return length_adaptive_average_lagging(delays or (), sentence.segment.units, target)


def degeneracy(sentences: Iterable[tuple[Sequence[float], float, float]]) -> dict[str, float]:
    """OmniSTEval's diagnostics of a policy that is simultaneous in name only.

    Args:
        sentences: (delays since the start of the sentence, source length, reference length) of each.

    Returns: in percent, ``swf`` (simultaneous words fraction: units written before the end of their sentence's source)
        and ``efsw`` (expected: sum of max(0, |x| - YAAL) over sum of |x|, where YAAL is defined), ``dsptv``
        (efsw - swf) and ``degenerate_policy`` (1 where that is further than 20 from 0, else 0). All nan without output.
    """
    early, units = 0, 0
    expected, source = 0.0, 0.0
    for delays, source_length, target_length in sentences:
        early += sum(delay < source_length for delay in delays)
        units += len(delays)
        lag = yet_another_average_lagging(delays, source_length, target_length)
        if not math.isnan(lag):
            expected += max(0.0, source_length - lag)
            source += source_length
    if not units:
        return dict.fromkeys(("swf", "efsw", "dsptv", "degenerate_policy"), math.nan)
    swf = 100 * early / units
    efsw = 100 * expected / source if source else math.nan
    return {"swf": swf, "efsw": efsw, "dsptv": efsw - swf, "degenerate_policy": float(abs(efsw - swf) > DEGENERATE)}


def own_computation(delays: Sequence[float], elapsed: Sequence[float]) -> list[float]:
    """Computation-aware times in which only a unit's own compute is added to its delay, from those of SimulEval, which
    add all compute since the start: OmniSTEval's ``--fix_simuleval_emission_ca``.

    new_i = max(new_{i-1}, elapsed_i - elapsed_{i-1} + delay_{i-1}), new_1 = elapsed_1; all in one measure. Not for
    times that were replayed on a clock (`computation_aware_delays`): there, compute hides behind waits for the source.
    """
    own = [time - before + delay for time, before, delay in zip(elapsed[1:], elapsed, delays, strict=False)]
    return list(accumulate([*elapsed[:1], *own], max))


# --- runs


def longform(
    documents: Sequence[Document],
    target_language: str,
    unit: Unit,
    *,
    units_per_second: float | None = None,
    word_error: bool | None = None,
    tokenizer: str | None = None,
) -> Scores:
    """All scores of a run over documents.

    Args:
        target_language: chooses the tokens of the soft alignment and, where ``tokenizer`` does not, those of BLEU.
        unit: of the target.
        units_per_second: source units a second, for the computation-aware forms: the rate of the clock that
            ``Document.elapsed`` is on (1000 where source units are milliseconds).
        word_error: whether to cut by minimum word error too; None does where mweralign is installed.

    Returns:
        ``metrics``: ``documents``, ``sentences``, ``sentences_without_output``, ``units_dropped`` (by the soft
        alignment); ``bleu``, ``chrf``, ``length_ratio``; `LATENCIES`, and the same with ``ca_`` before them; ``swf``,
        ``efsw``, ``dsptv``, ``degenerate_policy``; cut by minimum word error ``bleu_word_error``, ``chrf_word_error``,
        ``stream_laal`` and ``ca_stream_laal``; signatures of all these. Latencies are plain means, in source units (AP:
        a proportion), over the sentences where they are defined, which those of documents that are cut short are not.
        None is what is undefined or was not measured.
    Raises: ValueError: no documents, or an unknown unit. ImportError: ``word_error`` without mweralign; as `quality`.
    """
    if not documents:
        raise ValueError("0 documents; scores need at least one")
    if word_error is not False:
        word_error = _has_mweralign(word_error is True)
    sentences = resegment(documents, target_language, unit, "soft", units_per_second)
    scores = _quality(sentences, target_language, tokenizer)
    plain = corpus_latency(sentence_latency(sentence, unit) for sentence in sentences).means
    aware = corpus_latency(sentence_latency(sentence, unit, True) for sentence in sentences).means
    metrics: dict[str, Value] = {
        "documents": len(documents),
        "sentences": len(sentences),
        "sentences_without_output": sum(not sentence.units for sentence in sentences),
        "units_dropped": sum(len(one.units) for one in documents) - sum(len(one.units) for one in sentences),
        "bleu": scores["bleu"],
        "chrf": scores["chrf"],
        "length_ratio": scores["length_ratio"],
        **plain,
        **{f"ca_{name}": value for name, value in aware.items()},
        **degeneracy(
            (one.delays, one.segment.units, reference_length(one.reference, unit))
            for one in sentences
            if not one.cut_short
        ),
    }
    by_word_error, again = None, {}
    if word_error:
        by_word_error = resegment(documents, target_language, unit, "word_error", units_per_second)
        again = _quality(by_word_error, target_language, tokenizer)
    metrics |= {f"{name}_word_error": again.get(name) for name in ("bleu", "chrf")}
    for name, with_compute in (("stream_laal", False), ("ca_stream_laal", True)):
        lags = [{name: sentence_stream_laal(one, unit, with_compute)} for one in by_word_error or ()]
        metrics[name] = corpus_latency(lags).means.get(name)
    metrics |= {
        "bleu_signature": scores["bleu_signature"],
        "chrf_signature": scores["chrf_signature"],
        "longform_signature": longform_signature(target_language, unit),
        "stream_laal_signature": stream_laal_signature(unit) if word_error else None,
    }
    finite = {
        k: None if isinstance(value, float) and not math.isfinite(value) else value for k, value in metrics.items()
    }
    return Scores(finite, sentences, by_word_error)


def longform_signature(target_language: str, unit: Unit) -> str:
    """What the scores cut by soft alignment depend on: OmniSTEval's version and its ``--lang`` move them."""
    language = moses_language(target_language)
    return f"unit:{unit}|segmenter:soft|lang:{language}|formulas:omnisteval.{OMNISTEVAL}"


def stream_laal_signature(unit: Unit) -> str:
    """What the scores cut by minimum word error depend on. Raises: ImportError: mweralign is not installed."""
    return f"unit:{unit}|segmenter:mweralign.{mweralign_version()}|formulas:simulstream.{SIMULSTREAM}"


def _has_mweralign(needed: bool) -> bool:
    try:
        mweralign_version()
    except ImportError:
        if needed:
            raise
        return False
    return True


def _quality(sentences: Sequence[Sentence], target_language: str, tokenizer: str | None) -> dict[str, float | str]:
    texts = [one.prediction for one in sentences], [one.reference for one in sentences]
    return quality(*texts, target_language, tokenizer)
