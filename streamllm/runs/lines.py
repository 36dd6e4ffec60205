"""A trace as two lines of JSON, and back: what follows from the configuration, and what the clock said."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from streamllm.records import Event, Segment, Trace

# --- one trace, two lines


def to_prediction(trace: Trace) -> dict[str, Any]:
    """The line of a trace in ``predictions.jsonl``: all of it but the times.

    ``elapsed`` is all zero, which is SimulEval's convention for text input.
    """
    return {
        "id": trace.id,
        "source": trace.source,
        "reference": trace.reference,
        "prediction": trace.prediction,
        "delays": list(trace.delays),
        "elapsed": [0] * len(trace.elapsed),
        "units": list(trace.units),
        "source_units": trace.source_units,
        "events": [{"kind": event.kind, "text": event.text} for event in trace.events],
        "stats": {key: value for key, value in trace.stats.items() if not _is_time(key)},
        **({"segments": [asdict(segment) for segment in trace.segments]} if trace.segments else {}),
    }


def to_timing(trace: Trace) -> dict[str, Any]:
    """The line of a trace in ``timings.jsonl``: seconds since the start of the sentence, and the stats whose
    names end in "seconds"."""
    return {
        "id": trace.id,
        "elapsed": list(trace.elapsed),
        "events": [event.seconds for event in trace.events],
        "stats": {key: value for key, value in trace.stats.items() if _is_time(key)},
    }


def from_lines(prediction: Mapping[str, Any], timing: Mapping[str, Any] | None) -> Trace:
    """The trace of `to_prediction` and `to_timing`; times are zero where ``timing`` is None."""
    events = prediction["events"]
    seconds = timing["events"] if timing else [0.0] * len(events)
    elapsed = timing["elapsed"] if timing else [0.0] * len(prediction["elapsed"])
    return Trace(
        id=prediction["id"],
        source=prediction["source"],
        reference=prediction["reference"],
        units=tuple(prediction["units"]),
        delays=tuple(prediction["delays"]),
        elapsed=tuple(elapsed),
        events=tuple(
            Event(event["kind"], event["text"], second) for event, second in zip(events, seconds, strict=True)
        ),
        source_units=prediction["source_units"],
        prediction=prediction["prediction"],
        stats=prediction["stats"] | (timing["stats"] if timing else {}),
        segments=tuple(Segment(**segment) for segment in prediction.get("segments", ())),
    )


def to_instance(index: int, trace: Trace) -> dict[str, Any]:
    """The row of SimulEval 1.1.4's ``instances.log``; ``index`` is the sentence's place in the data set.

    It has no ``elapsed``, the delays in milliseconds with computation: its delays are units. SimulEval writes zeros
    there for text, and then computes latencies from them under ``--computation-aware``.
    """
    return {
        "index": index,
        "prediction": trace.prediction,
        "delays": list(trace.delays),
        "prediction_length": len(trace.delays),
        "reference": trace.reference,
        "source": trace.source,
        "source_length": trace.source_units,
    }


def _is_time(key: str) -> bool:
    return key == "seconds" or key.endswith("_seconds")


def json_line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def matching(prediction: Mapping[str, Any], timing: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """``timing`` if it belongs to this very translation; files that were edited by hand may disagree in length."""
    if timing is None or len(timing["events"]) != len(prediction["events"]):
        return None
    return timing if len(timing["elapsed"]) == len(prediction["elapsed"]) else None
