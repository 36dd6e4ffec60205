"""Each stream counts its own positions, and nothing is encoded twice: what the dual cache was made for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from streamllm.engine.paradigms.branches import Branches
from streamllm.engine.paradigms.memory import CachedMemory, TargetStart

if TYPE_CHECKING:  # the cache needs mlx-lm, which is slow to import: runs that load no model do not wait for it
    from streamllm.cache.dual import DualStreamingCache


@dataclass(frozen=True)
class Group:
    """Each stream counts its own positions, the source never sees the target, nothing is encoded twice."""

    trained_as = "group"

    def open(self, model: Any, target_start: TargetStart = 0) -> "GroupMemory":
        return GroupMemory(model, target_start)


class GroupMemory(CachedMemory):
    """See `Group`.

    Args:
        target_start: position of the first target token (φ); "after_source" goes on where the source stands at
            the first write. With the whole source read, that is what a model not trained to stream expects.
        caches: empty ones, where they are not to be the usual ones.
    """

    def __init__(self, model: Any, target_start: TargetStart = 0, caches: "list[DualStreamingCache] | None" = None):
        start = 0 if target_start == "after_source" else target_start
        super().__init__(model, start, caches)
        self._place(start)
        self._after_source = target_start == "after_source"
        self._keeps_start = False

    @property
    def target_offset(self) -> int:
        return self.caches[0].target_offset

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        if self._after_source and not self.target_offset and not self._keeps_start:
            self._place(self.caches[0].source_offset - hidden)
        if not hidden:
            self._keeps_start = False
            return self._feed(tokens, self._targets)
        source = self.caches[0].source_offset
        sees = mx.broadcast_to(mx.arange(source) < source - hidden, (1, len(tokens), source))
        with _visible(self.caches, sees):
            return self._feed(tokens, self._targets)

    def keep_start(self, keep: bool) -> None:
        self._keeps_start = keep

    def _place(self, position: int) -> None:
        for cache in self.caches:
            cache.target_start = position

    def trim(self, n: int) -> None:
        for cache in self.caches:
            cache.trim_target(n)

    def fork(self) -> "Branches":
        return Branches(self, of_source=False)


@contextmanager
def _visible(caches: Sequence["DualStreamingCache"], sees: mx.array) -> Iterator[None]:
    """Inside, the target sees of the source what ``sees`` (1, N, S) says."""
    for cache in caches:
        cache.target.visible = sees
    try:
        yield
    finally:
        for cache in caches:
            cache.target.visible = None
