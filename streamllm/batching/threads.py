"""Threads that share the sentences of a batch."""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

import mlx.core as mx

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
    """Threads that stay until the process ends: for each that has computed, MLX starts one of its own, which never
    ends."""

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
            jobs = self._idle.pop() if self._idle else self._begin()
            self._teams.add(team)

        def job() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._idle.append(jobs)
                    self._leave(team)

        jobs.put(job)

    def give_up(self, team: Team, threads: int) -> None:
        """So many of the team will not begin."""
        with self._lock:
            for _ in range(threads):
                self._leave(team)

    def _leave(self, team: Team) -> None:
        team.leave()
        if not team.running:  # until then the end of the process has to stop it
            self._teams.discard(team)

    def _begin(self) -> "SimpleQueue[Callable[[], None] | None]":
        jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        thread = threading.Thread(target=self._run, args=(jobs,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return jobs

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
    begun = 0
    try:
        while begun < threads:
            _workers.do(team, partial(run, begun))
            begun += 1
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
        _workers.give_up(team, threads - begun)
        team.stop()
    if error is not None:
        raise error
