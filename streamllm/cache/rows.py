"""The buffer of a cache: keys and values, a row for each token. It knows no streams.

Invariant: rows ``[0, length)`` hold what was put in and not taken out, in order; all rows behind them are slack.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

KV = tuple[mx.array, mx.array]
STEP = 256  # rows by which a buffer grows


class Rows:
    """Keys and values (B, H_kv, length, D) in arrays that grow by ``step`` rows.

    ``arrays`` are the buffer, those of the keys and then as many of the values; none before the first row. A kind of
    rows says in `pack` and `unpack` how its arrays hold numbers, in `slice` how attention takes them.
    """

    def __init__(self, step: int = STEP):
        self.step = step
        self.arrays: list[mx.array] = []
        self.length = 0

    # How numbers are held

    def pack(self, numbers: mx.array) -> Sequence[mx.array]:
        """Keys, or values, (B, H_kv, L, D) as arrays (B, H_kv, L, …) of the buffer."""
        return (numbers,)

    def unpack(self, arrays: Sequence[mx.array]) -> mx.array:
        """What was packed."""
        return arrays[0]

    def held(self) -> list[tuple[Any, ...]]:
        """(B, H_kv, D, dtype) of keys and of values; nothing before the first row."""
        return [(*array.shape[:2], array.shape[3], array.dtype) for array in self.arrays]

    def check(self, keys: mx.array, values: mx.array) -> None:
        """Raises: ValueError: they fit neither each other nor the buffer."""
        if keys.ndim != 4 or values.ndim != 4 or keys.shape[:3] != values.shape[:3]:
            raise ValueError(
                f"keys {keys.shape} and values {values.shape} do not fit together: "
                "both are (B, H_kv, L, D) and only D may differ"
            )
        for name, held, new in zip(("keys", "values"), self.held(), (keys, values), strict=False):
            if held != (*new.shape[:2], new.shape[3], new.dtype):
                raise ValueError(
                    f"{name} of shape {new.shape} and {new.dtype} do not fit the cache, which holds "
                    f"(B, H_kv, *, D) = {(*held[:2], '*', held[2])} of {held[3]}: "
                    "use a cache of its own for each batch, or call reset() first"
                )

    # Rows

    def insert(self, at: int, keys: mx.array, values: mx.array) -> None:
        """Put rows (B, H_kv, L, D) in at ``at``; the rows from there on move up.

        Raises: ValueError: as `check`.
        """
        self.check(keys, values)
        new = [*self.pack(keys), *self.pack(values)]
        if at < self.length:  # a splice, on a read that comes after a write
            behind = [array[..., at : self.length, :] for array in self.arrays]
            new = [mx.concatenate([part, moved], axis=2) for part, moved in zip(new, behind, strict=True)]
        buffers: Sequence[mx.array | None] = self.arrays or [None] * len(new)
        self.arrays = [self._store(buffer, part, at) for buffer, part in zip(buffers, new, strict=True)]
        self.length += keys.shape[2]

    def _store(self, buffer: mx.array | None, new: mx.array, at: int) -> mx.array:
        """Write ``new`` at row ``at``, growing the buffer by whole steps."""
        end = at + new.shape[2]
        if buffer is None or end > buffer.shape[2]:
            rows = -(-new.shape[2] // self.step) * self.step - new.shape[2]
            slack = [mx.zeros((*new.shape[:2], rows, new.shape[3]), new.dtype)] if rows else []
            kept = [] if buffer is None else [buffer[..., :at, :]]
            parts = [*kept, new, *slack]
            return mx.concatenate(parts, axis=2) if len(parts) > 1 else new[...]
        buffer[..., at:end, :] = new
        return buffer

    def remove(self, at: int, n: int) -> None:
        """Take ``n`` rows out from ``at`` on; the rows behind them close the gap."""
        end = self.length
        if n and at + n < end:
            for array in self.arrays:
                array[..., at : end - n, :] = mx.contiguous(array[..., at + n : end, :])
        self.length = end - n

    def clear(self) -> None:
        """Give the buffer back, so that rows of other shapes may come."""
        self.arrays, self.length = [], 0

    def slice(self, start: int, end: int) -> KV:
        """Keys and values of rows. Always new array objects, even of the whole: the buffer is written in place."""
        keys, values = self.arrays
        return keys[..., start:end, :], values[..., start:end, :]

    def hold(self, arrays: Sequence[mx.array]) -> None:
        """Hold these instead, which `arrays_of` gave."""
        self.arrays = [array[...] for array in arrays]
        self.length = arrays[0].shape[2] if arrays else 0

    def map_keys(self, start: int, end: int, function: Callable[[mx.array], mx.array]) -> None:
        """Replace the keys (B, H_kv, end - start, D) of rows by what ``function`` makes of them, of the same shape."""
        if start < end:
            keys = self.arrays[: len(self.arrays) // 2]
            mapped = function(self.unpack([array[..., start:end, :] for array in keys]))
            for array, new in zip(keys, self.pack(mapped), strict=True):
                array[..., start:end, :] = new

    # Sequences of a batch

    @property
    def batch_size(self) -> int:
        """B of what is held, 0 before the first row."""
        return int(self.arrays[0].shape[0]) if self.arrays else 0

    def select(self, sequences: list[int]) -> None:
        """Keep these sequences of the batch, in this order; one may be kept several times."""
        self.arrays = [array[mx.array(sequences)] for array in self.arrays]


def arrays_of(keys: Any, values: Any) -> list[mx.array]:
    """The arrays of a `Rows.slice`, as the buffer holds them; none where keys and values are the arrays of a state
    that is empty."""
    arrays = [keys, values] if isinstance(keys, mx.array) else [*keys, *values]
    return [array for array in arrays if array.ndim == 4]
