"""Wait if more source has changed the model's mind."""

from dataclasses import dataclass

from streamllm.policies.peek import check_peek, peek
from streamllm.records import Decide, Example, Prediction


@dataclass(frozen=True)
class WaitIfDiff:
    """READ iff the likeliest token is another one than it was without the last ``step`` units read.

    Cho & Esipova 2016 (arXiv 1606.02012); see `WaitIfWorse` for how the units are divided, for what differs from the
    paper and for the cost. Where this writes, the first token of the unit is the one that the paper would write.

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
        return before.token != after.token
