"""Write unless the model itself says that it wants to read on."""

from dataclasses import dataclass
from typing import Any

from streamllm.check import probability
from streamllm.records import READ, WRITE, WRITE_BARE, Action, Decide, Example, State


@dataclass(frozen=True)
class WaitToken:
    """READ iff the model gives its wait token a probability of at least ``threshold``; something has to be read first.

    The model learned to say so: where what it predicts from the source so far is far from what it predicts from the
    whole, its wait token comes next (``objective=wait_token``). As in TransLLaMa (arXiv 2402.04636) and EAST (arXiv
    2504.09570) the decision is a token of the model's own; unlike there it is never fed, so it takes no position, and
    the target stays that of the translation. The decision costs the forward that writing needs anyway.

    Args:
        threshold: the probability of the wait token from which on it reads; a lower one reads more.
        latency: what the model's target header is to ask for, one of the tags that it was trained with; None leaves
            its own. Bounds that write before this policy is asked (max_lag=1) leave it, too.

    Raises:
        ValueError: threshold is not a probability.
    """

    threshold: float = 0.5
    latency: str | int | None = None

    def __post_init__(self) -> None:
        probability("threshold", self.threshold)

    def check_model(self, model: Any) -> None:
        """Raises: ValueError: the model cannot be asked for this latency."""
        if self.latency is not None:
            model.prompt.header_asking(str(self.latency), "policy.latency")

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if not state.read:
            return READ
        latency = None if self.latency is None else str(self.latency)
        return READ if state.model.wait_probability(latency) >= self.threshold else WRITE_BARE
