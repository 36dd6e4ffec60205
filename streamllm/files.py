"""A file replaced whole, a folder made whole, lines appended, a lock against other processes.

Invariant: a reader sees the old file or the whole new one, and a line counts once its line end is there. What cannot be
written is an OSError that names the file."""

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal


class RunError(ValueError):
    """A run folder that cannot be read or continued; the message says why and what to do."""


class Held(RuntimeError):
    """Another process holds a lock.

    Attributes:
        holder: the id of that process, or "unknown".
    """

    def __init__(self, path: Path, holder: str):
        super().__init__(f"{path} is held by another process (id {holder})")
        self.holder = holder


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, such as "No space left on device" of a write, names ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


class _Named(io.FileIO):
    """A file whose writes fail with its name."""

    def __init__(self, path: Path, mode: str, shown: Path):
        super().__init__(path, mode)
        self._shown = shown

    def write(self, data: Any) -> int:
        with naming(self._shown):
            return super().write(data)


def open_to_write(path: Path, mode: Literal["wb", "ab"], shown: Path | None = None) -> io.BufferedWriter:
    """A binary file. Errors of writing name it too, or the file that is ``shown``; Python's own name a file only where
    it cannot be opened."""
    return io.BufferedWriter(_Named(path, mode, shown or path))


def sync(file: BinaryIO, path: Path) -> None:
    """What was written to ``file`` is on disk when this returns; an error names ``path``."""
    file.flush()
    with naming(path):
        os.fsync(file.fileno())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content``, see `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` in the end: at any moment, readers see the old file or the whole
    new one."""
    part = path.with_name(path.name + ".part")
    try:
        with open_to_write(part, "wb", shown=path) as file:
            yield file
            sync(file, path)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the name ``path`` in the end: that folder is there whole or not at all.

    Raises:
        OSError: in the end, there is a folder with files at ``path``.
    """
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against other processes, with the id of this one in it. Afterwards it is removed, and
    its folder too if nothing else is in it. A symbolic link is not followed.

    Raises:
        Held: another process holds it.
        OSError: the file cannot be written, or is a symbolic link.
    """
    from filelock import FileLock, Timeout

    def sign(descriptor: int) -> None:
        with naming(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    lock = FileLock(path, timeout=0, thread_local=False, on_acquired=sign)
    while not lock.is_locked:
        try:
            lock.acquire()
        except FileNotFoundError:
            continue  # whoever held it has just removed the empty folder; filelock makes it again
        except Timeout as error:
            with suppress(FileNotFoundError):  # given back in the meantime
                raise Held(path, path.read_text(errors="replace").strip() or "unknown") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(f"{path} is a symbolic link, which is not followed: remove it") from error
            raise
    try:
        yield
    finally:
        # Removed while still held: whoever waits for the name finds a new file.
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()  # only if it is empty
        lock.release()


def open_for_append(path: Path) -> io.BufferedRandom:
    """Open a file of lines, cutting off a last line without a line end."""
    file = io.BufferedRandom(_Named(path, "a+b", path))
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)
    return file
