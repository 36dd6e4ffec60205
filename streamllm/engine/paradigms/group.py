"""Each stream counts its own positions, and nothing is encoded twice: what the dual cache was made for."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import mlx.core as mx

from streamllm.cache.retention import Retention
from streamllm.engine.living_on import LivingOn
from streamllm.engine.paradigms.branches import Branches
from streamllm.engine.paradigms.forgetting import Forgets, Forgetting, Window, forgetting_of
from streamllm.engine.paradigms.memory import CachedMemory, Held, TargetStart, check_gaps, check_holds_all

if TYPE_CHECKING:  # the cache needs mlx-lm, which is slow to import: runs that load no model do not wait for it
    from streamllm.cache.dual import DualStreamingCache


class GroupParadigm:
    """What the paradigms share whose memory is a `GroupMemory`: they differ in what they forget, and in how a stream
    lives on after a sentence."""

    trained_as = "group"
    forgets = False  # also without windows

    def living_on(self, documents: bool) -> LivingOn | None:
        """For a model that was trained with ``data.documents``, or was not; None ends a stream with its sentence."""
        return None

    def windows(self, retention: Retention) -> tuple[int | None, int | None, int]:
        """How many tokens of source and target are held at most, and how many of the first are never forgotten."""
        return retention.max_source, retention.max_target, retention.sinks

    def forgetting(
        self, model: Any, retention: Retention = Retention(), source_header: int = 0, target_header: int = 0
    ) -> Forgetting | None:
        """How memories of this model forget; None if they do not.

        Args:
            source_header, target_header: tokens of the headers, which stay whole.

        Raises:
            ValueError: the model's keys cannot be moved, or a window has no room beside what is never forgotten.
        """
        max_source, max_target, sinks = self.windows(retention)
        if max_source is max_target is None and not self.forgets:
            return None
        source = Window("source", max_source, max(sinks, source_header))
        target = Window("target", max_target, max(sinks, target_header))
        asked = f"paradigm={type(self).__name__.lower()} needs"
        if isinstance(self, Group):
            asked = "model.max_source and model.max_target need"
        return forgetting_of(model, source, target, asked)

    def open(self, model: Any, target_start: TargetStart = 0) -> "GroupMemory":
        """A memory for streams without headers; `windows.memories` also keeps those."""
        return GroupMemory(model, target_start, forgetting=self.forgetting(model))


@dataclass(frozen=True)
class Group(GroupParadigm):
    """Each stream counts its own positions, the source never sees the target, nothing is encoded twice."""


class GroupMemory(Forgets, CachedMemory):
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
        self.forgetting = forgetting

    @property
    def target_offset(self) -> int:
        return self.caches[0].target_offset

    @property
    def source_held(self) -> int:
        return self.caches[0].source_offset + len(self._waiting)

    @property
    def target_held(self) -> int:
        return self.caches[0].target_offset

    def read(self, tokens: list[int], waits: bool = False) -> None:
        self.read_in_windows(tokens, partial(super().read, waits=waits))

    def forget_oldest(self, forgetting: Forgetting, target: bool, n: int) -> None:
        self._feed_waiting()  # it was to see what is forgotten
        for cache, rotate in zip(self.caches, forgetting.moves, strict=True):
            forget, window = (
                (cache.forget_target, forgetting.target) if target else (cache.forget_source, forgetting.source)
            )
            forget(n, window.sinks, partial(rotate, by=-n))
        if not target:
            del self._columns[self.source_held :]

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        if self._after_source and not self.target_offset and not self._keeps_start:
            self._place(self.source_held - hidden)
        waiting = self._take_waiting(tokens, alone=hidden > 0)
        if not hidden:
            self._keeps_start = False
            return self._feed_both(waiting, tokens) if waiting else self._feed(tokens, self._targets)
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

    def held(self, trimmed: int = 0) -> Held:
        return super().held(trimmed)._replace(keeps_start=self._keeps_start, gaps=self.gaps)

    def take_back(self, held: Held) -> None:
        check_gaps(held, self.gaps)
        super().take_back(held)
        self.keep_start(held.keeps_start)
        if self._after_source and not held.target:
            self._place(held.start)

    def forgets_before(self, n: int) -> bool:
        return self.makes_room(n)

    def beside(self, source: list[int]) -> Self:
        check_holds_all(self.forgetting is not None)
        return super().beside(source)

    def fork(self) -> "Branches":
        self._feed_waiting()
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
