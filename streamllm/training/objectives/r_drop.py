"""Cross-entropy, and two forwards with different dropout that are to agree."""

import math
from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.check import number
from streamllm.cpu import exponentials
from streamllm.training.data import Batch
from streamllm.training.loss import cross_entropy, forward, loss


@dataclass(frozen=True)
class RDrop:
    """R-Drop (Liang et al. 2021, arXiv 2106.14448): each batch goes through the model twice at once.

    For each label, the mean of both label-smoothed cross-entropies, and ``weight`` / 4 times the sum of both
    Kullback-Leibler divergences; that is half of the paper's loss, whose α is ``weight``, so that the numbers are those
    of `CrossEntropy`. A step takes twice the time. It needs training.dropout above 0; without dropout, as in
    validation, it is the cross-entropy alone.

    Raises:
        ValueError: ``weight`` is not a number of at least 0.
    """

    weight: float = 5.0

    def __post_init__(self) -> None:
        number("objective.weight", self.weight, least=0)

    def __call__(self, model: Any, batch: Batch, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        if not model.training:
            return loss(model, batch, label_smoothing, target_start, paradigm)
        logits = forward(model, twice(batch), target_start, paradigm)
        logits = logits.reshape(2, -1, logits.shape[-1])
        labels = mx.array(batch.labels.reshape(-1))
        lazy = exponentials.lazy(model)
        entropy = cross_entropy(
            logits.reshape(-1, logits.shape[-1]), mx.concatenate([labels, labels]), label_smoothing, lazy
        )
        return entropy / 2 + self.weight / 4 * divergence(logits, labels, lazy)


def twice(batch: Batch) -> Batch:
    """The rows of a batch, and the same rows once more."""
    return Batch(**{one.name: np.concatenate([getattr(batch, one.name)] * 2) for one in fields(batch)})


def divergence(logits: mx.array, labels: mx.array, lazy: bool = False) -> mx.array:
    """Sum over rows with a label of KL(p, q) + KL(q, p) in nats, for the two distributions of ``logits`` (2, N, V).

    By numpy on a CPU, as `loss.cross_entropy`, unless nothing may be evaluated yet (``lazy``).
    """
    ours: Any = _by_numpy if exponentials.on_cpu(logits) and not lazy else _divergence
    found = ours(logits, labels)
    total: mx.array = found[0] if isinstance(found, list | tuple) else found
    return total


@mx.custom_function
def _by_numpy(logits: mx.array, labels: mx.array) -> Any:
    total, grad = exponentials.divergence(np.asarray(logits), np.asarray(labels))
    return mx.array(total, mx.float32), mx.array(grad)


@_by_numpy.vjp
def _by_numpy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    return outputs[1] * cotangents[0], mx.zeros_like(primals[1])


def _divergence(logits: mx.array, labels: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    logp = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    possible = logp[0] > -math.inf  # what is ruled out is so for both
    apart = mx.where(possible, logp[0], 0) - mx.where(possible, logp[1], 0)
    each = ((mx.exp(logp[0]) - mx.exp(logp[1])) * apart).sum(axis=-1)
    return mx.where(labels >= 0, each, 0).sum()
