"""Static read and write: a fixed start, then reading and writing in turns of equal length."""

from dataclasses import dataclass

from streamllm.check import whole_number
from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class Stride:
    """Read ``initial`` units, then write ``step`` and read ``step`` in turn, then write the rest.

    Target unit t (from 1) is written after g(t) = min(initial + step * floor((t - 1) / step), |x|) source units:
    STATIC-RW of Dalvi et al. 2018 (arXiv 1806.03661), whose S is ``initial`` and whose RW is ``step``. With step 1
    it is wait-k.

    Args:
        initial: source units read before the first write.
        step: units written, then units read, in turn.

    Raises:
        ValueError: initial or step is not an integer of at least 1.
    """

    initial: int
    step: int

    def __post_init__(self) -> None:
        whole_number("initial", self.initial)
        whole_number("step", self.step)

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        due = self.initial + state.written // self.step * self.step
        return WRITE if state.source_done or state.read >= due else READ
