"""Lines of text files, plain or .gz. A line ends at a line feed and nowhere else: other line separators of Unicode
belong to a sentence. To split at them would shift one side of a parallel text against the other."""

import difflib
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streamllm import contents

FilePath = str | os.PathLike[str]
SHOWN = 10  # how many line numbers or names an error lists


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
        names = difflib.get_close_matches(near, names, n=SHOWN, cutoff=0.6) or names
    return listed(names) or "no files"


def listed(values: Sequence[object]) -> str:
    """The first values, with commas, and how many more there are."""
    return contents.listed([*map(str, values)], SHOWN)


def stem(path: FilePath) -> str:
    """A file's name without .gz and without the ending before it: ``val.en.gz`` gives ``val``."""
    return Path(Path(path).name.removesuffix(".gz")).stem


def stream_lines(path: FilePath, newline: str = "\n") -> Iterator[str]:
    """The lines of a UTF-8 text file, plain or .gz, with their ends; see `read_lines` for what a line is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8, or not whole gzip (with the line).
    """
    file = existing_file(path)
    number = 0
    opened: Any = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline=newline) as handle:
            for line in handle:
                number += 1
                yield line
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read after line {number}: {error}") from error
