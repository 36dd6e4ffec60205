"""What is written whole: readers see all of it or nothing, whatever goes wrong."""

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from full_disk import full_disk

from streamllm import files
from streamllm.checked import read_json_lines
from streamllm.files import (
    Held,
    check_lock_file,
    count_lines,
    holding,
    new_folder,
    open_for_append,
    open_to_read,
    open_to_write,
    read_bytes,
    replacing,
    sync,
    write_atomically,
    writing,
)


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise OSError("disk is full")

    with pytest.raises(OSError, match="disk"):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_new_folder_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "model"
    with new_folder(path) as part:
        (part / "weights").write_text("all")
        assert not path.exists()
    assert (path / "weights").read_text() == "all"
    assert os.listdir(path.parent) == ["model"]


def test_a_folder_that_could_not_be_filled_is_not_there(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "model") as part:
            (part / "weights").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_of_a_folder_is_not_taken_for_new(tmp_path: Path) -> None:
    (tmp_path / "model.part").mkdir()
    (tmp_path / "model.part" / "stale").touch()
    with new_folder(tmp_path / "model") as part:
        (part / "weights").touch()
    assert os.listdir(tmp_path / "model") == ["weights"]


def test_a_lock_names_its_holder_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    (tmp_path / "other").touch()
    with holding(path):
        with pytest.raises(Held) as refused, holding(path):
            pass
        assert refused.value.holder == path.read_text() == str(os.getpid())
    assert os.listdir(tmp_path) == ["other"]


def test_the_id_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("123456789012")
    with holding(path):
        assert path.read_text() == str(os.getpid())


# --- what cannot be written


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """What waits for a FIFO is ended."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def failing(number: int) -> Callable[..., None]:
    def fail(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_what_cannot_be_written_to_a_full_disk_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def append() -> None:
        with open_for_append(path) as file:
            file.write(bytes(20_000))

    def write() -> None:
        with open_to_write(path, "wb") as file:
            file.write(bytes(20_000))

    said = rf"^cannot write {path} \(File too large\): let files be larger .* the same command goes on$"
    for attempt in (lambda: write_atomically(path, bytes(20_000)), append, write):
        with full_disk(10_000), pytest.raises(OSError, match=said) as refused:
            attempt()
        assert refused.value.errno == errno.EFBIG


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_only_in_the_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    with pytest.raises(OSError, match=rf"^cannot write {path} \(No space left on device\): make room, and the same"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_cannot_be_cleaned_up_does_not_hide_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that has become read-only: nothing is removed, and the first error counts."""
    monkeypatch.setattr(Path, "unlink", failing(errno.EROFS))

    def interrupted() -> None:
        with full_disk(0), replacing(tmp_path / "a.json") as file:
            file.write(b"cannot be flushed either")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_lock_is_given_back_where_nothing_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, holding(tmp_path / ".lock"):
        patched.setattr(Path, "unlink", failing(errno.EROFS))
        patched.setattr(Path, "rmdir", failing(errno.EROFS))
    with holding(tmp_path / ".lock"):
        pass


def test_an_error_that_says_what_to_do_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^make room$"), writing(tmp_path):
        raise OSError("make room")


def test_a_file_that_failed_is_closed(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("half a line")
    before = len(os.listdir("/proc/self/fd"))
    with full_disk(0), suppress(OSError), open_for_append(tmp_path / "lines") as file:
        file.write(b"more")
        sync(file, tmp_path / "lines")
    assert len(os.listdir("/proc/self/fd")) == before


# --- what is no file


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


OPENED: dict[str, Callable[[Path], object]] = {
    "read": read_bytes,
    "lines": lambda path: list(read_json_lines(path, dict[str, str], lambda number, error: None)),
    "append": open_for_append,
    "write": lambda path: open_to_write(path, "wb"),
    "lock": lambda path: holding(path).__enter__(),
}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(
    ("make", "kind"), [(_fifo, "a FIFO"), (_socket, "a socket|such device"), (Path.mkdir, "older")]
)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, no_waiting: None, opened: str, make: Callable[[Path], None], kind: str
) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match=f"{tmp_path / 'x'} .*({kind})"):
        OPENED[opened](tmp_path / "x")


def test_a_part_that_is_a_fifo_or_a_link_is_not_written_through(tmp_path: Path, no_waiting: None) -> None:
    precious, part = tmp_path / "precious", tmp_path / "a.json.part"
    precious.write_text("mine")
    part.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link, which is not followed"):
        write_atomically(tmp_path / "a.json", "theirs")
    assert precious.read_text() == "mine"
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(OSError, match="FIFO"):
        write_atomically(tmp_path / "a.json", "theirs")


def test_a_link_to_a_file_is_read_and_written(tmp_path: Path) -> None:
    """Folders of runs are often links to a larger disk."""
    (tmp_path / "link").symlink_to(tmp_path / "lines")
    with open_for_append(tmp_path / "link") as file:
        file.write(b"one\n")
    with open_to_read(tmp_path / "link") as file:
        assert file.read() == b"one\n"
    with pytest.raises(OSError, match="symbolic link"):
        check_lock_file(tmp_path / "link")


@pytest.mark.parametrize("cut", [0, 3, 10])
def test_a_last_line_without_its_end_is_cut_off_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr(files, "BLOCK", 4)
    path = tmp_path / "lines"
    for whole in (b"", b"one\ntwo\n", b"\n"):
        path.write_bytes(whole + b"x" * cut)
        with open_for_append(path) as file:
            file.write(b"new\n")
        assert path.read_bytes() == whole + b"new\n"
        assert count_lines(path) == path.read_bytes().count(b"\n")
    assert count_lines(tmp_path / "nothing") == 0
