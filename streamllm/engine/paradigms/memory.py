"""What a memory of the two streams of a sentence is, and what all memories in caches share.

Invariant: a `Memory` holds exactly the tokens that it was given and has not trimmed, whatever it re-encodes.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

import mlx.core as mx
import numpy as np

from streamllm.check import is_whole
from streamllm.engine.attention import Attention, Call, RecordedAttention, UnreadableAttention
from streamllm.engine.finite import Likeliest, Logits, check_logits
from streamllm.engine.forward import forward
from streamllm.engine.head import UnreadableStates
from streamllm.engine.paradigms.together import takes_both
from streamllm.engine.portions import TOGETHER, portions
from streamllm.engine.positions import check_end, table
from streamllm.engine.prefix import Prefix
from streamllm.engine.write_head import Judgement, WriteHead, some

if TYPE_CHECKING:  # the cache needs mlx-lm, which is slow to import: runs that load no model do not wait for it
    from streamllm.cache.dual import DualStreamingCache


MANY_EXPONENTIALS = 20_000
"""From so many exponentials of a layer on, numpy takes them on a CPU: it is faster, but MLX has to stop for it."""

HALF_FED = "a forward pass of this session failed halfway: open a new session"

TargetStart = int | Literal["after_source"]
FURTHEST = 2**31  # positions are 32 bits wide


def check_target_start(name: str, value: object) -> None:
    """Raises: ValueError: ``value`` is neither a position of the target's first token (φ) nor "after_source"."""
    if value != "after_source" and not (is_whole(value) and 0 <= value < FURTHEST):
        raise ValueError(
            f"{name} is {value!r:.80}; accepted are a position of at least 0, after_source and null (what the model "
            "was trained with)"
        )


class Held(NamedTuple):
    """What a memory held at a moment, to go back to with `Memory.take_back`.

    Args:
        source, target: tokens of the streams that it held.
        read: source tokens that it had been fed.
        start: position of the first target token.
        keeps_start: as `Memory.keep_start` was told last.
        gaps: how often it had forgotten the oldest tokens.
    """

    source: int
    target: int
    read: int
    start: int = 0
    keeps_start: bool = False
    gaps: int = 0


def check_holds_all(forgets: bool) -> None:
    """Raises: ValueError: a memory ``forgets``, so none can stand beside it."""
    if forgets:
        raise ValueError(
            "policy=frontier tries many ways through one sentence, in memories that forget nothing: choose "
            "paradigm=group, and leave model.max_source and model.max_target at null"
        )


def check_gaps(held: Held, gaps: int) -> None:
    """Raises: RuntimeError: the oldest tokens were forgotten since."""
    if gaps != held.gaps:
        raise RuntimeError(
            "cannot take the source back: to make room, a window has forgotten tokens that were held then; make "
            "model.max_source and model.max_target larger, or read again in a new session"
        )


class Memory(Protocol):
    """The keys and values of one sentence in a model, and what feeding costs. Feeding more tokens than a model has
    positions for, where it has a table of them, raises PositionError.

    ``forward_passes`` counts all forwards, ``source_tokens`` the source tokens fed, ``fed_tokens`` all tokens fed,
    those that are fed again included. A header that is shared (`streamllm.engine.prefix`) counts in each sentence as
    if it were fed there, so that these numbers say what a sentence costs alone.
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

    def read(self, tokens: list[int], waits: bool = False) -> None:
        """Feed source tokens, and evaluate the memory. If the read ``waits``, a few tokens are fed in one forward with
        those of the next write, where the model takes both streams in one."""
        ...

    def write(self, tokens: list[int], hidden: int = 0) -> Logits:
        """Feed target tokens; return the logits (V,) after the last. ``hidden``: source tokens, from the last one
        back, that these tokens do not see."""
        ...

    def attend(self, tokens: list[int]) -> tuple[Logits, Attention]:
        """As `write`, and where the last of ``tokens`` looked in the source."""
        ...

    def judge(self, tokens: list[int]) -> tuple[Logits, Judgement]:
        """As `write`, and what the write head says of the state after the last of ``tokens``.

        Raises:
            ValueError: there is no write head.
        """
        ...

    def likeliest(self, logits: Logits) -> int:
        """The likeliest token by ``logits``, those of the last `write`, `attend` or `judge`.

        Raises:
            NotFinite: they are not finite.
        """
        ...

    def check(self, tokens: list[int], last: int) -> tuple[Logits, list[int]]:
        """As `write`; the logits (last, V) after each of the last of ``tokens``, and the likeliest token by each.

        Raises:
            NotFinite: some are not finite.
        """
        ...

    def trim(self, n: int) -> None:
        """Forget the last ``n`` target tokens; no source has been read since they were fed."""
        ...

    def held(self, trimmed: int = 0) -> Held:
        """What it holds now but for the last ``trimmed`` target tokens."""
        ...

    def take_back(self, held: Held) -> None:
        """Forget all source and target tokens fed since it ``held`` so much. What that cost still counts.

        Raises:
            RuntimeError: it has forgotten some of what it held then.
        """
        ...

    def forgets_before(self, n: int) -> bool:
        """Whether it would forget something before it is fed ``n`` more source tokens."""
        ...

    def keep_start(self, keep: bool) -> None:
        """Whether the next token, if no target is held, is where the first one was; else where that is (φ
        "after_source") is decided anew. A write that sees all of the source ends it."""
        ...

    def reset_target(self) -> None:
        """Forget the target, and keep the source."""
        ...

    def keep_last(self, source: int, target: int) -> None:
        """Forget all but the first tokens that are never forgotten and the last ones, so many of each stream.

        Raises:
            RuntimeError: this memory holds all that it is fed.
        """
        ...

    def fork(self) -> "Fork":
        """The target as it stands, to go on with in several ways; the memory still holds the same tokens. Since the
        last write, nothing has been read."""
        ...

    def beside(self, source: list[int]) -> "Twin":
        """An empty memory of the same sentence, to try ways on in before it begins: it will read these tokens, or the
        first of them, and feeding them costs once what twins of it read. When all is tried, `take_back` frees what it
        has taken here.

        Raises:
            ValueError: this memory forgets, and so cannot.
        """
        ...


class Twin(Memory, Protocol):
    """A memory that can be copied."""

    def twin(self) -> "Twin":
        """One that holds the same, and goes on by itself."""
        ...

    def close(self) -> None:
        """What it holds is not wanted any more."""
        ...


class Fork(Protocol):
    """Several continuations of one target, fed side by side."""

    def step(self, parents: list[int], tokens: list[int]) -> Logits:
        """Go on from branch ``parents[i]`` with ``tokens[i]``, which becomes branch i; logits (len(tokens), V)."""
        ...


class Paradigm(Protocol):
    """A way for the two streams to lie in memory. ``trained_as`` names the mask of training that it goes with."""

    @property
    def trained_as(self) -> str: ...

    def open(self, model: Any, target_start: TargetStart = 0) -> Memory: ...


class CachedMemory:
    """What all memories share: a model, its caches, and what has been fed.

    Attributes:
        prefix: what the source begins with, where that is known: a first read that begins with it is fed the rest.
        write_head: what `judge` asks.
    """

    prefix: Prefix | None = None
    write_head: WriteHead | None = None

    def __init__(self, model: Any, target_start: int = 0, caches: "list[DualStreamingCache] | None" = None):
        from streamllm.cache.dual import make_caches

        self.model = model
        self.caches = make_caches(model, target_start) if caches is None else caches
        self._sources = [cache.source for cache in self.caches]
        self._targets = [cache.target for cache in self.caches]
        self._columns: list[int] = []  # of the source tokens, in the keys that a target token sees
        self.forward_passes = self.source_tokens = self.fed_tokens = 0
        self._attends = False
        self._last = 0  # of how many of the last tokens logits are wanted, if not of one
        self._calls: list[Call] = []
        self._states: list[mx.array] | None = None  # takes the hidden states of a forward, where they are wanted
        self.positions = table(model)
        self._half_fed = False  # some layers hold the tokens of a forward that failed, others do not
        self._waiting: list[int] = []  # source tokens that are fed with the next write

    def _feed(
        self,
        tokens: list[int],
        views: Sequence[Any],
        seeing: Callable[[int], AbstractContextManager[None]] = lambda n: nullcontext(),
    ) -> mx.array:
        """Feed tokens, `portions` at a time; the logits (V,) after the last. ``seeing``: what each forward of so many
        tokens happens in."""
        if self._half_fed:
            raise RuntimeError(HALF_FED)
        if self.positions is not None:
            check_end(self.positions, views[0].offset + len(tokens))
        cache = self.caches[0]
        held = cache.source_offset if views is self._sources else cache.offset
        *first, last = portions(len(tokens), held)
        if last < self._last:  # what is checked goes in one forward
            before = len(tokens) - self._last
            first, last = portions(before, held) if before else [], self._last
        for size in first:
            with seeing(size):
                self._forward(tokens[:size], views)
            self._evaluate()
            tokens = tokens[size:]
        with seeing(last):
            return self._forward(tokens, views)

    def _feed_both(self, source: list[int], target: list[int]) -> mx.array:
        """Feed tokens of both streams in one forward, each a batch row of its own; the logits (V,) after the last."""
        from streamllm.cache.together import together

        if self._half_fed:
            raise RuntimeError(HALF_FED)
        if self.positions is not None:
            check_end(self.positions, self._targets[0].offset + len(target))
        logits = self._forward([*source, *target], together(self.caches, len(source), len(target)), rows=True)
        self._calls = [(queries[-1:], keys[-1:], scale) for queries, keys, scale in self._calls]
        return logits

    def _forward(self, tokens: list[int], views: Sequence[Any], rows: bool = False) -> mx.array:
        self.forward_passes += 1
        self.fed_tokens += len(tokens)
        self._half_fed = True
        last: tuple[Any, Any] | None = None if len(tokens) == 1 and self._states is None else (slice(None), -1)
        if self._last:
            last = (0, slice(-self._last, None))
        elif rows:
            last = (slice(-1, None), 0)
        fed = mx.array(tokens)[:, None] if rows else mx.array([tokens])
        try:
            logits, calls = forward(self.model, fed, views, last, MANY_EXPONENTIALS, self._attends, states=self._states)
        except (UnreadableAttention, UnreadableStates):  # all was fed
            self._half_fed = False
            raise
        self._half_fed = False
        if self._attends:
            self._calls = calls
        if self._last:
            return logits
        return logits[0, -1] if last is None else logits[0]

    def _evaluate(self) -> None:
        """Keys and values alone: the logits of a read are never computed."""
        mx.eval([buffer for cache in self.caches for buffer in cache.buffers])

    def read(self, tokens: list[int], waits: bool = False) -> None:
        self._feed_waiting()
        if waits and len(tokens) < TOGETHER and self._may_wait():
            check_end(self.positions, self._sources[0].offset + len(tokens))
            self._waiting = tokens
        else:
            self._feed_source(tokens)
        self.source_tokens += len(tokens)

    def _may_wait(self) -> bool:
        return takes_both(self.model, self.caches)

    def _feed_waiting(self) -> None:
        """Feed what waits, in a forward of its own."""
        if self._waiting:
            tokens, self._waiting = self._waiting, []
            self._feed_source(tokens)

    def _feed_source(self, tokens: list[int]) -> None:
        start = self.caches[0].source_offset
        if self.prefix is not None and not self.caches[0].offset and self.prefix.begins(tokens):
            self._begin_with(self.prefix, tokens)
        else:
            self._feed(tokens, self._sources)
        self._evaluate()  # now: MLX is lazy, and the next write would pay for this read
        self._columns += range(start, start + len(tokens))

    def _take_waiting(self, tokens: list[int], alone: bool = False) -> list[int]:
        """The source tokens to be fed in one forward with these of the target; none if they have been fed before
        them, as they must be where the target is to go ``alone``."""
        if alone or self._last or len(self._waiting) + len(tokens) > TOGETHER:
            self._feed_waiting()
        waiting, self._waiting = self._waiting, []
        start = self.caches[0].source_offset
        self._columns += range(start, start + len(waiting))
        return waiting

    def _begin_with(self, prefix: Prefix, tokens: list[int]) -> None:
        """Feed the first tokens of all; those of the prefix are copied. They count as they would alone."""
        for cache, begun in zip(self.caches, prefix.caches, strict=True):
            cache.begin_with(begun)
        passes, fed = self.forward_passes, self.fed_tokens
        if rest := tokens[len(prefix) :]:
            self._feed(rest, self._sources)
        self.forward_passes, self.fed_tokens = passes + len(portions(len(tokens), 0)), fed + len(tokens)

    @property
    def target_offset(self) -> int:
        raise NotImplementedError

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        raise NotImplementedError

    def keep_start(self, keep: bool) -> None:
        """Only where φ can be "after_source", there is anything to keep."""

    @property
    def source_gap(self) -> tuple[int, int]:
        return (0, 0)

    def reset_target(self) -> None:
        self.trim(self.target_offset)

    def trim(self, n: int) -> None:
        raise NotImplementedError

    def held(self, trimmed: int = 0) -> Held:
        source = self.caches[0].source_offset + len(self._waiting)
        return Held(source, self.target_offset - trimmed, self.source_tokens, self.caches[0].target_start)

    def take_back(self, held: Held) -> None:
        if held.read < self.source_tokens:
            self._waiting = []  # which were read last, and since
        if (n := self.target_offset - held.target) > 0:
            self.trim(n)
        for cache in self.caches:
            cache.trim_source(max(0, cache.source_offset - held.source))
        del self._columns[bisect_left(self._columns, held.source) :]
        self.source_tokens = held.read

    def forgets_before(self, n: int) -> bool:
        return False

    def keep_last(self, source: int, target: int) -> None:
        raise RuntimeError(f"{type(self).__name__} holds all that it is fed: open a memory that forgets")

    def beside(self, source: list[int]) -> Self:
        return self.twin()

    def twin(self) -> Self:
        self._feed_waiting()
        twin = copy(self)
        twin.caches = [cache.copy() for cache in self.caches]
        twin._sources = [cache.source for cache in twin.caches]
        twin._targets = [cache.target for cache in twin.caches]
        twin._columns = list(self._columns)
        return twin

    def close(self) -> None:
        self.caches = []

    def likeliest(self, logits: Logits) -> int:
        likeliest = Likeliest.of(logits)
        mx.eval(likeliest.arrays)
        token, highest = likeliest.found()
        check_logits(np.atleast_1d(highest).tolist(), self.source_tokens, self.target_offset)
        return int(token)

    def check(self, tokens: list[int], last: int) -> tuple[mx.array, list[int]]:
        self._last = last
        try:
            logits = self.write(tokens)
        finally:
            self._last = 0
        likeliest = Likeliest.of(logits)
        mx.eval(likeliest.arrays)
        found, highest = likeliest.found()
        check_logits(np.atleast_1d(highest).tolist(), self.source_tokens, self.target_offset)
        return logits, found.tolist()

    def attend(self, tokens: list[int]) -> tuple[mx.array, Attention]:
        self._attends = True
        try:
            logits = self.write(tokens)
        finally:
            self._attends = False
        calls, self._calls = self._calls, []  # what is kept cannot be written over in place
        return logits, RecordedAttention(calls, list(self._columns))

    def judge(self, tokens: list[int]) -> tuple[mx.array, Judgement]:
        head = some(self.write_head)
        states: list[mx.array] = []
        self._states = states
        try:
            logits = self.write(tokens)
        finally:
            self._states = None
        found = np.array(states[-1].astype(mx.float32))
        return logits, Judgement(float(head(found)[-1]), found[-1])
