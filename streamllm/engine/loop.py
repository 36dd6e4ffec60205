"""The policy loop: alternates READ and WRITE over one sentence and records what happened.

Invariant: the policy alone decides, except where the end token or the length limit leaves one way only;
each such step is recorded under a kind of its own.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from streamllm.engine.finite import SentenceError
from streamllm.engine.limits import Limits
from streamllm.records import (
    Action,
    Decide,
    Emission,
    Event,
    Example,
    Hypothesis,
    Policy,
    Prediction,
    Read,
    State,
    Trace,
    Write,
)
from streamllm.units import Unit, join, pieces


class SessionLike(Protocol):
    """What the loop needs of a `streamllm.engine.session.Session`."""

    @property
    def forward_passes(self) -> int: ...

    @property
    def source_tokens(self) -> int: ...

    @property
    def fed_tokens(self) -> int: ...

    target_tokens: int

    def read(self, unit: str) -> None: ...

    def end_source(self) -> None: ...

    def write(self, tokens: tuple[int, ...] = ()) -> Emission: ...

    def prediction(self, hidden: int = 0) -> Prediction: ...

    def draft(self, max_units: int, max_tokens: float) -> Hypothesis: ...

    def beam(self, size: int, max_units: int) -> Sequence[Hypothesis]: ...

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int: ...


class _Answers:
    """What a policy may ask in one state (`records.Lookahead`); notes the hypotheses that it was shown."""

    def __init__(self, session: SessionLike, max_units: int, max_tokens: float):
        self._session, self._max_units, self._max_tokens = session, max_units, max_tokens
        self.shown: list[Hypothesis] = []

    def prediction(self, hidden: int = 0) -> Prediction:
        return self._session.prediction(hidden)

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int:
        return self._session.attended(heads)

    def draft(self) -> Hypothesis:
        self.shown.append(self._session.draft(self._max_units, self._max_tokens))
        return self.shown[-1]

    def beam(self, size: int) -> Sequence[Hypothesis]:
        hypotheses = self._session.beam(size, self._max_units)
        self.shown += hypotheses[:1]
        return hypotheses


def stream(
    session: SessionLike,
    source: Iterable[str],
    decide: Decide,
    limits: Limits = Limits(),
    target_unit: Unit = "word",
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[tuple[Event, State]]:
    """Translate one sentence, yielding each event as it happens with the state after it.

    ``source`` may block until a unit arrives (live input): READ waits, whatever the policy. A unit is a
    word or a character; kinds of events are listed at `records.Event`.
    """
    units = iter(source)
    seen: list[str] = []  # one list for all states of the sentence
    read = written = 0
    source_done = False
    started = clock()

    def event(kind: str, text: str = "") -> tuple[Event, State]:
        return Event(kind, text, clock() - started), State(read, written, source_done, source=seen)

    def take(kind: str) -> tuple[Event, State]:
        nonlocal read, source_done
        unit = next(units, None)
        if unit is None:
            session.end_source()
            source_done = True
            return event("end")
        session.read(unit)
        seen.append(unit)
        read += 1
        return event(kind, unit)

    while True:
        state = State(read, written, source_done, source=seen)
        if cut := limits.cut(state, session.target_tokens):
            if source_done:
                yield event("stop", cut)
                return
            if cut == "max_tokens":  # that of units can be told from the counts of a trace
                yield event("limit", cut)
            yield take("forced_read")
            continue
        action: Action = Write()
        if not source_done:
            answers = _Answers(session, limits.left(state), limits.tokens_left(state, session.target_tokens))
            action = _checked(decide(replace(state, model=answers)))
            for hypothesis in answers.shown:
                yield event("draft", _text(hypothesis, target_unit))
        if isinstance(action, Read):
            yield take("read")
        else:
            emission = session.write(action.tokens) if action.tokens else session.write()
            if emission.unit is not None:
                written += not emission.extends
                yield event("extend" if emission.extends else "write", emission.text)
            elif source_done:
                yield event("stop", "end_token")
                return
            elif limits.early_stop == "stop":
                yield event("stop", "early_stop")
                return
            else:
                yield take("forced_read")


def _checked(action: Action) -> Action:
    if not isinstance(action, Read | Write):
        raise TypeError(f"a policy decided {action!r}; accepted are records.READ or records.WRITE")
    return action


def _text(hypothesis: Hypothesis, unit: Unit) -> str:
    """The units of a hypothesis; one that extends the unit before it is no unit of its own."""
    return join([emission.text for emission in hypothesis if not emission.extends], unit)


def _named(example: Example, events: Iterator[tuple[Event, State]]) -> Iterator[tuple[Event, State]]:
    try:
        yield from events
    except SentenceError as error:
        raise type(error)(f"sentence {example.id!r}: {error}") from error


def translate(
    session: SessionLike,
    example: Example,
    policy: Policy,
    limits: Limits = Limits(),
    source_unit: Unit = "word",
    target_unit: Unit = "word",
    clock: Callable[[], float] = time.perf_counter,
) -> Trace:
    """Translate one example and return its trace; delays are in source units, times in seconds of ``clock``.

    Raises:
        SentenceError: the model's logits are not finite, or it has no positions for so many tokens; says which example.
    """
    source = pieces(example.source, source_unit)
    events: list[Event] = []
    units: list[str] = []
    shown: list[str] = []  # units with the space before them
    delays: list[int] = []
    elapsed: list[float] = []
    for happened, state in _named(example, stream(session, source, policy.start(example), limits, target_unit, clock)):
        events.append(happened)
        if happened.kind == "extend":  # the unit is whole only now
            units[-1] += happened.text
            shown[-1] += happened.text
            delays[-1], elapsed[-1] = state.read, happened.seconds
        elif happened.kind == "write":
            units.append(happened.text.lstrip())
            shown.append(happened.text)
            delays.append(state.read)
            elapsed.append(happened.seconds)
    return Trace(
        id=example.id,
        source=example.source,
        reference=example.reference,
        units=tuple(units),
        delays=tuple(delays),
        elapsed=tuple(elapsed),
        events=tuple(events),
        source_units=len(source),
        prediction=join(shown, target_unit),
        stats={
            "seconds": events[-1].seconds,
            "forward_passes": session.forward_passes,
            "source_tokens": session.source_tokens,
            "fed_tokens": session.fed_tokens,
            "target_tokens": session.target_tokens,
        },
    )
