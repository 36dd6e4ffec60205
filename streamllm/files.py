"""A file replaced whole, lines of JSON appended and read back, a folder held against other processes.

Invariant: a reader sees the old file or the whole new one, and a line counts once its line end is there."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO


class RunError(ValueError):
    """A run folder that cannot be read or continued; the message says why and what to do."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content``, see `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` in the end: at any moment, readers see the old file or the whole
    new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def open_for_append(path: Path) -> IO[bytes]:
    """Open a file of lines, cutting off a last line without a line end."""
    file = path.open("a+b")
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)
    return file


def read_json_lines(path: Path, strict: bool) -> Iterable[dict[str, Any]]:
    """The JSON objects of a file of lines, each with an ``id``; what follows the last line end is left out.

    Raises:
        RunError: with ``strict``, a line is damaged; else it is left out.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            yield _with_id(json.loads(line))
        except ValueError as error:
            if strict:
                raise RunError(
                    f"{path}, line {number} is damaged ({error}): remove that line, and the same command "
                    "translates its sentence again"
                ) from error


def _with_id(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or "id" not in row:
        raise ValueError("it has no id")
    return row
