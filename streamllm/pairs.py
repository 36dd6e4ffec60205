"""Reads sentence pairs from text files and checks them, before any compute is spent on them. A line ends at
a line feed and nowhere else: other line separators of Unicode are part of a sentence, and splitting at them
would shift one side of a parallel text against the other."""

import difflib
import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from streamllm.records import Example

FilePath = str | os.PathLike[str]
_SHOWN = 10  # how many line numbers or names an error lists


def read_lines(path: FilePath) -> list[str]:
    """The lines of a UTF-8 text file (gzip when its name ends in .gz), stripped of surrounding white space.

    Lines end at a line feed, with or without a carriage return before it; a line feed at the end of the file
    starts no further line, and a byte order mark is dropped.

    Raises:
        FileNotFoundError: there is no such file (names that come near are given).
        ValueError: the file is not UTF-8 (with the line), or not whole gzip.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.strip() for line in lines]


def read_text(path: FilePath) -> str:
    """The text of a UTF-8 file, without byte order mark. Raises as `read_lines` does."""
    file = existing_file(path)
    data = file.read_bytes()
    if file.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not whole gzip data ({error}): fetch it again or unpack it") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not UTF-8: line {line} has the byte {error.object[error.start]:#04x}; save the "
            f"file as UTF-8, e.g. iconv -f latin1 -t utf-8"
        ) from error


def existing_file(path: FilePath) -> Path:
    """The path of a file that is there, with ~ expanded.

    Raises:
        FileNotFoundError: it is absent, with the names of files that come near.
        IsADirectoryError: it is a folder.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a dataset file is needed, e.g. {_names_in(file)}")
    folder = file.parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"dataset file {path} does not exist, and neither does the folder {folder} (from {Path.cwd()})"
        )
    raise FileNotFoundError(
        f"dataset file {path} does not exist; {folder} has {_names_in(folder, near=file.name)} (from {Path.cwd()})"
    )


def _names_in(folder: Path, near: str | None = None) -> str:
    names = sorted(item.name for item in folder.iterdir() if item.is_file())
    if near is not None:
        names = difflib.get_close_matches(near, names, n=_SHOWN, cutoff=0.6) or names
    return listed(names) or "no files"


def listed(values: Sequence[object]) -> str:
    """The first values, with commas, and how many more there are."""
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(str(value) for value in values[:_SHOWN]) + more


def read_parallel(
    source: FilePath, target: FilePath, *, name: str | None = None, skip_empty: bool = False
) -> list[Example]:
    """The sentence pairs of two text files: line i of one is the translation of line i of the other.

    Args:
        source: the file of the source language; .gz is unpacked.
        target: the file of the target language.
        name: what the ids start with; the name of the source file without its endings when None.
        skip_empty: leave out the pairs of which a side is blank, instead of raising.

    Returns:
        The examples in the order of the files, with the ids ``<name>-<line>``, so that line 7 keeps its id
        whatever is left out or shuffled.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: the files differ in their number of lines, have none, are not UTF-8, or a line is blank.
    """
    sources, references = read_lines(source), read_lines(target)
    if len(sources) != len(references):
        raise ValueError(
            f"parallel files differ in length: {source} has {len(sources)} lines and {target} has "
            f"{len(references)}; line i of one must translate line i of the other"
        )
    pairs = list(zip(sources, references, strict=True))
    name = stem(source) if name is None else name
    return to_examples(pairs, name=name, places=(str(source), str(target)), skip_empty=skip_empty)


def stem(path: FilePath) -> str:
    """A file's name without .gz and without the ending before it: ``val.en.gz`` gives ``val``."""
    return Path(Path(path).name.removesuffix(".gz")).stem


def to_examples(
    pairs: Sequence[tuple[str, str]],
    *,
    name: str,
    places: tuple[str, str],
    ids: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    total: int | None = None,
    unit: str = "line",
    skip_empty: bool = False,
) -> list[Example]:
    """Checks pairs of source and reference and makes examples of them.

    Args:
        pairs: source and reference, already stripped.
        name: what ids start with when the data has none.
        places: where sources and references came from, for errors.
        ids: the ids of the data; ``<name>-<number>`` when None.
        numbers: the place of each pair in its corpus, from 0; 0, 1, 2, … when None.
        total: the size of that corpus, which sets how many digits an id has; ``len(pairs)`` when None.
        unit: "line" or "row", for errors.
        skip_empty: leave out pairs of which a side is blank, instead of raising.

    Raises:
        ValueError: there are no pairs, a side is blank (an empty reference too: it has no length, so no
            lagging can be computed for it), or an id is empty or given twice.
    """
    numbers = range(len(pairs)) if numbers is None else numbers
    if not pairs:
        raise ValueError(f"{places[0]} holds no sentences")
    if not skip_empty:
        _refuse_blank(pairs, numbers, places, unit)
    if ids is None:
        digits = len(str(len(pairs) if total is None else total))
        ids = [f"{name}-{number + 1:0{digits}}" for number in numbers]
    else:
        _refuse_bad_ids(ids, numbers, places[0], unit)
    examples = [
        Example(id, source, reference)
        for id, (source, reference) in zip(ids, pairs, strict=True)
        if source and reference
    ]
    if not examples:
        raise ValueError(f"{places[0]} holds no sentences: in each of its {len(pairs)} pairs a side is empty")
    return examples


def _refuse_blank(pairs: Sequence[tuple[str, str]], numbers: Sequence[int], places: tuple[str, str], unit: str) -> None:
    found = []
    for side, kind in enumerate(("source", "reference")):
        blank = sorted(number + 1 for number, pair in zip(numbers, pairs, strict=True) if not pair[side])
        if blank:
            s = "" if len(blank) == 1 else "s"
            found.append(f"{len(blank)} empty {kind} {unit}{s} in {places[side]} ({unit}{s} {listed(blank)})")
    if found:
        raise ValueError(
            f"{' and '.join(found)}: correct the data, or set dataset.skip_empty=true to leave such pairs out"
        )


def _refuse_bad_ids(ids: Sequence[str], numbers: Sequence[int], place: str, unit: str) -> None:
    without = [number + 1 for number, id in zip(numbers, ids, strict=True) if not id]
    if without:
        raise ValueError(f"{place} has {len(without)} {unit}s without id ({unit} {listed(without)})")
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for id, number in zip(ids, numbers, strict=True):
        if id in first:
            raise ValueError(
                f"{place} has {len(ids) - len(set(ids))} repeated ids, first {id!r} in {unit}s "
                f"{first[id] + 1} and {number + 1}: every sentence needs an id of its own"
            )
        first[id] = number
