"""One training in several processes of this machine, which MLX's ring connects: streamllm train --processes 2 …

Unlike `mlx.launch`, it waits asleep, and its exit status is that of the processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

PATIENCE = 30.0  # seconds that others are given to notice that one has failed, or was asked to end
BETWEEN = 0.2  # seconds between two looks


def run_together(count: int, command: Sequence[str]) -> int:
    """Run a command in ``count`` processes, told of each other by ``MLX_RANK`` and ``MLX_HOSTFILE``.

    Ctrl-C and SIGTERM reach all of them, so that each stores what it has. Where one fails, the others notice by
    themselves once they are connected; those that do not are ended.

    Returns: the exit status: 0 where all end well, else that of the first that did not.
    """
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder, "hosts.json")
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(count)]))
        shared = os.environ | {"MLX_HOSTFILE": str(hosts)}
        running: list[subprocess.Popen[bytes]] = []
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all of us

        def end(number: int, frame: FrameType | None) -> None:
            for process in running:
                process.terminate()

        before_end = signal.signal(signal.SIGTERM, end)
        try:
            for rank in range(count):
                # A child would ignore Ctrl-C as its parent does: Python handles it only where it is not ignored.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                process = subprocess.Popen(command, env=shared | {"MLX_RANK": str(rank)}, stdin=subprocess.DEVNULL)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                running.append(process)
            return _waited(running)
        finally:
            for process in running:
                process.kill()
                process.wait()
            signal.signal(signal.SIGINT, before)
            signal.signal(signal.SIGTERM, before_end)


def _waited(running: Sequence["subprocess.Popen[bytes]"]) -> int:
    """The exit status of all, once they have ended or one has failed `PATIENCE` ago."""
    first, until = 0, float("inf")
    while None in (ends := [process.poll() for process in running]) and time.monotonic() < until:
        failed = next(filter(None, ends), 0)
        if failed and not first:
            first, until = failed, time.monotonic() + PATIENCE
        time.sleep(BETWEEN)
    status = first or next(filter(None, ends), 0)
    return 128 - status if status < 0 else status


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def processes_of(words: Sequence[str]) -> tuple[int, list[str]]:
    """How many processes a command line asks for, and its other words.

    Raises: ValueError: no number of them.
    """
    count, rest, place = 1, list(words), 0
    while place < len(rest):
        flag, equals, value = rest[place].partition("=")
        if flag != "--processes":
            place += 1
            continue
        if not equals:
            value = rest.pop(place + 1) if place + 1 < len(rest) else ""
        del rest[place]
        if not value.isdecimal() or not 1 <= int(value) <= 256:
            raise ValueError(f"--processes {value}: give a number of processes from 1 to 256, as in --processes 2")
        count = int(value)
    return count, rest


def together_if_asked(word: str) -> None:
    """Where the command line of ``streamllm WORD`` says ``--processes N``, run the rest of it in so many processes, and
    end as they do."""
    try:
        count, rest = processes_of(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = rest
    if count > 1:
        sys.exit(run_together(count, [sys.executable, "-m", "streamllm", word, *rest]))
