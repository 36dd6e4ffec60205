"""Fonts for words of any language: Matplotlib's own, and what is installed for characters that it lacks."""

import logging
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.font_manager import FontEntry, FontProperties
from matplotlib.ft2font import FT2Font

log = logging.getLogger(__name__)

CHINESE = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Heiti SC")
JAPANESE = ("Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans", "IPAexGothic", "Hiragino Sans")
KOREAN = ("Noto Sans CJK KR", "Noto Sans KR", "Source Han Sans K", "NanumGothic", "Apple SD Gothic Neo")
OTHERS = ("Noto Sans", "Noto Sans Arabic", "Noto Sans Thai", "Noto Sans Devanagari", "Arial Unicode MS")
"""Fonts to be taken first, in this order; after them, any that has the characters."""

EASTERN = {
    **dict.fromkeys(("CJK", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "BOPOMOFO"), "Chinese"),
    **dict.fromkeys(("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"), "Japanese"),
    "HANGUL": "Korean",
}
"""First words of the names of characters that are in fonts for Chinese, Japanese and Korean, with the language."""

LAST_RESORT = "Last Resort High-Efficiency"  # Matplotlib's own from 3.11 on: a box for any character


def word_fonts(text: str) -> list[str]:
    """The families that draw ``text``: that of the figure, then what is installed for the characters that it lacks.
    A log line says which characters have no font at all, and what to install; it comes once for each script."""
    families = list(plt.rcParams["font.family"])
    found, lacking = _fonts_for(frozenset(text), tuple(families), _preferred(text))
    for char in sorted(lacking):
        _say(EASTERN.get(_script(char), _script(char).capitalize()), char)
    return [*families, *found, *([LAST_RESORT] if lacking and LAST_RESORT in font_manager.get_font_names() else [])]


def _preferred(text: str) -> tuple[str, ...]:
    """Han characters look different in Chinese, Japanese and Korean fonts; the other characters tell the language."""
    scripts = {_script(char) for char in set(text)}
    if scripts & {"HIRAGANA", "KATAKANA"}:
        return (*JAPANESE, *CHINESE, *KOREAN, *OTHERS)
    if "HANGUL" in scripts:
        return (*KOREAN, *CHINESE, *JAPANESE, *OTHERS)
    return (*CHINESE, *JAPANESE, *KOREAN, *OTHERS)


@cache
def _fonts_for(
    characters: frozenset[str], families: tuple[str, ...], preferred: tuple[str, ...]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have what ``families`` lack of the characters, and the characters that no font has."""
    wanted = {char for char in characters if unicodedata.category(char)[0] not in "CZ"}  # control, format, spaces
    own = {str(font_manager.findfont(FontProperties(family=[family]))) for family in families}
    lacking = frozenset(wanted) - {char for char in wanted if any(_has(file, char) for file in own)}
    chosen: list[str] = []
    for font in _installed(preferred) if lacking else ():
        has = frozenset(char for char in lacking if _has(font.fname, char))
        if has and font.name not in chosen:
            chosen.append(font.name)
            lacking -= has
        if not lacking:
            break
    return tuple(chosen), lacking


def _installed(preferred: tuple[str, ...]) -> Iterator[FontEntry]:
    """Upright fonts, those of ``preferred`` first. Those that were installed after Matplotlib made its list are added
    to it, for this process."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in known and Path(file).suffix.lower() in (".ttf", ".otf", ".ttc"):
            try:
                font_manager.fontManager.addfont(file)
            except (OSError, RuntimeError):  # not a font that FreeType reads
                continue
    upright = [entry for entry in font_manager.fontManager.ttflist if entry.style == "normal"]
    order = {name: place for place, name in enumerate(preferred)}
    usable = [entry for entry in upright if not entry.name.startswith("Last Resort")]
    yield from sorted(usable, key=lambda entry: (order.get(entry.name, len(order)), entry.name, entry.fname))


def _has(file: str, char: str) -> bool:
    return bool(_open(file).get_char_index(ord(char)))


@cache
def _open(file: str) -> FT2Font:
    return font_manager.get_font(file)


def _script(char: str) -> str:
    """The first word of a character's name, such as THAI, HANGUL or CJK."""
    return unicodedata.name(char, "UNNAMED").partition(" ")[0]


def _say(script: str, example: str) -> None:
    if script in _said:
        return
    _said.add(script)
    log.warning(
        "no installed font has %s characters such as %s: figures show boxes for them. Install one that has them "
        "(Debian: apt-get install %s; a font file in ~/.local/share/fonts will do, too)",
        script,
        example,
        "fonts-noto-cjk" if script in EASTERN.values() else "fonts-noto-core",
    )


_said: set[str] = set()
