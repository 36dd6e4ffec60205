"""A session that works ahead: source that is expected, and may still change, is read and translated while nothing else
is to be done, and all of that is kept back until it is asked for.

What was done ahead is a list of steps, each a call with its answer. A call that is the first of them is answered from
there; any other takes the session back to where it would be without those that are left. So a wrong guess of what will
come, or of what a policy will decide, costs time and nothing else.

Invariant: each call is answered as by a session that has never worked ahead.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from streamllm.engine.ahead import Guess
from streamllm.engine.finite import SentenceError
from streamllm.engine.limits import Limits
from streamllm.engine.session import Mark, Session
from streamllm.engine.stream import Answers
from streamllm.records import Action, Decide, Emission, Example, Explored, Hypothesis, Policy, Prediction, State, Write

MOST_WRITTEN = 8
"""Units that are written ahead after each unit that is read ahead."""


class _Step(NamedTuple):
    """A call and its answer, with the session's target tokens after it, and, of a write, where it stood before."""

    name: str
    given: tuple[Any, ...]
    answer: Any
    target_tokens: int
    mark: Mark | None


class _Sentence(NamedTuple):
    """Where a policy began to count, in units read, units written and target tokens; the source units that its states
    leave out; and the list that shows it the source."""

    read: int = 0
    written: int = 0
    tokens: int = 0
    before: int = 0
    source: Sequence[str] = ()


class DraftsAhead:
    """Stands for a session in a loop (`streamllm.engine.stream.SessionLike`).

    Args:
        session: that nobody else calls.
        limits: of the loop.
    """

    def __init__(self, session: Session, limits: Limits):
        self._session, self._limits = session, limits
        self.target_tokens = session.target_tokens
        self._steps: deque[_Step] = deque()  # done ahead, and not asked for yet
        self._since: list[_Step] = []  # asked for since the last read among them, which is the first
        self._units = self._written = 0  # read and written, without the steps
        self._written_ahead = 0  # with them
        self._stuck: tuple[int, str] | None = None  # a unit that cannot be read ahead, and after how many
        self._decide: Decide | None = None
        self._fails = False  # while the session is asked
        self._here = _Sentence()

    # What the loop asks

    @property
    def forward_passes(self) -> int:
        return self._session.forward_passes

    @property
    def source_tokens(self) -> int:
        return self._session.source_tokens

    @property
    def fed_tokens(self) -> int:
        return self._session.fed_tokens

    def read(self, unit: str) -> None:
        self._answer("read", unit)

    def end_source(self) -> None:
        self._answer("end_source")

    def write(self, tokens: tuple[int, ...] = (), bare: bool = False) -> Emission:
        emission: Emission = self._answer("write", *_given(Write(tokens, bare)))
        self._written += _counts(emission)
        return emission

    def prediction(self, hidden: int = 0) -> Prediction:
        prediction: Prediction = self._answer("prediction", hidden)
        return prediction

    def draft(self, max_units: int, max_tokens: float, guess: Guess | None = None) -> Hypothesis:
        hypothesis: Hypothesis = self._answer("draft", max_units, max_tokens, guess)
        return hypothesis

    def beam(self, size: int, max_units: int) -> Sequence[Hypothesis]:
        hypotheses: Sequence[Hypothesis] = self._answer("beam", size, max_units)
        return hypotheses

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int:
        unit: int = self._answer("attended", heads)
        return unit

    def layer_attention(self) -> np.ndarray:
        layers: np.ndarray = self._answer("layer_attention")
        return layers

    def watched_draft(
        self, heads: Sequence[Sequence[int]] | None, max_units: int, max_tokens: float
    ) -> tuple[Hypothesis, np.ndarray]:
        watched: tuple[Hypothesis, np.ndarray] = self._answer("watched_draft", heads, max_units, max_tokens)
        return watched

    def write_logit(self, latency: str | None = None) -> float:
        logit: float = self._answer("write_logit", latency)
        return logit

    def wait_probability(self, latency: str | None = None) -> float:
        probability: float = self._answer("wait_probability", latency)
        return probability

    def explore(self, source: str, limits: Limits, width: int, quality: Callable[[str], float]) -> Explored:
        explored: Explored = self._answer("explore", source, limits, width, quality)
        return explored

    @property
    def notes(self) -> dict[str, Any]:
        return self._session.notes

    def close_sentence(self) -> None:
        self._answer("close_sentence")

    def nothing_left(self) -> bool:
        left: bool = self._answer("nothing_left")
        return left

    def leave_sentence(self, units: int, context: int | None) -> None:
        self._answer("leave_sentence", units, context)

    def _answer(self, name: str, *given: Any) -> Any:
        if self._steps:
            step = self._steps[0]
            if step.name == name and step.given == given:
                self._take(self._steps.popleft())
                return step.answer
            self._leave()
        answer = getattr(self._session, name)(*given)
        self.target_tokens = self._session.target_tokens
        return answer

    def _take(self, step: _Step) -> None:
        self.target_tokens = step.target_tokens
        if step.name == "read":
            self._units += 1
            self._since = []
        self._since.append(step)

    def _leave(self) -> None:
        """Go back to where the session would be without the steps that are left."""
        steps, self._steps = list(self._steps), deque()
        read = next((i for i, step in enumerate(steps) if step.name == "read"), len(steps))
        mark = next((step.mark for step in steps[:read] if step.mark is not None), None)
        if mark is None:
            if read < len(steps):
                self._session.take_back(self._units, revises=True)
        elif read == len(steps) and self._session.can_rewind(mark):
            self._session.rewind(mark)
        else:  # more than what was written since the last read is to be left, or has been
            self._session.take_back(self._units - 1, revises=True)
            for step in self._since:
                if step.name in ("read", "write"):
                    getattr(self._session, step.name)(*step.given)

    # How a policy decides

    def of(self, policy: Policy) -> Policy:
        """The same policy, whose decisions the drafts are made by. In a loop it is to be used in the other's place."""
        return _Heard(policy, self)

    def begin(self, policy: Policy, example: Example) -> None:
        """A sentence begins: it is what the policy will decide on."""
        self._decide = policy.start(example)
        self._here = _Sentence(self._units_read, self._written, self.target_tokens)

    def hear(self, state: State) -> None:
        """The policy is about to decide in this state."""
        tokens, before = (state.model.tokens, state.model.before) if isinstance(state.model, Answers) else (0, 0)
        written = self._written - state.written
        self._here = _Sentence(
            self._units_read - state.read, written, self.target_tokens - tokens, before, state.source
        )

    @property
    def _units_read(self) -> int:
        return self._units if self._steps else self._session.units_read

    # What is done ahead

    @property
    def drafted(self) -> list[Emission]:
        """What was written ahead and was not asked for."""
        return [step.answer for step in self._steps if step.name == "write" and step.answer.unit is not None]

    def expect(self, units: Sequence[str]) -> None:
        """What is expected to come: what was done ahead for anything else is taken back. This and `work` are for a loop
        that waits for a source unit."""
        read = 0
        for i, step in enumerate(self._steps):
            if step.name == "read":
                if read >= len(units) or units[read] != step.given[0]:
                    self._take_back(i, self._units + read)
                    return
                read += 1

    def next(self, units: Sequence[str]) -> str | None:
        """The first of these units, which are expected, that can be worked on, and has not been; None if there is
        none."""
        read = sum(step.name == "read" for step in self._steps)
        if read >= len(units) or self._stuck == (self._session.units_read, units[read]):
            return None
        return units[read]

    def work(self, unit: str) -> None:
        """Read one more unit ahead, and write what the policy would. Where the model cannot, or where a window would
        forget something for it, nothing is done."""
        if not self._steps:
            self._units, self._since = self._session.units_read, []
            self._written_ahead = self._written
        steps, units = len(self._steps), self._session.units_read
        self._fails = False
        try:
            if self._session.forgets_before(unit):
                self._stuck = (units, unit)
                return
            self._do("read", unit)
            while self._decide is not None and (action := self._writes(self._decide)):
                if self._do("write", *_given(action)).unit is None or len(self._steps) - steps > MOST_WRITTEN:
                    break
        except Exception as error:
            if self._fails and not isinstance(error, SentenceError):
                raise  # of a forward that fails nobody knows what it has left
            self._stuck = (units, unit)  # what a policy raises, it will raise again when it is asked in earnest
            self._take_back(steps, units)

    def _take_back(self, steps: int, units: int) -> None:
        """Leave the steps behind the first ones, the first of which reads the unit after so many."""
        self._session.take_back(units, revises=True)
        while len(self._steps) > steps:
            self._steps.pop()
        self._written_ahead = self._written + sum(_counts(emission) for emission in self.drafted)

    def _writes(self, decide: Decide) -> Write | None:
        """What the policy would write; None if it reads, or gives tokens of its own."""
        here, session = self._here, self._session
        read, written = session.units_read - here.read, self._written_ahead - here.written
        tokens = session.target_tokens - here.tokens
        expected = [step.given[0] for step in self._steps if step.name == "read"]
        state = State(read, written, False)
        if self._limits.cut(state, tokens):
            return None
        answers = Answers(_Noting(self), self._limits, state, tokens, here.before)
        action = decide(State(read, written, False, answers, [*here.source, *expected]))
        return self._limits.of_write(action) if isinstance(action, Write) and not action.tokens else None

    def _do(self, name: str, *given: Any) -> Any:
        mark = self._session.mark() if name == "write" else None
        self._fails = True
        answer = getattr(self._session, name)(*given)
        self._fails = False
        self._steps.append(_Step(name, given, answer, self._session.target_tokens, mark))
        if name == "write":
            self._written_ahead += _counts(answer)
        return answer

    def note(self, name: str, *given: Any) -> Any:
        """Ask the session ahead of the loop."""
        return self._do(name, *given)


class _Noting:
    """What a policy asks ahead is a step as any other."""

    def __init__(self, ahead: DraftsAhead):
        self._ahead = ahead
        self.notes: dict[str, Any] = {}  # it notes again when it is asked in earnest

    def prediction(self, hidden: int = 0) -> Any:
        return self._ahead.note("prediction", hidden)

    def draft(self, max_units: int, max_tokens: float) -> Any:
        return self._ahead.note("draft", max_units, max_tokens, None)

    def beam(self, size: int, max_units: int) -> Any:
        return self._ahead.note("beam", size, max_units)

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> Any:
        return self._ahead.note("attended", heads)

    def layer_attention(self) -> Any:
        return self._ahead.note("layer_attention")

    def watched_draft(self, heads: Sequence[Sequence[int]] | None, max_units: int, max_tokens: float) -> Any:
        return self._ahead.note("watched_draft", heads, max_units, max_tokens)

    def write_logit(self, latency: str | None = None) -> float:
        logit: float = self._ahead.note("write_logit", latency)
        return logit

    def wait_probability(self, latency: str | None = None) -> float:
        probability: float = self._ahead.note("wait_probability", latency)
        return probability

    def explore(self, source: str, limits: Limits, width: int, quality: Callable[[str], float]) -> Any:
        return self._ahead.note("explore", source, limits, width, quality)


class _Heard:
    def __init__(self, policy: Policy, ahead: DraftsAhead):
        self._policy, self._ahead = policy, ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def start(self, example: Example) -> Decide:
        decide, ahead = self._policy.start(example), self._ahead
        ahead.begin(self._policy, example)

        def heard(state: State) -> Action:
            ahead.hear(state)
            return decide(state)

        return heard


def _given(action: Write) -> tuple[Any, ...]:
    """What `Session.write` is called with."""
    return (action.tokens, True) if action.bare else (action.tokens,) if action.tokens else ()


def _counts(emission: Emission) -> bool:
    """Whether it is a unit of its own."""
    return emission.unit is not None and not emission.extends
