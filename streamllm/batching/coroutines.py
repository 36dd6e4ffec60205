"""Each sentence runs in a coroutine as if it were alone. One that waits for the model gives way to the next; when all
wait, one forward answers all.

Control switches at two places: a row that needs an answer (`Pool.wait`) switches to `run_all`, and `_Running.resume`
switches back to the sentence. So policies and sessions are written for one sentence and know nothing of batches."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Generic

from greenlet import GreenletExit, getcurrent, greenlet

from streamllm.batching.pool import Pool
from streamllm.batching.row import Row
from streamllm.batching.threads import T, Team

Clock = Callable[[], float]
"""Seconds, from any start."""


Task = Callable[[Row, Clock], T]
"""What is to be done with one row of a pool; whenever it asks for logits, others go on."""


def run_all(pool: Pool, tasks: Iterable[Task[T]], team: "Team | None" = None) -> Iterator[T]:
    """Do tasks, as many at a time as the pool has rows; yield what each returns as soon as it does. With a ``team``
    of threads that do so side by side, a task's clock counts its share of the time; once the team is stopped, no more
    is done.

    When all wait for the model, the pool makes a step for all. What a task raises is raised here, and the others are
    given up; so they are when the iterator is closed.
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
        with ExitStack() as all_closed:  # the others too, where closing one fails
            for each in running:
                all_closed.callback(each.close)


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
        try:
            self._pool.close(self.row)
        finally:
            if self._coroutine:  # has begun and has not ended
                self._coroutine.throw(GreenletExit)
