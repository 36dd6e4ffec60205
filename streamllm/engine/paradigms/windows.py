"""Windows on both streams of a memory, and quantised keys and values: what a `Retention` asks for.

Invariant: a token's position is its place among the tokens of its stream that are held, after φ for the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_lm.models import cache as mlx_lm_cache

from streamllm.cache.dual import DualStreamingCache, make_caches
from streamllm.cache.quantised import QuantisedCache, check_quantisable
from streamllm.cache.retention import Retention
from streamllm.cache.rotations import Rotation, rotations
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.memory import Paradigm, TargetStart

AT_ONCE = 8  # a full window forgets this part of what it may forget at once, so that keys are seldom moved


def memories(
    retention: Retention, model: Any, paradigm: Paradigm, source_header: int = 0, target_header: int = 0
) -> Callable[[TargetStart], GroupMemory]:
    """What opens an empty memory, given φ. Whether the model can do it is tried here, once.

    Args:
        source_header, target_header: tokens of the headers.

    Raises:
        ValueError: the paradigm is not `Group`, the model's keys cannot be moved or not be quantised, or a
            window has no room beside what is never forgotten.
    """
    if not isinstance(paradigm, Group):
        raise ValueError(
            "model.max_source, model.max_target and model.kv_bits are for paradigm=group, and the paradigm is "
            f"{type(paradigm).__name__}: leave them at null, or choose paradigm=group"
        )
    make: Callable[[], list[DualStreamingCache]] = partial(make_caches, model)
    if retention.kv_bits is not None:
        check_quantisable(model, retention.kv_bits, retention.kv_group_size)
        make = partial(_quantised_caches, model, retention.kv_bits, retention.kv_group_size)
    if not retention.has_windows:
        return lambda target_start: GroupMemory(model, target_start, make())
    windows = (
        Window("source", retention.max_source, max(retention.sinks, source_header)),
        Window("target", retention.max_target, max(retention.sinks, target_header)),
    )
    moves = rotations(model)
    if moves is None:
        raise ValueError(
            "model.max_source and model.max_target need rotary positions that add up, since the keys of a window "
            "are moved on, and this model's do not: leave them at null, or choose another model"
        )
    return lambda target_start: WindowedMemory(model, target_start, *windows, moves, make())


def _quantised_caches(model: Any, bits: int, group_size: int) -> list[DualStreamingCache]:
    return [QuantisedCache(bits=bits, group_size=group_size) for _ in mlx_lm_cache.make_prompt_cache(model)]


@dataclass(frozen=True)
class Window:
    """Which tokens of a stream are held: the first ``sinks``, and the last ones, ``size`` in all at most.

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


class WindowedMemory(GroupMemory):
    """`GroupMemory` with windows on its streams.

    A read makes room by forgetting the oldest tokens after the sinks. Of the source it forgets as many as the new
    tokens need; of the target as many as the window holds too many. Between reads the target is never cut, so that what
    was written since the last read can be taken back. The tokens behind a gap move down into it: their keys are
    rotated, their values stay as they were computed (Xiao et al. 2023 assign positions in the same way).

    Args:
        rotations: for each layer, what moves its keys.
        caches: empty ones.
    """

    def __init__(
        self,
        model: Any,
        target_start: TargetStart,
        source: Window,
        target: Window,
        rotations: Sequence[Rotation],
        caches: list[DualStreamingCache] | None = None,
    ):
        super().__init__(model, target_start, caches)
        self._source_window, self._target_window, self._rotations = source, target, rotations
        self._forgotten = 0  # source tokens

    @property
    def source_gap(self) -> tuple[int, int]:  # type: ignore[override]
        sinks = self._source_window.sinks
        return (sinks, sinks + self._forgotten) if self._forgotten else (0, 0)

    def read(self, tokens: list[int]) -> None:
        """Feed source tokens, as many at a time as the window has room for."""
        window = self._target_window
        self._forget(DualStreamingCache.forget_target, window.excess(self.target_offset), window.sinks)
        window = self._source_window
        while tokens:
            held = self.caches[0].source_offset
            now = tokens[: window.room(held)]
            excess = window.excess(held, len(now))
            self._forget(DualStreamingCache.forget_source, excess, window.sinks)
            self._forgotten += excess
            del self._columns[held - excess :]
            super().read(now)
            tokens = tokens[len(now) :]

    def _forget(self, forget: Callable[..., None], n: int, sinks: int) -> None:
        if n:
            for cache, rotate in zip(self.caches, self._rotations, strict=True):
                forget(cache, n, sinks, partial(rotate, by=-n))
