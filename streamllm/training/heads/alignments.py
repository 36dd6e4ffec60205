"""Word alignments of sentence pairs: from a file in Pharaoh format, which any aligner writes, or by eflomal.

Invariant: a word is what ``str.split`` gives, and counted from 0; what eflomal gave once is kept, since it gives
something else each time."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamllm.contents import of_texts
from streamllm.data.lines import read_lines
from streamllm.extras import install
from streamllm.files import write_atomically

LONGEST = 1023
"""Words of a sentence for eflomal: longer ones get no links, and it says nothing."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Pair = tuple[Sequence[str], Sequence[str]]
"""The words of a source and of its target."""


def from_file(path: Path, pairs: Sequence[Pair]) -> list[Numbers]:
    """What each target word needs of its source (`needed`), by a file with a line for each pair: "0-0 1-2" links the
    first words, and the second of the source with the third of the target.

    Raises:
        ValueError: the file is not there, has another number of lines, or a link that is none of its pair.
    """
    try:
        lines = read_lines(path)
    except OSError as error:
        raise ValueError(f"labels.path is {str(path)!r}, which cannot be read: {error}") from error
    if len(lines) != len(pairs):
        raise ValueError(
            f"{path} has {len(lines)} lines, and the data set {len(pairs)} pairs (as dataset.limit leaves them): a "
            "line is the alignment of a pair, and an empty one links nothing"
        )
    return [
        needed(line, pair, f"{path}, line {number}")
        for number, (line, pair) in enumerate(zip(lines, pairs, strict=True), 1)
    ]


def by_eflomal(pairs: Sequence[Pair], folder: Path) -> list[Numbers]:
    """The same by eflomal (Östling & Tiedemann 2016), in the direction that links a target word to one source word or
    none. What it gives is kept in ``folder``, and taken from there.

    Raises:
        ValueError: it is not installed, or a sentence is too long for it.
    """
    name = of_texts(" ".join(words) for pair in pairs for words in pair)[:16]
    kept = folder / f"eflomal-{name}.txt"
    if not kept.exists():
        lines = _eflomal(pairs)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, "".join(f"{line}\n" for line in lines))
    return from_file(kept, pairs)


def needed(line: str, pair: Pair, where: str) -> Numbers:
    """How many source words have to be read before each target word, (target words,): up to the last one that it or a
    word before it is linked to. A word without a link needs no source of its own.

    Raises: ValueError: it is no line of links between these words.
    """
    found = np.zeros(len(pair[1]), np.int64)
    for link in line.split():
        if not re.fullmatch(r"[0-9]+-[0-9]+", link):
            raise ValueError(f"{where}: {link!r} is no link; one is SOURCE-TARGET, words from 0, such as 0-0")
        source, target = map(int, link.split("-"))
        if source >= len(pair[0]) or target >= len(pair[1]):
            raise ValueError(
                f"{where}: {link!r} is no link of this pair, which has {len(pair[0])} source words and {len(pair[1])} "
                "target words, from 0: is it the alignment of other data, or of other words?"
            )
        found[target] = max(found[target], source + 1)
    running: Numbers = np.maximum.accumulate(found) if len(found) else found
    return running


def _bare(word: str) -> str:
    """A word without the punctuation around it: "dog" and "dog." are one to an aligner that counts words."""
    return re.sub(r"^\W+|\W+$", "", word) or word


def _eflomal(pairs: Sequence[Pair]) -> list[str]:
    for source, target in pairs:
        if max(len(source), len(target)) > LONGEST:
            raise ValueError(
                f"a sentence has {max(len(source), len(target))} words, and eflomal aligns at most {LONGEST}: set "
                "cells.max_tokens, or align sentences instead of documents"
            )
    try:
        from eflomal import Aligner  # type: ignore[import-not-found]
    except ImportError as error:
        raise ValueError(
            f"labels=aligner aligns words by eflomal, which is not there: {install('aligner')} (it needs a C "
            "compiler); or give alignments of any aligner as labels.path=FILE labels.validation_path=FILE, a line for "
            "each pair, such as 0-0 1-2"
        ) from error
    sources, targets = ([" ".join(map(_bare, words)) for words in side] for side in zip(*pairs, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder) / "links"
        Aligner().align(sources, targets, links_filename_fwd=str(links), quiet=True)
        return read_lines(links)
