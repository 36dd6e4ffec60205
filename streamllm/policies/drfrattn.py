"""Write when little of a layer's sharpened attention is on the newest source."""

from dataclasses import dataclass

from streamllm.check import number, probability, whole_number
from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class DrFrattn:
    """WRITE iff less than ``threshold`` of a layer's sharpened attention is on source that it may not yet go by.

    Our reading of DrFrattn (EMNLP 2025) without what makes it: there, paths made in this way *train* a policy network.
    Attention α of one layer to the source, the mean of its heads, is sharpened (as a power of 1 / ``temperature``, and
    made to add up to 1). What target unit i lacks after j source units is c = 1 - Σ_{k≤j} α_k; it is written as soon as
    c < λ. The paper takes α from the *whole* source. While reading there is only what has been read, and c would be 0:
    so the last ``newest`` units are left out of the sum. That is our choice, as are the shares of what the units get
    alone (headers do not count), and that a unit is judged by its first token. A decision costs the forward that
    writing needs anyway (with attention read out, which is slower than without).

    Args:
        threshold: the share of attention on the newest units below which it writes (λ).
        newest: how many of the last source units are left out; more waits longer.
        layer: which layer is looked at, from 0; null for the last one.
        temperature: below 1 sharpens, 1 leaves attention as it is (τ).

    Raises:
        ValueError: threshold is not a share from 0 to 1, newest not an integer of at least 1, layer not one of at least
            0 (or, when it decides, not below the layers of the model), or temperature not a number above 0.
    """

    threshold: float
    newest: int = 1
    layer: int | None = None
    temperature: float = 0.6

    def __post_init__(self) -> None:
        probability("threshold", self.threshold)
        whole_number("newest", self.newest)
        whole_number("layer", self.layer, least=0, of="", null="for the last")
        number("temperature", self.temperature, above=0)

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if state.read <= self.newest:  # wherever it looks
            return READ
        layers = state.model.attention()
        if self.layer is not None and self.layer >= len(layers):
            raise ValueError(f"layer is {self.layer}; the model has {len(layers)} layers, the first of which is 0")
        looks = layers[-1 if self.layer is None else self.layer]
        most = max(looks)  # of which each is a share, so that no power is too small
        sharp = [(look / most) ** (1 / self.temperature) if most else 1.0 for look in looks]
        return WRITE if sum(sharp[-self.newest :]) < self.threshold * sum(sharp) else READ
