"""Tokens of a sentence attend side by side: the result is that of each of them alone with its sentence's keys."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.batching.packing import Packing

HEADS, SHARED, SIZE, ROWS = 4, 2, 8, 7


@st.composite
def forwards(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """The row of each token, and how long each row is."""
    slots = draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12))
    return slots, [draw(st.sampled_from([1, 2, 9, 10, 40])) for _ in range(ROWS)]


@pytest.mark.parametrize("split", [True, False])
@settings(max_examples=60, deadline=None)
@given(forward=forwards(), seed=st.integers(0, 99))
def test_each_token_sees_its_own_sentence(split: bool, forward: tuple[list[int], list[int]], seed: int) -> None:
    slots, lengths = np.array(forward[0]), np.array(forward[1])
    dice = np.random.default_rng(seed)
    used = int(lengths[slots].max())
    keys, values = (mx.array(dice.normal(size=(ROWS, SHARED, used, SIZE)).astype(np.float32)) for _ in range(2))
    queries = mx.array(dice.normal(size=(len(slots), HEADS, 1, SIZE)).astype(np.float32))
    sees = dice.random((len(slots), used)) < 0.7
    sees[:, 0] = True
    sees &= np.arange(used) < lengths[slots][:, None]

    packing = Packing(slots, lengths[slots], split)
    mask = mx.array(sees[packing.tokens][:, None])
    found = packing.attend(
        mx.fast.scaled_dot_product_attention, queries, keys[packing.rows], values[packing.rows], scale=0.3, mask=mask
    )
    at = mx.array(slots)
    expected = mx.fast.scaled_dot_product_attention(
        queries, keys[at], values[at], scale=0.3, mask=mx.array(sees[:, None, None])
    )
    np.testing.assert_allclose(found, expected, atol=2e-6)
    row, place = packing.cells
    assert (packing.tokens[row, place] == np.arange(len(slots))).all()


def test_a_sentence_much_longer_than_the_others_attends_apart() -> None:
    calls: list[tuple[int, ...]] = []

    def attention(queries: mx.array, keys: mx.array, values: mx.array, **options: object) -> mx.array:
        calls.append(keys.shape)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, **options)  # type: ignore[arg-type]

    slots, lengths = np.arange(32), np.full(32, 20)
    lengths[11] = 900
    queries, keys = mx.ones((32, 1, 1, 4)), mx.ones((32, 1, 900, 4))
    mask = mx.ones((32, 1, 1, 900), dtype=mx.bool_)
    Packing(slots, lengths).attend(attention, queries, keys, keys, scale=1.0, mask=mask)
    assert calls == [(32, 1, 20, 4), (1, 1, 900, 4)]


def test_rows_are_copied_where_most_have_no_tokens() -> None:
    assert isinstance(Packing(np.array([5, 1, 5, 40]), np.array([3, 3, 4, 3])).rows, mx.array)
    assert Packing(np.array([2, 1, 0, 4]), np.array([3, 3, 4, 3])).rows == slice(5)
