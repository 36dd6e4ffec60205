"""Write when the model hesitates little between what could come next."""

from dataclasses import dataclass

from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class Entropy:
    """WRITE iff the entropy of the next token is at most ``threshold`` nats; something has to be read first.

    The plain rule, of no paper in particular: `Confidence` with a measure that looks at all tokens. The cost is the
    same.

    Args:
        threshold: the entropy in nats up to which it writes.

    Raises:
        ValueError: threshold is not a number of at least 0.
    """

    threshold: float

    def __post_init__(self) -> None:
        value = self.threshold
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise ValueError(f"threshold is {value!r}; it is an entropy in nats, at least 0")

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        return WRITE if state.read > 0 and state.model.prediction().entropy <= self.threshold else READ
