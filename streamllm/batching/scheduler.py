"""Translates many sentences at a time, each in a coroutine that runs as if it were alone.

Invariant: a sentence's trace, but for its times, does not depend on the sentences beside it or on their number.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamllm.batching.coroutines import Clock, Task, run_all
from streamllm.batching.lengths import by_length
from streamllm.batching.pool import Pool
from streamllm.batching.sizes import batch_size_of, threads_for
from streamllm.batching.threads import Shared, T, Team, in_threads
from streamllm.batching.trial import Batching, batching
from streamllm.check import check_model
from streamllm.cpu.decoder import Decoder
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.memory import Memory
from streamllm.engine.session import Session
from streamllm.machine import fewer_collections
from streamllm.models.lengths import fitting
from streamllm.models.model import StreamingModel
from streamllm.models.positions import noticing
from streamllm.records import Example, Policy, Trace

log = logging.getLogger(__name__)
Does = Callable[[Session, Example, Clock], T]
"""What is done with an example and its session; the clock is that of the sentence."""

TranslateOne = Does[Trace]
"""Translates it."""


def translate_many(
    model: StreamingModel,
    examples: Sequence[Example],
    policy: Policy,
    limits: Limits = Limits(),
    batch_size: int | None = 1,
    seed: int = 0,
) -> Iterator[Trace]:
    """Translate examples by a policy, ``batch_size`` at a time, yielding each trace as soon as its sentence has ended.

    In a batch, long sentences go first, so that those beside each other are alike; where one ends, the next begins.
    On a CPU several threads may share the batch, see `threads_for`. What cannot be batched is translated one sentence
    at a time, in order, and the log says so. Times are those of the sentence: in a batch, its share of its thread's
    time, so that the times of all sentences add up to that of the run.

    Args:
        model: its prompt says what a source unit and a target unit are.
        examples: their ids differ.
        policy: ``start`` is called in the thread that translates the example.
        batch_size: of all threads together. None is `default_batch_size`.
        seed: of sampling.

    Raises:
        ValueError: batch_size is not positive, or the policy cannot decide with this model.
        SentenceError: a unit has more tokens than the limits say, or a sentence would take more positions than the
            model has (both before any is translated), or the logits of one are not finite.
    """
    check_model(policy, model)
    fitting(model, examples, limits)
    return noticing(model, in_sessions(model, examples, by_policy(model, policy, limits), batch_size, seed))


def by_policy(model: StreamingModel, policy: Policy, limits: Limits) -> TranslateOne:
    """How a policy translates one example."""
    units = model.prompt.source_unit, model.prompt.target_unit

    def translate_one(session: Session, example: Example, clock: Clock) -> Trace:
        return translate(session, example, policy, limits, *units, clock, model.living_on)

    return translate_one


def in_sessions(
    model: StreamingModel,
    examples: Sequence[Example],
    does: Does[T],
    batch_size: int | None = 1,
    seed: int = 0,
    threads: int | None = None,
) -> Generator[T, None, None]:
    """As `translate_many`, but what is done with each example, in a session of its own, is what ``does`` says.

    Args:
        threads: how many share a batch; None is `threads_for`. With one, the same sentences give the same numbers to
            the last digit.
    """
    under_way: set[str] = set()

    def noted(session: Session, example: Example, clock: Clock) -> T:
        under_way.add(example.id)
        found = does(session, example, clock)
        under_way.discard(example.id)
        return found

    with _saying_what_is_lost([under_way]):
        yield from _in_sessions(model, examples, noted, batch_size, seed, threads)


def _in_sessions(
    model: StreamingModel,
    examples: Sequence[Example],
    does: Does[T],
    batch_size: int | None,
    seed: int,
    threads: int | None,
) -> Iterator[T]:
    asked = "" if batch_size is None else f"batch_size is {batch_size}, but "
    batch_size = batch_size_of(batch_size)
    batches = batch_size > 1 and len(examples) > 1
    if batches or Decoder.serves(getattr(model, "model", None)):
        way = batching(model)
        if batches and way.why_not is None:
            with fewer_collections():
                yield from _batched(model, examples, does, min(batch_size, len(examples)), seed, way, threads)
            return
        if way.decoder is not None:
            yield from _one_by_one(way.pool(model, 1), model, examples, does, seed)
            return
        if batches:
            log.info("%ssentences are translated one by one: %s", asked, way.why_not)
    for example in examples:
        yield does(model.session(seed, example.id), example, time.perf_counter)


@contextmanager
def _saying_what_is_lost(under_way: Sequence[set[str]]) -> Iterator[None]:
    """After Ctrl-C, and where nobody wants more: what has ended has been yielded, and the log says how much has not."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        if lost := sum(map(len, under_way)):
            log.info("translations that were under way, and begin anew: %d", lost)
        raise


def _one_by_one(
    pool: Pool, model: StreamingModel, examples: Sequence[Example], does: Does[T], seed: int
) -> Iterator[T]:
    """In order, in a pool of one row: numpy computes its forwards faster than MLX does."""
    for example in examples:
        row = pool.open()
        try:
            yield does(model.session(seed, example.id, row), example, time.perf_counter)
        finally:
            pool.close(row)


# --- several runs


@dataclass(eq=False)
class Job:
    """What one of several runs wants translated; `given_up` says that nothing more of it is wanted, and `under_way` are
    the ids of sentences that have begun and not ended."""

    examples: Sequence[Example]
    translate_one: TranslateOne
    seed: int = 0
    given_up: bool = False
    under_way: set[str] = field(default_factory=set)


Outcome = tuple[Job, Trace | Exception]
"""What one sentence of a job came to."""


def jobs_together(
    model: StreamingModel, jobs: Sequence[Job], batch_size: int | None = None
) -> Generator[Outcome, None, None]:
    """As `in_sessions`, the sentences of several jobs side by side in one batch. An error of a sentence is its job's
    alone, and is an outcome; one of a whole batch is raised."""
    with _saying_what_is_lost([job.under_way for job in jobs]):
        yield from _jobs_together(model, jobs, batch_size)


def _jobs_together(model: StreamingModel, jobs: Sequence[Job], batch_size: int | None) -> Iterator[Outcome]:
    sentences = [(job, example) for job in jobs for example in job.examples]
    batch_size = batch_size_of(batch_size)
    if batch_size > 1 and sentences:
        way = batching(model)
        if way.why_not is None:
            with fewer_collections():
                yield from _jobs_batched(model, sentences, min(batch_size, len(sentences)), way)
            return
        log.info("sentences are translated one by one: %s", way.why_not)
    for job, example in sentences:
        if not job.given_up:
            yield _outcome(model, job, example, time.perf_counter)


def _jobs_batched(
    model: StreamingModel, sentences: Sequence[tuple[Job, Example]], rows: int, way: Batching
) -> Iterator[Outcome]:
    def task(job: Job, example: Example) -> Task[Outcome]:
        return lambda row, clock: _outcome(model, job, example, clock, row)

    # One job after the other, so that the first ones end early; the longest sentences of each go first.
    place = {id(job): i for i, (job, _) in enumerate(sentences)}
    in_order = sorted(sentences, key=lambda each: (place[id(each[0])], -len(each[1].source)))
    for group in _groups(in_order, lambda each: len(each[1].source), way):
        yield from _rows(model, (task(*each) for each in group if not each[0].given_up), min(rows, len(group)), way)


def _outcome(model: StreamingModel, job: Job, example: Example, clock: Clock, row: Memory | None = None) -> Outcome:
    memory = () if row is None else (row,)
    job.under_way.add(example.id)
    try:
        found: Trace | Exception = job.translate_one(model.session(job.seed, example.id, *memory), example, clock)
    except Exception as error:  # whatever a policy of somebody's own raises
        found = error
    job.under_way.discard(example.id)
    return job, found


# --- rows


def _batched(
    model: StreamingModel,
    examples: Sequence[Example],
    does: Does[T],
    rows: int,
    seed: int,
    way: Batching,
    threads: int | None,
) -> Iterator[T]:
    def task(example: Example) -> Task[T]:
        return lambda row, clock: does(model.session(seed, example.id, row), example, clock)

    longest_first = sorted(examples, key=lambda example: len(example.source), reverse=True)
    for group in _groups(longest_first, lambda example: len(example.source), way):
        yield from _rows(model, map(task, group), min(rows, len(group)), way, threads)


def _groups(items: Sequence[T], length: Callable[[T], int], way: Batching) -> list[Sequence[T]]:
    """Those that share a pool: all, where each row has blocks of its own (numpy); else those of similar length."""
    return [items] if way.decoder is not None else [*by_length(items, length)]


def _rows(
    model: StreamingModel, tasks: Iterable[Task[T]], rows: int, way: Batching, threads: int | None = None
) -> Iterator[T]:
    """What tasks return, of which there are as many at a time as ``rows``."""
    model.prefix  # noqa: B018  fed here, before threads ask for it
    threads = threads or threads_for(rows, way.decoder.parameters if way.decoder else None)
    shared = Shared(tasks)

    def part(team: Team, number: int) -> Iterator[T]:
        own = rows // threads + (number < rows % threads)
        return run_all(way.pool(model, own), shared, team)

    return part(Team(1), 0) if threads == 1 else in_threads(threads, part)
