"""One sentence on its way through a model: reads source units, writes target units.

Invariant: the target cache holds the fed tokens of the written units, of the unit under way and of the
header; a prediction is used only if no source was read since it was made.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx

from streamllm.cache import make_caches
from streamllm.prompt import PromptTokens
from streamllm.records import Emission
from streamllm.segment import split

TargetStart = int | Literal["after_source"]
Sampler = Callable[[mx.array], mx.array]  # log-probabilities (1, V) -> token (1,)


@dataclass(frozen=True)
class Mark:
    """A point in the target to go back to with `Session.rewind`, valid until the next read."""

    target_offset: int
    open_tokens: tuple[int, ...]
    prediction: int | None
    last: int
    queue: tuple[str, ...]
    reads: int
    tail_written: bool
    has_unit: bool
    boundary_is_stale: bool


class Session:
    """Feeds one sentence to a model, one unit at a time.

    Args:
        model: an mlx-lm model.
        prompt: headers, footer and facts about tokens.
        target_start: position of the first target token (φ). "after_source" goes on where the source stands at
            the first write; with the whole source read, that is what a model not trained to stream expects.
        sampler: picks a token; None is greedy.
        max_unit_tokens: tokens after which a unit ends even though no new one has begun; if they are all white
            space, this counts as the end token.
    """

    def __init__(
        self,
        model: Any,
        prompt: PromptTokens,
        target_start: TargetStart = 0,
        sampler: Sampler | None = None,
        max_unit_tokens: int = 64,
    ):
        self._model, self.prompt, self._sampler = model, prompt, sampler
        self._max_unit_tokens = max_unit_tokens
        self._after_source = target_start == "after_source"
        self.caches = make_caches(model, 0 if target_start == "after_source" else target_start)
        self._sources = [cache.source for cache in self.caches]
        self._targets = [cache.target for cache in self.caches]
        self._open = list(prompt.target_header)  # to be fed before the next prediction
        self._prediction: int | None = None
        self._last = -1  # the last token fed to the target
        self._queue: deque[str] = deque()  # units that came out of one token together
        self._reads = 0
        self._source_ended = False
        self._tail_written = False  # what stood before the stop text in its token
        self._has_unit = False
        self._boundary_is_stale = False  # the last unit ended by a prediction that a read has made obsolete
        self.forward_passes = 0
        self.source_tokens = 0
        self.target_tokens = 0

    # Reading

    def read(self, unit: str) -> None:
        """Feed one source unit (after the source header, the first time) and evaluate the cache."""
        self._read(self.prompt.source_tokens(unit, first=self._reads == 0))

    def end_source(self) -> None:
        """Feed the footer: no more source will come."""
        self._source_ended = True
        self._read(self.prompt.source_footer)

    def _read(self, tokens: list[int]) -> None:
        if self._reads == 0:
            tokens = self.prompt.source_header + tokens
        self._reads += 1
        if not tokens:
            return
        self._forget_prediction()
        self._model(mx.array([tokens]), cache=self._sources)
        # Left lazy, the cost of a read would move into the next write. The logits are never computed.
        mx.eval([buffer for cache in self.caches for buffer in cache.buffers])
        self.forward_passes += 1
        self.source_tokens += len(tokens)

    def _forget_prediction(self) -> None:
        """Make the next write predict anew: what was predicted did not know what is about to be read."""
        if self._prediction is None:
            return
        self._boundary_is_stale = self._has_unit
        for cache in self.caches:
            cache.trim_target(1)
        self._open = [self._last]
        self._prediction = None

    # Writing

    def predict(self) -> int:
        """The token that comes next in the target, from all source read so far. It is not fed yet."""
        if self._prediction is None:
            if self._after_source:
                self._start_after_source()
            logits = self._model(mx.array([self._open]), cache=self._targets)[:, -1, :]
            self._last = self._open[-1]
            self._open = []
            if self._sampler is None:
                token = mx.argmax(logits, axis=-1)
            else:
                token = self._sampler(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
            self._prediction = int(token.item())  # type: ignore[arg-type]
            self.forward_passes += 1
        return self._prediction

    def _start_after_source(self) -> None:
        self._after_source = False
        for cache in self.caches:
            cache.target_start = cache.source_offset

    def write(self) -> Emission:
        """Write one whole unit, or learn that the end token comes next (it is not fed).

        A token that holds the stop text is not fed either. What it says before that text is written once the
        source has ended; until then the token is forgotten by the next read, like an end token.
        """
        if self._queue:
            return Emission(self._queue.popleft())
        tokens: list[int] = []
        tail = ""
        while True:
            token = self.predict()
            if token in self.prompt.end_tokens:
                break
            before_stop = self.prompt.text_before_stop(token)
            if before_stop is not None:
                if self._source_ended and not self._tail_written:
                    tail, self._tail_written = before_stop, True
                break
            if self._is_whole(tokens, token):
                break
            tokens.append(token)
            self._open, self._prediction = [token], None
            if self.prompt.target_unit == "character" and self._is_whole_characters(tokens):
                break
        self.target_tokens += len(tokens)
        text = self.prompt.decode(tokens) + tail
        units = split(text, self.prompt.target_unit)
        if not units:
            return Emission(None)
        # A word that goes on after a read, against the earlier prediction, is still one word.
        extends = self._boundary_is_stale and self.prompt.target_unit == "word" and not self._starts_unit(tokens)
        self._has_unit, self._boundary_is_stale = True, False
        self._queue.extend(units[1:])
        return Emission(units[0], tuple(tokens), extends)

    def _starts_unit(self, tokens: list[int]) -> bool:
        return bool(tokens) and (self.prompt.starts_unit(tokens[0]) or not self.prompt.decode(tokens[:1]))

    def _is_whole(self, tokens: list[int], following: int) -> bool:
        """Whether ``tokens`` are a whole unit, given the token that would follow."""
        if not tokens or len(tokens) >= self._max_unit_tokens:
            return bool(tokens)
        if self.prompt.target_unit == "character":
            return False
        if not (self.prompt.starts_unit(following) or self.prompt.ends_unit(tokens[-1])):
            return False
        return bool(self.prompt.decode(tokens).strip())

    def _is_whole_characters(self, tokens: list[int]) -> bool:
        text = self.prompt.decode(tokens)
        return bool(text.strip()) and not text.endswith("\ufffd")

    # Going back

    def mark(self) -> Mark:
        """Where the target stands now."""
        offset = self.caches[0].target_offset
        return Mark(
            offset,
            tuple(self._open),
            self._prediction,
            self._last,
            tuple(self._queue),
            self._reads,
            self._tail_written,
            self._has_unit,
            self._boundary_is_stale,
        )

    def rewind(self, mark: Mark) -> None:
        """Forget what was written after ``mark``.

        Raises:
            RuntimeError: source was read since, so the mark's prediction is stale.
        """
        if mark.reads != self._reads:
            raise RuntimeError("cannot rewind past a read: take a new mark after each read")
        written = self.caches[0].target_offset - mark.target_offset
        if written < 0:
            raise RuntimeError(
                f"cannot rewind forward: the target holds {written + mark.target_offset} tokens and the mark "
                f"{mark.target_offset}"
            )
        for cache in self.caches:
            cache.trim_target(written)
        self._open, self._prediction = list(mark.open_tokens), mark.prediction
        self._last, self._queue = mark.last, deque(mark.queue)
        self._tail_written = mark.tail_written
        self._has_unit, self._boundary_is_stale = mark.has_unit, mark.boundary_is_stale
