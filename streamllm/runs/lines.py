"""A trace as two lines of JSON, and back: what follows from the configuration, and what the clock said."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from streamllm.records import Event, Segment, Trace

# --- the two lines, as they are read back (`streamllm.checked.fit`)


@dataclass(frozen=True)
class PredictionLine:
    """A line of ``predictions.jsonl``. A field that comes later gets a default here: old runs have none of it.

    Raises: ValueError: its numbers do not fit each other.
    """

    id: str
    source: str
    reference: str
    prediction: str
    delays: tuple[int, ...]
    elapsed: tuple[float, ...]
    units: tuple[str, ...]
    source_units: int
    events: tuple[Event, ...]
    stats: dict[str, int | float | None] = field(default_factory=dict)  # whole numbers stay so
    segments: tuple[Segment, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_prediction(self)


@dataclass(frozen=True)
class TimingLine:
    """A line of ``timings.jsonl``, in seconds.

    Raises: ValueError: a time is negative.
    """

    id: str
    elapsed: tuple[float, ...]
    events: tuple[float, ...]
    stats: dict[str, int | float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_timing(self)


def check_prediction(line: PredictionLine) -> None:
    """Raises: ValueError: the numbers of a line do not fit each other."""
    if not len(line.delays) == len(line.units) == len(line.elapsed):
        raise ValueError(
            f"it has {len(line.units)} units, {len(line.delays)} delays and {len(line.elapsed)} times in elapsed; "
            "each unit has one of each"
        )
    written = sum(event.kind == "write" for event in line.events)
    if line.events and written != len(line.units):
        raise ValueError(f"it has {len(line.units)} units, and {written} events that write one")
    for before, delay in zip((0, *line.delays), line.delays, strict=False):
        if not before <= delay <= line.source_units:
            raise ValueError(
                f"delays hold {delay} after {before}; they rise from 0 to source_units, which is {line.source_units}"
            )
    if line.source_units < 0:
        raise ValueError(f"source_units is {line.source_units}; it is at least 0")
    for segment in line.segments:
        if not 0 <= segment.start <= segment.start + segment.units <= line.source_units:
            raise ValueError(
                f"segments hold one of {segment.units} units from {segment.start} on, and source_units is "
                f"{line.source_units}"
            )
    _check_finite("stats", line.stats.values())


def check_timing(line: TimingLine) -> None:
    """Raises: ValueError: a time is negative or not finite."""
    for name, times in (("elapsed", line.elapsed), ("events", line.events), ("stats", line.stats.values())):
        _check_finite(name, times, least=0)


def _check_finite(name: str, values: Iterable[float | None], least: float = -math.inf) -> None:
    for value in values:
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{name} holds {value!r}; accepted are finite numbers" + ", at least 0" * (least == 0))


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
        **({"notes": trace.notes} if trace.notes else {}),
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


def from_lines(prediction: PredictionLine, timing: TimingLine | None) -> Trace:
    """The trace of `to_prediction` and `to_timing`; times are zero where ``timing`` is None."""
    seconds = timing.events if timing else (0.0,) * len(prediction.events)
    return Trace(
        id=prediction.id,
        source=prediction.source,
        reference=prediction.reference,
        units=prediction.units,
        delays=prediction.delays,
        elapsed=timing.elapsed if timing else (0.0,) * len(prediction.elapsed),
        events=tuple(
            Event(event.kind, event.text, second) for event, second in zip(prediction.events, seconds, strict=True)
        ),
        source_units=prediction.source_units,
        prediction=prediction.prediction,
        stats=prediction.stats | (timing.stats if timing else {}),
        segments=prediction.segments,
        notes=prediction.notes,
    )


def to_instance(index: int, trace: Trace | PredictionLine) -> dict[str, Any]:
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


_encode = json.JSONEncoder(ensure_ascii=False).encode


def json_line(values: Mapping[str, Any]) -> bytes:
    return (_encode(values) + "\n").encode()


def matching(prediction: PredictionLine, timing: TimingLine | None) -> TimingLine | None:
    """``timing`` if it belongs to this very translation; files that were edited by hand may disagree in length."""
    if timing is None or len(timing.events) != len(prediction.events):
        return None
    return timing if len(timing.elapsed) == len(prediction.elapsed) else None
