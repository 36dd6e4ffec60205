"""Waiting for the other processes of one machine without burning its cores."""

import socket
import time
import zlib
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np


class Barrier:
    """All processes of a group leave `wait` only when each has entered it.

    MLX's ring waits for data in a busy loop, which takes time from a slower process on the same cores
    (measured: up to 1.5 times slower on two). So processes of one machine meet here first, asleep, and then
    exchange. Across machines `wait` returns at once: there the loop disturbs nobody.
    """

    def __init__(self, group: mx.distributed.Group, folder: Path):
        self.rank, self.world, self.count = group.rank(), group.size(), 0
        host = zlib.crc32(socket.gethostname().encode()) % 65536
        hosts: Any = mx.distributed.all_gather(mx.array([host]), group=group).tolist() if self.world > 1 else [host]
        self.local = len(set(hosts)) == 1 and self.world > 1
        if not self.local:
            return
        path = folder / "barrier.bin"
        if self.rank == 0:
            path.write_bytes(bytes(8 * self.world))
        self._meet(group)
        self.flags = np.memmap(path, dtype=np.int64, mode="r+", shape=(self.world,))
        self._meet(group)

    def _meet(self, group: mx.distributed.Group) -> None:
        mx.eval(mx.distributed.all_sum(mx.array(1), group=group))

    def wait(self) -> None:
        if not self.local:
            return
        self.count += 1
        self.flags[self.rank] = self.count
        while self.flags.min() < self.count:
            time.sleep(0.0005)
