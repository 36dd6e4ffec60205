"""How many sentences at a time, and how many threads share them."""

import os
import sys

import mlx.core as mx

from streamllm import check

FEWEST = 8  # sentences in a thread of their own: with fewer, more threads gain nothing

SMALL = 1 << 25
"""Parameters up to which a model that numpy computes has one thread: half of its time is Python by then, and of two
threads one would wait for Python's lock, each with half of the rows in a step."""


def batch_size_of(given: int | None) -> int:
    """What ``batch_size`` means, in sentences at a time; None is `default_batch_size`.

    Raises:
        ValueError: it is not positive.
    """
    check.batch_size(given)
    return default_batch_size() if given is None else given


def default_batch_size() -> int:
    """64 sentences for each core on a CPU, where more gain little (docs/speed.md); 128 on a GPU, where few leave it
    idle."""
    return 64 * cores() if on_cpu() else 128


def threads_for(sentences: int, in_numpy: int | None = None) -> int:
    """How many threads share a batch of so many sentences: on a CPU one for each core that this process may use, but
    with `FEWEST` sentences each; one where ``$STREAMLLM_THREADS`` says how many threads a process is to have.

    Args:
        in_numpy: the parameters of the model, if numpy computes it: of `SMALL` ones, one thread.
    """
    if not on_cpu() or "STREAMLLM_THREADS" in os.environ or (in_numpy is not None and in_numpy <= SMALL):
        return 1
    return max(1, min(cores(), sentences // FEWEST))


def cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def on_cpu() -> bool:
    return mx.default_device() == mx.Device(mx.cpu)  # type: ignore[arg-type, no-any-return]
