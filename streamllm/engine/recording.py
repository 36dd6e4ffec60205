"""A trace, made of what happens in a stream. Invariant: after each event, it is that of what has happened by then."""

from typing import Any

from streamllm.records import Event, Example, State, Trace
from streamllm.units import Unit, join, settled, split


class Recording:
    """What has happened in one sentence or document.

    Args:
        example: its source may be that which has been read by then.
        target_unit: what target units are.
    """

    def __init__(self, example: Example, target_unit: Unit = "word"):
        self._example, self._target_unit = example, target_unit
        self._events: list[Event] = []
        self._units: list[str] = []
        self._shown: list[str] = []  # units with the space before them
        self._delays: list[int] = []
        self._elapsed: list[float] = []
        # Outputs that may be revised, and when each was shown.
        self._displayed: list[list[str]] = []
        self._shown_at: list[tuple[int, float]] = []
        self._settled_at: list[tuple[int, float]] = []  # of the units that are to be written

    def add(self, happened: Event, state: State) -> None:
        """One more event, with the state after it."""
        self._events.append(happened)
        if happened.kind == "extend":  # the unit is whole only now
            self._units[-1] += happened.text
            self._shown[-1] += happened.text
            self._delays[-1], self._elapsed[-1] = state.read, happened.seconds
        elif happened.kind == "shown":
            self._displayed.append(split(happened.text, self._target_unit))
            self._shown_at.append((state.read, happened.seconds))
        elif happened.kind == "write":
            self._units.append(happened.text.lstrip())
            self._shown.append(happened.text)
            if self._displayed:  # it has been read since it was shown as it is now
                self._settled_at = settled(self._displayed, self._shown_at)
                self._displayed, self._shown_at = [], []
            read, seconds = self._settled_at.pop(0) if self._settled_at else (state.read, happened.seconds)
            self._delays.append(read)
            self._elapsed.append(seconds)

    def trace(self, source_units: int, stats: dict[str, Any], notes: dict[str, Any] | None = None) -> Trace:
        """All of it; ``stats`` are what the session counted, besides the seconds, and ``notes`` those of the policy."""
        example = self._example
        return Trace(
            id=example.id,
            source=example.source,
            reference=example.reference,
            units=tuple(self._units),
            delays=tuple(self._delays),
            elapsed=tuple(self._elapsed),
            events=tuple(self._events),
            source_units=source_units,
            prediction=join(self._shown, self._target_unit),
            stats={"seconds": self._events[-1].seconds if self._events else 0.0, **stats},
            segments=example.segments,
            notes=dict(notes or {}),
        )
