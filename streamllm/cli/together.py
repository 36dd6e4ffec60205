"""Points of a sweep that are evaluated together: each runs in a coroutine of its own, and their sentences share
batches.

Control switches at two places. A point that wants its sentences translated waits, and the next point begins. When all
wait, all sentences are translated, and each trace goes to its point, which stores it and waits again. So a point runs
as if it were alone. Invariant: what one does, its end and its errors are its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from contextvars import ContextVar
from functools import partial
from typing import Any

from greenlet import getcurrent, greenlet
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from streamllm.cli.job import run_point
from streamllm.engine.limits import Limits
from streamllm.evaluation.portions import Translator
from streamllm.records import Example, Policy, Trace

MOST = 16
"""Points at a time. Each has files open, and what it gathers for its end."""

OF_A_POINT = ("policy", "k", "min_lag", "max_lag", "seed", "early_stop", "limits", "name")
"""Keys in which points that are evaluated together may differ."""

TRACKERS = ("NullTracker", "WandbTracker")
"""Those that are known to follow several runs at a time."""


class TogetherLauncher(BasicLauncher):
    """Hydra's own launcher, with points of one kind together."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        assert self.config is not None and self.hydra_context is not None
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        found: dict[int, JobReturn] = {}
        points = Points()
        for number, words in enumerate(job_overrides, start=initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(words))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            points.begin(kind(config, words), partial(self._run, config, number, points, found))
        points.end()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [found[number] for number in sorted(found)]

    def _run(self, config: DictConfig, number: int, points: "Points", found: dict[int, JobReturn]) -> None:
        assert self.task_function is not None and self.hydra_context is not None
        fresh_logs = not points.waiting  # else those that are open would be closed
        found[number] = run_point(self.task_function, config, self.hydra_context, fresh_logs)


def kind(config: DictConfig, words: Sequence[str]) -> tuple[str, ...] | None:
    """What points have in common that are evaluated together; None for one that is evaluated alone."""
    together = OmegaConf.select(config, "sweep.together")
    whole = config.get("batch_size") == 1 or config.get("processes", 1) != 1 or config.get("cluster")
    if together is False or whole or config.hydra.job.env_set or config.hydra.job.chdir:
        return None
    tracker = config.get("tracker")
    known = not tracker or (
        str(tracker.get("_target_")).rpartition(".")[2] in TRACKERS and tracker.get("mode") != "online"
    )
    if together is not True and not known:
        return None
    return tuple(sorted(word for word in words if word.lstrip("+~").split("=")[0].split(".")[0] not in OF_A_POINT))


class _Point:
    def __init__(self, work: Callable[[], None]):
        self.coroutine = greenlet(work)
        self.hydra = HydraConfig.instance().cfg  # what Hydra would have in place if this point were the only one
        self.model: Any = None
        self.job: Any = None
        self.batch_size: int | None = None


_POINTS: ContextVar["Points | None"] = ContextVar("points", default=None)
"""Those among which this coroutine is one."""


def translator() -> Translator | None:
    """What translates for the point that is running, if it is one of several."""
    points = _POINTS.get()
    return None if points is None else points.translate


class Points:
    """Points under way."""

    def __init__(self) -> None:
        self._kind: tuple[str, ...] | None = None
        self._waiting: list[_Point] = []
        self._running: _Point | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def begin(self, kind: tuple[str, ...] | None, work: Callable[[], None]) -> None:
        """Run a point until it waits for its sentences, or to its end. Those of another kind are brought to theirs
        first."""
        if self._waiting and (kind is None or kind != self._kind or len(self._waiting) >= MOST):
            self.end()
        if kind is None:
            work()
            return
        self._kind = kind

        def joined() -> None:
            _POINTS.set(self)  # a coroutine has variables of its own
            work()

        point = _Point(joined)
        try:
            self._resume(point, point.coroutine.switch)
        except BaseException:
            self._interrupt()
            raise
        if not point.coroutine.dead:
            self._waiting.append(point)

    def end(self) -> None:
        """Bring all points that wait to their ends."""
        try:
            while self._waiting:
                first = self._waiting[0]
                like = (first.model, first.batch_size)
                self._translate([point for point in self._waiting if (point.model, point.batch_size) == like])
        except BaseException:
            self._interrupt()
            raise

    def translate(
        self,
        model: Any,
        examples: Sequence[Example],
        policy: Policy,
        limits: Limits,
        batch_size: int | None,
        seed: int,
    ) -> Iterator[Trace]:
        """A `Translator`, for the point that is running."""
        from streamllm.batching.scheduler import Job, by_policy, translate_many
        from streamllm.models.lengths import fitting
        from streamllm.models.model import StreamingModel
        from streamllm.models.positions import noticing

        if batch_size == 1 or not isinstance(model, StreamingModel):
            return translate_many(model, examples, policy, limits, batch_size, seed)
        fitting(model, examples, limits)
        point = self._running
        assert point is not None
        point.model, point.batch_size = model, batch_size
        point.job = Job(examples, by_policy(model, policy, limits), seed)
        return noticing(model, (getcurrent().parent.switch() for _ in examples))

    def _translate(self, points: Sequence[_Point]) -> None:
        from streamllm.batching.scheduler import jobs_together

        of = {id(point.job): point for point in points}
        with closing(jobs_together(points[0].model, [point.job for point in points], points[0].batch_size)) as outcomes:
            while True:
                try:
                    job, outcome = next(outcomes)
                except StopIteration:
                    return
                except Exception as error:  # of the batch
                    for point in points:
                        self._give(point, error)
                    return
                self._give(of[id(job)], outcome)

    def _give(self, point: _Point, outcome: Trace | Exception) -> None:
        if point.coroutine.dead:  # it has failed, and others of its sentences were under way
            return
        give = point.coroutine.throw if isinstance(outcome, Exception) else point.coroutine.switch
        self._resume(point, give, outcome)
        if point.coroutine.dead:
            point.job.given_up = True
            self._waiting.remove(point)

    def _resume(self, point: _Point, how: Callable[..., Any], *what: Any) -> None:
        hydra = HydraConfig.instance()
        outside, hydra.cfg, self._running = hydra.cfg, point.hydra, point
        try:
            how(*what)
        finally:
            point.hydra, hydra.cfg, self._running = hydra.cfg, outside, None

    def _interrupt(self) -> None:
        """Let each that waits say what it has stored, as after Ctrl-C."""
        waiting, self._waiting = self._waiting, []
        for point in waiting:
            if not point.coroutine.dead:
                try:
                    self._resume(point, point.coroutine.throw, KeyboardInterrupt())
                except (SystemExit, KeyboardInterrupt):  # its way out
                    continue
