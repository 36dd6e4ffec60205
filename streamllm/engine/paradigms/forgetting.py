"""How a memory forgets the oldest tokens of a stream: what is never forgotten, how keys are moved, and windows.

Invariant: a token's position is its place among the tokens of its stream that are held, after φ for the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it needs mlx-lm, which is slow to import
    from streamllm.cache.rotations import Rotation

AT_ONCE = 8  # a full window forgets this part of what it may forget at once, so that keys are seldom moved


@dataclass(frozen=True)
class Window:
    """Which tokens of a stream are held: the first ``sinks``, and the last ones, ``size`` in all at most; None holds
    all that nobody else forgets.

    Raises:
        ValueError: there is no room beside the sinks.
    """

    stream: str
    size: int | None
    sinks: int

    def __post_init__(self) -> None:
        if self.size is not None and self.size <= self.sinks:
            raise ValueError(
                f"model.max_{self.stream} is {self.size}, and {self.sinks} tokens (the {self.stream}'s header, or "
                f"model.sinks) are never forgotten: give it more than that, at least {2 * self.sinks + 16} to be of use"
            )

    def room(self, held: int) -> int | None:
        """How many tokens can be fed at once; None is no limit."""
        return None if self.size is None else self.size - min(held, self.sinks)

    def excess(self, held: int, new: int = 0) -> int:
        """How many tokens are to be forgotten before ``new`` are fed: none, or at least one in `AT_ONCE`."""
        if self.size is None or held + new <= self.size:
            return 0
        least = -(-(self.size - self.sinks) // AT_ONCE)
        return min(max(held + new - self.size, least), held - self.sinks)


@dataclass(frozen=True)
class Forgetting:
    """How a memory forgets: for each layer, what moves its keys; and the windows of the streams.

    A read makes room by forgetting the oldest tokens after the sinks. Of the source it forgets as many as the new
    tokens need; of the target as many as the window holds too many. Between reads the target is never cut, so that what
    was written since the last read can be taken back. The tokens behind a gap move down into it: their keys are
    rotated, their values stay as they were computed (Xiao et al. 2023, arXiv 2309.17453, assign positions in the same
    way).
    """

    moves: "Sequence[Rotation]"
    source: Window
    target: Window


class Forgets:
    """A memory that can forget the oldest tokens after the sinks; those behind the gap move down into it.

    Attributes:
        forgetting: how it does; None holds all.
        gaps: how often it has.
    """

    forgetting: Forgetting | None = None
    gaps = 0
    _forgotten = 0  # source tokens

    @property
    def source_held(self) -> int:
        """Source tokens that are held, those that wait to be fed included."""
        raise NotImplementedError

    @property
    def target_held(self) -> int:
        """Target tokens that are held."""
        raise NotImplementedError

    @property
    def source_gap(self) -> tuple[int, int]:
        """Which source tokens are not held any more, as a range of all that were fed; (0, 0) where all are."""
        if self.forgetting is None or not self._forgotten:
            return (0, 0)
        return (self.forgetting.source.sinks, self.forgetting.source.sinks + self._forgotten)

    def forget_oldest(self, forgetting: Forgetting, target: bool, n: int) -> None:
        """Take the ``n`` oldest tokens after the sinks out of the source or the ``target``."""
        raise NotImplementedError

    def makes_room(self, n: int) -> bool:
        """Whether something is forgotten before ``n`` source tokens are fed."""
        if self.forgetting is None:
            return False
        source, target = self.forgetting.source, self.forgetting.target
        return bool(source.excess(self.source_held, n) or target.excess(self.target_held))

    def read_in_windows(self, tokens: list[int], feed: Callable[[list[int]], None]) -> None:
        """Feed source tokens, as many at a time as the window has room for."""
        if self.forgetting is None:
            feed(tokens)
            return
        source, target = self.forgetting.source, self.forgetting.target
        self._forget_some(self.forgetting, True, target.excess(self.target_held))
        while tokens:
            held = self.source_held
            now = tokens[: source.room(held)]
            self._forget_some(self.forgetting, False, source.excess(held, len(now)))
            feed(now)
            tokens = tokens[len(now) :]

    def keep_last(self, source: int, target: int) -> None:
        """Forget all but the sinks and the last tokens, so many of each stream.

        Raises: RuntimeError: this memory holds all that it is fed.
        """
        if self.forgetting is None:
            raise RuntimeError("this memory holds all that it is fed: open it with a way of forgetting")
        self._forget_some(self.forgetting, False, self.source_held - self.forgetting.source.sinks - source)
        self._forget_some(self.forgetting, True, self.target_held - self.forgetting.target.sinks - target)

    def _forget_some(self, forgetting: Forgetting, target: bool, n: int) -> None:
        if n > 0:
            self.forget_oldest(forgetting, target, n)
            self.gaps += 1
            self._forgotten += 0 if target else n


def forgetting_of(model: Any, source: Window, target: Window, asked: str) -> Forgetting:
    """How memories of this model forget. Whether they can is tried.

    Args:
        asked: what asks for it, for the error.

    Raises:
        ValueError: the model's keys cannot be moved.
    """
    from streamllm.cache.rotations import rotations

    moves = rotations(model)
    if moves is None:
        raise ValueError(
            f"{asked} rotary positions that add up, since the keys of what is held are moved on when older ones are "
            "forgotten, and this model's do not: choose another model, or paradigm=group without windows"
        )
    return Forgetting(moves, source, target)
