"""What a model sees in place of mlx-lm's caches while many sentences go through it together.

Invariant: all layers of a forward are told the same `Feed`."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.batching.packing import Packing
from streamllm.cache.rotations import Rotation
from streamllm.cache.rows import KV

UNUSED = np.iinfo(np.int32).max  # index of a column without a token


class Sight:
    """Which columns the tokens of a forward see; masks (S, 1, N, used), or those of the rows of ``packing``."""

    def __init__(self, source: Any, target: Any, source_ends: Any, target_ends: Any, packing: Packing | None):
        self._packing = packing
        self._streams = (source[:, None], source_ends[..., None]), (target[:, None], target_ends[..., None])
        self._masks: dict[int | None, mx.array] = {}

    def mask(self, window_size: int | None) -> mx.array:
        """A sliding window of w applies within each stream: the last w tokens that a token may see of it."""
        if window_size not in self._masks:
            sees = [index < end for index, end in self._streams]
            if window_size is not None:
                sees = [s & (i >= end - window_size) for s, (i, end) in zip(sees, self._streams, strict=True)]
            mask = (sees[0] | sees[1])[:, None]
            self._masks[window_size] = mx.array(mask[self._packing.tokens, 0, 0][:, None] if self._packing else mask)
        return self._masks[window_size]


@dataclass(frozen=True)
class Feed:
    """What the layers need to know of a forward of S rows of N tokens."""

    shape: tuple[int, ...]  # rows and columns of the buffers
    slots: mx.array  # (S,)
    columns: mx.array  # (S, N)
    used: int  # columns that hold anything
    start: mx.array  # (S,) positions of the first tokens
    sight: Sight
    rows: mx.array | slice  # of the buffers, whose keys and values attention takes


class Layer:
    """Stands for mlx-lm's cache of one layer.

    It defines no __len__, __bool__ or `bits`: mlx-lm tests caches for truth, and takes `bits` for a quantised cache.
    """

    offset: mx.array

    def __init__(self) -> None:
        self._keys: mx.array | None = None
        self._values: mx.array | None = None
        self._forward: Feed

    @property
    def buffers(self) -> list[mx.array]:
        return [buffer for buffer in (self._keys, self._values) if buffer is not None]

    def begin(self, forward: Feed) -> None:
        self._forward, self.offset = forward, forward.start

    def keep(self, rows: list[int]) -> None:
        """These become the first rows; the others are gone."""
        if self._keys is not None and self._values is not None:
            new = max(0, max(rows) + 1 - self._keys.shape[0])  # rows that were opened and hold nothing
            slack = [(0, new), (0, 0), (0, 0), (0, 0)]
            self._keys, self._values = (mx.pad(b, slack)[mx.array(rows)] for b in (self._keys, self._values))

    def forget(self, slot: int, columns: mx.array, moved: mx.array, rotate: Rotation, by: int) -> None:
        """Of a row, only ``columns`` stay, which become the first ones; the keys of those that have ``moved`` are at
        positions that are ``by`` higher."""
        assert self._keys is not None and self._values is not None
        one = slice(slot, slot + 1)
        keys, values = (buffer[one][:, :, columns] for buffer in (self._keys, self._values))
        keys = mx.where(moved[:, None], rotate(keys, by=by), keys)
        mx.eval(keys, values)  # else what follows would copy the buffers
        end = columns.shape[0]
        self._keys[one, :, :end] = keys
        self._values[one, :, :end] = values

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        """Store (S, H_kv, N, D); return what the rows hold that attention takes, (S, H_kv, used, D) if not packed."""
        self._keys = self._store(self._keys, keys)
        self._values = self._store(self._values, values)
        return self.keys_and_values()

    def keys_and_values(self) -> KV:
        """What the last update gave, for layers that share the keys of another one (gemma3n)."""
        assert self._keys is not None and self._values is not None
        rows, used = self._forward.rows, self._forward.used
        # Whole rows are copied before they are cut: the other way is ten times slower on a CPU.
        return self._keys[rows][:, :, :used], self._values[rows][:, :, :used]

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        return self._forward.sight.mask(window_size)

    def begin_with(self, slot: int, keys: mx.array, values: mx.array, shape: tuple[int, ...]) -> None:
        """The first columns of a row are these (1, H_kv, L, D); buffers have ``shape``, (rows, columns)."""
        self._keys, self._values = _fitted(self._keys, keys, shape), _fitted(self._values, values, shape)
        own = slice(slot, slot + 1), slice(None), slice(keys.shape[2])
        self._keys[own], self._values[own] = keys, values

    def _store(self, buffer: mx.array | None, new: mx.array) -> mx.array:
        buffer = _fitted(buffer, new, self._forward.shape)
        buffer[self._forward.slots[:, None], :, self._forward.columns] = new.transpose(0, 2, 1, 3)
        return buffer


def _fitted(buffer: mx.array | None, new: mx.array, shape: tuple[int, ...]) -> mx.array:
    """A buffer of so many rows and columns for what is ``new``, (…, H_kv, …, D)."""
    rows, columns = shape
    if buffer is None:
        return mx.zeros((rows, new.shape[1], columns, new.shape[3]), new.dtype)
    if buffer.shape[2] > columns:
        buffer = mx.contiguous(buffer[:, :, :columns])
    slack = rows - buffer.shape[0], columns - buffer.shape[2]
    return mx.pad(buffer, [(0, slack[0]), (0, 0), (0, slack[1]), (0, 0)]) if any(slack) else buffer
