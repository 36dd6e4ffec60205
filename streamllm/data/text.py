"""Parallel text: two files, line by line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamllm.data.dataset import Dataset
from streamllm.data.lines import MAX_BYTES, FilePath, existing_file, paired_lines, read_lines, stem
from streamllm.data.pairs import checked_example, to_examples
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class ParallelText(Dataset):
    """Two text files, line by line, plain or .gz (see `read_parallel`).

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
        pairs = read_parallel(
            self.source, self.target, name=self.name, skip_empty=self.skip_empty, max_bytes=self.max_bytes
        )
        return self._select(pairs)

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
) -> list[Example]:
    """The sentence pairs of two text files: line i of one is the translation of line i of the other.

    Args:
        source: the file of the source language; .gz is unpacked.
        target: the file of the target language.
        name: what the ids start with; the name of the source file without its endings when None.
        skip_empty: leave out the pairs of which a side is blank, instead of raising.
        max_bytes: what each file may hold, if it is compressed (`streamllm.data.lines.allowed_bytes`).

    Returns:
        The examples in the order of the files, with the ids ``<name>-<line>``, so that line 7 keeps its id
        whatever is left out or shuffled.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: the files differ in their number of lines, have none, are not UTF-8, hold too much, or a line is
            blank.
    """
    sources, references = read_lines(source, max_bytes), read_lines(target, max_bytes)
    if len(sources) != len(references):
        raise ValueError(
            f"parallel files differ in length: {source} has {len(sources)} lines and {target} has "
            f"{len(references)}; line i of one must translate line i of the other"
        )
    pairs = list(zip(sources, references, strict=True))
    name = stem(source) if name is None else name
    return to_examples(pairs, name=name, places=(str(source), str(target)), skip_empty=skip_empty)


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
