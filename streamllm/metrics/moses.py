"""Moses' tokenisation of a single word, as OmniSTEval's alignment asks for it: no escaping, hyphens split.

Equal to ``tokenizer.perl -a -no-escape`` (version 1.1, of mosestokenizer 1.2.1) for every lower-case text without outer
spaces, without Perl and without a process of its own.
"""

import re
from functools import cache

WITH_ABBREVIATIONS = (
    *("ca", "cs", "de", "el", "en", "es", "fi", "fr", "hu", "is", "it", "lv", "nl", "pl", "pt", "ro", "ru", "sk", "sl"),
    *("sv", "ta"),
)
"""Languages whose abbreviations mosestokenizer 1.2.1 has: those of others are the English ones."""

WITHOUT_EFFECT = ("ca", "ru", "sl")
"""Languages whose abbreviations it never finds, because of carriage returns in its files."""

ONLY_HERE: dict[str, set[str]] = {"es": {"gr"}, "it": {"a.c", "all", "es", "pp"}, "pt": {"art", "p"}}
ONLY_THERE: dict[str, set[str]] = {"fr": {"a"}}
"""In what the abbreviations of sacremoses 0.2.0 differ from its; for Swedish and Tamil they differ in more."""

LANGUAGES = {
    **dict.fromkeys(("zho", "chi", "cmn", "yue", "wuu"), "zh"),
    "jpn": "ja",
    "kor": "ko",
    "eng": "en",
    "deu": "de",
    "ger": "de",
    "fra": "fr",
    "fre": "fr",
    "spa": "es",
    "ita": "it",
    "por": "pt",
    "nld": "nl",
    "dut": "nl",
    "ces": "cs",
    "cze": "cs",
    "pol": "pl",
    "rus": "ru",
    "ron": "ro",
    "rum": "ro",
    "swe": "sv",
    "fin": "fi",
    "ell": "el",
    "gre": "el",
    "hun": "hu",
    "isl": "is",
    "ice": "is",
    "lav": "lv",
    "slk": "sk",
    "slo": "sk",
    "slv": "sl",
    "cat": "ca",
    "tam": "ta",
}
"""Codes of three letters for those of two that Moses and OmniSTEval know."""

NOT_TOKENISED = ("zh", "ja")
"""Languages whose words OmniSTEval leaves whole."""


def moses_language(language: str) -> str:
    """The code that OmniSTEval is to be given for a language tag: "de" for "de-CH" and "deu_Latn"."""
    primary = re.split("[-_]", language.strip().lower())[0]
    return LANGUAGES.get(primary, primary)


@cache
def tokenise(word: str, language: str) -> tuple[str, ...]:
    """The tokens of a word.

    Args:
        word: lower-case text. White space in it, which NFKC can bring ("´"), parts tokens.
        language: as `moses_language` gives it. One that Moses does not know has English abbreviations, as there.

    Returns: the tokens; none for a word of control characters.
    """
    import regex  # knows Unicode's properties as Perl does, and comes with sacrebleu

    text = regex.sub(r"\s+", " ", word)
    text = regex.sub(r"[\x00-\x1f]", "", text).strip(" ")
    text = regex.sub(r"([^\p{Alnum}\s.'`,\-])", r" \1 ", text)
    text = regex.sub(r"(\p{Alnum})-(?=\p{Alnum})", r"\1 @-@ ", text)
    # Several dots in a row stay together. Capitals are free to stand for them, since the word has none.
    text = regex.sub(r"\.(\.+)", r" DOTMULTI\1", text)
    while "DOTMULTI." in text:
        text = regex.sub(r"DOTMULTI\.([^.])", r"DOTDOTMULTI \1", text)
        text = text.replace("DOTMULTI.", "DOTDOTMULTI")
    text = regex.sub(r"(\P{N}),", r"\1 , ", text)
    text = regex.sub(r",(\P{N})", r" , \1", text)
    text = _apostrophes(text, language)
    text = _full_stops(text, language)
    while "DOTDOTMULTI" in text:
        text = text.replace("DOTDOTMULTI", "DOTMULTI.")
    return tuple(text.replace("DOTMULTI", ".").split())


def _apostrophes(text: str, language: str) -> str:
    import regex

    rules: tuple[tuple[str, str], ...]
    if language == "en":
        rules = (
            (r"(\P{Alphabetic})'(\P{Alphabetic})", r"\1 ' \2"),
            (r"([^\p{Alphabetic}\p{N}])'(\p{Alphabetic})", r"\1 ' \2"),
            (r"(\p{Alphabetic})'(\P{Alphabetic})", r"\1 ' \2"),
            (r"(\p{Alphabetic})'(\p{Alphabetic})", r"\1 '\2"),
            (r"(\p{N})'(s)", r"\1 '\2"),
        )
    elif language in ("fr", "it"):
        rules = (
            (r"(\P{Alphabetic})'(\P{Alphabetic})", r"\1 ' \2"),
            (r"(\P{Alphabetic})'(\p{Alphabetic})", r"\1 ' \2"),
            (r"(\p{Alphabetic})'(\P{Alphabetic})", r"\1 ' \2"),
            (r"(\p{Alphabetic})'(\p{Alphabetic})", r"\1' \2"),
        )
    else:
        return text.replace("'", " ' ")
    for pattern, replacement in rules:
        text = regex.sub(pattern, replacement, text)
    return text


def _full_stops(text: str, language: str) -> str:
    """A full stop ends a word, unless it belongs to an abbreviation or a small letter follows."""
    import regex

    words = regex.split(r"\s", text)
    kept = abbreviations(language)
    for place, word in enumerate(words):
        if len(word) < 2 or not word.endswith("."):
            continue
        stem = word[:-1]
        following = words[place + 1] if place + 1 < len(words) else ""
        spelled = "." in stem and regex.search(r"\p{Alphabetic}", stem)
        if not (spelled or stem in kept or regex.match(r"\p{Lowercase}", following)):
            words[place] = f"{stem} ."
    return " ".join(words)


@cache
def abbreviations(language: str) -> frozenset[str]:
    """Words that keep their full stop: the lower-case ones without spaces of Moses' non-breaking prefixes, as
    sacremoses brings them. Those that do so before a number only are left out: no word has one."""
    if language in WITHOUT_EFFECT:
        return frozenset()
    if language not in WITH_ABBREVIATIONS:
        language = "en"
    from sacremoses.corpus import NonbreakingPrefixes

    words = map(str.strip, NonbreakingPrefixes().words(language))
    known = {word for word in words if word and word == word.lower() and not re.search(r"\s", word)}
    return frozenset(known - ONLY_HERE.get(language, set()) | ONLY_THERE.get(language, set()))
