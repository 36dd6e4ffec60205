"""What the policies that draft hypotheses share: to align hypotheses, to find where they agree, to commit to a prefix.

Invariant: a prefix that is committed to ends with a whole unit, and tears no token that holds several units.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

from streamllm.records import READ, WRITE, Action, Hypothesis, State, Write


def units(hypothesis: Hypothesis) -> int:
    """How many units it adds. Text that extends the last written unit is no unit of its own."""
    return sum(not emission.extends for emission in hypothesis)


def after(hypothesis: Hypothesis, written: int) -> Hypothesis:
    """What is left of a hypothesis when ``written`` of its units, and whatever stands before them, have been
    written."""
    if written <= 0:
        return hypothesis
    return hypothesis[written + len(hypothesis) - units(hypothesis) :]


def whole(hypothesis: Hypothesis, length: int) -> Hypothesis:
    """The longest prefix of at most ``length`` emissions that can be committed to; empty if that is no unit."""
    while 0 < length < len(hypothesis) and not hypothesis[length].tokens:
        length -= 1  # it comes out of the token of the unit before
    prefix = hypothesis[: max(length, 0)]
    return prefix if units(prefix) else ()


def agreed(hypotheses: Sequence[Hypothesis], share: Fraction = Fraction(1)) -> Hypothesis:
    """The longest prefix on which at least ``share`` of the hypotheses agree, as units of text.

    Position by position, the hypotheses that agree with the prefix so far vote; the earlier ones win a tie. Tokens are
    those of the first hypothesis that agrees to the end.
    """
    voters, length = list(hypotheses), 0
    while True:
        votes: dict[tuple[str | None, bool], list[Hypothesis]] = {}
        for hypothesis in voters:
            for emission in hypothesis[length : length + 1]:
                votes.setdefault((emission.unit, emission.extends), []).append(hypothesis)
        winners = max(votes.values(), key=len, default=[])
        if not winners or len(winners) < share * len(hypotheses):
            return whole(voters[0], length) if voters else ()
        voters, length = winners, length + 1


def best(state: State, beam: int) -> Hypothesis:
    """The greedy hypothesis (``beam`` 1), or the best of a beam search."""
    return state.model.draft() if beam == 1 else next(iter(state.model.beam(beam)), ())


class Committing:
    """Decides in one sentence: whenever ``step`` more units have been read, commit to ``prefix(state)``; write it unit
    by unit; then READ.

    Args:
        prefix: of a hypothesis of what follows the units written so far. It is asked for once after a read.
        step: units read between.
        forced: whether its tokens are given with each WRITE. Not needed for a greedy hypothesis, as the model writes
            the same of itself.
    """

    def __init__(self, prefix: Callable[[State], Hypothesis], step: int, forced: bool):
        self._find, self._step, self._forced = prefix, step, forced
        self._read = self._written = 0  # when the prefix was found
        self._prefix: Hypothesis = ()
        self._extended = False  # whether the part of the prefix that is no unit has been written

    def __call__(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if state.read - self._read >= self._step:
            self._read, self._written, self._extended = state.read, state.written, False
            self._prefix = self._find(state)
        left = after(self._prefix, state.written - self._written)
        if not units(left):
            return READ
        if not self._forced:
            return WRITE
        if left[0].extends:
            left = left[1:] if self._extended else left
            self._extended = True
        return Write(left[0].tokens)
