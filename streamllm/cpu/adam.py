"""Steps of Adam and AdamW on a CPU, by numpy: a block of a weight at a time, which stays in the cache of a core, where
MLX goes through memory once for each operation. Invariant: the weights are those of MLX, but for rounding."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from streamllm.cpu import exponentials

BLOCK = 1 << 14
"""Numbers of a block."""


def step_by_numpy(optimizer: optim.Optimizer) -> None:
    """Let MLX's Adam or AdamW take its steps so, where it corrects no bias; every other optimizer stays as it is."""
    if type(optimizer) in (optim.Adam, optim.AdamW) and not optimizer.bias_correction:
        in_mlx = optimizer.apply_single

        def apply_single(gradient: mx.array, weight: mx.array, state: dict[str, mx.array]) -> mx.array:
            if not exponentials.on_cpu(gradient, weight, state["m"], state["v"]):
                stepped: mx.array = in_mlx(gradient, weight, state)
                return stepped
            return _stepped(optimizer, gradient, weight, state)

        optimizer.apply_single = apply_single


def _stepped(optimizer: Any, gradient: mx.array, weight: mx.array, state: dict[str, mx.array]) -> mx.array:
    rate, (b1, b2) = float(optimizer.learning_rate.item()), optimizer.betas
    shrinks = 1 - rate * getattr(optimizer, "weight_decay", 0.0)
    mx.eval(gradient, weight, state["m"], state["v"])
    g, *before = (np.asarray(array).reshape(-1) for array in (gradient, weight, state["m"], state["v"]))
    new = [mx.zeros(weight.shape) for _ in before]
    mx.eval(new)
    after = [np.asarray(array).reshape(-1) for array in new]  # the memory of what nobody else holds yet
    work = np.empty(min(BLOCK, g.size), np.float32)
    for start in range(0, g.size, BLOCK):
        rows = slice(start, start + BLOCK)
        now, (old, m_old, v_old), (w, m, v) = g[rows], (a[rows] for a in before), (a[rows] for a in after)
        t = work[: now.size]
        np.multiply(m_old, b1, out=m)
        m += np.multiply(now, 1 - b1, out=t)
        np.multiply(now, now, out=t)
        t *= 1 - b2
        np.multiply(v_old, b2, out=v)
        v += t
        np.sqrt(v, out=t)
        t += optimizer.eps
        np.divide(m, t, out=t)
        t *= rate
        np.multiply(old, shrinks, out=w)
        w -= t
    weight, state["m"], state["v"] = new
    return weight
