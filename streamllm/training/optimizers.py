"""What mlx.optimizers lacks. All others are taken from there as they are: see conf/optimizer."""

from collections.abc import Sequence

import mlx.core as mx
import mlx.optimizers as optim


class Muon(optim.MultiOptimizer):  # type: ignore[misc]
    """mlx's Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the matrices of the blocks, AdamW for all
    else: embeddings, heads, norms, biases, experts.

    Args:
        learning_rate: of Muon.
        others_rate: the learning rate of AdamW, as a share of that of Muon.
        weight_decay: a step shrinks each weight by this times the rate of its optimizer (decoupled, for both; mlx's
            own Muon adds it to the gradient, whose length it then forgets).
        momentum: how much of the last steps Muon keeps.
        nesterov: whether Muon looks one step ahead.
        ns_steps: the rounds of the iteration by which Muon makes a step orthogonal.
        betas: how much AdamW keeps of the mean of the gradients, and of the mean of their squares.
        eps: what AdamW adds to the root that it divides by.
    """

    def __init__(
        self,
        learning_rate: float,
        others_rate: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: Sequence[float] = (0.9, 0.98),
        eps: float = 1e-9,
        weight_decay: float = 0.0,
    ):
        matrices = _DecayingMuon(learning_rate, momentum, weight_decay, nesterov, ns_steps)
        others = optim.AdamW(learning_rate * others_rate, list(betas), eps, weight_decay)
        super().__init__([matrices, others], [_matrix_of_a_block])
        self._others_rate = others_rate

    @property
    def learning_rate(self) -> mx.array:
        rate: mx.array = self.optimizers[0].learning_rate
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.optimizers[0].learning_rate = rate
        self.optimizers[1].learning_rate = rate * self._others_rate


class _DecayingMuon(optim.Muon):  # type: ignore[misc]
    """Weight decay as in AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    def __init__(self, learning_rate: float, momentum: float, weight_decay: float, nesterov: bool, ns_steps: int):
        super().__init__(learning_rate, momentum, weight_decay=0.0, nesterov=nesterov, ns_steps=ns_steps)
        self._decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]) -> mx.array:
        rate = self.learning_rate.astype(gradient.dtype)
        updated: mx.array = super().apply_single(gradient, parameter * (1 - rate * self._decay), state)
        return updated


def _matrix_of_a_block(name: str, weight: mx.array) -> bool:
    return weight.ndim == 2 and any(part.isdigit() for part in name.split("."))
