"""The policy loop: alternates READ and WRITE over one sentence and records what happened.

Invariant: the policy alone decides, except where the end token or the length limit leaves one way only;
each such step is recorded under a kind of its own.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from streamllm.engine.finite import SentenceError
from streamllm.engine.limits import Limits
from streamllm.engine.living_on import LivingOn
from streamllm.engine.recording import Recording
from streamllm.engine.revised import stream_revised
from streamllm.engine.stream import SessionLike, Stream
from streamllm.records import (
    Action,
    Decide,
    Event,
    Example,
    Policy,
    Read,
    State,
    Trace,
    Write,
)
from streamllm.units import Unit, ends_sentence, pieces

NEAR = 2
"""Units between where a model looks at the end of a sentence and punctuation that ends one, at most."""


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


def _sentence(stream: Stream, decide: Decide) -> Iterator[tuple[Event, State]]:
    """All events of a source that is one sentence."""
    while not (yield from stream.step(decide)):
        pass


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
    if living_on.revision is not None:
        yield from stream_revised(stream, policy, example, living_on, living_on.revision)
        return
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
            if action.bare and not living_on.held:  # the stream goes on, and a sentence of it may end here
                action = Write(action.tokens)
            if happened := stream.write(action):
                yield happened
                continue
            ended = done or limits.early_stop == "stop"
        end = here.end(stream, living_on, ended) if ended or not living_on.held else None
        if end is None:
            yield from here.take(stream, living_on, "forced_read")
            continue
        session.close_sentence()
        more = living_on.asks and living_on.held and not cut and stream.written > here.ended
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
    ended: int = 0  # units written when a target sentence ended last
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
        self.ended = stream.written
        if end > self.read:  # else limits go on counting: the source is the same
            self.read, self.written, self.tokens = end, stream.written, stream.session.target_tokens
        self.ends = [other for other in self.ends if other > end]
        self.whole &= end < stream.read  # two sentences were read as one


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
    recording = Recording(example, target_unit)
    if living_on is None:
        happens = stream(session, source, policy.start(example), limits, target_unit, clock)
    else:
        happens = stream_document(session, source, policy, example, living_on, limits, target_unit, clock)
    for happened, state in _named(example, happens):
        recording.add(happened, state)
    return recording.trace(len(source), counted(session), session.notes)


def counted(session: SessionLike) -> dict[str, int]:
    """What a session has cost by now."""
    return {
        "forward_passes": session.forward_passes,
        "source_tokens": session.source_tokens,
        "fed_tokens": session.fed_tokens,
        "target_tokens": session.target_tokens,
    }
