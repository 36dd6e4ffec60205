"""A file replaced whole, a folder made whole, lines appended, a lock against other processes.

Invariant: a reader sees the old file or the whole new one, and a line counts once its line end is there. What cannot be
written is one line that names the file, the cause and what to do. Clean-up goes on whatever fails on the way."""

import errno
import io
import os
import shutil
import stat
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


# --- what cannot be written, and what is no file

MAKE_ROOM = "make room, and the same command goes on"
WHAT_TO_DO = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EFBIG: "let files be larger (ulimit -f), and the same command goes on",
    errno.EACCES: "make it writable, or give another folder",
    errno.EPERM: "make it writable, or give another folder",
    errno.EROFS: "give a folder where you may write",
    errno.EISDIR: "move that folder away, and the same command goes on",
}
"""What helps where a file cannot be written, by the number of the error."""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO (a named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link, which is not followed",
}


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError of the block, which writes ``path``, says so in one line, with what to do; its kind and number stay.
    One that says so already stays as it is."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        advice = WHAT_TO_DO.get(error.errno, "once it can be written, the same command goes on")
        raise _numbered(type(error)(f"cannot write {path} ({error.strerror}): {advice}"), error.errno) from error


def _numbered(error: OSError, number: int) -> OSError:
    error.errno = number
    return error


def _refuse_what_is_no_file(path: str | os.PathLike[str], mode: int) -> None:
    """Raises: OSError: the mode of ``path`` is not that of a regular file."""
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a device")
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ELOOP if stat.S_ISLNK(mode) else errno.EINVAL
        error = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        what = f"{path} is {kind}; a file is needed: move it away, and the same command goes on"
        raise _numbered(error(what), number)


def check_lock_file(path: Path) -> None:
    """Refuse to lock what is there and is no regular file, symbolic links included.

    Raises: OSError: it is a symbolic link, a FIFO, a folder …
    """
    with suppress(FileNotFoundError):
        _refuse_what_is_no_file(path, path.lstat().st_mode)


def _open_at_once(path: str | os.PathLike[str], flags: int) -> int:
    """The descriptor of a regular file. A FIFO, which an open would wait for until somebody opens its other end, is
    refused like all that is no file."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a FIFO that nobody reads, a socket, a folder
            _refuse_what_is_no_file(path, os.stat(path).st_mode)
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            _refuse_what_is_no_file(path, os.lstat(path).st_mode)
        raise
    try:
        _refuse_what_is_no_file(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


# --- reading


def open_to_read(path: str | os.PathLike[str]) -> io.BufferedReader:
    """A binary file.

    Raises: OSError: it cannot be opened, or is no regular file; a FIFO is not waited for.
    """
    return io.BufferedReader(io.FileIO(path, "rb", opener=_open_at_once))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """What a file holds. Raises as `open_to_read`."""
    with open_to_read(path) as file:
        return file.read()


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file. Raises as `open_to_read`; UnicodeDecodeError, a ValueError: it is not UTF-8."""
    return read_bytes(path).decode("utf-8")


# --- writing


class _Named(io.FileIO):
    """A file to write: what fails names the file that is ``shown``."""

    def __init__(self, path: Path, mode: str, shown: Path, follow: bool = True):
        def opener(name: str, flags: int) -> int:
            return _open_at_once(name, flags if follow else flags | os.O_NOFOLLOW)

        self._shown = shown
        with writing(shown):
            super().__init__(path, mode, opener=opener)

    def write(self, data: Any) -> int:
        with writing(self._shown):
            return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        with writing(self._shown):
            return super().truncate(size)

    def close(self) -> None:
        with writing(self._shown):
            super().close()


def open_to_write(
    path: Path, mode: Literal["wb", "ab"], shown: Path | None = None, follow: bool = True
) -> io.BufferedWriter:
    """A binary file. Errors of writing it name it, or the file that is ``shown``, see `writing`.

    Args:
        follow: False refuses a symbolic link.

    Raises: OSError: it cannot be opened, or is no regular file; a FIFO is not waited for.
    """
    return io.BufferedWriter(_Named(path, mode, shown or path, follow))


def sync(file: BinaryIO, path: Path) -> None:
    """What was written to ``file`` is on disk when this returns; an error names ``path``."""
    file.flush()
    with writing(path):
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
    file = open_to_write(part, "wb", shown=path, follow=False)
    try:
        yield file
        sync(file, path)
        file.close()
        with writing(path):
            os.replace(part, path)
    except BaseException:
        with suppress(OSError):  # the first error counts
            file.close()
        with suppress(OSError):
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
    with writing(part):
        part.mkdir(parents=True)
    try:
        yield part
        with writing(path):
            part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against other processes, with the id of this one in it. Afterwards it is given back
    whatever happens; it is removed, and its folder too if nothing else is in it, where that is allowed.

    Raises:
        Held: another process holds it.
        OSError: the file cannot be written, or is no regular file, such as a symbolic link, which is not followed.
    """
    from filelock import FileLock, Timeout

    def sign(descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    check_lock_file(path)
    lock = FileLock(path, timeout=0, thread_local=False, on_acquired=sign)
    while not lock.is_locked:
        try:
            with writing(path):
                lock.acquire()
        except FileNotFoundError:
            continue  # whoever held it has just removed the empty folder; filelock makes it again
        except Timeout as error:
            with suppress(FileNotFoundError):  # given back in the meantime
                raise Held(path, read_bytes(path).decode(errors="replace").strip() or "unknown") from error
        except OSError:
            check_lock_file(path)  # of another kind since
            raise
    try:
        yield
    finally:
        try:
            # Removed while still held: whoever waits for the name finds a new file.
            with suppress(OSError):
                path.unlink(missing_ok=True)
                path.parent.rmdir()  # only if it is empty
        finally:
            lock.release()


# --- lines


def open_for_append(path: Path) -> io.BufferedRandom:
    """Open a file of lines, cutting off a last line without a line end."""
    file = io.BufferedRandom(_Named(path, "a+b", path))
    try:
        file.truncate(_whole_lines(file))
        file.seek(0, os.SEEK_END)
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    return file


BLOCK = 1 << 20  # bytes, read at a time


def _whole_lines(file: BinaryIO) -> int:
    """How many bytes there are up to the last line end."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - BLOCK)
        file.seek(begin)
        last = file.read(end - begin).rfind(b"\n")
        if last >= 0:
            return begin + last + 1
        end = begin
    return 0


def count_lines(path: Path) -> int:
    """How many lines a file has; none if it is not there. Raises as `open_to_read`."""
    if not path.exists():
        return 0
    with open_to_read(path) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))
