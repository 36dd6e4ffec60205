"""Waiting for the other processes of one machine without burning its cores, and only as long as they live."""

import fcntl
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.files import open_to_read, open_to_write

CHECK_AFTER = 1.0  # seconds of waiting, before it is asked whether the others live


class Barrier:
    """All processes of a group leave `wait` only when each has entered it.

    MLX's ring waits for data in a busy loop, which takes time from a slower process on the same cores
    (measured: up to 1.5 times slower on two). So processes of one machine meet here first, asleep, and then
    exchange. Across machines `wait` returns at once: there the loop disturbs nobody.

    Each process holds a lock on a file of its own, which the kernel drops when the process ends in any way (its
    id would not tell: one that nobody has reaped still has it).
    """

    def __init__(self, group: mx.distributed.Group, folder: Path):
        self.group, self.folder = group, folder
        self.rank, self.world, self.count = group.rank(), group.size(), 0
        host = zlib.crc32(socket.gethostname().encode()) % 65536
        hosts: Any = mx.distributed.all_gather(mx.array([host]), group=group).tolist() if self.world > 1 else [host]
        self.local = len(set(hosts)) == 1 and self.world > 1
        if not self.local:
            return
        path = folder / "barrier.bin"
        if self.rank == 0:
            with open_to_write(path, "wb", follow=False) as file:
                file.write(bytes(8 * self.world))
        self.alive = open_to_write(self._lock_file(self.rank), "wb", follow=False)
        fcntl.flock(self.alive, fcntl.LOCK_EX)
        self._exchange()
        self.flags = np.memmap(path, dtype=np.int64, mode="r+", shape=(self.world,))
        self._exchange()

    def wait(self) -> None:
        """Wait for the processes of this machine.

        Raises:
            RuntimeError: another process has ended, so that it will never come.
        """
        if not self.local:
            return
        self.count += 1
        self.flags[self.rank] = self.count
        check = time.monotonic() + CHECK_AFTER
        while self.flags.min() < self.count:
            time.sleep(0.0005)
            if time.monotonic() > check:
                self._check()
                check = time.monotonic() + CHECK_AFTER

    def meet(self) -> None:
        """Wait for all processes, on other machines too: what one wrote before, the others can read now."""
        self.wait()
        self._exchange()

    def _exchange(self) -> None:
        mx.eval(mx.distributed.all_sum(mx.array(1), group=self.group))

    def _check(self) -> None:
        for rank in range(self.world):
            # The flag comes second: who ends after a barrier has passed it.
            if rank != self.rank and self._ended(rank) and self.flags[rank] < self.count:
                raise RuntimeError(
                    f"process {rank} of {self.world} has ended, and process {self.rank} waits for it: see what it "
                    "printed. The same command goes on from the last checkpoint"
                )

    def _ended(self, rank: int) -> bool:
        with open_to_read(self._lock_file(rank)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _lock_file(self, rank: int) -> Path:
        return self.folder / f"barrier-{rank}.lock"
