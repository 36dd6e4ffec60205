"""Cuts text into units and joins units to text. Words are divided by white space; "character" is for languages that
write without spaces, where every character that is not white space is a unit.

Invariant: white space is no unit and costs no delay, and yet it is read, written and scored: it goes with the character
after it (`pieces`).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

Unit = Literal["word", "character"]
UNITS: tuple[Unit, ...] = ("word", "character")
CHARACTER_LANGUAGES = frozenset(
    {"zh", "zho", "chi", "cmn", "yue", "wuu", "ja", "jpn", "th", "tha", "km", "khm", "lo", "lao", "my", "mya", "bur"}
    | {"bo", "bod", "tib", "dz", "dzo"}
)
"""Chinese, Cantonese, Wu, Japanese, Thai, Khmer, Lao, Burmese, Tibetan, Dzongkha (ISO 639-1 and 639-2/3)."""


def check_unit(unit: str) -> None:
    """Raises: ValueError: ``unit`` is neither "word" nor "character"."""
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}; accepted are {', '.join(map(repr, UNITS))}")


def split(text: str, unit: Unit = "word") -> list[str]:
    """The units of a text, in order; the empty list when it is blank."""
    check_unit(unit)
    return text.split() if unit == "word" else [char for char in text if not char.isspace()]


def pieces(text: str, unit: Unit = "word", before: str = "") -> list[str]:
    """The units of a text as they are read and written: characters with the white space before them, as one space.

    Args:
        before: what of the stream comes before the text; white space that begins a stream is left out.
    """
    if unit == "word":
        return split(text, unit)
    check_unit(unit)
    found: list[str] = []
    space = bool(before) and before[-1].isspace()
    for char in text:
        if char.isspace():
            space = True
        else:
            found.append(f" {char}" if space and (found or before.strip()) else char)
            space = False
    return found


def join(units: Sequence[str], unit: Unit = "word") -> str:
    """The text of some units."""
    check_unit(unit)
    return (" " if unit == "word" else "").join(units)


T = TypeVar("T")


def settled(outputs: Sequence[Sequence[str]], when: Sequence[T]) -> list[T]:
    """When each unit of the last of successive outputs was final: when the first output was shown from which on the
    unit and all before it stay as they are.

    It is the delay of re-translation: g(j) = min i such that o_i'j' = o_Ij' for all i' >= i and j' <= j, o_I being the
    last output (Arivazhagan et al. 2020, arXiv 2004.03643).

    Args:
        when: each output was shown.
    """
    last = outputs[-1]
    found: list[T] = []
    same = len(last)
    for output, shown in zip(reversed(outputs), reversed(when), strict=True):
        same = min(same, common_prefix(output, last))
        found[:same] = [shown] * same
    return found


def common_prefix(a: Sequence[str], b: Sequence[str]) -> int:
    """How many units two outputs begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


_ENDING = re.compile(r"""[.!?…。！？｡؟।።]["'”’»)\]」』]*$""")
_ABBREVIATED = re.compile(
    r"""^["'“‘„«(\[]*([A-Za-zÄÖÜ]|Mrs?|Ms|Drs?|Prof|St|Sr|Jr|Sra|Mme|vs|No|Nr|Fig|Inc|Ltd|Co|Gen|Lt|Sgt|Capt|Rev|Hon"""
    r"""|e\.g|i\.e|z\.B|d\.h|u\.a|bzw|ca|approx|p\.ex)\.$"""
)


def ends_sentence(unit: str) -> bool:
    """Whether a sentence ends with this unit, as far as can be told before the next one is known: it ends in
    punctuation that ends sentences, closing quotes and brackets after it, and is no initial or common abbreviation."""
    unit = unit.strip()
    return bool(_ENDING.search(unit)) and not _ABBREVIATED.match(unit)


def join_texts(texts: Iterable[str], unit: Unit = "word") -> str:
    """Texts, such as the sentences of a document, as one, which has all of their units and no others.

    Words get a space between two texts. Characters get one only where both neighbours are of a script that writes
    spaces, so that "OK" and "Go" stay two words, while nothing comes between "好。" and "OK".
    """
    check_unit(unit)
    found: list[str] = []
    for text in filter(None, map(str.strip, texts)):
        if found and (unit == "word" or not (_is_wide(found[-1][-1]) or _is_wide(text[0]))):
            found.append(" ")
        found.append(text)
    return "".join(found)


def _is_wide(char: str) -> bool:
    """Whether a character takes the room of a Chinese one; signs that Chinese shares with others count, too."""
    width = unicodedata.east_asian_width(char)
    return width in "WF" or (width == "A" and not char.isalnum())


def unit_of(language: str) -> Unit:
    """The unit of a language, by its code: "character" for `CHARACTER_LANGUAGES`, else "word"."""
    return "character" if re.split("[-_]", language)[0].lower() in CHARACTER_LANGUAGES else "word"
