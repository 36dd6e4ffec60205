"""What a run shows while it goes on: a bar with running scores, and its log."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from streamllm.files import open_to_write
from streamllm.metrics.latency import latency
from streamllm.metrics.quality import RunningBLEU
from streamllm.metrics.scores import scores
from streamllm.records import Trace
from streamllm.runs.folder import RunFolder
from streamllm.tracking.tracker import Guarded
from streamllm.units import Unit


def store_all(
    traces: Iterator[Trace],
    folder: RunFolder,
    done: dict[str, Trace],
    total: int,
    running: "RunningScores",
    tracker: Guarded,
) -> None:
    """Store each trace as it comes, adding it to ``done``, with a progress bar of running scores."""
    from tqdm import tqdm

    labels = {key: score.label for key, score in scores(documents=True).items()}
    patience = 0.1 if sys.stderr.isatty() else 30.0  # seconds between two pictures of the bar; few lines in a log file
    with tqdm(total=total, initial=len(done), unit="sentence", mininterval=patience, dynamic_ncols=True) as bar:
        for trace in traces:
            folder.append(trace)
            done[trace.id] = trace
            running.add(trace)
            figures = running.figures()
            bar.set_postfix({labels[key]: f"{value:.2f}" for key, value in figures.items()}, refresh=False)
            bar.update()
            tracker.log({f"running/{key}": value for key, value in figures.items()}, step=len(done))


class RunningScores:
    """BLEU and AL of the sentences so far; of documents BLEU alone, as they are."""

    def __init__(
        self, target_language: str, target_unit: Unit, traces: Iterable[Trace] = (), tokenizer: str | None = None
    ):
        self._bleu, self._unit = RunningBLEU(target_language, tokenizer), target_unit
        self._lagging, self._sentences = 0.0, 0
        for trace in traces:
            self.add(trace)

    def add(self, trace: Trace) -> None:
        self._bleu.add(trace.prediction, trace.reference)
        if trace.segments:  # an AL of hundreds of words says nothing
            return
        lagging = latency(trace.delays, trace.source_units, trace.reference, self._unit)["al"]
        if lagging == lagging:  # nan: a sentence without output
            self._lagging += lagging
            self._sentences += 1

    def figures(self) -> dict[str, float]:
        figures = {"bleu": self._bleu.score}
        return figures | {"al": self._lagging / self._sentences} if self._sentences else figures


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Everything that streamllm logs goes to ``path``, and from INFO on to the screen, above the bar."""
    logger = logging.getLogger("streamllm")
    handlers: list[logging.Handler] = [_LogFile(path)]
    if not logging.getLogger().handlers:  # else whoever has set up logging shows them
        handlers.append(_AboveTheBar(logging.INFO))
    with contextlib.ExitStack() as undone:
        undone.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.DEBUG)
        for handler in handlers:
            undone.callback(handler.close)
            undone.callback(logger.removeHandler, handler)
            logger.addHandler(handler)
        yield


class _LogFile(logging.StreamHandler[io.TextIOWrapper]):
    """A log that costs nothing but itself: where it cannot be written, one line on the screen says so."""

    def __init__(self, path: Path):
        super().__init__(io.TextIOWrapper(open_to_write(path, "ab"), encoding="utf-8"))
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._path, self._failed = path, False

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
        _say(self.format(record))
