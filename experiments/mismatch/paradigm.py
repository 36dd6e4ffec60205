"""The mismatches of streaming, one at a time: group position encoding with the source seeing the target, or with
positions in the order of arrival, put back in. For studies; with both it is `Interleaved`."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask

from streamllm.cache.dual import DualStreamingCache, SourceView, TargetView
from streamllm.cache.rows import KV
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.paradigms.memory import TargetStart


@dataclass(frozen=True)
class Mismatched:
    """`engine.paradigms.group.Group`, except for what is switched on.

    Args:
        source_sees_target: a source token attends to the target tokens fed before it, too (input-attention
            mismatch of Tong et al. 2025, arXiv 2505.16983).
        arrival_positions: one count of positions for both streams, in the order in which tokens are fed
            (position mismatch); target_start is not used then.
    """

    source_sees_target: bool = False
    arrival_positions: bool = False
    trained_as = "group"

    def open(self, model: Any, target_start: TargetStart = 0) -> "MismatchedMemory":
        return MismatchedMemory(model, target_start, self)


class MismatchedMemory(GroupMemory):
    """See `Mismatched`."""

    def __init__(self, model: Any, target_start: TargetStart, switches: Mismatched):
        super().__init__(model, target_start)
        if switches.arrival_positions:
            self._after_source = False
        self._sources = [_Source(cache, switches) for cache in self.caches]
        self._targets = [_Target(cache, switches) for cache in self.caches]

    def fork(self) -> Any:
        raise ValueError("paradigm=mismatched keeps no copies of a target for a beam: choose another policy")


class _Source(SourceView):
    """A mask of several source tokens does not depend on sliding windows: families with them are not for studies."""

    def __init__(self, cache: DualStreamingCache, switches: Mismatched):
        super().__init__(cache)
        self._switches = switches

    @property
    def offset(self) -> int:
        return self.cache.offset if self._switches.arrival_positions else super().offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        seen = self.cache.update_source(keys, values)
        return self.cache.target.keys_and_values() if self._switches.source_sees_target else seen

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array | str | None:
        source, target = self.cache.source_offset, self.cache.target_offset
        if window_size is not None and source + target + N > window_size:
            raise ValueError(
                f"paradigm=mismatched is for models without sliding windows, and {source + target + N} tokens pass "
                f"the window of {window_size}: choose paradigm=group"
            )
        if N == 1 and not return_array:
            return None
        own: mx.array = create_causal_mask(N, source)
        if not self._switches.source_sees_target:
            return own
        return mx.concatenate([own, mx.ones((N, target), mx.bool_)], axis=-1)


class _Target(TargetView):
    def __init__(self, cache: DualStreamingCache, switches: Mismatched):
        super().__init__(cache)
        self._switches = switches

    @property
    def visible(self) -> mx.array | None:  # type: ignore[override]
        return self.cache.target.visible

    @property
    def offset(self) -> int:
        return self.cache.offset if self._switches.arrival_positions else super().offset
