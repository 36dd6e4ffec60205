"""The usual objective: cross-entropy on target words and the end token."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from streamllm.training.batch import Batch
from streamllm.training.loss import loss


@dataclass(frozen=True)
class CrossEntropy:
    """Label-smoothed cross-entropy (Szegedy et al. 2016, arXiv 1512.00567, section 7)."""

    def __call__(self, model: Any, batch: Batch, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        return loss(model, batch, label_smoothing, target_start, paradigm)
