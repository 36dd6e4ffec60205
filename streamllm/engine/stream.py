"""One source on its way through a session, step by step: what the loops of `streamllm.engine.loop` and
`streamllm.engine.revised` have in common.

Invariant: each step is an event, with the state after it.
"""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from copy import copy
from typing import Any, Protocol

import numpy as np

from streamllm.engine.ahead import Guess
from streamllm.engine.limits import Limits
from streamllm.records import (
    Action,
    Decide,
    Emission,
    Event,
    Explored,
    Hypothesis,
    Looks,
    Prediction,
    Read,
    State,
    Write,
)
from streamllm.units import Unit, join


class Asked(Protocol):
    """What `Answers` needs of a session."""

    def prediction(self, hidden: int = 0) -> Prediction: ...

    def draft(self, max_units: int, max_tokens: float) -> Hypothesis: ...

    def beam(self, size: int, max_units: int) -> Sequence[Hypothesis]: ...

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int: ...

    def layer_attention(self) -> np.ndarray: ...

    def watched_draft(
        self, heads: Sequence[Sequence[int]] | None, max_units: int, max_tokens: float
    ) -> tuple[Hypothesis, np.ndarray]: ...

    def write_logit(self, latency: str | None = None) -> float: ...

    def wait_probability(self, latency: str | None = None) -> float: ...

    def explore(self, source: str, limits: Limits, width: int, quality: Callable[[str], float]) -> Explored: ...

    @property
    def notes(self) -> dict[str, Any]: ...


class SessionLike(Asked, Protocol):
    """What the loop needs of a `streamllm.engine.session.Session`."""

    @property
    def forward_passes(self) -> int: ...

    @property
    def source_tokens(self) -> int: ...

    @property
    def fed_tokens(self) -> int: ...

    @property
    def target_tokens(self) -> int: ...

    def read(self, unit: str) -> None: ...

    def end_source(self) -> None: ...

    def write(self, tokens: tuple[int, ...] = (), bare: bool = False) -> Emission: ...

    def draft(self, max_units: int, max_tokens: float, guess: Guess | None = None) -> Hypothesis: ...

    # Of documents

    def close_sentence(self) -> None: ...

    def nothing_left(self) -> bool: ...

    def leave_sentence(self, units: int, context: int | None) -> None: ...


class Answers:
    """What a policy may ask in one state (`records.Lookahead`); notes the hypotheses that it was shown.

    Args:
        tokens: target tokens that count for the limits.
        before: source units that the state does not count.
    """

    def __init__(self, session: Asked, limits: Limits, state: State, tokens: int, before: int):
        self._session, self._limits, self._state = session, limits, state
        self.tokens, self.before = tokens, before
        self.shown: list[Hypothesis] = []

    def prediction(self, hidden: int = 0) -> Prediction:
        return self._session.prediction(hidden)

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int:
        return self._session.attended(heads) - self.before

    def attention(self) -> Sequence[Looks]:
        return self._of_units(self._session.layer_attention())

    def watched_draft(
        self, heads: Sequence[Sequence[int]] | None = None, max_tokens: float = math.inf
    ) -> tuple[Hypothesis, Sequence[Looks]]:
        units, tokens = self._limits.left(self._state), self._limits.tokens_left(self._state, self.tokens)
        hypothesis, looks = self._session.watched_draft(heads, units, min(tokens, max_tokens))
        self.shown.append(hypothesis)
        return hypothesis, self._of_units(looks)

    def _of_units(self, looks: np.ndarray) -> list[list[float]]:
        """What a session says of the source units that it holds (…, units), of those that the state counts: none of an
        earlier sentence, and 0 for what a window has forgotten."""
        read, held = self._state.read, looks.shape[-1]
        shares: list[list[float]] = np.pad(looks[:, max(0, held - read) :], [(0, 0), (max(0, read - held), 0)]).tolist()
        return shares

    def write_logit(self, latency: str | None = None) -> float:
        return self._session.write_logit(latency)

    def wait_probability(self, latency: str | None = None) -> float:
        return self._session.wait_probability(latency)

    def explore(self, source: str, width: int, quality: Callable[[str], float]) -> Explored:
        if self.before:
            raise ValueError("ways are looked for through single sentences, and this is one of a document")
        return self._session.explore(source, self._limits, width, quality)

    def note(self, name: str, value: Any) -> None:
        self._session.notes[name] = value

    def draft(self) -> Hypothesis:
        left = self._limits.left(self._state), self._limits.tokens_left(self._state, self.tokens)
        self.shown.append(self._session.draft(*left))
        return self.shown[-1]

    def beam(self, size: int) -> Sequence[Hypothesis]:
        hypotheses = self._session.beam(size, self._limits.left(self._state))
        self.shown += hypotheses[:1]
        return hypotheses


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
        self._state: State | None = None  # as it is now, if somebody has asked
        self._started = clock()

    def event(self, kind: str, text: str = "") -> tuple[Event, State]:
        return Event(kind, text, self._clock() - self._started), self.state

    @property
    def state(self) -> State:
        if self._state is None:
            self._state = State(self.read, self.written, self.source_done, source=self.seen)
        return self._state

    def take(self, kind: str, footer: bool = True) -> tuple[Event, State]:
        """Read one more unit, or learn that there is none; then the ``footer`` is fed, if there is something to say."""
        unit = next(self._source, None)
        self._state = None
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
        answers = Answers(self.session, self.limits, state, tokens, before)
        asking = State(state.read, state.written, state.source_done, answers, state.source)
        action = checked(decide(asking))
        if isinstance(action, Write):
            action = self.limits.of_write(action)
        return action, [self.event("draft", text_of(shown, self._target_unit)) for shown in answers.shown]

    def show(self, output: Hypothesis) -> tuple[Event, State]:
        """Show an output in the place of the one before."""
        return self.event("shown", text_of(output, self._target_unit))

    def write(self, action: Write) -> tuple[Event, State] | None:
        """Write a unit; None where the end token came instead."""
        if action.bare:
            emission = self.session.write(action.tokens, bare=True)
        else:
            emission = self.session.write(action.tokens) if action.tokens else self.session.write()
        if emission.unit is None:
            return None
        if not emission.extends:
            self.written, self._state = self.written + 1, None
        return self.event("extend" if emission.extends else "write", emission.text)

    def step(self, decide: Decide) -> Generator[tuple[Event, State], None, bool]:
        """One step of a source that is one sentence; returns whether it has ended."""
        session, limits = self.session, self.limits
        if cut := limits.cut(self.state, session.target_tokens):
            if self.source_done:
                yield self.event("stop", cut)
                return True
            if cut == "max_tokens":  # that of units can be told from the counts of a trace
                yield self.event("limit", cut)
            yield self.take("forced_read")
            return False
        action: Action = Write()
        if not self.source_done:
            action, drafts = self.decide(decide, self.state, session.target_tokens)
            yield from drafts
        if isinstance(action, Read):
            yield self.take("read")
        elif happened := self.write(action):
            yield happened
        elif self.source_done:
            yield self.event("stop", "end_token")
            return True
        elif limits.early_stop == "stop":
            yield self.event("stop", "early_stop")
            return True
        else:
            yield self.take("forced_read")
        return False

    def twin(self, session: SessionLike, rest: Iterable[str]) -> "Stream":
        """One that stands where this one does, with a session of its own; ``rest`` is what is left of the source."""
        twin = copy(self)
        twin.session, twin._source, twin.seen = session, iter(rest), list(self.seen)
        return twin

    def asks(self) -> bool:
        """Whether the next `step` asks a policy."""
        return not self.source_done and self.limits.cut(self.state, self.session.target_tokens) is None


def checked(action: Action) -> Action:
    if not isinstance(action, Read | Write):
        raise TypeError(
            f"a policy decided {action!r}; accepted are the objects records.READ and records.WRITE, and "
            "records.Write(tokens), which writes those tokens"
        )
    return action


def text_of(hypothesis: Hypothesis, unit: Unit) -> str:
    """The units of a hypothesis; one that extends the unit before it is no unit of its own."""
    return join([emission.text for emission in hypothesis if not emission.extends], unit)
