"""Attention in a forward whose tokens are batch rows of their own: the tokens of a sentence attend side by side, to the
keys of their sentence as they lie in memory. Invariant: outside `packed`, nothing is changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.standins import replaced

GATHERED = 3  # what attention to keys that are copied first costs, in attentions to keys where they lie
APART = 1024  # keys to which attention costs as much as to have rows attend apart


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a forward are in attention.

    Args:
        slots: (T,), the row of memory that each token's sentence has.
        lengths: (T,), columns of it that hold anything, this forward's tokens included.
        split: whether sentences much longer than the others attend apart.
    """

    slots: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]
    split: bool = True

    @cached_property
    def _sentences(self) -> Any:
        """Rows of memory that have tokens, the one of each token among them, and its place in its row."""
        rows, own = np.unique(self.slots, return_inverse=True)
        order = np.argsort(own, kind="stable")
        counts = np.bincount(own)
        place = np.empty_like(own)
        place[order] = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, own, place

    @property
    def in_place(self) -> bool:
        """Whether attention takes all rows of memory up to the last that has tokens; else those are copied."""
        rows, _, _ = self._sentences
        return bool(2 * len(rows) > rows[-1])

    @property
    def rows(self) -> Any:
        """What picks the rows of memory: a slice, or their numbers."""
        rows, _, _ = self._sentences
        return slice(int(rows[-1]) + 1) if self.in_place else mx.array(rows)

    @cached_property
    def cells(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The row and the place of each token in attention, (T,) each."""
        rows, own, place = self._sentences
        return (rows[own] if self.in_place else own), place

    @cached_property
    def tokens(self) -> np.ndarray[Any, Any]:
        """(R, N): the token at each place; where there is none, some token."""
        row, place = self.cells
        tokens = np.zeros((int(row.max()) + 1, int(place.max()) + 1), np.int32)
        first = np.flatnonzero(place == 0)
        tokens[row[first]] = first[:, None]
        tokens[row, place] = np.arange(len(row))
        return tokens

    @cached_property
    def _parts(self) -> tuple[int, np.ndarray[Any, Any]]:
        """Columns that attention takes of all rows, and the rows that attend apart since they hold more."""
        row, _ = self.cells
        lengths = np.zeros(int(row.max()) + 1, np.int64)
        np.maximum.at(lengths, row, self.lengths)
        longest_first = np.argsort(-lengths, kind="stable")
        falling = lengths[longest_first]
        apart = np.arange(len(falling))
        cost = len(falling) * falling + (apart > 0) * APART + GATHERED * apart * falling[0]
        n = int(cost.argmin()) if self.split else 0
        return int(falling[n]), longest_first[:n]

    def attend(self, attention: Any, queries: mx.array, keys: mx.array, values: mx.array, **options: Any) -> mx.array:
        """(T, H, 1, D) from queries (T, H, 1, D) and the keys and values (R, H_kv, columns, D) of the rows."""
        mask = options.pop("mask")
        used, long = self._parts
        laid = queries[:, :, 0][self._tokens].transpose(0, 2, 1, 3)  # (R, H, N, D)
        result: mx.array = attention(laid, keys[:, :, :used], values[:, :, :used], mask=mask[..., :used], **options)
        cells = self._cells
        every = result.transpose(0, 2, 1, 3).flatten(0, 1)  # (R N, H, D)
        if len(long):
            at = mx.array(long)
            result = attention(laid[at], keys[at], values[at], mask=mask[at], **options)
            every = mx.concatenate([every, result.transpose(0, 2, 1, 3).flatten(0, 1)])
        there: mx.array = every[cells][:, :, None]
        return there

    @cached_property
    def _tokens(self) -> mx.array:
        return mx.array(self.tokens)

    @cached_property
    def _cells(self) -> mx.array:
        """Where each token's result is, of those of all rows followed by those of the rows apart."""
        row, place = self.cells
        rows, width = self.tokens.shape
        _, long = self._parts
        block = np.arange(rows)
        block[long] = rows + np.arange(len(long))
        return mx.array(block[row] * width + place)


@contextmanager
def packed(packing: Packing) -> Iterator[None]:
    """In the forward inside, attention goes by ``packing``."""

    def packing_attention(attention: Any) -> Any:
        return partial(packing.attend, attention)

    with replaced(mx.fast, "scaled_dot_product_attention", packing_attention):
        yield
