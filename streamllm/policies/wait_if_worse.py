"""Wait if more source has made the model less sure."""

from dataclasses import dataclass

from streamllm.policies.peek import check_peek, peek
from streamllm.records import Decide, Example, Prediction


@dataclass(frozen=True)
class WaitIfWorse:
    """READ iff the last units read have made the token that was the likeliest without them less likely.

    Cho & Esipova 2016 (arXiv 1606.02012). With C all units read but the last ``step``, and C' those: wait iff
    log p(y | C) > log p(y | C and C'), y the likeliest token given C; if so, C' joins C and ``step`` more units are
    read to be the new C'. What differs from the paper: the units of C' were read, so they count in the delay (there,
    they are peeked at for free); what is written is written from C and C' (there, from C alone); written tokens that
    were computed when C' was in sight are not computed again when it is hidden. The paper's delta is ``step``, its s0
    is ``initial - step``. A unit is judged by its first token.

    A decision costs two forwards: with C' hidden, and from all, which a WRITE goes on from.

    Args:
        initial: source units read before the first decision, at least step + 1.
        step: source units that a decision compares with and without.

    Raises:
        ValueError: step is not at least 1, or initial not greater than step.
    """

    initial: int
    step: int = 1

    def __post_init__(self) -> None:
        check_peek(self.initial, self.step)

    def start(self, example: Example) -> Decide:
        return peek(self.initial, self.step, self.waits)

    @staticmethod
    def waits(before: Prediction, after: Prediction) -> bool:
        return before.confidence > after.probability(before.token)
