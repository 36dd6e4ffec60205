"""Parallel text: two files, line by line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from streamllm.data.as_bytes import pairs_as_bytes
from streamllm.data.dataset import Dataset
from streamllm.data.lines import MAX_BYTES, FilePath, count_lines, existing_file, paired_lines, read_lines, stem
from streamllm.data.pairs import checked_example, to_examples
from streamllm.records import Example

MANY = 50_000
"""Lines of which no list is made before they are wanted (`ParallelText.load_lazily`)."""


@dataclass(frozen=True, kw_only=True)
class ParallelText(Dataset):
    """Two text files, line by line, plain or .gz (see `read_parallel`). With ``limit`` and without ``shuffle``,
    the lines that are taken are checked, and the others are counted only.

    A language that is None is taken from the end of the file's name if that is two letters (``val.en.gz``).

    Args:
        source: the file of the source language.
        target: the file of the target language.
    """

    source: FilePath
    target: FilePath
    source_language: str = None  # type: ignore[assignment]
    target_language: str = None  # type: ignore[assignment]
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for side in ("source", "target"):
            path = getattr(self, side)
            if not path:
                raise ValueError(f"dataset.{side} is {path!r}; give dataset.source=FILE dataset.target=FILE")
            if getattr(self, f"{side}_language") is None:
                object.__setattr__(self, f"{side}_language", language_of(path, side))
        if self.name is None:
            object.__setattr__(self, "name", stem(self.source))
        super().__post_init__()

    def load(self) -> list[Example]:
        limit = None if self.shuffle or self.sentences_per_document is not None else self.limit
        pairs = read_parallel(
            self.source, self.target, name=self.name, skip_empty=self.skip_empty, max_bytes=self.max_bytes, limit=limit
        )
        return self._select(pairs)

    def load_lazily(self) -> Sequence[Example]:
        if self.shuffle or self.sentences_per_document is not None or self.limit is not None:
            return self.load()
        if count_lines(self.source, self.max_bytes) < MANY:
            return self.load()
        return pairs_as_bytes(self.source, self.target, self.name, self.max_bytes) or self.load()

    def _stream(self) -> Iterator[Example]:
        return stream_parallel(
            self.source, self.target, name=self.name, skip_empty=self.skip_empty, max_bytes=self.max_bytes
        )

    def files(self) -> list[Path]:
        return [existing_file(self.source), existing_file(self.target)]


def language_of(path: FilePath, side: str) -> str:
    """The two letters that a file's name ends in: "en" for ``val.en.gz``.

    Raises:
        ValueError: it ends otherwise; ``side`` is "source" or "target", for the error.
    """
    ending = Path(Path(path).name.removesuffix(".gz")).suffix[1:]
    if not re.fullmatch("[a-z]{2}", ending):
        raise ValueError(
            f"the language of {path} is not known, as its name does not end in a code like .en or .de.gz: add "
            f"dataset.{side}_language=CODE"
        )
    return ending


def read_parallel(
    source: FilePath,
    target: FilePath,
    *,
    name: str | None = None,
    skip_empty: bool = False,
    max_bytes: int | None = MAX_BYTES,
    limit: int | None = None,
) -> list[Example]:
    """The sentence pairs of two text files: line i of one is the translation of line i of the other.

    Args:
        source: the file of the source language; .gz is unpacked.
        target: the file of the target language.
        name: what the ids start with; the name of the source file without its endings when None.
        skip_empty: leave out the pairs of which a side is blank, instead of raising.
        max_bytes: what each file may hold, if it is compressed (`streamllm.data.lines.allowed_bytes`).
        limit: take so many pairs from the beginning; the other lines are counted, and nothing else of them is looked
            at. None takes all.

    Returns:
        The examples in the order of the files, with the ids ``<name>-<line>``, so that line 7 keeps its id
        whatever is left out or shuffled.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: the files differ in their number of lines, have none, are not UTF-8, hold too much, or a line is
            blank.
    """
    name, places = stem(source) if name is None else name, (str(source), str(target))
    if limit is not None:
        totals = count_lines(source, max_bytes), count_lines(target, max_bytes)
        _refuse_other_lengths(*places, *totals)
        lines = enumerate(paired_lines(source, target, max_bytes))
        kept: list[tuple[int, tuple[str, str]]] = []
        with suppress(ValueError):  # not UTF-8: below, the whole is read, and the error tells the place
            kept = list(islice((line for line in lines if all(line[1]) or not skip_empty), limit))
        if kept or not totals[0]:
            numbers, first = [number for number, _ in kept], [pair for _, pair in kept]
            return to_examples(first, name=name, places=places, numbers=numbers, total=totals[0])
    sources, references = read_lines(source, max_bytes), read_lines(target, max_bytes)
    _refuse_other_lengths(*places, len(sources), len(references))
    pairs = list(zip(sources, references, strict=True))
    return to_examples(pairs, name=name, places=places, skip_empty=skip_empty)


def _refuse_other_lengths(source: str, target: str, sources: int, references: int) -> None:
    if sources != references:
        raise ValueError(
            f"parallel files differ in length: {source} has {sources} lines and {target} has "
            f"{references}; line i of one must translate line i of the other"
        )


def stream_parallel(
    source: FilePath, target: FilePath, *, name: str, skip_empty: bool = False, max_bytes: int | None = MAX_BYTES
) -> Iterator[Example]:
    """The pairs of two text files; ids are ``<name>-<line>``. Arguments as for `read_parallel`.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: the files differ in their number of lines, or a line is blank.
    """
    for number, pair in enumerate(paired_lines(source, target, max_bytes), start=1):
        yield from checked_example(pair, f"{name}-{number}", (source, target), skip_empty)
