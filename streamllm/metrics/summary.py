"""The flat content of metrics.json: quality, latency, cost and counts over all traces of a run.

Every value is a JSON value: what is undefined or was not measured is None, never nan.
"""

import math
from collections.abc import Sequence

from streamllm.metrics.latency import corpus_latency, latency
from streamllm.metrics.quality import quality
from streamllm.records import Trace

Value = float | int | str | None


def summarise(traces: Sequence[Trace], target_language: str, unit: str) -> dict[str, Value]:
    """All metrics of a run.

    Args:
        traces: one for each sentence. ``Trace.stats`` may hold "seconds", "forward_passes",
            "source_tokens" and "target_tokens"; a ratio is taken over the traces that hold both its parts.
        target_language: chooses the tokenizer of BLEU.
        unit: unit of the target, "word" or "character".

    Returns:
        ``sentences``, ``sentences_without_output``; ``bleu``, ``chrf``, ``length_ratio`` over all sentences;
        ``al``, ``laal``, ``dal`` (source units) and ``ap``, means over the sentences with output;
        ``seconds_per_sentence``, ``target_tokens_per_second``, ``forward_passes`` (their sum),
        ``forward_passes_per_target_token``; ``forced_reads`` (events), ``early_stops`` (sentences ended by
        the end token while source remained); ``bleu_signature``, ``chrf_signature``.
    Raises: ValueError: no traces, or an unknown unit. ImportError: as ``quality``.
    """
    if not traces:
        raise ValueError("0 traces; a summary needs at least one sentence")
    scores = quality([trace.prediction for trace in traces], [trace.reference for trace in traces], target_language)
    lags = corpus_latency(latency(t.delays, t.source_units, t.reference, unit) for t in traces).means
    events = [event for trace in traces for event in trace.events]
    summary: dict[str, Value] = {
        "sentences": len(traces),
        "sentences_without_output": sum(not trace.delays for trace in traces),
        "bleu": scores["bleu"],
        "chrf": scores["chrf"],
        "length_ratio": scores["length_ratio"],
        **lags,
        "seconds_per_sentence": _ratio(traces, "seconds"),
        "target_tokens_per_second": _ratio(traces, "target_tokens", "seconds"),
        "forward_passes": sum(passes) if (passes := _measured(traces, "forward_passes")) else None,
        "forward_passes_per_target_token": _ratio(traces, "forward_passes", "target_tokens"),
        "forced_reads": sum(event.kind == "forced_read" for event in events),
        "early_stops": sum(event.kind == "stop" and event.text == "early_stop" for event in events),
        "bleu_signature": scores["bleu_signature"],
        "chrf_signature": scores["chrf_signature"],
    }
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in summary.items()}


def _measured(traces: Sequence[Trace], key: str) -> list[float]:
    return [trace.stats[key] for trace in traces if trace.stats.get(key) is not None]


def _ratio(traces: Sequence[Trace], numerator: str, denominator: str | None = None) -> float | None:
    """Sum over sum, a denominator of None counting the traces; None when nothing divides."""
    keys = [numerator] if denominator is None else [numerator, denominator]
    complete = [trace for trace in traces if all(trace.stats.get(key) is not None for key in keys)]
    below = len(complete) if denominator is None else sum(_measured(complete, denominator))
    return sum(_measured(complete, numerator)) / below if below else None
