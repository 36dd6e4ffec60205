"""Translates many sentences at a time, each in a coroutine that runs as if it were alone.

Invariant: a sentence's trace, but for its times, does not depend on the sentences beside it or on their number.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import mlx.core as mx
import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from streamllm.batch import SHORT, Pool, Row
from streamllm.model import StreamingModel
from streamllm.paradigms import Group, GroupMemory, Memory
from streamllm.records import Example, Trace
from streamllm.session import Session

log = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Seconds, from any start."""
TranslateOne = Callable[[Session, Example, Clock], Trace]


def translate_many(
    model: StreamingModel,
    examples: Sequence[Example],
    translate_one: TranslateOne,
    batch_size: int | None = 1,
    seed: int = 0,
) -> Iterator[Trace]:
    """Translate examples, ``batch_size`` at a time, yielding each trace as soon as its sentence has ended.

    In a batch, long sentences go first, so that those beside each other are alike; where one ends, the next begins.
    What cannot be batched is translated one by one, in order, and logged as such.

    Args:
        examples: their ids differ.
        batch_size: None is `default_batch_size`.
        translate_one: translates an example with a session. The clock is that of the sentence: in a batch it shows its
            own time and its share of the forwards, so that the times of all sentences add up to that of the run.
        seed: of sampling.

    Raises:
        ValueError: batch_size is not positive.
    """
    asked = "" if batch_size is None else f"batch_size is {batch_size}, but "
    batch_size = default_batch_size() if batch_size is None else batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it is the number of sentences at a time, at least 1")
    if batch_size > 1 and len(examples) > 1:
        reason = why_alone(model)
        if reason is None:
            yield from _batched(model, examples, translate_one, min(batch_size, len(examples)), seed)
            return
        log.info("%ssentences are translated one by one: %s", asked, reason)
    for example in examples:
        yield translate_one(model.session(seed, example.id), example, time.perf_counter)


def default_batch_size() -> int:
    """32 sentences on a CPU, where more gain little (docs/speed.md); 128 on a GPU, where few leave it idle."""
    return 32 if mx.default_device() == mx.Device(mx.cpu) else 128


def _batched(
    model: StreamingModel, examples: Sequence[Example], translate_one: TranslateOne, rows: int, seed: int
) -> Iterator[Trace]:
    def task(example: Example) -> Task[Trace]:
        return lambda row, clock: translate_one(model.session(seed, example.id, row), example, clock)

    longest_first = sorted(examples, key=lambda example: len(example.source), reverse=True)
    return run_all(Pool(model.model, rows, model.target_start), map(task, longest_first))


# Coroutines

T = TypeVar("T")
Task = Callable[[Row, Clock], T]
"""What is to be done with one row of a pool; whenever it asks for logits, others go on."""


def run_all(pool: Pool, tasks: Iterable[Task[T]]) -> Iterator[T]:
    """Do tasks, as many at a time as the pool has rows; yield what each returns as soon as it does.

    When all wait for the model, the pool makes a step for all. What a task raises is raised here. Then, or when
    the iterator is closed, the others are given up.
    """
    pool.wait = lambda row: getcurrent().parent.switch()
    pending = iter(tasks)
    running: list[_Running[T]] = []
    ready: deque[_Running[T]] = deque()

    def next_ready() -> _Running[T] | None:
        if ready:
            return ready.popleft()
        task = next(pending, None) if pool.has_room else None
        if task is None:
            return None
        running.append(_Running(pool, task))
        return running[-1]

    try:
        while True:
            while (now := next_ready()) is not None:
                if now.resume():
                    running.remove(now)
                    yield now.result
            if not running:
                return
            started = time.perf_counter()
            pool.step([each.row for each in running])
            share = (time.perf_counter() - started) / len(running)
            for each in running:
                each.seconds += share
            ready.extend(running)
    finally:
        for each in running:
            each.close()


class _Running(Generic[T]):
    """A task under way."""

    result: T

    def __init__(self, pool: Pool, task: Task[T]):
        self.row, self._pool = pool.open(), pool
        self.seconds = self._resumed = 0.0
        self._coroutine = greenlet(lambda: task(self.row, self._clock))

    def _clock(self) -> float:
        """Only while it runs."""
        return self.seconds + time.perf_counter() - self._resumed

    def resume(self) -> bool:
        """Run until it waits for the model, or to its end; returns whether that is reached."""
        self._resumed = time.perf_counter()
        result = self._coroutine.switch()
        self.seconds = self._clock()
        if not self._coroutine.dead:
            return False
        self.result = result
        self.close()
        return True

    def close(self) -> None:
        self._pool.close(self.row)
        if self._coroutine:  # has begun and has not ended
            self._coroutine.throw(GreenletExit)


# What can be batched


def why_alone(model: StreamingModel) -> str | None:
    """Why sentences of this model must be translated one by one; None when many can share a memory, which is tried."""
    if not isinstance(model.paradigm, Group):
        return f"paradigm {type(model.paradigm).__name__} gives each sentence a memory of its own"
    if not model.retention.keeps_all:
        return "windows on the streams and quantised keys and values need a memory for each sentence"
    try:
        difference, tolerance = _difference(model.model)
    except Exception as error:  # whatever a model file raises that expects one position for all rows
        message = (str(error).strip() or "no message").splitlines()[0]
        return f"the model takes no batch of positions ({type(error).__name__}: {message})"
    if not difference <= tolerance:
        return f"the model gives other logits in a batch (by {difference:.1e} of the largest, {tolerance} is accepted)"
    return None


def _difference(model: Any) -> tuple[float, float]:
    """By how much logits in a batch differ from those of sentences alone, as a share of the largest, and by how much
    they may."""

    def task(seed: int) -> Task[tuple[int, mx.array]]:
        return lambda row, clock: (seed, _trial(row, seed))

    batched = dict(run_all(Pool(model, 2, target_start=3), map(task, range(2))))
    ours = mx.stack([batched[seed] for seed in range(2)])
    alone = mx.stack([_trial(GroupMemory(model, 3), seed) for seed in range(2)])
    differences, largest = np.array(mx.abs(ours - alone).astype(mx.float32)), np.array(mx.abs(alone).astype(mx.float32))
    return float(differences.max() / largest.max()), 1e-3 if alone.dtype == mx.float32 else 0.05


def _trial(memory: Memory, seed: int) -> mx.array:
    """Logits (3, V) of a sentence with all that a memory does: short and long reads, hidden source, trimming."""

    def tokens(n: int) -> list[int]:  # any vocabulary has these
        return [(7 * i + seed + 3) % 32 for i in range(n)]

    memory.read(tokens(3 + seed))
    logits = [memory.write(tokens(2 + seed))]
    memory.trim(1)
    memory.read(tokens(SHORT + 2 - 2 * seed))
    logits.append(memory.write(tokens(2), hidden=2))
    memory.trim(2)
    return mx.stack([*logits, memory.write(tokens(1))])
