"""Keys and values of one attention layer with two streams, source and target; the views that a model sees of them.

Both streams lie in the same rows, the source first, so that what a target token attends to is a slice. Invariant: the
first `source_offset` rows are the source, all others the target.
"""

from collections.abc import Callable
from typing import Any, Self

import mlx.core as mx
from mlx_lm.models import cache as mlx_lm_cache
from mlx_lm.models.base import create_causal_mask

from streamllm.cache.rows import KV, STEP, Rows, arrays_of


class DualStreamingCache:
    """Keys and values of a source and a target stream, each with positions of its own.

    ``cache.source`` and ``cache.target`` are the two faces that mlx-lm's models see in place of a
    ``KVCache``; the methods are for use without a model. Keys arrive with RoPE applied, so their
    order in memory carries no meaning for attention.

    Args:
        target_start: position of the first target token (φ of Tong et al. 2025, arXiv 2505.16983).
        step: tokens by which the buffer grows. 1 leaves no slack, for training, where a stream comes in one piece.

    Arrays have the shape (B, H_kv, L, D); D of keys and values may differ (MLA), B, H_kv and D may not
    change after the first update. ``rows`` is the buffer; a cache of another kind puts its own there.
    """

    rows: Rows
    source: "SourceView"
    target: "TargetView"

    def __init__(self, target_start: int = 0, step: int = STEP):
        if target_start < 0:
            raise ValueError(f"target_start is {target_start}; a position is 0 or more")
        self.target_start = target_start
        self.rows = Rows(step)
        self.source, self.target = SourceView(self), TargetView(self)
        self._source_length = 0
        self._merged = False

    # Updates

    def update_source(self, keys: mx.array, values: mx.array) -> KV:
        """Append source tokens (B, H_kv, L, D); return all source keys and values, in order.

        Raises:
            RuntimeError: the streams are merged.
            ValueError: the shapes or dtypes do not fit what the cache holds.
        """
        self._check_separate("update", "source")
        self.rows.insert(self._source_length, keys, values)
        self._source_length += keys.shape[2]
        return self.rows.slice(0, self._source_length)

    def update_target(self, keys: mx.array, values: mx.array) -> KV:
        """Append target tokens (B, H_kv, L, D); return all target keys and values, in order.

        Raises: as `update_source`.
        """
        self._append_target(keys, values)
        return self.rows.slice(self._source_length, self.rows.length)

    def _append_target(self, keys: mx.array, values: mx.array) -> None:
        self._check_separate("update", "target")
        self.rows.insert(self.rows.length, keys, values)

    def _check_separate(self, what: str, stream: str) -> None:
        if self._merged:
            raise RuntimeError(
                f"cannot {what} the {stream} while the streams are merged: call separate_source_target() first"
            )

    def begin_with(self, other: Self) -> None:
        """Hold the source that ``other`` holds. Nothing is copied before one of the two is fed more.

        Raises:
            RuntimeError: this cache holds something already.
        """
        if self.offset:
            raise RuntimeError(f"cannot begin with another source: {self.offset} tokens are held; call reset() first")
        if other.source_offset:
            self.rows.hold([array[..., : other.source_offset, :] for array in other.rows.arrays])
            self._source_length = other.source_offset

    # Merging

    def merge_source_target(self) -> None:
        """Make both streams available as one through `get_merged`. Idempotent; copies nothing."""
        self._merged = True

    def separate_source_target(self) -> None:
        """Undo `merge_source_target`, so that the streams can be updated again. Idempotent."""
        self._merged = False

    def get_merged(self) -> KV | tuple[None, None]:
        """All keys and values, source then target: a slice of the buffer. (None, None) when empty.

        Raises:
            RuntimeError: the streams are not merged.
        """
        if not self._merged:
            raise RuntimeError("the streams are not merged: call merge_source_target() first")
        return self.rows.slice(0, self.rows.length) if self.rows.length else (None, None)

    @property
    def is_merged(self) -> bool:
        return self._merged

    # Reading

    def get_source(self) -> KV | tuple[None, None]:
        """Keys and values of the source, (None, None) when there are none."""
        return self.rows.slice(0, self._source_length) if self._source_length else (None, None)

    def get_target(self) -> KV | tuple[None, None]:
        """Keys and values of the target, (None, None) when there are none."""
        return self.rows.slice(self._source_length, self.rows.length) if self.target_offset else (None, None)

    @property
    def source_offset(self) -> int:
        """Number of source tokens held."""
        return self._source_length

    @property
    def target_offset(self) -> int:
        """Number of target tokens held."""
        return self.rows.length - self._source_length

    @property
    def offset(self) -> int:
        """Number of tokens held, source and target."""
        return self.rows.length

    @property
    def step(self) -> int:
        """Tokens by which the buffer grows."""
        return self.rows.step

    @step.setter
    def step(self, step: int) -> None:
        self.rows.step = step

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, slack included."""
        return sum(array.nbytes for array in self.rows.arrays)

    @property
    def buffers(self) -> list[mx.array]:
        """The arrays that hold everything, slack included: what to evaluate after an update."""
        return [*self.rows.arrays]

    def empty(self) -> bool:
        return self.offset == 0

    # Rolling back

    def reset(self) -> None:
        """Forget everything; the streams are separate again. ``target_start`` stays."""
        self.rows.clear()
        self._source_length = 0
        self._merged = False
        self.target.visible = None

    def reset_target(self) -> None:
        """Forget the target and keep the source; the streams are separate again."""
        self.rows.remove(self._source_length, self.target_offset)
        self._merged = False

    def is_trimmable(self) -> bool:
        return True

    def trim_target(self, n: int) -> int:
        """Forget the last ``n`` target tokens (at most all); return how many were forgotten.

        Raises:
            RuntimeError: the streams are merged.
            ValueError: n is negative.
        """
        n = self._trimmed("target", n, self.target_offset)
        self.rows.remove(self.rows.length - n, n)
        return n

    def trim_source(self, n: int) -> int:
        """Forget the last ``n`` source tokens (at most all); return how many were forgotten.

        The target stays, although it was computed with the forgotten tokens in view.

        Raises: as `trim_target`.
        """
        n = self._trimmed("source", n, self._source_length)
        self.rows.remove(self._source_length - n, n)
        self._source_length -= n
        return n

    def forget_source(self, n: int, after: int, move: Callable[[mx.array], mx.array]) -> None:
        """Forget the ``n`` source tokens that follow the first ``after``; ``move`` is given the keys
        (B, H_kv, L, D) of those behind them, which are at new positions now.

        Raises: RuntimeError: the streams are merged. ValueError: there are not so many.
        """
        self._forget("source", n, after, 0, self._source_length, move)
        self._source_length -= n

    def forget_target(self, n: int, after: int, move: Callable[[mx.array], mx.array]) -> None:
        """As `forget_source`, of the target."""
        self._forget("target", n, after, self._source_length, self.rows.length, move)

    def _forget(
        self, stream: str, n: int, after: int, start: int, end: int, move: Callable[[mx.array], mx.array]
    ) -> None:
        if self._trimmed(stream, n, end - start) + after > end - start or after < 0:
            raise ValueError(f"cannot forget {n} {stream} tokens after the first {after}: {end - start} are held")
        self.rows.map_keys(start + after + n, end, move)
        self.rows.remove(start + after, n)

    def _trimmed(self, stream: str, n: int, length: int) -> int:
        self._check_separate("trim", stream)
        if n < 0:
            raise ValueError(f"cannot trim {n} tokens: the number is 0 or more")
        return min(n, length)

    # Rows of a batch

    @property
    def batch_size(self) -> int:
        """B of what is held, 0 when empty."""
        return self.rows.batch_size

    def copy(self) -> Self:
        """A new cache with the same content."""
        cache = type(self).from_state(self.state)
        cache.step = self.step
        return cache

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order; a row may be kept several times."""
        self.rows.select(rows)

    def map_target_keys(self, function: Callable[[mx.array], mx.array]) -> None:
        """Replace the target's keys (B, H_kv, T, D) by what ``function`` makes of them, of the same shape."""
        self.rows.map_keys(self._source_length, self.rows.length, function)

    # State

    @property
    def state(self) -> tuple[mx.array, mx.array, int, int, int, int]:
        """(keys, values, source_offset, target_offset, target_start, is_merged): arrays and ints only.

        Keys and values are in the order source, target, without slack; arrays of size 0 when empty.
        """
        keys, values = self.rows.slice(0, self.offset) if self.offset else (mx.zeros((0,)), mx.zeros((0,)))
        return keys, values, self._source_length, self.target_offset, self.target_start, int(self._merged)

    @state.setter
    def state(self, state: Any) -> None:
        keys, values, source_length, target_length, target_start, merged = state
        arrays = arrays_of(keys, values)
        held = arrays[0].shape[2] if arrays else 0
        if held != source_length + target_length:
            raise ValueError(
                f"the state holds {held} tokens but counts {source_length} source and {target_length} target tokens"
            )
        self.rows.hold(arrays)
        self._source_length = int(source_length)
        self.target_start, self._merged = int(target_start), bool(merged)

    @classmethod
    def from_state(cls, state: Any) -> Self:
        """A new cache with this `state` (what ``mlx_lm.models.cache.load_prompt_cache`` calls)."""
        cache = cls()
        cache.state = state
        return cache

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(source_offset={self.source_offset}, target_offset={self.target_offset}, "
            f"is_merged={self.is_merged})"
        )


# The views define no __len__, __bool__ or `bits`: mlx-lm tests caches for truth, and takes `bits` for a
# quantised cache.


class SourceView:
    """What a model sees while it reads: appends to the source, attends to the source only."""

    def __init__(self, cache: DualStreamingCache):
        self.cache = cache

    @property
    def offset(self) -> int:
        """Position of the next source token."""
        return self.cache.source_offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        return self.cache.update_source(keys, values)

    def keys_and_values(self) -> KV:
        """What the last update gave, for layers that share the keys of another one (gemma3n)."""
        return self.cache.rows.slice(0, self.cache.source_offset)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array | str | None:
        """Mask of ``N`` new source tokens over old and new ones: None, "causal" or bool (N, S + N)."""
        return _causal_mask(N, self.offset, return_array, window_size)

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        return self.cache.trim_source(n)


class TargetView:
    """What a model sees while it writes: appends to the target, attends to source and target.

    ``visible``, a bool array (B, N, S) or None, limits which source tokens each of the next ``N`` target
    tokens sees (None: all that have been read). Training sets it; at inference the source that has not been
    read is not there. For families that group queries (`streamllm.models.families.groups_queries`) it is (B, 1, N, S).
    """

    visible: mx.array | None = None

    def __init__(self, cache: DualStreamingCache):
        self.cache = cache

    @property
    def offset(self) -> int:
        """Position of the next target token."""
        return self.cache.target_start + self.cache.target_offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        self.cache._append_target(keys, values)
        return self.keys_and_values()

    def keys_and_values(self) -> KV:
        """What the last update gave, for layers that share the keys of another one (gemma3n)."""
        return self.cache.rows.slice(0, self.cache.rows.length)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array | str | None:
        """Mask of ``N`` new target tokens over source, old and new target tokens.

        A sliding window of w applies within each stream: a target token sees the last w tokens of the
        source it may see, and the last w of the target, itself included.

        Returns: None, "causal" (lower-right aligned), or bool (N, S + T + N), (B, 1, N, S + T + N), or (B, 1, 1, …).
        """
        source, target = self.cache.source_offset, self.cache.target_offset
        if self.visible is not None:
            sees = self.visible[:, None]  # (B, 1, N, S), or (B, 1, 1, N, S)
            if window_size is not None and source > window_size:
                from_end = mx.cumsum(sees.astype(mx.int32), axis=-1, reverse=True)
                sees = sees & (from_end <= window_size)
            own = create_causal_mask(N, target, window_size=window_size)  # (N, T + N)
            own = mx.broadcast_to(own, (*sees.shape[:-1], target + N))
            return mx.concatenate([sees, own], axis=-1)
        if window_size is None or max(source, target + N) <= window_size:
            return _causal_mask(N, source + target, return_array, None)
        sees = mx.broadcast_to(mx.arange(source) >= source - window_size, (N, source))
        return mx.concatenate([sees, create_causal_mask(N, target, window_size=window_size)], axis=-1)

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        return self.cache.trim_target(n)


def _causal_mask(N: int, offset: int, return_array: bool, window_size: int | None) -> mx.array | str | None:
    left_window = window_size is not None and offset + N > window_size
    if left_window or return_array:
        mask: mx.array = create_causal_mask(N, offset, window_size=window_size if left_window else None)
        return mask
    return None if N == 1 else "causal"


def make_caches(model: Any, target_start: int = 0, step: int = STEP) -> list[DualStreamingCache]:
    """One cache for each that ``model`` asks for: some families share one between layers, or have layers without."""
    return [DualStreamingCache(target_start, step) for _ in mlx_lm_cache.make_prompt_cache(model)]


# mlx-lm's load_prompt_cache looks classes up by name in its own module.
mlx_lm_cache.DualStreamingCache = DualStreamingCache  # type: ignore[attr-defined]
