"""Keys and values of many rows of different lengths. Invariant: each row has a block of its own, in which the keys of a
head lie one behind the other; whatever else changes, what a row holds stays as it is."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from streamllm.cpu import pages
from streamllm.cpu.mkl import Floats, Numbers

STEP = 16
"""Tokens by which a block grows, at least."""

FIRST = 48
"""Tokens of a row's first block, at least: enough for most sentences with their translations, so few are moved."""

DOUBLED = 1 << 26
"""Bytes up to which memory doubles when it is full; from there on it grows by a quarter."""

Vectors = np.ndarray[Any, np.dtype[np.float32]]


class Blocks:
    """Room for rows in all layers of a model.

    A block of ``size`` tokens takes ``heads * size`` vectors of ``width`` numbers, those of each head together. All
    layers, keys and values alike, have the same blocks at the same places.

    Args:
        layers, heads, width: of the model, heads with keys of their own.
        rows: at most.

    Attributes:
        prefix: keys and values (heads, tokens, width) in each layer of what rows may begin with; empty for nothing.
            They are here alone, and the blocks of such rows hold the columns behind them.
    """

    def __init__(self, layers: int, heads: int, width: int, rows: int):
        self._heads, self._width = heads, width
        self.keys: list[Vectors] = [np.zeros((0, width), np.float32) for _ in range(layers)]
        self.values: list[Vectors] = [np.zeros((0, width), np.float32) for _ in range(layers)]
        self.starts: Numbers = np.zeros(rows, np.int64)  # of each row's block, in vectors
        self.sizes: Numbers = np.zeros(rows, np.int64)  # in tokens
        self.prefix: list[tuple[Floats, Floats]] = []
        self.begun: Numbers = np.zeros(rows, np.int64)  # columns of each row that are the prefix, and not in its block
        self._end = 0  # of what was ever given out, in vectors
        self._free: dict[int, list[int]] = defaultdict(list)  # starts of the blocks of a size that are free

    @property
    def nbytes(self) -> int:
        """Slack included, but for what was never given out: memory that nothing was written to is not taken."""
        return 2 * len(self.keys) * self._end * self._width * self.keys[0].itemsize

    def begin(self, row: int) -> None:
        """An empty row begins with the prefix."""
        self.begun[row] = self.prefix[0][0].shape[1]

    def fit(self, rows: Numbers, tokens: Numbers) -> None:
        """Let each of these rows have room for so many tokens, those of the prefix included."""
        tokens = tokens - self.begun[rows]
        for i in np.flatnonzero(self.sizes[rows] < tokens).tolist():
            self._fit(int(rows[i]), int(tokens[i]))

    def _fit(self, row: int, tokens: int) -> None:
        size = int(self.sizes[row])
        # By a share of what is there: an endless row would be copied again and again.
        wanted = -(-max(FIRST, tokens, size + size // 4) // STEP) * STEP
        start = self._take(wanted)
        if size:
            old = int(self.starts[row])
            for buffer in (*self.keys, *self.values):
                self._view(buffer, start, wanted)[:, :size] = self._view(buffer, old, size)
            self._free[size].append(old)
        self.starts[row], self.sizes[row] = start, wanted

    def free(self, row: int) -> None:
        """What it holds is not wanted any more."""
        if size := int(self.sizes[row]):
            self._free[size].append(int(self.starts[row]))
            self.sizes[row] = 0
        self.begun[row] = 0

    def held(self, buffer: Vectors, row: int) -> Floats:
        """A row's part of the keys or values of a layer, (heads, tokens, width), without the prefix."""
        return self._view(buffer, int(self.starts[row]), int(self.sizes[row]))

    def keys_of(self, row: int) -> Callable[[int], Floats]:
        """A row's keys, (heads, tokens, width) of a layer, as they are now, wherever its block is moved later."""
        buffers, start, size = list(self.keys), int(self.starts[row]), int(self.sizes[row])
        begun = bool(self.begun[row])

        def keys(layer: int) -> Floats:
            own = self._view(buffers[layer], start, size)
            return np.concatenate([self.prefix[layer][0], own], axis=1) if begun else own

        return keys

    def at(self, rows: Numbers, columns: Numbers) -> Numbers:
        """Which vectors tokens have, (tokens, heads), from the row and the column of each."""
        first = self.starts[rows] + columns - self.begun[rows]
        return np.arange(self._heads) * self.sizes[rows][:, None] + first[:, None]

    def keep(self, rows: list[int]) -> None:
        """These become the first rows. Memory that the others had is given back, once that is most of it."""
        gone = set(range(len(self.sizes))) - set(rows)
        for row in gone:
            self.free(row)
        order = [*rows, *sorted(gone)]
        self.starts, self.sizes, self.begun = self.starts[order], self.sizes[order], self.begun[order]
        if 2 * self._used < self._end:
            self._pack()

    def _take(self, size: int) -> int:
        """The start of a block of this size."""
        if free := self._free[size]:
            return free.pop()
        needed = self._heads * size
        if self._end + needed > len(self.keys[0]):
            if 2 * self._used < self._end:  # most of it is free, in blocks of other sizes
                self._pack(needed)
            else:
                share = 1 if self.nbytes < DOUBLED else 4  # by much while that is little
                least = 2 * len(self.sizes) * FIRST * self._heads
                self._grow(max(least, self._end + needed, self._end + self._end // share))
        start, self._end = self._end, self._end + needed
        return start

    @property
    def _used(self) -> int:
        return self._heads * int(self.sizes.sum())

    def _grow(self, vectors: int) -> None:
        for buffers in (self.keys, self.values):
            for i, buffer in enumerate(buffers):
                buffers[i] = pages.zeros(vectors * self._width).reshape(-1, self._width)
                buffers[i][: self._end] = buffer[: self._end]

    def _pack(self, more: int = 0) -> None:
        """Put all blocks side by side into buffers of their own, with room for so many vectors more."""
        rows = np.flatnonzero(self.sizes)
        old, lengths = self.starts[rows], self._heads * self.sizes[rows]
        new = np.cumsum(lengths) - lengths
        for buffers in (self.keys, self.values):
            for i, buffer in enumerate(buffers):
                buffers[i] = pages.zeros((int(lengths.sum()) + more) * self._width).reshape(-1, self._width)
                for there, here, length in zip(new.tolist(), old.tolist(), lengths.tolist(), strict=True):
                    buffers[i][there : there + length] = buffer[here : here + length]
        self.starts[rows], self._end = new, int(lengths.sum())
        self._free.clear()

    def _view(self, buffer: Vectors, start: int, size: int) -> Floats:
        return buffer[start : start + self._heads * size].reshape(self._heads, size, self._width)
