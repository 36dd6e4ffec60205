"""The target of a session as units: where each ends, and what comes out of the tokens that are written."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from streamllm.prompt import PromptTokens
from streamllm.records import Emission
from streamllm.units import ends_sentence, pieces


class Stand(NamedTuple):
    """Where an output stands, to go back to. One is made for each read: it is cheap."""

    queue: tuple[str, ...]
    tail_written: bool
    has_unit: bool
    after_space: bool
    boundary_is_stale: bool
    tokens: int
    last_tokens: tuple[int, ...]


class Output:
    """Takes tokens, gives units.

    Args:
        max_unit_tokens: tokens after which a unit ends even though no new one has begun.

    Attributes:
        tail_written: whether what stood before the stop text in its token was written.
        has_unit: whether the sentence has one.
        boundary_is_stale: where the last unit ends was not predicted from all source.
        tokens: written so far.
    """

    def __init__(self, prompt: PromptTokens, max_unit_tokens: int):
        self._prompt, self._max_unit_tokens = prompt, max_unit_tokens
        self._queue: deque[str] = deque()  # units that came out of one token together
        self.tail_written = self.has_unit = self.boundary_is_stale = False
        self._after_space = False  # whether the last token ends in white space
        self.tokens = 0
        self._last_tokens: tuple[int, ...] = ()  # of the last unit, or of what extended it

    # Where it stands

    def stand(self) -> Stand:
        return Stand(
            tuple(self._queue),
            self.tail_written,
            self.has_unit,
            self._after_space,
            self.boundary_is_stale,
            self.tokens,
            self._last_tokens,
        )

    def back_to(self, stand: Stand) -> None:
        self._queue = deque(stand.queue)
        self.tail_written, self._after_space = stand.tail_written, stand.after_space
        self.has_unit, self.boundary_is_stale = stand.has_unit, stand.boundary_is_stale
        self.tokens, self._last_tokens = stand.tokens, stand.last_tokens

    def begin_sentence(self) -> None:
        self._queue.clear()
        self.tail_written = self.has_unit = self._after_space = self.boundary_is_stale = False

    # Units

    @property
    def has_more(self) -> bool:
        """Whether units came out of the last token that `more` has not given."""
        return bool(self._queue)

    def more(self) -> Emission:
        """The next unit that came out of the last token."""
        return _emission(self._queue.popleft())

    def emit(self, tokens: list[int], tail: str = "") -> Emission:
        """The unit of these tokens, and of the text ``tail`` after them; None if they are none."""
        self.tokens += len(tokens)
        text = self._prompt.text_of(tuple(tokens)) + tail
        after_space = self._after_space
        if tokens:
            self._after_space = self._prompt.ends_unit(tokens[-1])
            self._last_tokens = tuple(tokens)
        before = "." + " " * after_space if self.has_unit else ""  # as far as `pieces` has to know it
        units = pieces(text, self._prompt.target_unit, before)
        if not units:
            return Emission(None)
        # A word that goes on after a read, against the earlier prediction, is still one word.
        inside = self.boundary_is_stale and not after_space and not self._starts_unit(tokens)
        extends = inside and self._prompt.target_unit == "word"
        self.has_unit, self.boundary_is_stale = True, False
        self._queue.extend(units[1:])
        return _emission(units[0], tuple(tokens), extends)

    def _starts_unit(self, tokens: list[int]) -> bool:
        return bool(tokens) and (self._prompt.starts_unit(tokens[0]) or not self._prompt.decode(tokens[:1]))

    # Where one ends

    def is_whole(self, tokens: list[int], following: int) -> bool:
        """Whether ``tokens`` are a whole unit, given the token that would follow."""
        if not tokens or len(tokens) >= self._max_unit_tokens:
            return bool(tokens)
        if self._prompt.target_unit == "character":
            return False
        if not (self._prompt.starts_unit(following) or self._prompt.ends_unit(tokens[-1])):
            return False
        return self._prompt.says_something(tuple(tokens))

    def is_closed(self, tokens: Sequence[int]) -> bool:
        """Whether ``tokens`` are a whole unit whatever follows: only characters can be."""
        if self._prompt.target_unit != "character":
            return False
        text = self._prompt.decode(tokens)
        return bool(text.strip()) and not text.endswith("\ufffd")

    def would_end_sentence(self, token: int) -> bool:
        """Whether a token would end the sentence right after the word that was written last."""
        if not self.has_unit or self._after_space or not self._prompt.divides(self._last_tokens, token):
            return False
        return ends_sentence(self._prompt.text_of(self._last_tokens) + self._prompt.text_of((token,)))


def _emission(piece: str, tokens: tuple[int, ...] = (), extends: bool = False) -> Emission:
    unit = piece.lstrip()
    return Emission(unit, tokens, extends, piece[: len(piece) - len(unit)])
