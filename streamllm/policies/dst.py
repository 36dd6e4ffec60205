"""Write when every layer of the upper half looks at older source."""

from dataclasses import dataclass

from streamllm.check import probability, whole_number
from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class DST:
    """WRITE iff every layer of the upper half gives the source before its newest unit at least ``threshold`` of its
    attention to the source, and as many units are read as the target has with the next one.

    The policy of the decoder-only streaming Transformer (Guo et al. 2024, ACL, arXiv 2406.03878), on any model. There,
    each layer has queries and keys for it alone, trained (with a threshold of 0.45) to say how much of the attention to
    a source token a target token needs. Here it is the model's own attention: the mean of a layer's heads, as shares of
    what the units get, so that headers do not count. And it is asked once for each target unit, at its first token. A
    decision costs the forward that writing needs anyway (with attention read out, which is slower than without).

    Args:
        threshold: the share of a layer's attention from which on it writes (θ).
        initial: source units read before the first write.

    Raises:
        ValueError: threshold is not a share from 0 to 1, or initial not an integer of at least 1.
    """

    threshold: float
    initial: int = 2

    def __post_init__(self) -> None:
        probability("threshold", self.threshold)
        whole_number("initial", self.initial)

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if state.read < max(self.initial, state.written + 1):
            return READ
        layers = state.model.attention()
        upper = layers[len(layers) // 2 :]
        return WRITE if all(sum(looks[:-1]) >= self.threshold * sum(looks) for looks in upper) else READ
