"""The processes of one run on a Ray cluster, on however many machines. Only how they are begun and heard is said here;
what each does is `streamllm.evaluation.processes`.

Invariant: a share is translated once, or the run ends: Ray repeats nothing."""

import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from streamllm.evaluation.processes import Runs, killed
from streamllm.extras import install
from streamllm.records import Trace

HERE = "local"
"""The address that begins a cluster on this machine, which ends with the run."""

PATIENCE = 10.0  # seconds for a connection


def on_cluster(address: str) -> Runs:
    """What begins the processes on a cluster.

    Args:
        address: of the cluster, as ``ray.init`` takes it ("auto" for the one that this machine is in), or `HERE`.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    if find_spec("ray") is None:
        raise ValueError(f"cluster={address} needs Ray, which is not installed: {install('ray')}")

    def runs(shares: Sequence[bytes]) -> Iterator[Trace]:
        return _traces(address, shares)

    return runs


def _traces(address: str, shares: Sequence[bytes]) -> Iterator[Trace]:
    import ray

    begun = not ray.is_initialized()
    if begun:
        _begin(ray, address, len(shares))
    waiting: list[Any] = []
    try:
        # Ray may not try again what it has lost: the traces that came before would come twice.
        remote = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(_worker())
        waiting = [remote.remote(share, sys.path) for share in shares]
        while waiting:
            (ready, *_), _ = ray.wait(waiting, num_returns=1)
            try:
                found = ray.get(next(ready))
            except StopIteration:
                waiting.remove(ready)
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayError as error:
                raise killed(" ".join(str(error).split())[:200]) from error
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        for share in waiting:
            ray.cancel(share, force=True)
        if begun:
            ray.shutdown()


def _begin(ray: Any, address: str, count: int) -> None:
    try:
        if address == HERE:
            ray.init(num_cpus=count, include_dashboard=False)
        else:
            _knock(address)
            ray.init(address)
    except Exception as error:  # of many kinds, a plain Exception among them
        what = " ".join(str(error).split())
        if address == HERE:
            raise ChildProcessError(f"Ray does not begin on this machine: {what}") from error
        raise ValueError(
            f"cluster is {address!r}, and there is no Ray cluster ({what}): begin one with ray start --head, or give "
            f"cluster={HERE}"
        ) from error


def _knock(address: str) -> None:
    """Ray may wait for minutes where nobody answers. Raises: OSError: nobody does at a HOST:PORT."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()


def _worker() -> Callable[[bytes, list[str]], Iterator[Any]]:
    """What a process of the cluster does. It is sent as it stands here, with nothing of ours around it: the number of
    threads has to be known before anything of ours is imported."""

    def work(share: bytes, path: list[str]) -> Iterator[Any]:
        import os
        import sys

        os.environ.setdefault("STREAMLLM_THREADS", "1")
        sys.path += [folder for folder in path if folder not in sys.path]
        from streamllm.evaluation.processes import sendable, traces_of

        try:
            yield from traces_of(share)
        except Exception as error:
            yield sendable(error)

    return work
