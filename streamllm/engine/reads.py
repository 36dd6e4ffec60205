"""Where a session stood before each of its last reads, so that a source that is revised can be taken back to a common
prefix."""

from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

from streamllm.engine.ahead import Settled
from streamllm.engine.output import Stand
from streamllm.engine.paradigms.memory import Held

MOST = 256
"""Reads that can be taken back: a recogniser revises its last words."""


class BeforeRead(NamedTuple):
    """A session before a read, when ``units`` source units had been read."""

    units: int
    held: Held
    settled: Settled
    ended_reads: int
    source_ended: bool
    output: Stand


class Reads:
    """The last reads, and the target tokens since the first of them."""

    def __init__(self) -> None:
        self._before: deque[BeforeRead] = deque(maxlen=MOST)
        self._target: list[int] = []
        self._start = 0  # of these, in target tokens
        self._fewest = 0  # units that can be gone back to

    def add(self, before: BeforeRead) -> None:
        """A read is about to happen."""
        if len(self._before) == MOST:
            self._fewest = self._before[0].units + 1
        self._before.append(before)
        if gone := self._before[0].output.tokens - self._start:
            del self._target[:gone]
            self._start += gone

    def copy(self) -> "Reads":
        reads = copy(self)
        reads._before, reads._target = self._before.copy(), list(self._target)
        return reads

    def wrote(self, tokens: Sequence[int]) -> None:
        self._target += tokens

    def rewound(self, target_tokens: int) -> None:
        """So many target tokens are left."""
        del self._target[max(0, target_tokens - self._start) :]

    def clear(self, units: int, target_tokens: int) -> None:
        """A target sentence has ended: what was read by then cannot be taken back any more."""
        self._before.clear()
        self._fewest = units
        self._target, self._start = [], target_tokens

    def before(self, units: int) -> BeforeRead | None:
        """Where the session stood before it read more than ``units`` units, or their footer; None if it has not.

        Raises:
            RuntimeError: that is not known any more.
        """
        if units < self._fewest:
            raise RuntimeError(
                f"cannot take the source back to {units} units, only to {self._fewest}: a target sentence ended then, "
                f"or more was read since than {MOST} units"
            )
        found = None
        for before in reversed(self._before):
            if before.units < units:
                break
            found = before
        return found

    def take_back(self, before: BeforeRead) -> list[int]:
        """Forget that read and those behind it; returns the target tokens since."""
        while self._before.pop() is not before:
            pass
        since = self._target[before.output.tokens - self._start :]
        self.rewound(before.output.tokens)
        return since
