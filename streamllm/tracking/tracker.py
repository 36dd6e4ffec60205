"""Trackers: where a run reports itself besides its folder. Invariant: a tracker never costs a result; the
run talks to it through `Guarded`, which turns every failure into one warning."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Picture:
    """A cell of a table that is drawn only where it is shown. ``draw`` returns a PNG."""

    draw: Callable[[], bytes]


class Tracker(Protocol):
    """A place that runs report to. `start` comes first, `finish` last; cells of a `table` may be a `Picture`.

    ``again``: whether it wants to hear of a run that had finished before, too.
    """

    again: bool

    def start(self, run: RunInfo) -> None: ...

    def log(self, values: Mapping[str, Any], step: int) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def finish(self, exit_code: int = 0) -> None: ...


class NullTracker:
    """Reports nowhere."""

    again = False

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


class Guarded:
    """Any tracker, made harmless: after its first failure it is only told to finish."""

    def __init__(self, tracker: Tracker):
        self._tracker = tracker
        self._failed = False

    @property
    def again(self) -> bool:
        return self._tracker.again

    @property
    def hears_nothing(self) -> bool:
        """Whether nothing need be made for it."""
        return self._failed or type(self._tracker) is NullTracker

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

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """Finish however the block ends, with the exit code that says so: 0, 130 after Ctrl-C, else 1."""
        exit_code = 1
        try:
            yield
            exit_code = 0
        except KeyboardInterrupt:
            exit_code = 130
            raise
        finally:
            self.finish(exit_code)

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
