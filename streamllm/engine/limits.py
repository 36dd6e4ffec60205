"""How much may be written, and what an end token or punctuation does while source remains."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol, Self

from streamllm import check
from streamllm.records import WRITE_BARE, State, Write
from streamllm.units import Unit, pieces

EarlyStop = Literal["read", "stop"]

LONGEST_UNIT = 64
"""Tokens after which a session ends a unit."""

MEASURED = 1000
"""Sentence pairs on which the ratio of target units to source units is measured."""

CHARACTERS_A_WORD = 4.0
"""The ratio where there are no references to measure it on; wide, for it is to cut nothing that is right."""


class Pair(Protocol):
    """A source with its translation, such as an `Example` or a `Trace`."""

    @property
    def source(self) -> str: ...
    @property
    def reference(self) -> str: ...


@dataclass(frozen=True)
class Limits:
    """When a sentence is cut.

    Args:
        early_stop: what an end token does while source remains: "read" one more unit, or "stop".
        length_ratio: at most ``length_ratio * read + length_extra`` units are written. At the limit, the loop reads
            on, and stops when the source has ended.
        length_extra: units that may be written beyond ``length_ratio`` times those read.
        tokens_per_unit: at most so many target tokens for each unit that may be written: a word without end is one
            unit. Looked at between units, so it is passed by one unit at most. None is no such limit.
        source_tokens_per_unit: the most tokens that one source unit may have; a sentence with a longer one is an error.
            None is no such limit.
        unit_ratio: target units for each source unit where the two are of different kinds, such as characters for
            words: the limit of units is so many times as large. None is measured on the references.
        bare: make every WRITE of a policy a `Write.bare` one, as policy=learned does of itself: punctuation right after
            a word is a decision of its own. Tokens that a policy gives stay as they are.

    Raises:
        ValueError: a value is out of range.
    """

    early_stop: EarlyStop = "read"
    length_ratio: float = 2.0
    length_extra: int = 20
    tokens_per_unit: float | None = 8.0
    source_tokens_per_unit: int | None = 1024
    unit_ratio: float | None = None
    bare: bool = False

    def __post_init__(self) -> None:
        if self.early_stop not in ("read", "stop"):
            raise ValueError(f"early_stop is {self.early_stop!r}; accepted are 'read' and 'stop'")
        if not (_is_at_least(self.length_ratio, 0) and _is_at_least(self.length_extra, 1)):
            raise ValueError(
                f"length_ratio is {self.length_ratio!r} and length_extra {self.length_extra!r}; "
                "accepted are a ratio of at least 0 and an extra of at least 1"
            )
        if self.tokens_per_unit is not None and not _is_at_least(self.tokens_per_unit, 1):
            raise ValueError(
                f"tokens_per_unit is {self.tokens_per_unit!r}; accepted are a number of target tokens, at least 1, and "
                "null (no limit of tokens)"
            )
        check.flag("bare", self.bare)
        if self.unit_ratio is not None and not (_is_at_least(self.unit_ratio, 0) and self.unit_ratio > 0):
            raise ValueError(
                f"unit_ratio is {self.unit_ratio!r}; accepted are a number above 0, of target units for each source "
                "unit, and null (measured on the references)"
            )
        check.whole_number(
            "source_tokens_per_unit", self.source_tokens_per_unit, of="tokens", null="for no limit of a source unit"
        )

    def between(self, source: Unit, target: Unit, pairs: Iterable[Pair] = ()) -> Self:
        """The limits for these units. Where source and target have different ones and ``unit_ratio`` is None, it is
        that of the first `MEASURED` of ``pairs``, but at least 1; `CHARACTERS_A_WORD` where there are none."""
        if source == target or self.unit_ratio is not None:
            return self
        some = [pair for pair in islice(pairs, MEASURED) if pair.reference.strip()]
        read = sum(len(pieces(pair.source, source)) for pair in some)
        written = sum(len(pieces(pair.reference, target)) for pair in some)
        usual = CHARACTERS_A_WORD if target == "character" else 1.0
        return replace(self, unit_ratio=max(1.0, written / read) if read else usual)

    def reached(self, state: State) -> bool:
        """Whether no more units may be written before the next read."""
        return self.left(state) <= 0

    def left(self, state: State) -> int:
        """How many units may still be written before the next read."""
        return self._units(state) - state.written

    def tokens_left(self, state: State, target_tokens: int) -> float:
        """How many target tokens may still be written before the next read, after ``target_tokens``."""
        return math.inf if self.tokens_per_unit is None else self.tokens_per_unit * self._units(state) - target_tokens

    def cut(self, state: State, target_tokens: int) -> Literal["max_units", "max_tokens"] | None:
        """Which limit is reached, if one is."""
        units = self._units(state)
        if units <= state.written:
            return "max_units"
        few = self.tokens_per_unit
        return "max_tokens" if few is not None and few * units <= target_tokens else None

    def most_units(self, read: int) -> int:
        """How many units may be written in all once so many have been read."""
        return math.ceil((self.unit_ratio or 1) * (self.length_ratio * read + self.length_extra))

    def most_tokens(self, units: int) -> float:
        """How many target tokens so many units may have at most: the limit is looked at between units only."""
        return LONGEST_UNIT * units if self.tokens_per_unit is None else self.tokens_per_unit * units + LONGEST_UNIT

    def of_write(self, action: Write) -> Write:
        """A WRITE as it is done while source remains: ``bare`` for all policies if that is set, and for none where an
        end token ends the sentence (then the punctuation before it must not wait)."""
        if self.early_stop == "stop":
            return replace(action, bare=False) if action.bare else action
        return WRITE_BARE if self.bare and not action.tokens else action

    def _units(self, state: State) -> int:
        return self.most_units(state.read)


def _is_at_least(value: object, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf
