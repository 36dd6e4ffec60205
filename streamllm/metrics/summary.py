"""The flat content of metrics.json: quality, latency, cost and counts over all traces of a run.

Every value is a JSON value: what is undefined or was not measured is None, never nan.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from streamllm.metrics.arrival import KEYS as SECONDS
from streamllm.metrics.arrival import ArrivalClock, arrival_latency
from streamllm.metrics.behaviour import (
    alternations,
    cut_short,
    early_ends,
    forced_reads,
    normalised_erasure,
    source_after_last_write,
    stops,
)
from streamllm.metrics.latency import METRICS, corpus_latency, latency, latency_signature
from streamllm.metrics.quality import quality
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
    if not traces:
        raise ValueError("0 traces; a summary needs at least one sentence")
    of_documents: Mapping[str, Value] = {}
    scores: Mapping[str, Value]
    lags: Mapping[str, Value] = dict.fromkeys(METRICS)
    in_seconds: Mapping[str, Value] = {}
    if any(trace.segments for trace in traces):
        from streamllm.metrics.longform import document, longform  # runs over sentences do not wait for it

        documents = [document(trace, unit, arrival) for trace in traces]
        rate = arrival.words_per_second if arrival else None
        scores = of_documents = longform(
            documents, target_language, unit, units_per_second=rate, tokenizer=tokenizer
        ).metrics
    else:
        texts = [trace.prediction for trace in traces], [trace.reference for trace in traces]
        scores = quality(*texts, target_language, tokenizer)
        lags = corpus_latency(latency(t.delays, t.source_units, t.reference, unit) for t in traces).means
        if arrival:
            in_seconds = corpus_latency(arrival_latency(t, arrival, unit) for t in traces).means
    recorded = [trace for trace in traces if trace.events]
    sentences = sum(len(trace.segments) or 1 for trace in traces)
    summary: dict[str, Value] = {
        "sentences": sentences,
        "sentences_without_output": sum(not trace.delays for trace in traces),
        "bleu": scores["bleu"],
        "chrf": scores["chrf"],
        "length_ratio": scores["length_ratio"],
        **lags,
        **{key: in_seconds.get(key) for key in SECONDS},
        "ne": normalised_erasure(traces, unit),
        "alternations": sum(map(alternations, recorded)) / len(recorded) if recorded else None,
        "seconds_per_sentence": _per_sentence(traces, "seconds"),
        "target_tokens_per_second": _ratio(traces, "target_tokens", "seconds"),
        "forward_passes": sum(passes) if (passes := _measured(traces, "forward_passes")) else None,
        "forward_passes_per_target_token": _ratio(traces, "forward_passes", "target_tokens"),
        "forced_reads": sum(map(forced_reads, traces)),
        "early_stops": sum(stops(trace, "early_stop") for trace in traces),
        "early_ends": sum(early_ends(trace, at_limit) for trace in traces) if at_limit else None,
        "sentences_cut_short": sum(map(cut_short, traces)),
        "source_after_last_write": sum(map(source_after_last_write, traces)) / len(traces),
        "max_units_stops": sum(stops(trace, "max_units") for trace in traces),
        "max_tokens_stops": sum(stops(trace, "max_tokens") for trace in traces),
        "bleu_signature": scores["bleu_signature"],
        "chrf_signature": scores["chrf_signature"],
        "latency_signature": None if of_documents else latency_signature(unit),
    }
    summary |= of_documents
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in summary.items()}


def _measured(traces: Sequence[Trace], key: str) -> list[float]:
    return [trace.stats[key] for trace in traces if trace.stats.get(key) is not None]


def _per_sentence(traces: Sequence[Trace], key: str) -> float | None:
    """A mean over sentences, those of documents too; None where nothing was measured."""
    complete = [trace for trace in traces if trace.stats.get(key) is not None]
    sentences = sum(len(trace.segments) or 1 for trace in complete)
    return sum(_measured(complete, key)) / sentences if sentences else None


def _ratio(traces: Sequence[Trace], numerator: str, denominator: str) -> float | None:
    """Sum over sum; None when nothing divides."""
    complete = [trace for trace in traces if all(trace.stats.get(key) is not None for key in (numerator, denominator))]
    below = sum(_measured(complete, denominator))
    return sum(_measured(complete, numerator)) / below if below else None
