"""The training objective: read the whole source, write the whole target, each position of the target
seeing what it would have seen when streamed with wait-k; cross-entropy on the target."""

from typing import Any

import mlx.core as mx

from streamllm.cache import make_caches
from streamllm.training.data import Batch


def visible(source_units: mx.array, target_units: mx.array, k: mx.array) -> mx.array:
    """Which source tokens each target position sees under wait-k, bool (B, T, S).

    The position that predicts a token of target unit i sees the header (unit -1), source unit u if
    u < k + i, and the footer (unit |x|) only if k + i > |x|: what g(i + 1) = min(k + i, |x|) of Ma et al.
    2019 (arXiv 1810.08398) says of words, for all tokens.

    Args:
        source_units: (B, S), target_units: (B, T), as in `data.Encoded`; k: (B,).
    """
    sees: mx.array = source_units[:, None, :] < (k[:, None] + target_units)[:, :, None]
    return sees


def forward(model: Any, batch: Batch, target_start: int = 0) -> mx.array:
    """Logits (B, T, V) of the target positions: one read and one write through the streaming cache."""
    caches = make_caches(model, target_start, step=1)
    model(mx.array(batch.source), cache=[cache.source for cache in caches])
    mask = visible(mx.array(batch.source_units), mx.array(batch.target_units), mx.array(batch.k))
    for cache in caches:
        cache.target.visible = mask
    logits: mx.array = model(mx.array(batch.target), cache=[cache.target for cache in caches])
    return logits


def loss(model: Any, batch: Batch, label_smoothing: float, target_start: int = 0) -> mx.array:
    """Sum over the labels of the batch of the label-smoothed cross-entropy, in nats."""
    logits = forward(model, batch, target_start)
    labels = mx.array(batch.labels.reshape(-1))
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), labels, label_smoothing)


def cross_entropy(logits: mx.array, labels: mx.array, label_smoothing: float) -> mx.array:
    """Sum of label-smoothed cross-entropies; logits (N, V), labels (N,), -1 for none.

    Equal to ``mlx.nn.losses.cross_entropy``, but takes each exponential once for loss and gradient:
    on a CPU they cost more than the products.
    """
    total: mx.array = _cross_entropy(logits, labels, mx.array(label_smoothing))[0]  # type: ignore[index]
    return total


@mx.custom_function
def _cross_entropy(logits: mx.array, labels: mx.array, smoothing: mx.array) -> Any:
    logits = logits.astype(mx.float32)
    top = logits.max(axis=-1, keepdims=True)
    exps = mx.exp(logits - top)  # (N, V)
    total = exps.sum(axis=-1, keepdims=True)
    log_total = (mx.log(total) + top)[:, 0]
    right = mx.take_along_axis(logits, mx.maximum(labels, 0)[:, None], axis=-1)[:, 0]
    each = log_total - (1 - smoothing) * right - smoothing * logits.mean(axis=-1)
    return mx.where(labels >= 0, each, 0).sum(), exps, total


@_cross_entropy.vjp
def _cross_entropy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    logits, labels, smoothing = primals
    _, exps, total = outputs
    scale = mx.where(labels >= 0, cotangents[0], 0)[:, None]  # (N, 1)
    grad = exps * (scale / total) - scale * (smoothing / logits.shape[-1])
    rows = mx.arange(labels.shape[0])
    grad = grad.at[rows, mx.maximum(labels, 0)].add(-(1 - smoothing) * scale[:, 0])
    return grad.astype(logits.dtype), mx.zeros_like(labels), mx.zeros_like(smoothing)
