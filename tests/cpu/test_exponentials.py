"""What numpy computes in place of MLX on a CPU: the same values and gradients."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.activations import swiglu as mlx_swiglu

from streamllm.cpu import exponentials
from streamllm.cpu.enabled import enabled
from streamllm.training import loss

pytestmark = [
    pytest.mark.skipif(mx.default_device() != mx.cpu, reason="numpy takes over on a CPU only"),
    pytest.mark.skipif(not enabled(), reason="STREAMLLM_CPU=plain leaves this off"),
]


def agree(ours: Callable[..., Any], theirs: Callable[..., Any], *arguments: mx.array) -> None:
    """In value, and in the gradients of a sum that weighs each number differently."""

    def weighed(function: Callable[..., Any]) -> Callable[..., mx.array]:
        return lambda *a: (function(*a) * mx.sin(mx.arange(theirs(*arguments).size)).reshape(out.shape)).sum()

    out = theirs(*arguments)
    np.testing.assert_allclose(ours(*arguments), out, rtol=2e-5, atol=1e-6)
    numbers = tuple(range(len(arguments)))
    mine = mx.grad(weighed(ours), argnums=numbers)(*arguments)
    for got, expected in zip(mine, mx.grad(weighed(theirs), argnums=numbers)(*arguments), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-6)


def test_softmax_agrees_with_mlx():
    agree(
        lambda x: exponentials.softmax(x, mx.array(True)),
        lambda x: mx.softmax(x, axis=-1),
        mx.random.normal((3, 4, 7)) * 30,
    )


def test_a_row_that_sees_nothing_gets_no_weight_and_no_gradient():
    scores = mx.full((2, 3), -mx.inf)
    assert exponentials.softmax(scores, mx.array(True)).tolist() == [[0, 0, 0], [0, 0, 0]]
    grad = mx.grad(lambda x: exponentials.softmax(x, mx.array(True))[0, 0])(scores)
    assert grad.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_swiglu_agrees_with_mlx_also_far_out():
    gate = mx.concatenate([mx.random.normal((2, 6)), mx.array([[-200.0, -90.0, -20.0, 20.0, 90.0, 200.0]])])
    agree(exponentials.swiglu, mlx_swiglu, gate, mx.random.normal((3, 6)))


@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("mask", ["causal", "array", "added", "of heads"])
def test_attention_agrees_with_mlx(heads: int, mask: str):
    q, k, v = mx.random.normal((2, 4, 5, 8)), mx.random.normal((2, heads, 9, 8)), mx.random.normal((2, heads, 9, 8))
    sees: Any = "causal"
    if mask != "causal":
        sees = mx.random.uniform(shape=(2, 1, 5, 9)) < 0.6
        sees[..., 0] = True
    if mask == "of heads":
        sees = mx.random.uniform(shape=(4, 5, 9)) < 0.6
        sees[..., 0] = True
    if mask == "added":
        sees = mx.where(sees, 0.5, -1e9)
    attention = mx.fast.scaled_dot_product_attention
    original = lambda q, k, v: attention(q, k, v, scale=0.3, mask=sees)  # noqa: E731
    counted: list[int] = []

    def ours(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        with exponentials.numpy_exponentials(nn.Linear(1, 1)):
            counted.append(mx.fast.scaled_dot_product_attention is not attention)
            return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=sees)

    agree(ours, original, q, k, v)
    assert all(counted)
    assert mx.fast.scaled_dot_product_attention is attention


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_agrees_with_the_one_of_other_devices(smoothing: float):
    rows = exponentials.ROWS * 2 + 3
    logits = mx.random.normal((rows, 11)) * 5
    labels = mx.random.randint(-1, 11, (rows,))

    def theirs(x: mx.array) -> mx.array:
        return loss._cross_entropy(x, labels, mx.array(smoothing))[0]  # type: ignore[index]

    agree(lambda x: loss.cross_entropy(x, labels, smoothing), theirs, logits)


def test_other_types_are_left_to_mlx():
    half = mx.random.normal((2, 3)).astype(mx.float16)
    assert not exponentials.on_cpu(half)
    assert loss.cross_entropy(half, mx.array([0, -1]), 0.0).dtype == mx.float32
