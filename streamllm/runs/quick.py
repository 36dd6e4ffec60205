"""Lines of runs, read at once into their shape: ten times as fast as by `streamllm.checked`.

Invariant: a line that is read here is one that `streamllm.checked.fit` would read, with the same values. All others,
good or bad, are left to it, and it has the words for what is wrong."""

from functools import cache
from typing import Any, Literal, cast

import msgspec

from streamllm.records import KINDS
from streamllm.runs.lines import PredictionLine, TimingLine, check_prediction, check_timing


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    kind: Literal[KINDS]  # type: ignore[valid-type]
    text: str = ""
    seconds: float = 0.0


class _Prediction(msgspec.Struct, forbid_unknown_fields=True):
    """As `PredictionLine`, without the segments of documents: those are read by value."""

    id: str
    source: str
    reference: str
    prediction: str
    delays: tuple[int, ...]
    elapsed: tuple[float, ...]
    units: tuple[str, ...]
    source_units: int
    events: tuple[_Event, ...]
    stats: dict[str, int | float | None] = {}
    notes: dict[str, Any] = {}
    segments: tuple[()] = ()


class _Timing(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    elapsed: tuple[float, ...]
    events: tuple[float, ...]
    stats: dict[str, int | float | None] = {}


@cache
def _decoder(shape: type) -> "msgspec.json.Decoder[object]":
    return msgspec.json.Decoder({PredictionLine: _Prediction, TimingLine: _Timing}[shape])


def quick_prediction(line: bytes) -> PredictionLine | None:
    """A line of ``predictions.jsonl``; None where it is to be read by value."""
    found = _quick(line, PredictionLine)
    if found is None:
        return None
    prediction = cast(PredictionLine, found)  # it has the same fields
    try:
        check_prediction(prediction)
    except ValueError:
        return None
    return prediction


def quick_timing(line: bytes) -> TimingLine | None:
    """A line of ``timings.jsonl``; None where it is to be read by value."""
    found = _quick(line, TimingLine)
    if found is None:
        return None
    timing = cast(TimingLine, found)
    try:
        check_timing(timing)
    except ValueError:
        return None
    return timing


def _quick(line: bytes, shape: type) -> object | None:
    if b"\\u" in line:  # it may be half a character
        return None
    try:
        return _decoder(shape).decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
