"""Cross-entropy, and the model with the whole source as a teacher of itself with a part."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.check import probability
from streamllm.training.batch import Batch
from streamllm.training.loss import cross_entropy, flat, is_lazy, loss, of_labels, relative_entropy, taught


@dataclass(frozen=True)
class SelfDistillation:
    """What the model predicts from a part of the source sentence is to be like what it predicts from the whole.

    For each label that is predicted from a part, 1 - ``weight`` times the label-smoothed cross-entropy and ``weight``
    times KL(teacher ‖ student), as Hinton et al. 2015 (arXiv 1503.02531) mix both, at a temperature of 1. The teacher
    is the model as it is at this step, with the whole source sentence, without dropout and without gradient. Where a
    label is predicted from the whole anyway, it is the cross-entropy alone: teacher and student would differ by dropout
    only. A step takes a forward more. In validation it is the cross-entropy alone.

    Args:
        weight: how much the teacher counts; 0 leaves it out, 1 leaves out the references.

    Raises:
        ValueError: ``weight`` is not a number from 0 to 1.
    """

    weight: float = 0.3

    def __post_init__(self) -> None:
        probability("objective.weight", self.weight)

    def __call__(self, model: Any, batch: Batch, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        if not model.training or not self.weight:
            return loss(model, batch, label_smoothing, target_start, paradigm)
        teacher = taught(model, batch, target_start, paradigm)
        logits, labels = of_labels(model, batch, target_start, paradigm)
        lazy, partial = is_lazy(model), mx.array(from_a_part(batch, len(labels)))
        of_part, of_whole = mx.where(partial, labels, -1), mx.where(partial, -1, labels)
        return (
            (1 - self.weight) * cross_entropy(logits, of_part, label_smoothing, lazy)
            + self.weight * relative_entropy(teacher, logits, of_part, lazy)
            + cross_entropy(logits, of_whole, label_smoothing, lazy)
        )


def from_a_part(batch: Batch, rows: int) -> np.ndarray:
    """Which rows of `of_labels`, of that many, are predicted from less than their whole source sentence."""
    partial: np.ndarray = batch.k[:, None] + batch.target_units < batch.whole_units
    return flat(partial, batch, rows)


def of_rows(batch: Batch, each: np.ndarray, rows: int) -> np.ndarray:
    """What is so for ``each`` (B,) stream, of the rows of `of_labels`, of that many."""
    return flat(np.broadcast_to(each[:, None], batch.labels.shape), batch, rows)
