"""What is written whole: readers see all of it or nothing, whatever goes wrong."""

import errno
import os
from pathlib import Path

import pytest
from full_disk import full_disk

from streamllm.files import Held, holding, naming, new_folder, open_for_append, open_to_write, replacing


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


def test_what_cannot_be_written_to_a_full_disk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def replace() -> None:
        with replacing(path) as file:
            file.write(bytes(20_000))

    def append() -> None:
        with open_for_append(path) as file:
            file.write(bytes(20_000))

    def write() -> None:
        with open_to_write(path, "wb") as file:
            file.write(bytes(20_000))

    for attempt in (replace, append, write):
        with full_disk(10_000), pytest.raises(OSError, match=rf"^\[Errno {errno.EFBIG}\] .*: '{path}'$"):
            attempt()


def test_an_error_that_names_its_file_keeps_the_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'absent'"), naming(tmp_path):
        Path("absent").read_text()
    with pytest.raises(OSError, match=r"^no number$"), naming(tmp_path):
        raise OSError("no number")
