"""Between two wait-k policies, write when the model is sure; the further behind it is, the less sure it has to be."""

from dataclasses import dataclass

from streamllm.check import probability, whole_number
from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class MultiK:
    """With k units read and not written: READ below ``k_min``, WRITE from ``k_max`` on; between them, WRITE iff the
    likeliest next token has a probability of at least rho(k).

    Zheng et al. 2020 (arXiv 2004.13169), where it composes wait-k policies: the thresholds go in a straight line from
    ``threshold_min`` at ``k_min`` to ``threshold_max`` at ``k_max``. In the paper, the probability at lag k comes from
    the model that was trained for wait-k. Here one model gives all of them; the bundled one was trained for that (k
    drawn for each sentence). A unit is judged by its first token. A decision between the bounds costs the forward that
    writing needs anyway.

    Args:
        k_min: units read and not written, below which it reads.
        k_max: units read and not written, from which on it writes.
        threshold_min: the probability from which on it writes at ``k_min``.
        threshold_max: the probability from which on it writes at ``k_max``.

    Raises:
        ValueError: a bound is not at least 1, k_max is below k_min, or a threshold is not a probability.
    """

    k_min: int
    k_max: int
    threshold_min: float
    threshold_max: float

    def __post_init__(self) -> None:
        whole_number("k_min", self.k_min)
        whole_number("k_max", self.k_max, least=self.k_min, hint="not below k_min")
        probability("threshold_min", self.threshold_min, hint="at lag k_min")
        probability("threshold_max", self.threshold_max, hint="at lag k_max")

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        lag = state.read - state.written
        if state.source_done or lag >= self.k_max:
            return WRITE
        return WRITE if lag >= self.k_min and state.model.prediction().confidence >= self.threshold(lag) else READ

    def threshold(self, lag: int) -> float:
        """rho(lag), for k_min <= lag < k_max."""
        along = (lag - self.k_min) / (self.k_max - self.k_min)
        return self.threshold_min + along * (self.threshold_max - self.threshold_min)
