"""The output of a whole document cut at its reference sentences: by soft alignment, as OmniSTEval does, and by minimum
word error, as simulstream does.

Both give the reference sentence of each target unit. The soft alignment is exact: the same sums of the same
floating-point numbers as OmniSTEval 0.1.10, ties included.
"""

import json
import subprocess
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from streamllm.extras import install
from streamllm.metrics.moses import NOT_TOKENISED, tokenise
from streamllm.units import Unit, check_unit

PUNCTUATION = frozenset(".!?,;:-()。！？，；：—（）ー")
"""Tokens that are aligned with each other only: OmniSTEval's marks, and their Chinese and Japanese forms."""

_KEPT = 2**22  # similarities that are kept: 32 MB
_STEPS = 2**28  # cells whose steps are kept: 64 MB


# --- tokens


@dataclass(frozen=True)
class Tokens:
    """Units as the soft alignment compares them: ``texts[i]`` is a piece of unit ``units[i]``."""

    texts: tuple[str, ...]
    units: tuple[int, ...]


def tokens(units: Sequence[str], language: str | None) -> Tokens:
    """Units in NFKC and lower case, cut into Moses' tokens.

    Args:
        units: words, or characters.
        language: as `streamllm.metrics.moses.moses_language` gives it; None, "zh" and "ja" leave units whole.
    """
    texts: list[str] = []
    of: list[int] = []
    for place, unit in enumerate(units):
        text = unicodedata.normalize("NFKC", unit).lower()
        pieces = (text,) if language is None or language in NOT_TOKENISED else tokenise(text, language)
        texts += pieces
        of += [place] * len(pieces)
    return Tokens(tuple(texts), tuple(of))


def similarity(reference: str, hypothesis: str, unit: Unit) -> float:
    """How alike two tokens are: the Jaccard index of their sets of characters; for characters, whether they are equal.

    Returns: 0 to 1; minus infinity where exactly one of the two is a mark of `PUNCTUATION`.
    """
    if (reference in PUNCTUATION) != (hypothesis in PUNCTUATION):
        return -np.inf
    if unit == "character":
        return float(reference == hypothesis)
    ours, theirs = set(reference), set(hypothesis)
    common = len(ours & theirs)
    union = len(ours) + len(theirs) - common
    return common / union if union else 0.0


# --- soft alignment


def soft_alignment(reference: Sequence[str], hypothesis: Sequence[str], unit: Unit) -> list[tuple[int, int]]:
    """The alignment with the greatest sum of similarities, gaps costing nothing (Polák et al. 2025, arXiv 2509.17349).

    Where several have it, the one that takes a match before a gap in the hypothesis before a gap in the reference,
    traced from the end. Rows of the quadratic program are computed whole: a gap in the reference carries the best sum
    so far to the right, which is a running maximum.

    Args:
        reference, hypothesis: tokens. Both may be long: 10,000 take seconds, and memory grows with their sum beyond
            some 16,000.

    Returns: pairs of places, in order, with -1 for a gap. Each place comes once.
    """
    check_unit(unit)
    rows, columns = len(reference), len(hypothesis)
    similar = _similarities(reference, hypothesis, unit)
    block = max(1, min(rows, _STEPS // max(1, columns)))
    firsts = range(0, rows, block)
    starts = [np.zeros(columns + 1)]  # the row above each block
    for first in firsts[:-1]:
        starts.append(starts[-1].copy())
        for row in range(first, first + block):
            _next_row(starts[-1], similar(row))
    pairs: list[tuple[int, int]] = []
    column = columns
    for first in reversed(firsts):
        within = range(first, min(first + block, rows))
        column = _trace(within, column, starts.pop(), similar, pairs)
    pairs += [(-1, place) for place in reversed(range(column))]
    return pairs[::-1]


def _trace(
    within: range,
    column: int,
    best: NDArray[np.float64],
    similar: Callable[[int], NDArray[np.float64]],
    pairs: list[tuple[int, int]],
) -> int:
    """Adds the pairs of a block of rows, from its end; returns the column where the rows above it end."""
    steps = [_next_row(best, similar(row)) for row in within]
    row = within.stop
    while row > within.start:
        step = steps[row - within.start - 1]
        if column == 0 or _has(step.delete, column - 1):
            row -= 1
            pairs.append((row, -1))
        elif _has(step.match, column - 1):
            row, column = row - 1, column - 1
            pairs.append((row, column))
        else:
            column -= 1
            pairs.append((-1, column))
    return column


@dataclass(frozen=True)
class _Steps:
    """Which step a row takes in each column, as bits; neither is a gap in the reference."""

    match: NDArray[np.uint8]
    delete: NDArray[np.uint8]


def _next_row(best: NDArray[np.float64], similar: NDArray[np.float64]) -> _Steps:
    """Turns the best sums of a row, column 0 included, into those of the next."""
    matched = best[:-1] + similar
    above = best[1:].copy()
    np.maximum.accumulate(np.maximum(matched, above), out=best[1:])
    match = matched == best[1:]
    return _Steps(np.packbits(match), np.packbits((above == best[1:]) & ~match))


def _has(bits: NDArray[np.uint8], place: int) -> bool:
    return bool(bits[place >> 3] >> (7 - (place & 7)) & 1)


def _similarities(
    reference: Sequence[str], hypothesis: Sequence[str], unit: Unit
) -> Callable[[int], NDArray[np.float64]]:
    """A function from a place of the reference to its similarities with all of the hypothesis."""
    kinds = list(dict.fromkeys(hypothesis))
    number = {kind: place for place, kind in enumerate(kinds)}
    of = np.array([number[token] for token in hypothesis], dtype=np.intp)
    marks = np.array([kind in PUNCTUATION for kind in kinds], dtype=bool)
    sizes = np.array([len(set(kind)) for kind in kinds], dtype=np.int64)
    holding: dict[str, list[int]] = defaultdict(list)
    for place, kind in enumerate(kinds):
        for character in set(kind):
            holding[character].append(place)
    places = {character: np.array(found) for character, found in holding.items()}

    @lru_cache(maxsize=max(1, _KEPT // max(1, len(kinds))))
    def with_kinds(token: str) -> NDArray[np.float64]:
        if unit == "character":
            similar = np.zeros(len(kinds))
            if token in number:
                similar[number[token]] = 1
        else:
            common = np.zeros(len(kinds), dtype=np.int64)
            characters = set(token)
            for character in characters & places.keys():
                common[places[character]] += 1
            similar = common / np.maximum(1, sizes + len(characters) - common)
        similar[marks != (token in PUNCTUATION)] = -np.inf
        return similar

    return lambda place: with_kinds(reference[place])[of]


def sentences_of_tokens(
    pairs: Sequence[tuple[int, int]],
    reference: Sequence[str],
    hypothesis: Sequence[str],
    sentences: Sequence[int],
    unit: Unit,
) -> list[int | None]:
    """The sentence of each hypothesis token: that of its reference token.

    A run of tokens that match nothing stays with the reference token before it, token by token, until one of them is
    strictly more similar to the next reference token: that one goes there with the rest of the run.

    Args:
        pairs: as `soft_alignment` returns them.
        sentences: the sentence of each reference token.

    Returns: None for a token that OmniSTEval drops: before the first reference token, where it is not more similar to
        that than minus infinity (a dash at the beginning, say).
    """
    following = -1
    next_matched = [-1] * len(pairs)
    for place, (ours, _) in reversed(list(enumerate(pairs))):
        following = ours if ours >= 0 else following
        next_matched[place] = following
    found: list[int | None] = []
    last, ahead = -1, False  # ahead: the rest of this run goes to the next reference token
    for (ours, theirs), upcoming in zip(pairs, next_matched, strict=True):
        if ours >= 0:
            last, ahead = ours, False
        if theirs < 0:
            continue
        if ours < 0 and not ahead:
            token = hypothesis[theirs]
            to_next = similarity(token, reference[upcoming], unit) if upcoming >= 0 else -np.inf
            to_last = similarity(token, reference[last], unit) if last >= 0 else -np.inf
            ahead = to_next > to_last
        chosen = upcoming if ours >= 0 or ahead else last
        found.append(sentences[chosen] if chosen >= 0 else None)
    return found


def soft_segmentation(
    references: Sequence[str], units: Sequence[str], unit: Unit, language: str | None
) -> list[int | None]:
    """The reference sentence of each target unit of a document, by OmniSTEval's soft alignment.

    Args:
        references: the sentences of the document.
        units: what was written: words without white space, or characters.
        language: of the target, as `streamllm.metrics.moses.moses_language` gives it; None cuts no word into tokens.

    Returns: a place in ``references`` for each unit; None for one that OmniSTEval drops (see `sentences_of_tokens`, and
        a word of control characters, which has no token).
    Raises: ValueError: no reference has a word, but something was written.
    """
    check_unit(unit)
    reference_units: list[str] = []
    of: list[int] = []
    for place, text in enumerate(references):
        # The order matters: lower case before NFKC, and once more after it.
        text = text.strip().lower()
        found = text.split() if unit == "word" else list(text.replace(" ", ""))
        reference_units += found
        of += [place] * len(found)
    ours, theirs = tokens(reference_units, language), tokens(units, language)
    if theirs.texts and not ours.texts:
        raise ValueError(f"{len(units)} units but no reference sentence with a word; give references that have words")
    pairs = soft_alignment(ours.texts, theirs.texts, unit)
    sentences = [of[place] for place in ours.units]
    by_token = sentences_of_tokens(pairs, ours.texts, theirs.texts, sentences, unit)
    by_unit: list[int | None] = [None] * len(units)
    for token, place in reversed(list(enumerate(theirs.units))):  # the first token of a unit speaks for it
        by_unit[place] = by_token[token]
    return by_unit


# --- minimum word error

_PROGRAM = """
import json, sys
from mweralign.mweralign import align_texts
print(json.dumps([align_texts(*texts) for texts in json.load(sys.stdin)]))
"""


def mweralign_version() -> str:
    """Raises: ImportError: the package is not installed."""
    try:
        return version("mweralign")
    except PackageNotFoundError as error:
        raise ImportError(f"mweralign, which re-segments by minimum word error, is not installed: {_how()}") from error


def word_error_segmentation(documents: Sequence[tuple[Sequence[str], Sequence[str]]], unit: Unit) -> list[list[int]]:
    """The reference sentence of each target unit, by minimum word error (Matusov et al. 2005), as mweralign finds it.

    Args:
        documents: references and units of each. Characters are put together to runs of Latin-1 as simulstream does.

    Returns: for each document a place in its references for each unit, never falling.
    Raises: ImportError: mweralign is not installed. RuntimeError: it failed.
    """
    check_unit(unit)
    if find_spec("mweralign") is None:
        raise ImportError(f"mweralign, which re-segments by minimum word error, is not installed: {_how()}")
    between = " " if unit == "word" else ""
    asked = [
        # Each line ends, or else a last reference that is blank would be lost.
        ("".join(f"{_plain(line, unit)}\n" for line in references), _plain(between.join(units), unit))
        for references, units in documents
        if units
    ]
    answers = iter(_mweralign(asked) if asked else ())
    return [list(_cut(len(references), units, next(answers), unit)) if units else [] for references, units in documents]


def _how() -> str:
    return install("longform")


def _plain(text: str, unit: Unit) -> str:
    """A text on a line, with other signs for those that part alternative references there."""
    text = text.strip().replace("\n", " ").replace("\r", " ").replace("###", "\uff03\uff03\uff03")
    return text if unit == "word" else " ".join(_latin_runs(text))


def _latin_runs(text: str) -> Iterator[str]:
    """Characters, but runs of Latin-1 with their spaces together, which mweralign's CJSegmenter takes for words."""
    run = ""
    for character in text.replace(" ", "\u2581"):
        if character <= "\xff" or character == "\u2581":
            run += character
            continue
        if run:
            yield run
        run = ""
        yield character
    if run:
        yield run


def _mweralign(texts: Sequence[tuple[str, str]]) -> list[str]:
    """What mweralign answers, in a process of its own: it writes to stderr, sets up the logging of whoever imports it,
    and ends its process where a reference is not as it expects."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], input=json.dumps(texts), capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(
            f"mweralign {mweralign_version()} ended with {done.returncode} and said {said[:200]!r}; "
            "score without minimum word error, or look for an odd reference"
        )
    answers: list[str] = json.loads(done.stdout)
    return answers


def _cut(sentences: int, units: Sequence[str], answer: str, unit: Unit) -> Iterator[int]:
    lines = answer.split("\n")
    if len(lines) != sentences:
        raise RuntimeError(f"mweralign gave {len(lines)} lines for {sentences} references; please report this document")
    sizes = [
        len(line.replace(" ", "") if unit == "character" else list(filter(None, line.split(" ")))) for line in lines
    ]
    if sum(sizes) != len(units):
        raise RuntimeError(
            f"mweralign gave {sum(sizes)} units for {len(units)}; a unit is a word without white space, or a character"
        )
    for place, size in enumerate(sizes):
        yield from [place] * size
