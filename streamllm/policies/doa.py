"""Write a draft up to where it looks at the end of what has been read, by attention in which each source unit is
compared with itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from streamllm import check
from streamllm.policies.hypotheses import Committing, units, whole
from streamllm.records import Decide, Example, Hypothesis, Looks, State

TIE = 1e-4
"""Difference of scores below which they count as the same."""


@dataclass(frozen=True)
class DOA:
    """Draft a hypothesis after every ``step`` units read, and write it up to its first unit that looks at the last
    ``f`` units of the source, where looks are z-scores of attention.

    Decoder-only attention (arXiv 2605.31432, and its code in simulstream): attention to the source, the mean of all
    heads of all layers; of each source unit, the mean over all target units, those written and those drafted, is taken
    off, and what is left is divided by the (unbiased) deviation, so that units to which all attend (sinks) draw no
    looks; then AlignAtt (arXiv 2305.11408). So whether a unit is written depends on those drafted after it.

    What differs: rows and columns are units here (a target unit is its first token; there, tokens and frames of
    sound), shares are of the attention to the source alone, whole units are written up to the cut (there, the last
    word before it is held back), and a written unit has the row that it was written with, 0 for what was read later
    (there, it attends to all of the source in each pass). One row alone has no deviation: it counts as it is. There, it
    becomes NaN, looks at the first frame, and is always written. The cost is that of `LocalAgreement`: a forward for
    each drafted token, with attention read out.

    Args:
        f: how many of the last source units end what is written; more waits longer.
        step: source units read between drafts.
        heads: pairs of layer and head that are looked at, such as [[2, 0], [3, 1]]; null takes all.
        z_score: whether each source unit is compared with itself; false takes attention as it is.
        max_tokens: tokens of a draft after which no unit begins.

    Raises:
        ValueError: f, step or max_tokens is not an integer of at least 1, heads are not pairs of layer and head, or
            z_score is neither true nor false.
    """

    f: int
    step: int = 1
    heads: Sequence[Sequence[int]] | None = None
    z_score: bool = True
    max_tokens: int = 32

    def __post_init__(self) -> None:
        check.whole_number("f", self.f)
        check.whole_number("step", self.step)
        check.heads("heads", self.heads)
        check.flag("z_score", self.z_score)
        check.whole_number("max_tokens", self.max_tokens, of="tokens")

    def start(self, example: Example) -> Decide:
        written: list[Looks] = []  # of the units written, each from what was read then
        draft: list[Looks] = []  # of the units of the last draft; the first may go on with a written one
        before = 0  # units written before it

        def prefix(state: State) -> Hypothesis:
            nonlocal before
            written.extend(draft[: state.written - before])
            hypothesis, looks = state.model.watched_draft(self.heads, self.max_tokens)
            before = state.written
            own = len(hypothesis) - units(hypothesis)  # that are no units of their own
            draft[:] = looks[own:]
            at = self._at([*written, *looks], state.read)[len(written) :]
            cut = next((i for i, unit in enumerate(at) if unit >= state.read - self.f), len(at))
            return whole(hypothesis, cut)

        return Committing(prefix, self.step, forced=False)

    def _at(self, rows: Sequence[Looks], read: int) -> list[int]:
        """The source unit that each row looks at most. Of those with the same z-score it is that with the most
        attention: what one row alone has seen has the same in all that it saw, whatever it gives them."""
        full = [[*row, *[0.0] * (read - len(row))] for row in rows]
        scores = z_scores(full) if self.z_score and len(full) > 1 else full
        found = []
        for row, of_row in zip(full, scores, strict=True):
            most = max(of_row) - TIE
            found.append(max((unit for unit in range(read) if of_row[unit] >= most), key=row.__getitem__))
        return found


def z_scores(rows: Sequence[Looks]) -> list[list[float]]:
    """Each column less its mean and over its unbiased deviation, where it has one."""
    columns = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / len(column)
        differs = max(column) > min(column)
        deviation = sqrt(sum((share - mean) ** 2 for share in column) / (len(column) - 1))
        columns.append([(share - mean) / deviation if differs else 0.0 for share in column])
    return [list(row) for row in zip(*columns, strict=True)]
