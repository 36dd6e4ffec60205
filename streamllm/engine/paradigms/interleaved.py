"""Both streams in one sequence, in the order of their arrival."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from streamllm.engine.paradigms.branches import Branches
from streamllm.engine.paradigms.memory import CachedMemory, Held, TargetStart


@dataclass(frozen=True)
class Interleaved:
    """One sequence in the order of arrival: ordinary positions, each token sees all before it, of either stream."""

    trained_as = "interleaved"

    def open(self, model: Any, target_start: TargetStart = 0) -> "InterleavedMemory":
        return InterleavedMemory(model)


class InterleavedMemory(CachedMemory):
    """See `Interleaved`. Both streams lie in the source of the caches, in the order of their arrival."""

    def __init__(self, model: Any):
        super().__init__(model)
        self._target = 0

    @property
    def target_offset(self) -> int:
        return self._target

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        if hidden:
            raise ValueError(
                "paradigm=interleaved cannot predict with some of the source hidden, since tokens of the target "
                "have seen it: choose another policy, or paradigm=group"
            )
        waiting = self._take_waiting(tokens)
        self._target += len(tokens)
        return self._feed([*waiting, *tokens], self._sources)

    def _may_wait(self) -> bool:
        return True  # the streams are one sequence

    def trim(self, n: int) -> None:
        self._target -= n
        for cache in self.caches:
            cache.trim_source(n)

    def held(self, trimmed: int = 0) -> Held:
        held = super().held(trimmed)
        return held._replace(source=held.source - trimmed)

    def take_back(self, held: Held) -> None:
        self._target = held.target
        super().take_back(held)  # which takes what lies behind that, of either stream

    def fork(self) -> "Branches":
        self._feed_waiting()
        return Branches(self, of_source=True)
