"""Exponentials of training and of batches on a CPU, by numpy. MLX's CPU backend takes them one at a time (12 ns each),
numpy sixteen at once (0.5 ns); what that saves is in docs/training.md and docs/speed.md. On a GPU nothing here is used.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from streamllm.cpu.enabled import enabled
from streamllm.standins import replaced

ROWS = 64  # of logits at a time: what is computed on them stays in the cache of a core


def on_cpu(*arrays: mx.array) -> bool:
    """Whether numpy can take over: float32 in the memory of a CPU."""
    return enabled() and mx.default_device() == mx.cpu and all(a.dtype == mx.float32 for a in arrays)


def lazy(model: nn.Module) -> bool:
    """Whether numpy must not take over: `recompute` saves memory only if no activation is evaluated before all
    gradients are."""
    return bool(getattr(model, "recomputes", False))


@mx.custom_function
def softmax(scores: mx.array, mask: mx.array) -> mx.array:
    """Along the last axis, of what ``mask`` shows, which may be broadcast. A row that sees nothing gives zeros."""
    x = np.array(scores)
    np.copyto(x, -np.inf, where=~np.asarray(mask))
    top = x.max(axis=-1, keepdims=True)
    x -= np.where(np.isfinite(top), top, 0)
    np.exp(x, out=x)
    total = x.sum(axis=-1, keepdims=True)
    x /= np.where(total > 0, total, 1)
    return mx.array(x)


@softmax.vjp
def _softmax_vjp(primals: Any, grad: mx.array, p: mx.array) -> Any:
    return p * (grad - (grad * p).sum(axis=-1, keepdims=True)), mx.zeros_like(primals[1])


@mx.custom_function
def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) · x, as mlx_lm.models.activations.swiglu."""
    out = _sigmoid(gate)
    out *= np.asarray(gate)
    out *= np.asarray(x)
    return mx.array(out)


@swiglu.vjp
def _swiglu_vjp(primals: Any, grad: mx.array, _: mx.array) -> Any:
    gate, x = primals
    s = mx.array(_sigmoid(gate))
    silu = s * gate
    return grad * x * (s + silu * (1 - s)), grad * silu


def _sigmoid(x: mx.array) -> np.ndarray:
    out: np.ndarray = np.negative(np.asarray(x))
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that is meant
        np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)
    return out


def _labelled(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The rows that have a label, some of `ROWS` at a time."""
    for start in range(0, len(labels), ROWS):
        if len(rows := start + np.flatnonzero(labels[start : start + ROWS] >= 0)):
            yield rows


def cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> tuple[float, np.ndarray]:
    """Sum of label-smoothed cross-entropies over rows with a label, and its gradient; logits (N, V), labels (N,), -1
    for none. What is smoothed over are the tokens whose logits are not -inf."""
    whole = bool((labels >= 0).all())  # then no row is copied
    grad = np.empty_like(logits) if whole else np.zeros_like(logits)
    total = 0.0
    for rows in _labelled(labels):
        right, index = labels[rows], np.arange(len(rows))
        some = slice(rows[0], rows[-1] + 1) if whole else rows
        x = grad[some]
        with np.errstate(invalid="ignore"):  # what is not finite makes the sum so
            np.subtract(logits[some], logits[some].max(axis=-1, keepdims=True), out=x)
        total -= (1 - smoothing) * float(x[index, right].sum())
        share: Any = smoothing / x.shape[-1]
        if smoothing:
            means = x.mean(axis=-1)
            if np.isneginf(means).any():
                possible = ~np.isneginf(x)
                count = possible.sum(axis=-1, keepdims=True)
                means = np.where(possible, x, 0).sum(axis=-1) / count[:, 0]
                share = np.where(possible, smoothing / count, 0).astype(x.dtype)
            total -= smoothing * float(means.sum())
        np.exp(x, out=x)
        sums = x.sum(axis=-1, keepdims=True)
        total += float(np.log(sums).sum())
        x /= sums
        x -= share
        x[index, right] -= 1 - smoothing
        if not whole:
            grad[rows] = x
    return total, grad


def divergence(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum over rows with a label of KL(p, q) + KL(q, p) of the two distributions of ``logits`` (2, N, V), and its
    gradient; labels (N,), -1 for none."""
    grad = np.zeros_like(logits)
    total = 0.0
    for rows in _labelled(labels):
        x = logits[:, rows]
        with np.errstate(invalid="ignore"):
            x -= x.max(axis=-1, keepdims=True)
        p = np.exp(x)
        sums = p.sum(axis=-1, keepdims=True)
        p /= sums
        x -= np.log(sums)
        with np.errstate(invalid="ignore"):
            apart = x[0] - x[1]
        if not np.isfinite(apart).all():
            apart[np.isneginf(x[0]) & np.isneginf(x[1])] = 0  # ruled out in both
        forth, back = (p[0] * apart).sum(-1, keepdims=True), (p[1] * apart).sum(-1, keepdims=True)
        total += float((forth - back).sum())
        # d KL(p, q) is p (log p - log q - KL(p, q)) for the logits of p, and q - p for those of q.
        difference = p[0] - p[1]
        grad[0, rows] = p[0] * (apart - forth) + difference
        grad[1, rows] = p[1] * (back - apart) - difference
    return total, grad


def relative_entropy(teacher: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum over rows with a label of KL(teacher ‖ student) of the distributions of ``teacher`` and ``logits`` (N, V),
    and its gradient for the latter; labels (N,), -1 for none."""
    grad = np.zeros_like(logits)
    total = 0.0
    for rows in _labelled(labels):
        (p, logp), (q, logq) = (_softmax(x[rows]) for x in (teacher, logits))
        with np.errstate(invalid="ignore"):
            logp -= logq
        if not np.isfinite(logp).all():
            logp[p == 0] = 0  # ruled out by the teacher
        total += float(np.einsum("nv,nv->", p, logp))
        grad[rows] = np.subtract(q, p, out=q)
    return total, grad


def reinforced(
    logits: np.ndarray, start: np.ndarray, labels: np.ndarray, advantages: np.ndarray, kl: float
) -> tuple[float, np.ndarray]:
    """``kl`` times the sum over rows with a label of KL(p ‖ that of the start), for the distributions of ``logits`` and
    ``start`` (N, V); and the gradient for the logits of that less the sum of advantage (N,) times log p(label). Where
    ``kl`` is 0 the start is not looked at."""
    grad = np.zeros_like(logits)
    total = 0.0
    for rows in _labelled(labels):
        p, logp = _softmax(logits[rows])
        each = advantages[rows].astype(p.dtype)
        g = p * each[:, None]  # d -A log p(label) is A (p - 1 at the label) for the logits
        g[np.arange(len(rows)), labels[rows]] -= each
        if kl:
            with np.errstate(invalid="ignore"):
                logp -= _softmax(start[rows])[1]
            if not np.isfinite(logp).all():
                logp[p == 0] = 0  # ruled out
            apart = np.einsum("nv,nv->n", p, logp)
            total += float(apart.sum())
            logp -= apart[:, None]
            g += np.multiply(p, logp, out=logp) * p.dtype.type(kl)
        grad[rows] = g
    return kl * total, grad


def _softmax(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and their logarithms, the latter in the place of ``x``."""
    with np.errstate(invalid="ignore"):
        x -= x.max(axis=-1, keepdims=True)
    p: np.ndarray = np.exp(x)
    sums = p.sum(axis=-1, keepdims=True)
    p /= sums
    x -= np.log(sums)
    return p, x


@contextmanager
def numpy_exponentials(model: nn.Module, least: int = 0) -> Iterator[None]:
    """Within, MLX's attention takes its softmax from here and the model's family its ``swiglu``, on a CPU, where they
    have ``least`` exponentials or more: MLX has to stop for them."""
    if not enabled() or mx.default_device() != mx.cpu or lazy(model):
        yield
        return
    family: Any = sys.modules[type(model).__module__]
    with ExitStack() as stack:
        stack.enter_context(replaced(mx.fast, "scaled_dot_product_attention", partial(_attention_or, least)))
        if hasattr(family, "swiglu"):
            stack.enter_context(replaced(family, "swiglu", partial(_swiglu_or, least)))
        yield


def _swiglu_or(least: int, original: Any) -> Any:
    return lambda gate, x: swiglu(gate, x) if gate.size >= least and on_cpu(gate, x) else original(gate, x)


def _attention_or(least: int, original: Any) -> Any:
    """Attention with our softmax; ``original`` for sinks, other types than float32, and few scores."""

    def attention(
        queries: mx.array, keys: mx.array, values: mx.array, *, scale: float, mask: Any = None, sinks: Any = None
    ) -> mx.array:
        B, heads, T, _ = queries.shape
        shared, S = keys.shape[1], keys.shape[2]  # heads with keys and values of their own
        if sinks is not None or B * heads * T * S < least or not on_cpu(queries, keys, values):
            return original(queries, keys, values, scale=scale, mask=mask, sinks=sinks)  # type: ignore[no-any-return]
        if mask is None:
            mask = mx.array(True)
        elif isinstance(mask, str):  # "causal"
            mask = mx.arange(S - T, S)[:, None] >= mx.arange(S)
        scores: Any = (queries * scale).reshape(B, shared, heads // shared, T, -1) @ keys[:, :, None].mT
        if mask.ndim > 2 and mask.shape[-3] == heads:
            mask = mask.reshape(*mask.shape[:-3], shared, -1, *mask.shape[-2:])
        elif mask.ndim > 2:
            mask = mask.reshape(*mask.shape[:-2], 1, *mask.shape[-2:])
        if mask.dtype != mx.bool_:
            scores, mask = scores + mask, mx.array(True)
        weights: Any = softmax(scores, mask)
        out: mx.array = (weights @ values[:, :, None]).reshape(B, heads, T, -1)
        return out

    return attention


def log_sums(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of the sum of the exponentials of each row of logits (N, V), and the softmax of the row."""
    shares = np.empty_like(logits)
    totals = np.empty(len(logits), logits.dtype)
    for start in range(0, len(logits), ROWS):
        x, rows = shares[start : start + ROWS], logits[start : start + ROWS]
        top = rows.max(axis=-1, keepdims=True)
        np.subtract(rows, top, out=x)
        np.exp(x, out=x)
        sums = x.sum(axis=-1, keepdims=True)
        x /= sums
        totals[start : start + ROWS] = (np.log(sums) + top)[:, 0]
    return totals, shares
