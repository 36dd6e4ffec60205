"""Each sentence runs in a coroutine as if it were alone. One that waits for the model gives way to the next; when all
wait, one forward answers all. One that waits for input gives way, too, and costs nothing until that has come.

Control switches at three places: a row that needs an answer (`Pool.wait`) and a source that has nothing yet
(`wait_for_input`) switch to `Together.ended`, and `Running.resume` switches back to the sentence. So policies and
sessions are written for one sentence and know nothing of batches."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any, Generic

from greenlet import GreenletExit, getcurrent, greenlet

from streamllm.batching.pool import Pool
from streamllm.batching.row import Row
from streamllm.batching.threads import T, Team

Clock = Callable[[], float]
"""Seconds, from any start."""


Task = Callable[[Row, Clock], T]
"""What is to be done with one row of a pool; whenever it asks for logits, others go on."""

_INPUT = "input"  # what a task hands over that waits for some; one that waits for the model hands over nothing


def wait_for_input() -> None:
    """In a task: give way to the others until `Together.wake`."""
    getcurrent().parent.switch(_INPUT)


def run_all(pool: Pool, tasks: Iterable[Task[T]], team: "Team | None" = None) -> Iterator[T]:
    """Do tasks, as many at a time as the pool has rows; yield what each returns as soon as it does. With a ``team``
    of threads that do so side by side, a task's clock counts its share of the time; once the team is stopped, no more
    is done.

    When all wait for the model, the pool makes a step for all. What a task raises is raised here, and the others are
    given up; so they are when the iterator is closed.
    """
    team = team or Team(1)
    pending = iter(tasks)

    def more() -> Task[T] | None:
        return next(pending, None) if pool.has_room else None

    with closing(Together[T](pool, team)) as together:
        while True:
            for ended in together.ended(more):
                yield ended.result
            if not together.waiting or team.stopped:
                return
            together.step()


class Together(Generic[T]):
    """Tasks in the rows of one pool, of which each may begin and end at any time. All calls are made in one thread.

    Args:
        pool: None for a model whose sentences cannot share one. Then a task is given no row, asks a memory of its own,
            and waits for nothing but input.
        team: threads that do so side by side.
    """

    def __init__(self, pool: Pool | None, team: Team | None = None):
        self._pool, self._team = pool, team or Team(1)
        if pool is not None:
            pool.wait = lambda row: getcurrent().parent.switch()
        self._running: dict[Running[T], None] = {}
        self._ready: deque[Running[T]] = deque()
        self.waiting: list[Running[T]] = []  # for the model

    @property
    def ready(self) -> bool:
        """Whether some can go on at once."""
        return bool(self._ready)

    def begin(self, task: Task[T]) -> "Running[T]":
        """Let a task begin with the next `ended`.

        Raises: RuntimeError: the pool has no room.
        """
        running = Running(self._pool, task, self._team)
        self._running[running] = None
        self._ready.append(running)
        return running

    def wake(self, running: "Running[T]") -> None:
        """Its input has come. Changes nothing where it waits for none."""
        if running.awaits_input:
            running.awaits_input = False
            self._ready.append(running)

    def ended(self, more: Callable[[], Task[T] | None] = lambda: None) -> Iterator["Running[T]"]:
        """Let all go on that can, until each waits or has ended; yields those that have ended. ``more`` is asked for a
        task whenever nobody can go on."""
        while True:
            if not self._ready:
                if (task := more()) is None:
                    return
                self.begin(task)
            now = self._ready.popleft()
            if now.resume():
                del self._running[now]
                yield now
            elif not now.awaits_input:
                self.waiting.append(now)

    def step(self, most: int | None = None) -> None:
        """One forward for those that wait for the model, ``most`` of them: those that are `Running.due` first, which
        also go on first.

        Raises: what the forward raises. Then each task of it raises the same as soon as it goes on.
        """
        assert self._pool is not None
        now = self.waiting
        if most is not None:
            now = sorted(now, key=lambda each: each.due)[:most]
        taken = set(now)
        self.waiting = [each for each in self.waiting if each not in taken] if len(now) < len(self.waiting) else []
        self._ready.extend(now)
        started = time.perf_counter()
        try:
            self._pool.step([each.row for each in now])
        except Exception as error:
            for each in now:
                each.error = error
            raise
        share = (time.perf_counter() - started) / len(now) / self._team.running
        for each in now:
            each.seconds += share

    def remove(self, running: "Running[T]") -> None:
        """Give a task up. Idempotent."""
        if running in self._running:
            del self._running[running]
            for each in (self._ready, self.waiting):
                if running in each:
                    each.remove(running)
            running.close()

    def close(self) -> None:
        """Give up all."""
        with ExitStack() as all_closed:  # the others too, where closing one fails
            for each in self._running:
                all_closed.callback(each.close)
        self._running = {}
        self._ready.clear()
        self.waiting = []


class Running(Generic[T]):
    """A task under way.

    Attributes:
        result: what it returned.
        due: when what it works on came, in seconds of any clock; it is set by whoever asks for an order.
        awaits_input: whether it waits for some.
        error: what it is to raise when it goes on.
    """

    result: T

    def __init__(self, pool: Pool | None, task: Task[T], team: Team):
        row: Any = None if pool is None else pool.open()
        self.row: Row = row
        self._pool, self._team = pool, team
        self.seconds = self._resumed = self.due = 0.0
        self.awaits_input = False
        self.error: Exception | None = None
        self._coroutine = greenlet(lambda: task(self.row, self._clock))

    def _clock(self) -> float:
        """Only while it runs."""
        return self.seconds + (time.perf_counter() - self._resumed) / self._team.running

    def resume(self) -> bool:
        """Run until it waits, or to its end; returns whether that is reached."""
        self._resumed = time.perf_counter()
        error, self.error = self.error, None
        result = self._coroutine.switch() if error is None else self._coroutine.throw(error)
        self.seconds = self._clock()
        if not self._coroutine.dead:
            self.awaits_input = result is _INPUT
            return False
        self.result = result
        self.close()
        return True

    def close(self) -> None:
        try:
            if self._pool is not None:
                self._pool.close(self.row)
        finally:
            if self._coroutine:  # has begun and has not ended
                self._coroutine.throw(GreenletExit)
