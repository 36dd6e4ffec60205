"""Cuts text into units and joins units to text. Words are divided by white space; "character" is for
Chinese and Japanese, where every character that is not white space is a unit."""

import re
from collections.abc import Sequence
from typing import Literal

Unit = Literal["word", "character"]
UNITS: tuple[Unit, ...] = ("word", "character")
CHARACTER_LANGUAGES = frozenset({"zh", "zho", "cmn", "yue", "ja", "jpn"})


def check_unit(unit: str) -> None:
    """Raises: ValueError: ``unit`` is neither "word" nor "character"."""
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}; accepted are {', '.join(map(repr, UNITS))}")


def split(text: str, unit: Unit = "word") -> list[str]:
    """The units of a text, in order; the empty list when it is blank."""
    check_unit(unit)
    return text.split() if unit == "word" else [char for char in text if not char.isspace()]


def join(units: Sequence[str], unit: Unit = "word") -> str:
    """The text of some units."""
    check_unit(unit)
    return (" " if unit == "word" else "").join(units)


def unit_of(language: str) -> Unit:
    """The unit of a language, by its code: "character" for Chinese and Japanese, else "word"."""
    return "character" if re.split("[-_]", language)[0].lower() in CHARACTER_LANGUAGES else "word"
