"""Processes that MLX's ring connects on this machine, for tests: started, watched, and always reaped."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

TAKEN = "Couldn't bind"  # what MLX says of a port that another process got first


def run_ring(script: Path, folder: Path, world: int = 2, timeout: float = 240) -> list[tuple[int, str]]:
    """Run ``script`` as ``world`` processes; return exit status and output of each.

    ``folder`` gets the output. A port is free when it is chosen and may be taken when it is bound: then all start
    anew. Processes that outlive ``timeout`` (seconds), or the others' failure by half a minute, are killed.
    """
    for _ in range(5):
        ends = _run(script, folder, world, timeout)
        if not any(TAKEN in output for _, output in ends):
            break
    return ends


def _run(script: Path, folder: Path, world: int, timeout: float) -> list[tuple[int, str]]:
    folder.mkdir(exist_ok=True)
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(world)]))
    outputs = [folder / f"output-{rank}.txt" for rank in range(world)]
    processes: list[subprocess.Popen] = []
    with ExitStack() as files:
        try:
            for rank, path in enumerate(outputs):
                processes.append(
                    subprocess.Popen(
                        [sys.executable, script],
                        env=os.environ | {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)},
                        stdin=subprocess.DEVNULL,
                        stdout=files.enter_context(path.open("wb")),
                        stderr=subprocess.STDOUT,
                    )
                )
            _wait(processes, timeout)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    return [(process.returncode, path.read_text()) for process, path in zip(processes, outputs, strict=True)]


def _wait(processes: list[subprocess.Popen], timeout: float) -> None:
    end = time.monotonic() + timeout
    failed = False
    while time.monotonic() < end and any(process.poll() is None for process in processes):
        if not failed and any(process.poll() for process in processes):
            failed, end = True, min(end, time.monotonic() + 30)
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
