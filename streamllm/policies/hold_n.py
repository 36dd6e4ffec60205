"""Hold-n: commit to a hypothesis but for its end."""

from dataclasses import dataclass

from streamllm.check import whole_number
from streamllm.policies.hypotheses import Committing, best, whole
from streamllm.records import Decide, Example, Hypothesis, State


@dataclass(frozen=True)
class HoldN:
    """Draft a hypothesis after every ``step`` units read, and write all of it but its last ``n`` units.

    Liu et al. 2020 (arXiv 2005.11185), where n counts tokens. When the source has ended, the model writes the rest
    greedily. Cost and ``beam`` as in `LocalAgreement`.

    Args:
        n: units at the end of each hypothesis that are held back.
        step: source units read between hypotheses.
        beam: hypotheses of the search; 1 is greedy.

    Raises:
        ValueError: n is not an integer of at least 0, step or beam not one of at least 1.
    """

    n: int
    step: int = 1
    beam: int = 1

    def __post_init__(self) -> None:
        whole_number("n", self.n, least=0)
        whole_number("step", self.step)
        whole_number("beam", self.beam, of="hypotheses", hint="1 is greedy")

    def start(self, example: Example) -> Decide:
        def prefix(state: State) -> Hypothesis:
            hypothesis = best(state, self.beam)
            return whole(hypothesis, len(hypothesis) - self.n)

        return Committing(prefix, self.step, forced=self.beam > 1)
