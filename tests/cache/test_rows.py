"""Rows of keys and values: whatever is put in and taken out, what is held is what a list would hold."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.cache.rows import Rows, arrays_of

STEPS = st.lists(
    st.tuples(st.sampled_from(["insert", "remove", "map"]), st.integers(0, 20), st.integers(0, 5)), max_size=20
)


def numbered(numbers: list[float]) -> tuple[mx.array, mx.array]:
    """Keys (1, 1, L, 2) that say their numbers, and values (1, 1, L, 1) that say the opposite."""
    column = mx.array(numbers, mx.float32)[None, None, :, None]
    return mx.broadcast_to(column, (1, 1, len(numbers), 2)), -column


def said(rows: Rows) -> tuple[list[float], list[float]]:
    keys, values = rows.slice(0, rows.length)
    return np.array(keys)[0, 0, :, 1].tolist(), np.array(-values)[0, 0, :, 0].tolist()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 3, 256]), STEPS)
def test_rows_hold_what_a_list_would(step: int, deeds: list[tuple[str, int, int]]) -> None:
    rows = Rows(step)
    keys: list[float] = []
    values: list[float] = []
    count = 0.0
    for deed, at, n in deeds:
        at = min(at, len(keys))
        if deed == "insert":
            new = [count + i for i in range(1, n + 2)]
            count = new[-1]
            rows.insert(at, *numbered(new))
            keys[at:at], values[at:at] = new, new
        elif deed == "remove":
            n = min(n, len(keys) - at)
            rows.remove(at, n)
            del keys[at : at + n], values[at : at + n]
        else:
            end = min(at + n, len(keys))
            rows.map_keys(at, end, lambda held: held + 0.25)
            keys[at:end] = [key + 0.25 for key in keys[at:end]]
        assert rows.length == len(keys)
        if rows.arrays:
            assert said(rows) == (keys, values)


def test_a_slice_that_was_taken_stays_as_it_was() -> None:
    rows = Rows()
    rows.insert(0, *numbered([1, 2, 3]))
    before, _ = rows.slice(0, 3)
    rows.map_keys(0, 3, lambda keys: keys + 10)
    assert np.array(before)[0, 0, :, 0].tolist() == [1, 2, 3]


def test_rows_that_are_cleared_take_other_shapes() -> None:
    rows = Rows()
    rows.insert(0, *numbered([1, 2]))
    with pytest.raises(ValueError, match="do not fit the cache"):
        rows.insert(2, mx.zeros((2, 1, 1, 2)), mx.zeros((2, 1, 1, 1)))
    assert said(rows) == ([1, 2], [1, 2])
    rows.clear()
    rows.insert(0, mx.zeros((2, 1, 1, 2)), mx.zeros((2, 1, 1, 1)))
    assert (rows.batch_size, rows.length) == (2, 1)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_undoes_a_slice(packed: bool) -> None:
    one, other = mx.zeros((1, 1, 2, 3)), mx.ones((1, 1, 2, 3))
    held: Any = ((one, one, one), (other, other, other)) if packed else (one, other)
    assert [float(array.max()) for array in arrays_of(*held)] == ([0] * 3 + [1] * 3 if packed else [0, 1])
    assert arrays_of(mx.zeros((0,)), mx.zeros((0,))) == []
