"""How the two streams of a sentence lie in a model's memory: the three mismatches between streaming and offline
translation that Tong et al. 2025 (arXiv 2505.16983) tell apart, as four ways to go.

Invariant: a `Memory` holds exactly the tokens that it was given and has not trimmed, whatever it re-encodes.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import mlx.core as mx

from streamllm import exponentials
from streamllm.attention import Attention, Call, recorded
from streamllm.fewer_ops import fewer_operations
from streamllm.head import logits_at

if TYPE_CHECKING:  # the cache needs mlx-lm, which is slow to import: runs that load no model do not wait for it
    from streamllm.cache import DualStreamingCache

MANY_EXPONENTIALS = 20_000  # of a layer, which numpy takes although MLX has to stop for it

TargetStart = int | Literal["after_source"]


class Memory(Protocol):
    """The keys and values of one sentence in a model, and what feeding costs.

    ``forward_passes`` counts all forwards, ``source_tokens`` the source tokens fed, ``fed_tokens`` all tokens fed,
    those that are fed again included.
    """

    forward_passes: int
    source_tokens: int
    fed_tokens: int

    @property
    def target_offset(self) -> int:
        """Number of target tokens held."""
        ...

    @property
    def source_gap(self) -> tuple[int, int]:
        """Which source tokens are not held any more, as a range of all that were fed; (0, 0) where all are."""
        ...

    def read(self, tokens: list[int]) -> None:
        """Feed source tokens, and evaluate the memory."""
        ...

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        """Feed target tokens; return the logits (V,) after the last. ``hidden``: source tokens, from the last one
        back, that these tokens do not see."""
        ...

    def attend(self, tokens: list[int]) -> tuple[mx.array, Attention]:
        """As `write`, and where the last of ``tokens`` looked in the source."""
        ...

    def likeliest(self, logits: mx.array) -> int:
        """The likeliest token by ``logits``, those of the last `write` or `attend`."""
        ...

    def trim(self, n: int) -> None:
        """Forget the last ``n`` target tokens; no source has been read since they were fed."""
        ...

    def fork(self) -> "Fork":
        """The target as it stands, to go on with in several ways; the memory itself stays as it is. Since the last
        write, nothing has been read, and nothing written with source hidden."""
        ...


class Fork(Protocol):
    """Several continuations of one target, fed side by side."""

    def step(self, parents: list[int], tokens: list[int]) -> mx.array:
        """Go on from branch ``parents[i]`` with ``tokens[i]``, which becomes branch i; logits (len(tokens), V)."""
        ...


class Paradigm(Protocol):
    """A way for the two streams to lie in memory. ``trained_as`` names the mask of training that it goes with."""

    @property
    def trained_as(self) -> str: ...

    def open(self, model: Any, target_start: TargetStart = 0) -> Memory: ...


@dataclass(frozen=True)
class Group:
    """Each stream counts its own positions, the source never sees the target, nothing is encoded twice."""

    trained_as = "group"

    def open(self, model: Any, target_start: TargetStart = 0) -> "GroupMemory":
        return GroupMemory(model, target_start)


@dataclass(frozen=True)
class Interleaved:
    """One sequence in the order of arrival: ordinary positions, each token sees all before it, of either stream."""

    trained_as = "interleaved"

    def open(self, model: Any, target_start: TargetStart = 0) -> "InterleavedMemory":
        return InterleavedMemory(model)


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


class _Counted:
    """What all memories share: a model, its caches, and what has been fed."""

    source_gap = (0, 0)

    def __init__(self, model: Any, target_start: int = 0, caches: "list[DualStreamingCache] | None" = None):
        from streamllm.cache import make_caches

        self._model = model
        self.caches = make_caches(model, target_start) if caches is None else caches
        self._sources = [cache.source for cache in self.caches]
        self._targets = [cache.target for cache in self.caches]
        self._columns: list[int] = []  # of the source tokens, in the keys that a target token sees
        self.forward_passes = self.source_tokens = self.fed_tokens = 0
        self._attends = False
        self._calls: list[Call] = []
        self._half_fed = False  # some layers hold the tokens of a forward that failed, others do not

    def _feed(self, tokens: list[int], views: Sequence[Any]) -> mx.array:
        if self._half_fed:
            raise RuntimeError("a forward pass of this session failed halfway: open a new session")
        self.forward_passes += 1
        self.fed_tokens += len(tokens)
        self._half_fed = True
        with ExitStack() as stack:
            stack.enter_context(fewer_operations())
            stack.enter_context(exponentials.replaced(self._model, MANY_EXPONENTIALS))
            if self._attends:  # what goes to numpy is recorded, too
                self._calls = stack.enter_context(recorded(self._model))
            if len(tokens) == 1:
                logits: mx.array = self._model(mx.array([tokens]), cache=views)[0, -1]
            else:
                with logits_at(self._model, slice(None), -1) as cut:
                    logits = cut.after(self._model(mx.array([tokens]), cache=views))[0]
            self._half_fed = False
        return logits

    def read(self, tokens: list[int]) -> None:
        start = self.caches[0].source_offset
        self._feed(tokens, self._sources)
        # Left lazy, the cost of a read would move into the next write. The logits are never computed.
        mx.eval([buffer for cache in self.caches for buffer in cache.buffers])
        self._columns += range(start, start + len(tokens))
        self.source_tokens += len(tokens)

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        raise NotImplementedError

    def likeliest(self, logits: mx.array) -> int:
        return int(mx.argmax(logits).item())  # type: ignore[arg-type]

    def attend(self, tokens: list[int]) -> tuple[mx.array, Attention]:
        self._attends = True
        try:
            logits = self.write(tokens)
        finally:
            self._attends = False
        calls, self._calls = self._calls, []  # what is kept cannot be written over in place
        return logits, Attention(calls, list(self._columns))


class GroupMemory(_Counted):
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

    @property
    def target_offset(self) -> int:
        return self.caches[0].target_offset

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        if self._after_source and not self.target_offset:
            self._place(self.caches[0].source_offset - hidden)
        if not hidden:
            return self._feed(tokens, self._targets)
        source = self.caches[0].source_offset
        sees = mx.broadcast_to(mx.arange(source) < source - hidden, (1, len(tokens), source))
        with _visible(self.caches, sees):
            return self._feed(tokens, self._targets)

    def _place(self, position: int) -> None:
        for cache in self.caches:
            cache.target_start = position

    def trim(self, n: int) -> None:
        for cache in self.caches:
            cache.trim_target(n)

    def fork(self) -> "Branches":
        return Branches(self, of_source=False)


class BatchMemory(GroupMemory):
    """See `Batch`."""

    def __init__(self, model: Any, target_start: TargetStart = 0):
        super().__init__(model, target_start)
        self._tokens: list[int] = []  # of the target
        self._stale = False

    @property
    def target_offset(self) -> int:
        return len(self._tokens)

    def read(self, tokens: list[int]) -> None:
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
        from streamllm.rotations import rotations

        found = rotations(model)
        if found is None:
            raise ValueError(
                "paradigm=batch_positions needs rotary positions that add up, and this model's do not: choose "
                "paradigm=batch"
            )
        self._rotations = found

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        follows = self.caches[0].source_offset - hidden
        if self.target_offset and follows != self.caches[0].target_start:
            moved = follows - self.caches[0].target_start
            for cache, rotate in zip(self.caches, self._rotations, strict=True):
                cache.map_target_keys(partial(rotate, by=moved))
            self._place(follows)
        return super().write(tokens, hidden)


class InterleavedMemory(_Counted):
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
        self._target += len(tokens)
        return self._feed(tokens, self._sources)

    def trim(self, n: int) -> None:
        self._target -= n
        for cache in self.caches:
            cache.trim_source(n)

    def fork(self) -> "Branches":
        return Branches(self, of_source=True)


class Branches:
    """See `Fork`. The source is copied, not encoded again."""

    def __init__(self, memory: _Counted, of_source: bool):
        self._memory = memory
        self._caches = [cache.copy() for cache in memory.caches]
        self._views = [cache.source if of_source else cache.target for cache in self._caches]

    def step(self, parents: list[int], tokens: list[int]) -> mx.array:
        if parents != list(range(self._caches[0].batch_size)):
            for cache in self._caches:
                cache.select(parents)
        self._memory.forward_passes += 1
        self._memory.fed_tokens += len(tokens)
        with fewer_operations():
            logits: mx.array = self._memory._model(mx.array(tokens)[:, None], cache=self._views)
        return logits[:, -1]


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
