"""RALCP: commit to what enough candidates of a beam search have in common."""

from dataclasses import dataclass
from fractions import Fraction

from streamllm.check import probability, whole_number
from streamllm.policies.hypotheses import Committing, agreed
from streamllm.records import Decide, Example, Hypothesis, State


@dataclass(frozen=True)
class RALCP:
    """After every ``step`` units read, search with a beam of ``beam`` hypotheses, and write the longest prefix on which
    at least ``threshold`` of them agree.

    Relaxed agreement longest common prefix, Wang et al. 2023 (arXiv 2309.06706), whose gamma is ``threshold``. Units
    are voted on one after the other, by those hypotheses that share the prefix so far; the code of the paper lets all
    of them vote at every position and rounds the votes needed down. When the source has ended, the model writes the
    rest greedily. A search costs a forward of ``beam`` hypotheses for each token of the longest one; the prefix is
    fed together with the next prediction.

    Args:
        beam: hypotheses of the search.
        threshold: the share of them that has to agree.
        step: source units read between searches.

    Raises:
        ValueError: beam is not at least 2, step not at least 1, or threshold not above 0 and at most 1.
    """

    beam: int
    threshold: float
    step: int = 1

    def __post_init__(self) -> None:
        whole_number("beam", self.beam, least=2, of="hypotheses", hint="policy=hold_n takes one")
        probability("threshold", self.threshold)
        if self.threshold == 0:
            raise ValueError(
                f"threshold is {self.threshold!r}; it is a share of the hypotheses, above 0 (1: all of them agree)"
            )
        whole_number("step", self.step)

    def start(self, example: Example) -> Decide:
        share = Fraction(str(self.threshold))  # 0.8 is a little more in binary

        def prefix(state: State) -> Hypothesis:
            return agreed(state.model.beam(self.beam), share)

        return Committing(prefix, self.step, forced=True)
