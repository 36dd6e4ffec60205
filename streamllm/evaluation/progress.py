"""What a run shows while it goes on, a bar with running scores and its log; and what it gathers for its end."""

import contextlib
import io
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from itertools import islice
from pathlib import Path

from streamllm.files import open_to_write
from streamllm.metrics.behaviour import CutShort
from streamllm.metrics.scores import scores
from streamllm.metrics.summary import RUNNING_BLEU, Summary
from streamllm.metrics.tokenised import Tokenised
from streamllm.records import Trace
from streamllm.runs.folder import RunFolder
from streamllm.tracking.tracker import Guarded

AT_ONCE = 1000  # sentences of before that are taken in before the first new one
CATCH_UP = 16  # of the others, with each new one
OFTEN = 0.05  # seconds between two times that scores are computed for the bar alone
MANY = 2000  # sentences that take long enough for a word


class Gathered:
    """What a run says at its end, from its traces as they finish. Of a run that goes on, those that were stored before
    are taken in little by little, so that the next sentence does not wait for them; `figures` do."""

    def __init__(self, summary: Summary, before: Sequence[Trace]):
        self.summary = summary
        self._tokenised, self._cut_short = Tokenised(), CutShort()
        self._before = iter(before)
        self._waiting = len(before)
        if self._waiting <= AT_ONCE:
            self._catch_up(AT_ONCE)

    def add(self, trace: Trace) -> None:
        """Take in a trace that has just finished."""
        self._take(trace)
        self._catch_up(CATCH_UP)

    def finish(self) -> None:
        """Take in what waits, with a bar if that is much."""
        from tqdm import tqdm

        with tqdm(total=self._waiting, desc="scores", unit="sentence", disable=self._waiting < MANY) as bar:
            while self._waiting:
                before = self._waiting
                self._catch_up(CATCH_UP)
                bar.update(before - self._waiting)

    @property
    def figures(self) -> dict[str, float]:
        """The scores so far; none while some sentences wait."""
        return {} if self._waiting else self.summary.running

    def warnings(self, order: Sequence[str]) -> list[str]:
        """What is to be said of the texts, ``order`` being the ids of all sentences."""
        found = self._tokenised.warning(order), self._cut_short.warning(order)
        return [warning for warning in found if warning]

    def _catch_up(self, count: int) -> None:
        for trace in islice(self._before, count):
            self._take(trace)
            self._waiting -= 1

    def _take(self, trace: Trace) -> None:
        for one in (self.summary, self._tokenised, self._cut_short):
            one.add(trace)


def store_all(
    traces: Iterator[Trace], folder: RunFolder, done: int, total: int, gathered: Gathered, tracker: Guarded
) -> None:
    """Store each trace as it comes, ``done`` being there already, with a progress bar of running scores. Whatever ends
    it, what translates is ended, too, while there is a log for what it says."""
    from tqdm import tqdm

    labels = {key: score.label for key, score in scores().items()} | {RUNNING_BLEU: "BLEU of whole documents"}
    patience = 0.1 if sys.stderr.isatty() else 30.0  # seconds between two pictures of the bar; few lines in a log file
    told = -math.inf  # when the bar was told scores
    with (
        contextlib.ExitStack() as ended,
        tqdm(total=total, initial=done, unit="sentence", mininterval=patience, dynamic_ncols=True) as bar,
    ):
        ended.callback(getattr(traces, "close", lambda: None))
        for number, trace in enumerate(traces, start=done + 1):
            folder.append(trace)
            gathered.add(trace)
            bar.unit = "document" if trace.segments else "sentence"
            now = time.monotonic()
            wanted = not tracker.hears_nothing or now - told >= OFTEN or number == total
            if wanted and (figures := gathered.figures):
                told = now
                bar.set_postfix({labels[key]: f"{value:.2f}" for key, value in figures.items()}, refresh=False)
                tracker.log({f"running/{key}": value for key, value in figures.items()}, step=number)
            bar.update()


_RUN: ContextVar[object] = ContextVar("run", default=None)
"""Which of the runs that are made together is speaking; None is all of them, as in a thread or coroutine that
translates."""


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Everything that streamllm logs goes to ``path``, and from INFO on to the screen, above the bar. Of several runs
    at a time, in coroutines of their own, each gets what is logged in its own, and in none of them."""
    logger = logging.getLogger("streamllm")
    file = _LogFile(path)
    handlers: list[logging.Handler] = [file]
    if not logging.getLogger().handlers:  # else whoever has set up logging shows them
        handlers.append(_AboveTheBar(logging.INFO))
    run = object()
    with contextlib.ExitStack() as undone:
        undone.callback(_RUN.reset, _RUN.set(run))
        others = [handler.level_before for handler in logger.handlers if isinstance(handler, _LogFile)]
        file.level_before = level = others[0] if others else logger.level
        undone.callback(_restore, logger, level)
        logger.setLevel(logging.DEBUG)
        for handler in handlers:
            handler.addFilter(lambda record: _RUN.get() in (None, run))
            undone.callback(handler.close)
            undone.callback(logger.removeHandler, handler)
            logger.addHandler(handler)
        yield


def _restore(logger: logging.Logger, level: int) -> None:
    """Once no run is left that wants all."""
    if not any(isinstance(handler, _LogFile) for handler in logger.handlers):
        logger.setLevel(level)


class _LogFile(logging.StreamHandler[io.TextIOWrapper]):
    """A log that costs nothing but itself: where it cannot be written, one line on the screen says so."""

    def __init__(self, path: Path):
        super().__init__(io.TextIOWrapper(open_to_write(path, "ab"), encoding="utf-8"))
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._path, self._failed = path, False
        self.level_before = 0  # of the logger, when the first of the runs of now began

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a mistake in a call of the log
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            _say(f"warning: {error}; until then, the log is on the screen only")

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):  # what it could not write before
            self.stream.close()


def _say(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "is_shown", False):  # what is said to all runs is shown once
            record.is_shown = True
            _say(self.format(record))
