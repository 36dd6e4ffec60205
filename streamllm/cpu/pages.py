"""Memory that is taken as it is written to. numpy's own arrays of 4 MB and more lie in pages of 2 MB on Linux, so that
the end of each takes up to 2 MB that nobody uses."""

import mmap
from typing import Any

import numpy as np


def zeros(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(count,), at the beginning of a page."""
    room = mmap.mmap(-1, max(1, 4 * count), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(room, np.float32, count)
