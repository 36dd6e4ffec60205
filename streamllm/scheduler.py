"""Translates many sentences at a time, each in a coroutine that runs as if it were alone.

Invariant: a sentence's trace, but for its times, does not depend on the sentences beside it or on their number.
"""

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import mlx.core as mx
import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from streamllm import check
from streamllm.batch import SHORT, Pool, Row
from streamllm.model import StreamingModel
from streamllm.paradigms import Group, GroupMemory, Memory
from streamllm.records import Example, Trace
from streamllm.session import Session

log = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Seconds, from any start."""
TranslateOne = Callable[[Session, Example, Clock], Trace]

FEWEST = 8  # sentences in a thread of their own: with fewer, more threads gain nothing


def translate_many(
    model: StreamingModel,
    examples: Sequence[Example],
    translate_one: TranslateOne,
    batch_size: int | None = 1,
    seed: int = 0,
) -> Iterator[Trace]:
    """Translate examples, ``batch_size`` at a time, yielding each trace as soon as its sentence has ended.

    In a batch, long sentences go first, so that those beside each other are alike; where one ends, the next begins.
    On a CPU several threads share the batch, see `threads_for`; ``translate_one`` is called in each. What cannot be
    batched is translated one by one, in order, and logged as such.

    Args:
        examples: their ids differ.
        batch_size: of all threads together. None is `default_batch_size`.
        translate_one: translates an example with a session. The clock is that of the sentence: in a batch it shows its
            share of its thread's time, so that the times of all sentences add up to that of the run.
        seed: of sampling.

    Raises:
        ValueError: batch_size is not positive.
    """
    asked = "" if batch_size is None else f"batch_size is {batch_size}, but "
    batch_size = batch_size_of(batch_size)
    if batch_size > 1 and len(examples) > 1:
        reason, packs = batching(model)
        if reason is None:
            yield from _batched(model, examples, translate_one, min(batch_size, len(examples)), seed, packs)
            return
        log.info("%ssentences are translated one by one: %s", asked, reason)
    for example in examples:
        yield translate_one(model.session(seed, example.id), example, time.perf_counter)


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
    return 64 * _cores() if _on_cpu() else 128


def threads_for(sentences: int) -> int:
    """How many threads share a batch of so many sentences: on a CPU one for each core that this process may use, but
    with `FEWEST` sentences each; one where ``$STREAMLLM_THREADS`` says how many threads a process is to have."""
    if not _on_cpu() or "STREAMLLM_THREADS" in os.environ:
        return 1
    return max(1, min(_cores(), sentences // FEWEST))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _on_cpu() -> bool:
    return mx.default_device() == mx.Device(mx.cpu)  # type: ignore[arg-type, no-any-return]


def _batched(
    model: StreamingModel,
    examples: Sequence[Example],
    translate_one: TranslateOne,
    rows: int,
    seed: int,
    packs: bool,
) -> Iterator[Trace]:
    def task(example: Example) -> Task[Trace]:
        return lambda row, clock: translate_one(model.session(seed, example.id, row), example, clock)

    threads = threads_for(rows)
    longest_first = Shared(map(task, sorted(examples, key=lambda example: len(example.source), reverse=True)))

    def part(team: Team, number: int) -> Iterator[Trace]:
        own = rows // threads + (number < rows % threads)
        return run_all(Pool(model.model, own, model.target_start, packs), longest_first, team)

    return part(Team(1), 0) if threads == 1 else in_threads(threads, part)


# Threads

T = TypeVar("T")


class Shared(Generic[T]):
    """An iterator that several threads take from."""

    def __init__(self, items: Iterable[T]):
        self._items, self._lock = iter(items), threading.Lock()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)


class Team:
    """Threads that share some work.

    Attributes:
        running: how many have not ended.
        stopped: whether they are to end.
    """

    def __init__(self, threads: int):
        self.running, self.stopped = threads, False
        self._ended = threading.Event()

    def leave(self) -> None:
        """One of them has ended; one at a time says so."""
        self.running -= 1
        if not self.running:
            self._ended.set()

    def stop(self) -> None:
        """Let all end, and wait for it."""
        self.stopped = True
        self._ended.wait()


class _Workers:
    """Threads that stay, since MLX keeps something of each that has computed. They end with the process."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Callable[[], None] | None]] = []
        self._threads: list[threading.Thread] = []
        self._teams: set[Team] = set()
        self._lock = threading.Lock()

    def do(self, team: Team, work: Callable[[], None]) -> None:
        """In a thread that has nothing else to do."""
        with self._lock:
            if not self._threads:
                atexit.register(self._end)
            self._teams.add(team)
            if not self._idle:
                self._idle.append(SimpleQueue())
                self._threads.append(threading.Thread(target=self._run, args=(self._idle[-1],), daemon=True))
                self._threads[-1].start()
            jobs = self._idle.pop()

        def job() -> None:
            work()
            with self._lock:
                self._idle.append(jobs)
                team.leave()
                if not team.running:  # until then the end of the process has to stop it
                    self._teams.discard(team)

        jobs.put(job)

    def _run(self, jobs: "SimpleQueue[Callable[[], None] | None]") -> None:
        while (job := jobs.get()) is not None:
            job()

    def _end(self) -> None:
        """The process does. Where a thread is about to end by then, or computes, MLX aborts it (mlx issue 4110)."""
        for team in list(self._teams):
            team.stop()
        for jobs in self._idle:
            jobs.put(None)
        for thread in self._threads:
            thread.join()
            for _ in range(1000):  # Python calls it ended before MLX has freed what is its own
                if not os.path.exists(f"/proc/self/task/{thread.native_id}"):
                    break
                time.sleep(1e-3)


_workers = _Workers()


def in_threads(threads: int, part: Callable[[Team, int], Iterator[T]]) -> Iterator[T]:
    """What the iterators ``part(team, number)`` yield, as soon as they do, each made and run in a thread of its own.

    What one raises is raised here, after what the others have found by then; so is the first KeyboardInterrupt. Then,
    or when this iterator is closed, the team is stopped.
    """
    found: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    team = Team(threads)
    device = mx.default_device()

    def run(number: int) -> None:
        try:
            mx.set_default_device(device)
            for item in part(team, number):
                found.put((item,))
        except BaseException as error:
            found.put(error)
        found.put(None)

    error: BaseException | None = None
    for number in range(threads):
        _workers.do(team, partial(run, number))
    try:
        running = threads
        while running:
            try:
                item = found.get()
            except KeyboardInterrupt as interrupt:
                if error is not None:
                    raise
                item = interrupt
            if isinstance(item, BaseException):
                error, team.stopped = error or item, True
            elif item is None:
                running -= 1
            else:
                yield item[0]
    finally:
        team.stop()
    if error is not None:
        raise error


# Coroutines

Task = Callable[[Row, Clock], T]
"""What is to be done with one row of a pool; whenever it asks for logits, others go on."""


def run_all(pool: Pool, tasks: Iterable[Task[T]], team: "Team | None" = None) -> Iterator[T]:
    """Do tasks, as many at a time as the pool has rows; yield what each returns as soon as it does. With a ``team``
    that does this side by side, clocks of tasks go slower by its number, and nothing more is done once it is stopped.

    When all wait for the model, the pool makes a step for all. What a task raises is raised here. Then, or when
    the iterator is closed, the others are given up.
    """
    team = team or Team(1)
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
        running.append(_Running(pool, task, team))
        return running[-1]

    try:
        while True:
            while (now := next_ready()) is not None:
                if now.resume():
                    running.remove(now)
                    yield now.result
            if not running or team.stopped:
                return
            started = time.perf_counter()
            pool.step([each.row for each in running])
            share = (time.perf_counter() - started) / len(running) / team.running
            for each in running:
                each.seconds += share
            ready.extend(running)
    finally:
        for each in running:
            each.close()


class _Running(Generic[T]):
    """A task under way."""

    result: T

    def __init__(self, pool: Pool, task: Task[T], team: Team):
        self.row, self._pool, self._team = pool.open(), pool, team
        self.seconds = self._resumed = 0.0
        self._coroutine = greenlet(lambda: task(self.row, self._clock))

    def _clock(self) -> float:
        """Only while it runs."""
        return self.seconds + (time.perf_counter() - self._resumed) / self._team.running

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


def batching(model: StreamingModel) -> tuple[str | None, bool]:
    """Why sentences of this model must be translated one by one (None when many can share a memory, which is tried),
    and whether their attention can be packed (`Pool`)."""
    if not isinstance(model.paradigm, Group):
        return f"paradigm {type(model.paradigm).__name__} gives each sentence a memory of its own", False
    if not model.retention.keeps_all:
        return "windows on the streams and quantised keys and values need a memory for each sentence", False
    if _why_not(model.model, packs=True) is None:
        return None, True
    return _why_not(model.model, packs=False), False


def _why_not(model: Any, packs: bool) -> str | None:
    try:
        difference, tolerance = _difference(model, packs)
    except Exception as error:  # whatever a model file raises that expects one position for all rows
        message = (str(error).strip() or "no message").splitlines()[0]
        return f"the model takes no batch of positions ({type(error).__name__}: {message})"
    if not difference <= tolerance:
        return f"the model gives other logits in a batch (by {difference:.1e} of the largest, {tolerance} is accepted)"
    return None


def _difference(model: Any, packs: bool) -> tuple[float, float]:
    """By how much logits in a batch differ from those of sentences alone, as a share of the largest, and by how much
    they may."""

    def task(seed: int) -> Task[tuple[int, mx.array]]:
        return lambda row, clock: (seed, _trial(row, seed))

    batched = dict(run_all(Pool(model, 2, target_start=3, packs=packs), map(task, range(2))))
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
