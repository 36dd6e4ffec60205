"""Local agreement: commit to what the last hypotheses have in common."""

from collections import deque
from dataclasses import dataclass

from streamllm.check import whole_number
from streamllm.policies.hypotheses import Committing, after, agreed, best
from streamllm.records import Decide, Example, Hypothesis, State


@dataclass(frozen=True)
class LocalAgreement:
    """Draft a hypothesis after every ``step`` units read, and write the longest prefix that the last ``n`` share.

    LA-n of Liu et al. 2020 (arXiv 2005.11185; n = 2 was best there), with which Polák et al. 2022 (arXiv 2204.06028)
    made offline models simultaneous. Each hypothesis goes on from what is written. When the source has ended, the
    model writes the rest greedily. A hypothesis costs a forward for each of its tokens, written or not; writing a
    prefix of the last one costs nothing then. ``beam`` greater than 1 takes the best hypothesis of a beam search
    instead of the greedy one: each of its forwards is for ``beam`` hypotheses at once, and what is written is forced.

    Args:
        n: how many hypotheses in a row have to agree.
        step: source units read between hypotheses.
        beam: hypotheses of the search; 1 is greedy.

    Raises:
        ValueError: a parameter is not an integer of at least 1.
    """

    n: int = 2
    step: int = 1
    beam: int = 1

    def __post_init__(self) -> None:
        whole_number("n", self.n, of="hypotheses")
        whole_number("step", self.step)
        whole_number("beam", self.beam, of="hypotheses", hint="1 is greedy")

    def start(self, example: Example) -> Decide:
        last: deque[tuple[int, Hypothesis]] = deque(maxlen=self.n)  # with the units written before; the newest first

        def prefix(state: State) -> Hypothesis:
            last.appendleft((state.written, best(state, self.beam)))
            if len(last) < self.n:
                return ()
            return agreed([after(hypothesis, state.written - before) for before, hypothesis in last])

        return Committing(prefix, self.step, forced=self.beam > 1)
