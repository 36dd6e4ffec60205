"""Lines of text files, plain or .gz. A line ends at a line feed and nowhere else: other line separators of Unicode
belong to a sentence. To split at them would shift one side of a parallel text against the other."""

import difflib
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from streamllm import contents
from streamllm.files import open_to_read

FilePath = str | os.PathLike[str]
SHOWN = 10  # how many line numbers or names an error lists
MAX_BYTES = 1 << 28
"""What a compressed file may hold, unless it is told."""
USUAL_RATIO = 16
"""A file may always hold so many times its own size: text is packed to a third, and to a tenth at best."""


def read_lines(path: FilePath, max_bytes: int | None = MAX_BYTES) -> list[str]:
    """The lines of a UTF-8 text file (gzip when its name ends in .gz), stripped of surrounding white space.

    Lines end at a line feed, with or without a carriage return before it; a line feed at the end of the file
    starts no further line, and a byte order mark is dropped.

    Args:
        max_bytes: what a compressed file may hold, see `allowed_bytes`.

    Raises:
        FileNotFoundError: there is no such file (names that come near are given).
        ValueError: the file is not UTF-8 (with the line), not whole gzip, or holds more than ``max_bytes``.
    """
    lines = read_text(path, max_bytes).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.strip() for line in lines]


def count_lines(path: FilePath, max_bytes: int | None = MAX_BYTES) -> int:
    """How many lines `read_lines` would give, without holding or decoding them. Errors as there, but for UTF-8."""
    count, last = 0, b"\n"
    try:
        with _opened(existing_file(path), max_bytes) as file:
            block = file.read1(1 << 20).removeprefix(b"\xef\xbb\xbf")
            while block:
                count, last = count + block.count(b"\n"), block[-1:]
                block = file.read1(1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not whole gzip data ({error}): fetch it again or unpack it") from error
    return count + (last != b"\n")


def read_text(path: FilePath, max_bytes: int | None = MAX_BYTES) -> str:
    """The text of a UTF-8 file, without byte order mark. Arguments and errors as for `read_lines`."""
    data = read_bytes(path, max_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not UTF-8: line {line} has the byte {error.object[error.start]:#04x}; save the "
            f"file as UTF-8, e.g. iconv -f latin1 -t utf-8"
        ) from error


def read_bytes(path: FilePath, max_bytes: int | None = MAX_BYTES) -> bytes:
    """What a file holds, unpacked. Arguments and errors as for `read_lines`, but for UTF-8."""
    try:
        with _opened(existing_file(path), max_bytes) as file:
            return b"".join(iter(lambda: file.read1(1 << 20), b""))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not whole gzip data ({error}): fetch it again or unpack it") from error


def _opened(file: Path, max_bytes: int | None) -> io.BufferedReader | gzip.GzipFile:
    """The bytes of a file, unpacked where its name ends in .gz."""
    if file.suffix != ".gz":
        return open_to_read(file)
    return _Bounded(file, allowed_bytes(file, max_bytes))


class _Bounded(gzip.GzipFile):
    """Unpacked data that ends with an error where it is more than it may be."""

    def __init__(self, path: Path, bound: int | None):
        super().__init__(path, "rb")
        self._path, self._bound, self._given = path, bound, 0

    def read1(self, size: int = -1) -> bytes:
        data = super().read1(size)
        self._given += len(data)
        if self._bound is not None and self._given > self._bound:
            raise ValueError(too_large(self._path, self._bound))
        return data


def allowed_bytes(path: Path, max_bytes: int | None) -> int | None:
    """How much a compressed file may hold: ``max_bytes``, or `USUAL_RATIO` times its own size if that is more; anything
    where ``max_bytes`` is None. So a large corpus is read, and a small file that unpacks without end is not."""
    return None if max_bytes is None else max(max_bytes, USUAL_RATIO * path.stat().st_size)


def too_large(path: FilePath, bound: int) -> str:
    return (
        f"{path} holds more than {bound:,} bytes once it is unpacked, which is the bound: if you trust the file, give "
        "a larger dataset.max_bytes, or null for any size"
    )


def existing_file(path: FilePath) -> Path:
    """The path of a file that is there, with ~ expanded.

    Raises:
        FileNotFoundError: it is absent, with the names of files that come near.
        IsADirectoryError: it is a folder.
        OSError: it is neither, such as a FIFO.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a dataset file is needed, e.g. {_names_in(file)}")
    if file.exists():
        kind = "a FIFO (a named pipe)" if stat.S_ISFIFO(file.stat().st_mode) else "no regular file"
        raise OSError(f"{path} is {kind}, and data is read more than once: write it to a file first")
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


def paired_lines(
    source: FilePath, target: FilePath, max_bytes: int | None = MAX_BYTES, but: str = ""
) -> Iterator[tuple[str, str]]:
    """Line by line of two text files, without white space around.

    Args:
        but: what is to be added to the rule in the error.

    Raises: ValueError: they differ in their number of lines; as `stream_lines`.
    """
    sides = (stream_lines(path, max_bytes=max_bytes) for path in (source, target))
    for number, (one, other) in enumerate(zip_longest(*sides), start=1):
        if one is None or other is None:
            short, long = (source, target) if one is None else (target, source)
            raise ValueError(
                f"parallel files differ in length: {short} ends before line {number} and {long} goes on; line i of "
                f"one must translate line i of the other{but}"
            )
        yield one.strip(), other.strip()


def stream_lines(path: FilePath, newline: str = "\n", max_bytes: int | None = MAX_BYTES) -> Iterator[str]:
    """The lines of a UTF-8 text file, plain or .gz, with their ends; see `read_lines` for what a line is and for
    ``max_bytes``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8, or not whole gzip (with the line), or holds more than ``max_bytes``.
    """
    file = existing_file(path)
    number = 0
    try:
        with io.TextIOWrapper(_opened(file, max_bytes), encoding="utf-8-sig", newline=newline) as handle:
            for line in handle:
                number += 1
                yield line
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read after line {number}: {error}") from error
