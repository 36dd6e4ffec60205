"""How much memory there is, for words before a run that would not fit; and how often it is searched."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where Linux keeps the limit of a container, and what it uses: version 2 and 1."""


class Room(NamedTuple):
    """In bytes: what the machine has for processes, swap included; and what is free of it."""

    whole: int
    free: int


def room(root: Path = Path("/")) -> Room | None:
    """Of this machine, or of the container that it is seen from; None where nobody says."""
    if sys.platform != "linux":
        try:
            whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return None
        return Room(whole, whole) if whole > 0 else None
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        said = {line.partition(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith(" kB")}
        swap = said["SwapFree"]
        found = Room(said["MemTotal"] + swap, said["MemAvailable"] + swap)
    except (OSError, ValueError, LookupError):
        return None
    for limit, used in GROUPS:
        try:
            most, now = (int((root / path.lstrip("/")).read_text()) for path in (limit, used))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        found = Room(min(found.whole, most + swap), min(found.free, max(0, most - now) + swap))
    return found


def in_words(size: float) -> str:
    """Bytes as GB or MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Python's search for cycles goes through all that is loaded, and sentences leave hardly any behind: inside, it is
    made more seldom."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
