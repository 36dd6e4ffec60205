"""Write when the model is sure of what comes next."""

from dataclasses import dataclass

from streamllm.check import probability
from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class Confidence:
    """WRITE iff the likeliest next token has a probability of at least ``threshold``; something has to be read first.

    The plain rule: `MultiK` (Zheng et al. 2020, arXiv 2004.13169) with one threshold at any lag and no bounds. A unit
    is judged by its first token. A decision costs the forward that writing needs anyway; so each READ after the first
    unit costs one more than with a fixed policy.

    Args:
        threshold: the probability from which on it writes.

    Raises:
        ValueError: threshold is not a probability.
    """

    threshold: float

    def __post_init__(self) -> None:
        probability("threshold", self.threshold)

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        return WRITE if state.read > 0 and state.model.prediction().confidence >= self.threshold else READ
