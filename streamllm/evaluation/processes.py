"""One run on several processes, of this machine or of a cluster (`streamllm.evaluation.cluster`): each loads the model
and translates a share of the sentences.

Invariant: only the process that was started by hand writes, so a run that is stopped, however, goes on as any other."""

import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from streamllm.engine.limits import Limits
from streamllm.evaluation.portions import Translator
from streamllm.records import Example, Policy, Trace

if TYPE_CHECKING:
    from streamllm.engine.paradigms.memory import Paradigm
    from streamllm.models.loading import ModelConfig
    from streamllm.prompt import Prompt

log = logging.getLogger(__name__)

ENDED = None
"""What a process sends last."""


class Share(NamedTuple):
    """What one process needs to translate a part of the sentences: how the model is loaded, and all else."""

    model: Any
    load: tuple[Any, ...]
    examples: Sequence[Example]
    policy: Policy
    limits: Limits
    batch_size: int | None
    seed: int


Runs = Callable[[Sequence[bytes]], Iterator[Trace]]
"""Takes shares, pickled, and yields their traces as they come; `traces_of` makes them, in a process for each share."""


def in_processes(
    count: int,
    model: "ModelConfig",
    prompt: "Prompt | None" = None,
    paradigm: "Paradigm | None" = None,
    runs: "Runs | None" = None,
) -> Translator:
    """What translates on ``count`` processes, each with one thread and a model of its own.

    Args:
        model, prompt, paradigm: how that is loaded.
        runs: what begins the processes; None does so on this machine.

    The sentences are dealt out by length, the longest first, so that shares take alike. What one process raises ends
    all of them, and is raised here after what was found by then; so does an interrupt, and they end when this process
    is killed. Times are those of a sentence in its process: together, they add up to ``count`` times the time of the
    run.

    Raises:
        ValueError: a part cannot be sent to another process.
        ChildProcessError: a process was killed, as for want of memory.
    """

    def translates(
        loaded: Any,
        examples: Sequence[Example],
        policy: Policy,
        limits: Limits,
        batch_size: int | None,
        seed: int,
    ) -> Iterator[Trace]:
        longest_first = sorted(examples, key=lambda example: len(example.source), reverse=True)
        text = loaded.prompt
        load = (prompt, text.source_unit, text.target_unit, paradigm)
        dealt = [share for first in range(count) if (share := longest_first[first::count])]
        shares = [_sent(Share(model, load, share, policy, limits, batch_size, seed)) for share in dealt]
        return (runs or _on_this_machine)(shares)

    return translates


def _sent(share: Share) -> bytes:
    try:
        return pickle.dumps(share)
    except Exception as error:  # whatever an object of somebody's own raises
        message = " ".join(str(error).split())
        raise ValueError(
            f"processes above 1 send policy and model to other processes, and these cannot be sent ({message}): give "
            "processes=1, or classes of modules that can be imported"
        ) from error


def traces_of(share: bytes) -> Iterator[Trace]:
    """Load the model and translate a share, in the process that is there for it."""
    from streamllm.batching.scheduler import translate_many
    from streamllm.batching.sizes import default_batch_size

    model, load, examples, policy, limits, batch_size, seed = pickle.loads(share)
    loaded = model.load(*load)
    rows = min(default_batch_size(), 64) if batch_size is None else batch_size
    return translate_many(loaded, examples, policy, limits, rows, seed)


def killed(how: str) -> ChildProcessError:
    """The error of a process that was ended, in words."""
    return ChildProcessError(
        f"a process that translates was ended ({how}), as happens when memory is short; the same command goes on from "
        "what is stored"
    )


def _on_this_machine(shares: Sequence[bytes]) -> Iterator[Trace]:
    context = get_context("spawn")  # a fork would share threads of MLX and BLAS that are not there
    workers: dict[Connection, Any] = {}
    try:
        for share in shares:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(there, share), daemon=True)
            with _for_workers():
                process.start()
            there.close()  # so that there is an end of it when the process ends
            workers[here] = process
        while workers:
            try:
                ready = wait(list(workers))
            except KeyboardInterrupt:
                yield from _sent_by_now(workers)
                log.info("what %d processes had under way begins anew", len(workers))
                raise
            for connection in ready:
                assert isinstance(connection, Connection)
                try:
                    found = connection.recv()
                except EOFError:
                    process = workers.pop(connection)
                    process.join()
                    raise killed(f"exit code {process.exitcode}") from None
                if found is ENDED:
                    workers.pop(connection).join()
                elif isinstance(found, BaseException):
                    raise found
                else:
                    yield found
    finally:
        for connection, process in workers.items():
            process.kill()
            process.join()
            connection.close()


def _sent_by_now(workers: Iterable[Connection]) -> Iterator[Trace]:
    """The traces that have come from processes and have not been taken."""
    for connection in workers:
        with suppress(EOFError, OSError):
            while connection.poll():
                if isinstance(found := connection.recv(), Trace):
                    yield found


@contextmanager
def _for_workers() -> Iterator[None]:
    """What is started in the block computes with one thread, and leaves Ctrl-C to this process, which ends it."""
    before = os.environ.get("STREAMLLM_THREADS")
    os.environ["STREAMLLM_THREADS"] = "1"
    handles = threading.current_thread() is threading.main_thread()  # others may set no handler
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if handles else None
    try:
        yield
    finally:
        if handles:
            signal.signal(signal.SIGINT, handler)
        del os.environ["STREAMLLM_THREADS"]
        if before is not None:
            os.environ["STREAMLLM_THREADS"] = before


def _work(results: Connection, share: bytes) -> None:
    """In a process of its own: send each trace, then `ENDED`, or what was raised."""
    try:
        for trace in traces_of(share):
            results.send(trace)
        results.send(ENDED)
    except (BrokenPipeError, ConnectionResetError):  # nobody listens any more
        sys.exit(1)
    except Exception as error:
        results.send(sendable(error))


def sendable(error: Exception) -> Exception:
    """An error, or one with its words if it is of a kind that cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
