"""The target is encoded again after every read: all of it, or only its positions."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from streamllm.engine.paradigms.branches import Branches
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.paradigms.memory import Held, TargetStart


@dataclass(frozen=True)
class Batch:
    """The target is encoded again after every read, as if the source had been there from the start.

    Its positions are those of `Group`. With ``target_start="after_source"`` each prediction is exactly that of an
    offline forward over what has been read: the ideal, at the price of one longer forward a read.
    """

    trained_as = "group"

    def open(self, model: Any, target_start: TargetStart = 0) -> "BatchMemory":
        return BatchMemory(model, target_start)


@dataclass(frozen=True)
class BatchPositions:
    """Only the positions of the target are encoded again after a read, so that it always follows the source: its
    keys are rotated on, its values stay as they were computed from less source."""

    trained_as = "group"

    def open(self, model: Any, target_start: TargetStart = 0) -> "BatchPositionsMemory":
        return BatchPositionsMemory(model)


class BatchMemory(GroupMemory):
    """See `Batch`."""

    def __init__(self, model: Any, target_start: TargetStart = 0):
        super().__init__(model, target_start)
        self._tokens: list[int] = []  # of the target
        self._stale = False

    @property
    def target_offset(self) -> int:
        return len(self._tokens)

    def read(self, tokens: list[int], waits: bool = False) -> None:
        super().read(tokens)
        self._forget()

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        if hidden and not self._stale:
            self._forget()
        again = self._tokens if self._stale else []
        if self._after_source and not self.caches[0].target_offset:
            self._place(self.caches[0].source_offset - hidden)
        self._tokens, self._stale = self._tokens + tokens, False
        logits = super().write([*again, *tokens], hidden)
        if hidden:
            self._forget()  # it was encoded with some of the source hidden
        return logits

    def fork(self) -> Branches:
        if self._stale and self._tokens:  # a prediction with source hidden has left nothing of the target
            self.write([])
        return super().fork()

    def take_back(self, held: Held) -> None:
        super().take_back(held)
        self._forget()  # it was encoded with what is gone

    def _forget(self) -> None:
        for cache in self.caches:
            cache.reset_target()
        self._stale = True

    def trim(self, n: int) -> None:
        if n and not self._stale:
            super().trim(n)
        self._tokens = self._tokens[: len(self._tokens) - n]


class BatchPositionsMemory(GroupMemory):
    """See `BatchPositions`.

    Raises:
        ValueError: the model has no rotary positions, or such that cannot be rotated on.
    """

    def __init__(self, model: Any):
        super().__init__(model, "after_source")
        from streamllm.cache.rotations import rotations

        found = rotations(model)
        if found is None:
            raise ValueError(
                "paradigm=batch_positions needs rotary positions that add up, and this model's do not: choose "
                "paradigm=batch"
            )
        self._rotations = found

    def _may_wait(self) -> bool:
        return False  # a read moves the target

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        self._follow(self.caches[0].source_offset - hidden)
        return super().write(tokens, hidden)

    def fork(self) -> Branches:
        self._follow(self.caches[0].source_offset)  # after a prediction with source hidden it stands before that
        return super().fork()

    def keep_start(self, keep: bool) -> None:
        """The target never stays where it is."""

    def _follow(self, position: int) -> None:
        """Move the target to where its first token is at ``position``."""
        moved = position - self.caches[0].target_start
        if self.target_offset and moved:
            for cache, rotate in zip(self.caches, self._rotations, strict=True):
                cache.map_target_keys(partial(rotate, by=moved))
            self._place(position)
