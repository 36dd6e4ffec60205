"""Steps of Adam by numpy: those of MLX, and nothing that is held elsewhere changes."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from streamllm.cpu.adam import BLOCK, step_by_numpy

MADE = {
    "adamw": lambda: optim.AdamW(1e-2, betas=[0.9, 0.98], eps=1e-9, weight_decay=0.05),
    "adam": lambda: optim.Adam(1e-2),
    "with bias correction": lambda: optim.AdamW(1e-2, bias_correction=True),
}


def trained(optimizer: Any, steps: int = 4) -> dict[str, np.ndarray]:
    mx.random.seed(1)
    weights: Any = {"a": mx.random.normal((3, BLOCK // 2 + 5)), "b": mx.random.normal((7,))}
    optimizer.init(weights)
    for step in range(steps):
        optimizer.learning_rate = 1e-2 / (step + 1)
        grads = {name: mx.random.normal(weight.shape) for name, weight in weights.items()}
        weights = optimizer.apply_gradients(grads, weights)
    return {name: np.array(value) for name, value in tree_flatten({"w": weights, "state": optimizer.state})}


@pytest.mark.parametrize("kind", MADE)
def test_steps_are_those_of_mlx(kind: str) -> None:
    ours, theirs = MADE[kind](), MADE[kind]()
    step_by_numpy(ours)
    found, expected = trained(ours), trained(theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_weights_and_moments_from_before_a_step_stay() -> None:
    optimizer = MADE["adamw"]()
    step_by_numpy(optimizer)
    before = {"w": mx.ones((4,))}
    optimizer.init(before)
    moments = optimizer.state["w"]["m"]
    optimizer.apply_gradients({"w": mx.ones((4,))}, before)
    assert before["w"].tolist() == [1.0] * 4
    assert moments.tolist() == [0.0] * 4
    assert optimizer.state["w"]["m"].tolist() == pytest.approx([0.1] * 4)
