"""wait-k: a fixed lag of k units."""

from dataclasses import dataclass

from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class WaitK:
    """Read k units, then write and read one by one, then write the rest.

    Target unit t (from 1) is written after g(t) = min(k + t - 1, |x|) source units (Ma et al. 2019,
    arXiv 1810.08398).

    Raises:
        ValueError: k is not an integer of at least 1.
    """

    k: int

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise ValueError(
                f"k is {self.k!r}; it is a whole number of units, at least 1 (policy=full reads everything first)"
            )

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        return WRITE if state.source_done or state.read - state.written >= self.k else READ
