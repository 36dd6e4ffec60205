"""How much memory there is, as Linux says it."""

import sys
from pathlib import Path

import pytest

from streamllm.machine import GROUPS, Room, in_words, room

GIB = 1 << 30


def machine(root: Path, swap: int = 0) -> Path:
    """A folder that looks like the root of a machine with 16 GiB."""
    (root / "proc").mkdir()
    sizes = {"MemTotal": 16, "MemFree": 1, "MemAvailable": 8, "SwapFree": swap}
    (root / "proc/meminfo").write_text("".join(f"{key}: {size << 20} kB\n" for key, size in sizes.items()))
    return root


def write(root: Path, group: tuple[str, str], limit: int | str, used: int) -> None:
    for path, value in zip(group, (limit, used), strict=True):
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
class TestOfLinux:
    def test_all_and_what_is_free(self, tmp_path: Path) -> None:
        assert room(machine(tmp_path)) == Room(16 * GIB, 8 * GIB)

    def test_swap_counts(self, tmp_path: Path) -> None:
        assert room(machine(tmp_path, swap=4)) == Room(20 * GIB, 12 * GIB)

    def test_a_container_may_have_less(self, tmp_path: Path) -> None:
        write(machine(tmp_path), GROUPS[0], 4 * GIB, 1 * GIB)
        assert room(tmp_path) == Room(4 * GIB, 3 * GIB)

    def test_a_container_of_before_too(self, tmp_path: Path) -> None:
        write(machine(tmp_path), GROUPS[1], 4 * GIB, 5 * GIB)
        assert room(tmp_path) == Room(4 * GIB, 0)

    def test_a_container_without_a_limit(self, tmp_path: Path) -> None:
        write(machine(tmp_path), GROUPS[0], "max", GIB)
        assert room(tmp_path) == Room(16 * GIB, 8 * GIB)

    def test_nobody_says(self, tmp_path: Path) -> None:
        assert room(tmp_path) is None


def test_this_machine_has_some() -> None:
    found = room()
    assert found is None or found.whole > 0


def test_sizes_are_told_in_words() -> None:
    assert [in_words(size) for size in (1.26e10, 3e8)] == ["12.6 GB", "300 MB"]
