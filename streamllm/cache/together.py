"""Source tokens and the target tokens after them in one forward, in which each token is a batch row of its own. The
source does not see the target, so a mask for each row says all. Invariant: a layer holds afterwards what two forwards
would have left in it."""

from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.cache.dual import DualStreamingCache
from streamllm.cache.rows import KV


class TogetherView:
    """What a model sees of one layer in a forward of ``source`` and then ``target`` new tokens, (source + target, 1).

    ``offset`` holds their positions, (source + target,). As the other views, it defines no __len__, __bool__ or `bits`.
    """

    def __init__(self, cache: DualStreamingCache, source: int, target: int):
        self.cache, self._new = cache, (source, target)
        self._held = cache.source_offset, cache.target_offset
        positions = [*range(cache.source.offset, cache.source.offset + source)]
        positions += range(cache.target.offset, cache.target.offset + target)
        self.offset = mx.array(positions, mx.int32)
        self._masks: dict[int | None, mx.array] = {}

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        """Store (N, H_kv, 1, D); return what is held then, the same for each row, (N, H_kv, S + T, D)."""
        source, _ = self._new
        keys, values = keys.transpose(2, 1, 0, 3), values.transpose(2, 1, 0, 3)  # (1, H_kv, N, D)
        self.cache.update_source(keys[:, :, :source], values[:, :, :source])
        self.cache.update_target(keys[:, :, source:], values[:, :, source:])
        return self.keys_and_values()

    def keys_and_values(self) -> KV:
        """What the last update gave, for layers that share the keys of another one (gemma3n)."""
        keys, values = self.cache.rows.slice(0, self.cache.rows.length)
        rows = sum(self._new)
        return mx.broadcast_to(keys, (rows, *keys.shape[1:])), mx.broadcast_to(values, (rows, *values.shape[1:]))

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """Bool (rows, 1, 1, S + T). A sliding window applies within each stream, as in the other views."""
        if window_size not in self._masks:
            source, target = self._new
            held_source, held_target = self._held
            ends = np.full((source + target, 2), (held_source + source, 0))  # what each row sees of source and target
            ends[:source, 0] = held_source + 1 + np.arange(source)
            ends[source:, 1] = held_target + 1 + np.arange(target)
            sees = []
            for end, length in zip(ends.T[..., None], (held_source + source, held_target + target), strict=True):
                index = np.arange(length)
                sees.append((index < end) & (index >= end - (window_size or length)))
            self._masks[window_size] = mx.array(np.concatenate(sees, axis=1)[:, None, None])
        return self._masks[window_size]

    def is_trimmable(self) -> bool:
        return False


def together(caches: "list[DualStreamingCache]", source: int, target: int) -> list[Any]:
    """The views of all layers."""
    return [TogetherView(cache, source, target) for cache in caches]
