"""wait-k: a fixed lag of k units, with or without catching up."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from streamllm.check import whole_number
from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class WaitK:
    """Read k units, then write and read one by one, then write the rest.

    Target unit t (from 1) is written after g(t) = min(k + t - 1 - floor(catchup * t), |x|) source units (Ma et al.
    2019, arXiv 1810.08398; the paper calls ``catchup`` c). With catchup 0.2, every fifth unit is written without
    reading one: for targets that are longer than their sources. It is taken as the decimal that it is written as.

    Args:
        k: source units read before the first write.
        catchup: target units for each of which no unit is read, as a share; 0.2 writes five units for four read.

    Raises:
        ValueError: k is not an integer of at least 1, or catchup not a number from 0 to below 1.
    """

    k: int
    catchup: float = 0

    def __post_init__(self) -> None:
        whole_number("k", self.k, hint="policy=full reads everything first")
        if not isinstance(self.catchup, int | float) or isinstance(self.catchup, bool) or not 0 <= self.catchup < 1:
            raise ValueError(
                f"catchup is {self.catchup!r}; it is a number from 0 to below 1 (0.2 writes five units for four read)"
            )

    def start(self, example: Example) -> Decide:
        catchup = Fraction(str(self.catchup))  # 0.2 is not a fifth in binary

        def decide(state: State) -> Action:
            behind = state.written - (floor(catchup * (state.written + 1)) if catchup else 0)
            return WRITE if state.source_done or state.read >= self.k + behind else READ

        return decide
