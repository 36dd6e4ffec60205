"""Cross-entropy, and two forwards with different dropout that are to agree."""

from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.check import number
from streamllm.training.batch import Batch
from streamllm.training.loss import cross_entropy, divergence, is_lazy, loss, of_labels


@dataclass(frozen=True)
class RDrop:
    """R-Drop (Liang et al. 2021, arXiv 2106.14448): each batch goes through the model twice at once.

    For each label, the mean of both label-smoothed cross-entropies, and ``weight`` / 4 times the sum of both
    Kullback-Leibler divergences; that is half of the paper's loss, whose α is ``weight``, so that the numbers are those
    of `CrossEntropy`. A step takes twice the time. It needs training.dropout above 0; without dropout, as in
    validation, it is the cross-entropy alone.

    Args:
        weight: how much the divergence between both passes counts; 0 leaves it out.

    Raises:
        ValueError: ``weight`` is not a number of at least 0.
    """

    weight: float = 5.0

    def __post_init__(self) -> None:
        number("objective.weight", self.weight, least=0)

    def __call__(self, model: Any, batch: Batch, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        if not model.training:
            return loss(model, batch, label_smoothing, target_start, paradigm)
        logits, labels = of_labels(model, twice(batch), target_start, paradigm)
        lazy = is_lazy(model)
        entropy = cross_entropy(logits, labels, label_smoothing, lazy)
        both, once = logits.reshape(2, -1, logits.shape[-1]), labels[: len(labels) // 2]
        return entropy / 2 + self.weight / 4 * divergence(both, once, lazy)


def twice(batch: Batch) -> Batch:
    """The rows of a batch, and the same rows once more."""
    return Batch(**{one.name: np.concatenate([getattr(batch, one.name)] * 2) for one in fields(batch)})
