"""Trackers: where a run reports itself besides its folder. Invariant: a tracker never costs a result; the
run talks to it through `Guarded`, which turns every failure into one warning."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

WANDB_MODES = ("online", "offline", "disabled")


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told about a run.

    Args:
        id: stays the same when the run is resumed (the digest of its configuration).
        folder: of the run; trackers keep their own files beside it, never in it.
    """

    id: str
    name: str
    folder: Path
    config: Mapping[str, Any]
    job_type: str = "evaluate"


class Tracker(Protocol):
    """A place that runs report to. `start` comes first, `finish` last."""

    def start(self, run: RunInfo) -> None: ...

    def log(self, values: Mapping[str, Any], step: int) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def finish(self, exit_code: int = 0) -> None: ...


class NullTracker:
    """Reports nowhere."""

    def start(self, run: RunInfo) -> None:
        pass

    def log(self, values: Mapping[str, Any], step: int) -> None:
        pass

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        pass

    def summary(self, values: Mapping[str, Any]) -> None:
        pass

    def finish(self, exit_code: int = 0) -> None:
        pass


class WandbTracker:
    """Weights & Biases; files are in ``wandb/`` beside the run folders (``wandb sync`` sends offline runs).

    Args:
        mode: "offline", "online" or "disabled".
        project, entity, group, tags: as in ``wandb.init``.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(
        self,
        mode: str = "offline",
        project: str = "streamllm",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
    ):
        if mode not in WANDB_MODES:
            raise ValueError(
                f"tracker.mode is {mode!r}; accepted are {', '.join(WANDB_MODES)} (or tracker=none for no tracker)"
            )
        self.mode, self.project, self.entity, self.group, self.tags = mode, project, entity, group, list(tags)
        self._run: Any = None

    def start(self, run: RunInfo) -> None:
        import wandb

        self._run = wandb.init(
            mode=self.mode,  # type: ignore[arg-type]
            project=self.project,
            entity=self.entity,
            group=self.group,
            tags=self.tags,
            job_type=run.job_type,
            id=run.id,
            name=run.name,
            dir=str(run.folder.parent),
            config=dict(run.config),
            resume="allow",
            # In a sweep, many runs follow each other in one process.
            reinit="finish_previous",
            settings=wandb.Settings(console="off", silent=True, init_timeout=30),
        )
        if self.mode == "online":
            log.info("Weights & Biases: %s", self._run.url)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log(dict(values), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def summary(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def finish(self, exit_code: int = 0) -> None:
        if self._run is not None:
            self._run.finish(exit_code=exit_code)
            self._run = None


class Guarded:
    """Any tracker, made harmless: after its first failure it is only told to finish."""

    def __init__(self, tracker: Tracker):
        self._tracker = tracker
        self._failed = False

    def start(self, run: RunInfo) -> None:
        self._try("start", run)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self._try("log", values, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._try("table", name, columns, rows)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._try("summary", values)

    def finish(self, exit_code: int = 0) -> None:
        self._try("finish", exit_code)

    def _try(self, method: str, *arguments: Any) -> None:
        if self._failed and method != "finish":
            return
        try:
            getattr(self._tracker, method)(*arguments)
        except Exception as error:  # whatever a tracker may raise
            if not self._failed:
                name = type(self._tracker).__name__
                log.warning(
                    "%s failed in %s (%s: %s); the run goes on without it, and its folder holds every result",
                    *(name, method, type(error).__name__, error),
                )
            self._failed = True
