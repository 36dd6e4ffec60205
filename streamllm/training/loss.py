"""The forward of training: read the whole source, write the whole target, each position of the target seeing what it
would have seen when streamed with wait-k; cross-entropy on the target, and how far two forwards are apart."""

import math
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.cache.dual import make_caches
from streamllm.cpu import exponentials, learner
from streamllm.engine.positions import check_end, table
from streamllm.engine.quantised_products import in_float32
from streamllm.models.families import groups_queries
from streamllm.training import unpadded
from streamllm.training.batch import Batch
from streamllm.training.masks import arrival_order, visible


def forward(model: Any, batch: Batch, target_start: int = 0, paradigm: str = "group") -> mx.array:
    """Logits (B, T, V) of the target positions.

    "group": one read and one write through the streaming cache. "interleaved": one ordinary forward over both
    streams in the order of arrival (see `Interleaved`). Exponentials come from numpy on a CPU.

    Raises:
        PositionError: the batch is longer than the model's learned table of positions.
    """
    source, target = batch.source.shape[1], batch.target.shape[1]
    check_end(table(model), source + target if paradigm == "interleaved" else max(source, target_start + target))
    with in_float32(model), exponentials.numpy_exponentials(model):
        return _forward(model, batch, target_start, paradigm)


def _forward(model: Any, batch: Batch, target_start: int, paradigm: str) -> mx.array:
    logits: mx.array
    if paradigm == "interleaved":
        order, places = arrival_order(batch)
        tokens = np.take_along_axis(np.concatenate([batch.source, batch.target], axis=1), order, axis=1)
        logits = model(mx.array(tokens))
        return mx.take_along_axis(logits, mx.array(places)[:, :, None], axis=1)
    caches = make_caches(model, target_start, step=1)
    model(mx.array(batch.source), cache=[cache.source for cache in caches])
    mask = visible(mx.array(batch.source_units), mx.array(batch.target_units), mx.array(batch.k))
    for cache in caches:
        cache.target.visible = mask[:, None] if groups_queries(model) else mask
    logits = model(mx.array(batch.target), cache=[cache.target for cache in caches])
    return logits


def loss(model: Any, batch: Batch, label_smoothing: float, target_start: int = 0, paradigm: str = "group") -> mx.array:
    """Sum over the labels of the batch of the label-smoothed cross-entropy, in nats."""
    logits, labels = of_labels(model, batch, target_start, paradigm)
    return cross_entropy(logits, labels, label_smoothing, lazy=is_lazy(model))


def of_labels(
    model: Any, batch: Batch, target_start: int, paradigm: str, gradient: bool = True
) -> tuple[mx.array, mx.array]:
    """Logits (N, V) and labels (N,) of the target positions in the order of rows, -1 for no label. As `forward`, but
    a model of Llama's shape is computed by numpy on a CPU (`streamllm.cpu.learner`), where a label has a row alone.

    Args:
        gradient: False where nothing is to be learned from these logits.
    """
    found = learner.logits_of(model, lambda: unpadded.streams(batch, target_start, paradigm), gradient)
    if found is not None:
        return found, mx.array(batch.labels[batch.labels >= 0])
    logits = forward(model, batch, target_start, paradigm)
    if not gradient:
        logits = mx.stop_gradient(logits)
    return logits.reshape(-1, logits.shape[-1]), mx.array(batch.labels.reshape(-1))


def flat(values: np.ndarray, batch: Batch, rows: int) -> np.ndarray:
    """What is so for each position of the target, ``values`` (B, T), of the rows of `of_labels`, of that many."""
    return values.reshape(-1) if rows == values.size else values[batch.labels >= 0]


def taught(model: Any, batch: Batch, target_start: int, paradigm: str) -> mx.array:
    """Logits of the same rows as those of `of_labels`, as the model would teach them: from the whole source sentence
    of each target unit, without dropout and without gradient."""
    whole = replace(batch, k=np.zeros_like(batch.k), target_units=batch.whole_units, arrival_units=batch.whole_units)
    was_training = model.training
    model.eval()
    try:
        return of_labels(model, whole, target_start, paradigm, gradient=False)[0]
    finally:
        model.train(was_training)


def is_lazy(model: Any) -> bool:
    """Whether nothing of a forward may be evaluated before all gradients are (`recompute`)."""
    return exponentials.lazy(model)


def cross_entropy(logits: mx.array, labels: mx.array, label_smoothing: float, lazy: bool = False) -> mx.array:
    """Sum of label-smoothed cross-entropies; logits (N, V), labels (N,), -1 for none.

    A logit of -inf rules its token out: the others alone share what is smoothed over, and it gets no gradient. As a
    label it makes the sum infinite.

    Where no logit is -inf, equal to ``mlx.nn.losses.cross_entropy``, but takes each exponential once for loss and
    gradient, and by numpy on a CPU, where they cost more than the products, unless nothing may be evaluated yet
    (``lazy``).
    """
    ours: Any = _cross_entropy_by_numpy if exponentials.on_cpu(logits) and not lazy else _cross_entropy
    total: mx.array = ours(logits, labels, mx.array(label_smoothing))[0]
    return total


@mx.custom_function
def _cross_entropy_by_numpy(logits: mx.array, labels: mx.array, smoothing: mx.array) -> Any:
    total, grad = exponentials.cross_entropy(np.asarray(logits), np.asarray(labels), float(smoothing))
    return mx.array(total, mx.float32), mx.array(grad)


@_cross_entropy_by_numpy.vjp
def _cross_entropy_by_numpy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    _, labels, smoothing = primals
    weight = cotangents[0].item()
    grad = outputs[1] if weight == 1 else outputs[1] * weight  # a pass over all logits
    return grad, mx.zeros_like(labels), mx.zeros_like(smoothing)


@mx.custom_function
def _cross_entropy(logits: mx.array, labels: mx.array, smoothing: mx.array) -> Any:
    logits = logits.astype(mx.float32)
    top = logits.max(axis=-1, keepdims=True)
    exps = mx.exp(logits - top)  # (N, V)
    total = exps.sum(axis=-1, keepdims=True)
    log_total = (mx.log(total) + top)[:, 0]
    right = mx.take_along_axis(logits, mx.maximum(labels, 0)[:, None], axis=-1)[:, 0]
    possible, count = _possible(logits)
    mean = mx.where(possible, logits, 0).sum(axis=-1) / count
    each = log_total - (1 - smoothing) * right - smoothing * mean
    return mx.where(labels >= 0, each, 0).sum(), exps, total


def _possible(logits: mx.array) -> tuple[mx.array, mx.array]:
    """Which tokens are not ruled out, (N, V), and how many (N,); NaN is not."""
    possible = logits != -math.inf
    return possible, possible.sum(axis=-1)


@_cross_entropy.vjp
def _cross_entropy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    logits, labels, smoothing = primals
    _, exps, total = outputs
    scale = mx.where(labels >= 0, cotangents[0], 0)[:, None]  # (N, 1)
    possible, count = _possible(logits)
    grad = exps * (scale / total) - mx.where(possible, scale * (smoothing / count[:, None]), 0)
    rows = mx.arange(labels.shape[0])
    grad = grad.at[rows, mx.maximum(labels, 0)].add(-(1 - smoothing) * scale[:, 0])
    return grad.astype(logits.dtype), mx.zeros_like(labels), mx.zeros_like(smoothing)


def divergence(logits: mx.array, labels: mx.array, lazy: bool = False) -> mx.array:
    """Sum over rows with a label of KL(p, q) + KL(q, p) in nats, for the two distributions of ``logits`` (2, N, V).

    By numpy on a CPU, as `cross_entropy`, unless nothing may be evaluated yet (``lazy``).
    """
    ours: Any = _divergence_by_numpy if exponentials.on_cpu(logits) and not lazy else _divergence
    found = ours(logits, labels)
    total: mx.array = found[0] if isinstance(found, list | tuple) else found
    return total


@mx.custom_function
def _divergence_by_numpy(logits: mx.array, labels: mx.array) -> Any:
    total, grad = exponentials.divergence(np.asarray(logits), np.asarray(labels))
    return mx.array(total, mx.float32), mx.array(grad)


@_divergence_by_numpy.vjp
def _divergence_by_numpy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    return outputs[1] * cotangents[0], mx.zeros_like(primals[1])


def _divergence(logits: mx.array, labels: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    logp = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    possible = logp[0] > -math.inf  # what is ruled out is so for both
    apart = mx.where(possible, logp[0], 0) - mx.where(possible, logp[1], 0)
    each = ((mx.exp(logp[0]) - mx.exp(logp[1])) * apart).sum(axis=-1)
    return mx.where(labels >= 0, each, 0).sum()


def relative_entropy(teacher: mx.array, logits: mx.array, labels: mx.array, lazy: bool = False) -> mx.array:
    """Sum over rows with a label of KL(teacher ‖ student) in nats, for the distributions of ``teacher`` and ``logits``
    (N, V) each; the teacher gets no gradient. What its logits rule out with -inf costs nothing, whatever the student's.

    By numpy on a CPU, as `cross_entropy`, unless nothing may be evaluated yet (``lazy``).
    """
    if not exponentials.on_cpu(logits) or lazy:
        return _relative_entropy(mx.stop_gradient(teacher), logits, labels)
    ours: Any = _relative_entropy_by_numpy
    total: mx.array = ours(teacher, logits, labels)[0]
    return total


@mx.custom_function
def _relative_entropy_by_numpy(teacher: mx.array, logits: mx.array, labels: mx.array) -> Any:
    total, grad = exponentials.relative_entropy(np.asarray(teacher), np.asarray(logits), np.asarray(labels))
    return mx.array(total, mx.float32), mx.array(grad)


@_relative_entropy_by_numpy.vjp
def _relative_entropy_by_numpy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    teacher, _, labels = primals
    return mx.zeros_like(teacher), outputs[1] * cotangents[0], mx.zeros_like(labels)


def reinforced(
    logits: mx.array, start: mx.array | None, labels: mx.array, advantages: mx.array, kl: float, lazy: bool = False
) -> mx.array:
    """``kl`` times the sum over rows with a label of KL(p ‖ that of the start) in nats, exact, for the distributions of
    ``logits`` and ``start`` (N, V) each. Its gradient is that of the same less the sum of advantage times log p(label):
    what the labels, which were drawn from p, and their ``advantages`` (N,) say of p.

    What both rule out with -inf costs nothing. By numpy on a CPU, as `cross_entropy`, unless nothing may be evaluated
    yet (``lazy``).

    Args:
        start: gets no gradient; None where ``kl`` is 0.
    """
    if not exponentials.on_cpu(logits) or lazy:
        return _reinforced(logits, start, labels, advantages, kl)
    ours: Any = _reinforced_by_numpy
    total: mx.array = ours(logits, mx.zeros(0) if start is None else start, labels, advantages, mx.array(kl))[0]
    return total


@mx.custom_function
def _reinforced_by_numpy(
    logits: mx.array, start: mx.array, labels: mx.array, advantages: mx.array, kl: mx.array
) -> Any:
    drawn = np.asarray(labels), np.asarray(advantages)
    total, grad = exponentials.reinforced(np.asarray(logits), np.asarray(start), *drawn, float(kl))
    return mx.array(total, mx.float32), mx.array(grad)


@_reinforced_by_numpy.vjp
def _reinforced_by_numpy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    return outputs[1] * cotangents[0], *map(mx.zeros_like, primals[1:])


def _reinforced(
    logits: mx.array, start: mx.array | None, labels: mx.array, advantages: mx.array, kl: float
) -> mx.array:
    logp = _log_softmax(logits)
    chosen = mx.take_along_axis(logp, mx.maximum(labels, 0)[:, None], axis=-1)[:, 0]
    policy = -mx.where(labels >= 0, advantages * chosen, 0).sum()
    total = policy - mx.stop_gradient(policy)
    if start is None:
        return total
    possible = logp > -math.inf
    apart = mx.where(possible, logp, 0) - mx.where(possible, _log_softmax(mx.stop_gradient(start)), 0)
    each = (mx.exp(logp) * apart).sum(axis=-1)
    return total + kl * mx.where(labels >= 0, each, 0).sum()


def _log_softmax(logits: mx.array) -> mx.array:
    wide = _wide(logits)
    return wide - mx.logsumexp(wide, axis=-1, keepdims=True)


def margins(logits: mx.array, token: int, lazy: bool = False) -> tuple[mx.array, mx.array]:
    """How much likelier all other tokens together are than ``token``, as a logit: log (1 - P(token)) - log P(token),
    (N,), for logits (N, V); and the distribution of the others among themselves, (N, V), which gets no gradient.

    By numpy on a CPU, as `cross_entropy`, unless nothing may be evaluated yet (``lazy``).
    """
    ours: Any = _margins_by_numpy if exponentials.on_cpu(logits) and not lazy else _margins
    found, shares = ours(mx.where(mx.arange(logits.shape[-1]) == token, -math.inf, logits))
    return found - logits[:, token], mx.stop_gradient(shares)


@mx.custom_function
def _margins_by_numpy(others: mx.array) -> Any:
    total, shares = exponentials.log_sums(np.asarray(others))
    return mx.array(total), mx.array(shares)


@_margins_by_numpy.vjp
def _margins_by_numpy_vjp(primals: Any, cotangents: Any, outputs: Any) -> Any:
    return cotangents[0][:, None] * outputs[1]


def _margins(others: mx.array) -> tuple[mx.array, mx.array]:
    others = others.astype(mx.float32)
    total = mx.logsumexp(others, axis=-1)
    return total, mx.exp(others - total[:, None])


def _relative_entropy(teacher: mx.array, logits: mx.array, labels: mx.array) -> mx.array:
    logp, logq = map(_log_softmax, (teacher, logits))
    possible = logp > -math.inf
    apart = mx.where(possible, logp, 0) - mx.where(possible, logq, 0)
    each = (mx.exp(logp) * apart).sum(axis=-1)
    return mx.where(labels >= 0, each, 0).sum()


def _wide(logits: mx.array) -> mx.array:
    return logits.astype(mx.float32)
