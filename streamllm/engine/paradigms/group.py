"""Each stream counts its own positions, and nothing is encoded twice: what the dual cache was made for."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from streamllm.engine.paradigms.branches import Branches
from streamllm.engine.paradigms.forgetting import Forgetting
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
        forgetting: how it forgets the oldest tokens; None holds all.
    """

    def __init__(
        self,
        model: Any,
        target_start: TargetStart = 0,
        caches: "list[DualStreamingCache] | None" = None,
        forgetting: Forgetting | None = None,
    ):
        start = 0 if target_start == "after_source" else target_start
        super().__init__(model, start, caches)
        self._place(start)
        self._after_source = target_start == "after_source"
        self._keeps_start = False
        self._forgetting = forgetting
        self._forgotten = 0  # source tokens

    @property
    def target_offset(self) -> int:
        return self.caches[0].target_offset

    @property
    def source_held(self) -> int:
        """Source tokens that are held."""
        return self.caches[0].source_offset

    @property
    def source_gap(self) -> tuple[int, int]:  # type: ignore[override]
        if self._forgetting is None or not self._forgotten:
            return (0, 0)
        sinks = self._forgetting.source.sinks
        return (sinks, sinks + self._forgotten)

    def read(self, tokens: list[int]) -> None:
        if self._forgetting is None:
            super().read(tokens)
        else:
            self._forgetting.read(self, tokens, super().read)

    def forget_source(self, n: int) -> None:
        """Forget the ``n`` oldest source tokens after the sinks."""
        self._forget_oldest("forget_source", n, self._may_forget.source.sinks)
        del self._columns[self.source_held :]
        self._forgotten += n

    def forget_target(self, n: int) -> None:
        """Forget the ``n`` oldest target tokens after the sinks."""
        self._forget_oldest("forget_target", n, self._may_forget.target.sinks)

    def keep_last(self, source: int, target: int) -> None:
        """Forget all but the sinks and the last tokens, so many of each stream."""
        self._may_forget.keep_last(self, source, target)

    def _forget_oldest(self, stream: str, n: int, sinks: int) -> None:
        for cache, rotate in zip(self.caches, self._may_forget.moves, strict=True):
            getattr(cache, stream)(n, sinks, partial(rotate, by=-n))

    @property
    def _may_forget(self) -> Forgetting:
        if self._forgetting is None:
            raise RuntimeError("this memory holds all that it is fed: open it with a way of forgetting")
        return self._forgetting

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        if self._after_source and not self.target_offset and not self._keeps_start:
            self._place(self.caches[0].source_offset - hidden)
        if not hidden:
            self._keeps_start = False
            return self._feed(tokens, self._targets)
        return self._feed(tokens, self._targets, partial(self._without, hidden))

    def _without(self, hidden: int, n: int) -> AbstractContextManager[None]:
        """In it, ``n`` target tokens do not see the last ``hidden`` source tokens."""
        source = self.caches[0].source_offset
        return _visible(self.caches, mx.broadcast_to(mx.arange(source) < source - hidden, (1, n, source)))

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
