"""The policy loop: alternates READ and WRITE over one sentence and records what happened.

Invariant: the policy alone decides, except where the end token or the length limit leaves one way only;
each such step is recorded under a kind of its own.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from streamllm.engine.finite import SentenceError
from streamllm.engine.limits import Limits
from streamllm.engine.living_on import LivingOn
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
from streamllm.units import Unit, ends_sentence, join, pieces

NEAR = 2
"""Units between where a model looks at the end of a sentence and punctuation that ends one, at most."""


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

    # Of documents

    def close_sentence(self) -> None: ...

    def nothing_left(self) -> bool: ...

    def leave_sentence(self, units: int, context: int | None) -> None: ...


class _Answers:
    """What a policy may ask in one state (`records.Lookahead`); notes the hypotheses that it was shown."""

    def __init__(self, session: SessionLike, max_units: int, max_tokens: float, before: int):
        self._session, self._max_units, self._max_tokens, self._before = session, max_units, max_tokens, before
        self.shown: list[Hypothesis] = []

    def prediction(self, hidden: int = 0) -> Prediction:
        return self._session.prediction(hidden)

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int:
        return self._session.attended(heads) - self._before

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
    yield from _sentence(Stream(session, source, limits, target_unit, clock), decide)


class Stream:
    """One source on its way through a session, step by step; each step is an event with the state after it."""

    def __init__(
        self,
        session: SessionLike,
        source: Iterable[str],
        limits: Limits,
        target_unit: Unit,
        clock: Callable[[], float],
    ):
        self.session, self.limits = session, limits
        self._source, self._target_unit, self._clock = iter(source), target_unit, clock
        self.seen: list[str] = []  # one list for all states; of a document, since the sentence began
        self.read = self.written = 0
        self.source_done = False
        self._started = clock()

    def event(self, kind: str, text: str = "") -> tuple[Event, State]:
        return Event(kind, text, self._clock() - self._started), self.state

    @property
    def state(self) -> State:
        return State(self.read, self.written, self.source_done, source=self.seen)

    def take(self, kind: str, footer: bool = True) -> tuple[Event, State]:
        """Read one more unit, or learn that there is none; then the ``footer`` is fed, if there is something to say."""
        unit = next(self._source, None)
        if unit is None:
            if footer:
                self.session.end_source()
            self.source_done = True
            return self.event("end")
        self.session.read(unit)
        self.seen.append(unit)
        self.read += 1
        return self.event(kind, unit)

    def decide(
        self, decide: Decide, state: State, tokens: int, before: int = 0
    ) -> tuple[Action, list[tuple[Event, State]]]:
        """What a policy decides in ``state``, and as events the hypotheses that it was shown.

        Args:
            tokens: target tokens that count for the limits.
            before: source units that ``state`` does not count.
        """
        left = self.limits.left(state), self.limits.tokens_left(state, tokens)
        answers = _Answers(self.session, *left, before)
        action = _checked(decide(replace(state, model=answers)))
        return action, [self.event("draft", _text(shown, self._target_unit)) for shown in answers.shown]

    def write(self, action: Write) -> tuple[Event, State] | None:
        """Write a unit; None where the end token came instead."""
        emission = self.session.write(action.tokens) if action.tokens else self.session.write()
        if emission.unit is None:
            return None
        self.written += not emission.extends
        return self.event("extend" if emission.extends else "write", emission.text)


def _sentence(stream: Stream, decide: Decide) -> Iterator[tuple[Event, State]]:
    """All events of a source that is one sentence."""
    session, limits = stream.session, stream.limits
    while True:
        if cut := limits.cut(stream.state, session.target_tokens):
            if stream.source_done:
                yield stream.event("stop", cut)
                return
            if cut == "max_tokens":  # that of units can be told from the counts of a trace
                yield stream.event("limit", cut)
            yield stream.take("forced_read")
            continue
        action: Action = Write()
        if not stream.source_done:
            action, drafts = stream.decide(decide, stream.state, session.target_tokens)
            yield from drafts
        if isinstance(action, Read):
            yield stream.take("read")
        elif happened := stream.write(action):
            yield happened
        elif stream.source_done:
            yield stream.event("stop", "end_token")
            return
        elif limits.early_stop == "stop":
            yield stream.event("stop", "early_stop")
            return
        else:
            yield stream.take("forced_read")


def stream_document(
    session: SessionLike,
    source: Iterable[str],
    policy: Policy,
    example: Example,
    living_on: LivingOn,
    limits: Limits = Limits(),
    target_unit: Unit = "word",
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[tuple[Event, State]]:
    """As `stream`, of a source of many sentences, which may never end. An end token closes a target sentence; the
    translation ends with the source.

    A policy is started anew for each sentence, and counts units from where that begins, unless it
    ``counts_from_start``. Limits count so, too. Event and state count from the start of the stream.
    """
    stream = Stream(session, source, limits, target_unit, clock)
    absolute = bool(getattr(policy, "counts_from_start", False))
    decide = policy.start(example)
    here = _Sentence()
    while True:
        done = stream.source_done or here.whole
        if stream.source_done and stream.read == here.read:
            yield stream.event("stop", "end_token")
            return
        tokens = session.target_tokens - here.tokens
        state = State(stream.read - here.read, stream.written - here.written, done, source=stream.seen)
        ended = False
        if cut := limits.cut(state, tokens):
            if cut == "max_tokens" or done:
                yield stream.event("limit", cut)
            ended = done
            if not done:
                yield from here.take(stream, living_on, "forced_read")
                continue
        action: Action = Write()
        if not (ended or done):
            told = (stream.state, 0) if absolute else (state, here.read)
            action, drafts = stream.decide(decide, told[0], tokens, told[1])
            yield from drafts
        if isinstance(action, Read):
            yield from here.take(stream, living_on, "read")
            continue
        if not ended:
            if happened := stream.write(action):
                yield happened
                continue
            ended = done or limits.early_stop == "stop"
        end = here.end(stream, living_on, ended) if ended or not living_on.held else None
        if end is None:
            yield from here.take(stream, living_on, "forced_read")
            continue
        session.close_sentence()
        more = living_on.asks and living_on.held and not cut and stream.written > here.written
        if more and not session.nothing_left():  # two sentences, and nothing that tells them apart
            end = here.read
        else:
            session.leave_sentence(end, living_on.context)
        here.begin(end, stream)
        decide = policy.start(example)
        yield stream.event("sentence", str(end))


@dataclass
class _Sentence:
    """Where the sentence under way began, in units read, units written and target tokens; and where sentences end in
    what has been read since. ``whole``: the source sentence is known to have been read, and its footer is fed."""

    read: int = 0
    written: int = 0
    tokens: int = 0
    ends: list[int] = field(default_factory=list)
    whole: bool = False

    def take(self, stream: Stream, living_on: LivingOn, kind: str) -> Iterator[tuple[Event, State]]:
        """Read one more unit, or learn that there is none: of the stream, or of the sentence if that is held."""
        if living_on.held and self.ends:
            self.whole = True
            stream.session.end_source()
            yield stream.event("end")
            return
        yield stream.take(kind, footer=stream.read > self.read)
        if not stream.source_done and ends_sentence(stream.seen[-1]):
            self.ends.append(stream.read)

    def end(self, stream: Stream, living_on: LivingOn, ended: bool) -> int | None:
        """Where its source ends, in units read; None where it has not ended, since more is to be read first."""
        first = self.ends[0] if self.ends else stream.read if ended else None
        if living_on.boundary == "punctuation" or stream.read == self.read or stream.written == self.written:
            return first
        looked = stream.session.attended() + 1
        near = min(self.ends, key=lambda end: abs(end - looked), default=looked)
        if abs(near - looked) <= NEAR:
            looked = near
        if self.read < looked < stream.read or (looked == stream.read and self.ends[-1:] == [looked]):
            return looked
        return stream.read if ended else None

    def begin(self, end: int, stream: Stream) -> None:
        """The next sentence begins behind ``end`` source units."""
        del stream.seen[: end - self.read]
        self.read, self.written, self.tokens = end, stream.written, stream.session.target_tokens
        self.ends = [other for other in self.ends if other > end]
        self.whole &= end < stream.read  # two sentences were read as one


def _checked(action: Action) -> Action:
    if not isinstance(action, Read | Write):
        raise TypeError(
            f"a policy decided {action!r}; accepted are the objects records.READ and records.WRITE, and "
            "records.Write(tokens), which writes those tokens"
        )
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
    living_on: LivingOn | None = None,
) -> Trace:
    """Translate one example and return its trace; delays are in source units, times in seconds of ``clock``.

    Args:
        living_on: how it goes on after a target sentence; None ends the translation there.

    Raises:
        SentenceError: the model's logits are not finite, or it has no positions for so many tokens; says which example.
    """
    source = pieces(example.source, source_unit)
    events: list[Event] = []
    units: list[str] = []
    shown: list[str] = []  # units with the space before them
    delays: list[int] = []
    elapsed: list[float] = []
    if living_on is None:
        happens = stream(session, source, policy.start(example), limits, target_unit, clock)
    else:
        happens = stream_document(session, source, policy, example, living_on, limits, target_unit, clock)
    for happened, state in _named(example, happens):
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
        segments=example.segments,
    )
