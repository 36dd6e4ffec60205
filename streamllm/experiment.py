"""The runner: one configuration over one data set, into one run folder. Invariant: results depend on the
configuration only; a run that was stopped, however, goes on where it stood and ends the same."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streamllm import check
from streamllm.environment import code, environment
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.latency import latency
from streamllm.metrics.quality import RunningBLEU, sentence_bleu
from streamllm.metrics.summary import summarise
from streamllm.policies.bounded import bounded
from streamllm.records import Example, Policy, State, Trace
from streamllm.runs import LOG, RunFolder, RunInUse
from streamllm.segment import Unit
from streamllm.tracking import Guarded, NullTracker, Picture, RunInfo, Tracker
from streamllm.translate import Limits, translate

if TYPE_CHECKING:
    from streamllm.model import ModelConfig
    from streamllm.paradigms import Paradigm
    from streamllm.prompt import Prompt
    from streamllm.scheduler import Clock
    from streamllm.session import Session

log = logging.getLogger(__name__)

Translate = Callable[[Sequence[Example]], Iterator[Trace]]
"""Translates examples, yielding each trace as it is finished, in any order."""

LETTERS = {"read": "R", "forced_read": "F", "write": "W"}
"""How the actions of a sentence are written for trackers: RRWRWW."""

USER_ERRORS = (ValueError, OSError, ImportError, RunInUse)
"""What wrong input raises: the message is enough, no stack trace is needed."""


def user_error(error: BaseException) -> BaseException:
    """What the user did wrong: ``error`` itself, or what it wraps (Hydra wraps what constructors raise)."""
    cause = error.__cause__
    return cause if isinstance(cause, USER_ERRORS) and not isinstance(error, USER_ERRORS) else error


class Dataset(Protocol):
    """What the runner needs of a data set (see `streamllm.corpora`). Units are "word" or "character"."""

    source_language: str
    target_language: str

    @property
    def source_unit(self) -> Unit: ...

    @property
    def target_unit(self) -> Unit: ...

    def load(self) -> list[Example]: ...


def run_experiment(
    *,
    config: Mapping[str, Any],
    name: str,
    model: "ModelConfig",
    policy: Policy,
    dataset: Dataset,
    prompt: "Prompt | None" = None,
    tracker: Tracker | None = None,
    root: str | Path = "outputs",
    seed: int = 0,
    batch_size: int | None = 1,
    limits: Limits = Limits(),
    paradigm: "Paradigm | None" = None,
    min_lag: int | None = None,
    max_lag: int | None = None,
    arrival: ArrivalClock | None = None,
) -> dict[str, Any]:
    """Translate a data set with a policy, and return the metrics (those of `streamllm.metrics.summarise`).

    Args:
        config: the resolved configuration that the other arguments were made from. It names the folder,
            ``root/<name>-<digest of config>``; where that run has finished, its metrics are returned and
            neither data nor model is loaded.
        prompt: None takes the model's own.
        batch_size: sentences at a time, None for a number that suits the device. Results do not depend on it, but for
            times and for near-ties; what cannot be batched is translated one by one, which is logged
            (`scheduler.translate_many`), and so is everything if ``arrival`` takes the times of this machine.
        paradigm: how the two streams lie in memory; None is `paradigms.Group`.
        min_lag, max_lag: bounds on what the policy may decide (`policies.Bounded`), in units.
        arrival: the clock by which source units arrive, for latency in seconds.

    Raises:
        ValueError, OSError, ImportError: the data or the model cannot be loaded, or do not fit each other.
        RunInUse: another process is writing the folder.
        KeyboardInterrupt: after everything translated so far has been stored.
    """
    check.batch_size(batch_size)
    policy = bounded(policy, min_lag, max_lag)
    if arrival is not None and arrival.measured:
        batch_size = 1  # in a batch, a sentence's times are shares
    folder = RunFolder.of(config, name, root)
    if folder.finished:
        metrics = folder.metrics()
        print(f"{report(folder, metrics)}\n  finished before{_other_code(folder)}; to run it again, delete the folder")
        if tracker is not None and tracker.again:
            guarded = Guarded(tracker)
            with guarded.finishing():
                guarded.start(RunInfo(folder.digest, folder.path.name, folder.path, config))
                _conclude(guarded, folder, folder.traces(), metrics, dataset.target_language, dataset.target_unit)
        return metrics
    examples = dataset.load()  # before the model: bad data costs nothing

    def make_translate() -> Translate:
        loaded = model.load(prompt, dataset.source_unit, dataset.target_unit, paradigm)
        from streamllm.scheduler import translate_many  # after it: a model that is not there is said at once

        def translate_one(session: "Session", example: Example, clock: "Clock") -> Trace:
            return translate(session, example, policy, limits, dataset.source_unit, dataset.target_unit, clock)

        return lambda examples: translate_many(loaded, examples, translate_one, batch_size, seed)

    return evaluate(
        folder,
        examples,
        make_translate,
        config=config,
        target_language=dataset.target_language,
        target_unit=dataset.target_unit,
        tracker=tracker,
        arrival=arrival,
        at_limit=limits.reached,
    )


def evaluate(
    folder: RunFolder,
    examples: Sequence[Example],
    make_translate: Callable[[], Translate],
    *,
    config: Mapping[str, Any],
    target_language: str,
    target_unit: Unit = "word",
    tracker: Tracker | None = None,
    arrival: ArrivalClock | None = None,
    at_limit: Callable[[State], bool] | None = None,
) -> dict[str, Any]:
    """Translate what the folder does not hold yet, then write the metrics of all of it; raises as
    `run_experiment`. ``make_translate`` is called, and so the model loaded, only if something is missing."""
    _check_examples(examples)
    guarded = Guarded(tracker or NullTracker())
    with folder:
        done = _check_done(folder, folder.traces(), examples)
        pending = [example for example in examples if example.id not in done]
        translate_pending = make_translate() if pending else None
        folder.begin(config, environment())
        with _logging_to(folder.path / LOG), guarded.finishing():
            try:
                guarded.start(RunInfo(folder.digest, folder.path.name, folder.path, config))
                log.log(
                    logging.INFO if done else logging.DEBUG,
                    *("%s: %d of %d sentences are there already", folder.path, len(done), len(examples)),
                )
                if translate_pending is not None:
                    running = _Running(target_language, target_unit, done.values())
                    _drive(translate_pending(pending), folder, done, len(examples), running, guarded)
                traces = [done[example.id] for example in examples]
                metrics: dict[str, Any] = dict(summarise(traces, target_language, target_unit, arrival, at_limit))
                folder.finish(metrics, [example.id for example in examples])
                _conclude(guarded, folder, traces, metrics, target_language, target_unit)
                log.debug("finished: %s", metrics)
            except KeyboardInterrupt:
                stored = len(folder.traces())  # not of `done`, to which the last may not have been added yet
                log.info(
                    "interrupted: %d of %d sentences are stored in %s; the same command goes on from there",
                    *(stored, len(examples), folder.path),
                )
                raise
            except Exception:
                log.debug("the run failed", exc_info=True)  # whole in run.log, one line on the screen
                raise
    print(report(folder, metrics))
    return metrics


def report(folder: RunFolder, metrics: Mapping[str, Any]) -> str:
    """The results of a run, to be read by people."""
    lines = {
        "quality": {"bleu": "BLEU {:.2f}", "chrf": "chrF {:.2f}", "length_ratio": "length ratio {:.3f}"},
        "latency": {"al": "AL {:.2f}", "laal": "LAAL {:.2f}", "ap": "AP {:.3f}", "dal": "DAL {:.2f}"},
        "cost": {
            "seconds_per_sentence": "{:.3f} s per sentence",
            "target_tokens_per_second": "{:.1f} target tokens/s",
            "forward_passes_per_target_token": "{:.2f} forward passes per target token",
        },
    }
    figures = {
        name: "   ".join(text.format(metrics[key]) for key, text in formats.items() if metrics.get(key) is not None)
        for name, formats in lines.items()
    }
    sentences = f"{metrics.get('sentences', '?')} sentences"
    if metrics.get("sentences_without_output"):
        sentences += f", {metrics['sentences_without_output']} of them without output"
    body = [f"  {name:<9}{text}" for name, text in figures.items() if text]
    return "\n".join([f"{folder.path}: {sentences}", *body])


def _other_code(folder: RunFolder) -> str:
    """Words for a run that was begun with other code than this; none where one of the two is not known."""
    try:
        then, now = folder.environment(), code()
    except ValueError:  # a damaged env.json costs no result
        return ""
    if then.get("commit") is None or now["commit"] is None:
        return ""
    was, this = (f"{of['commit'][:10]}{' with changes' * bool(of.get('dirty'))}" for of in (then, now))
    return "" if was == this else f" with other code ({was}; now it is {this})"


def _drive(
    traces: Iterator[Trace],
    folder: RunFolder,
    done: dict[str, Trace],
    total: int,
    running: "_Running",
    tracker: Guarded,
) -> None:
    """Store each trace as it comes, adding it to ``done``, with a progress bar of running scores."""
    from tqdm import tqdm

    patience = 0.1 if sys.stderr.isatty() else 30.0  # seconds between two pictures of the bar; few lines in a log file
    with tqdm(total=total, initial=len(done), unit="sentence", mininterval=patience, dynamic_ncols=True) as bar:
        for trace in traces:
            folder.append(trace)
            done[trace.id] = trace
            running.add(trace)
            figures = running.figures()
            bar.set_postfix({key.upper(): f"{value:.2f}" for key, value in figures.items()}, refresh=False)
            bar.update()
            tracker.log({f"running/{key}": value for key, value in figures.items()}, step=len(done))


class _Running:
    """BLEU and AL of the sentences so far."""

    def __init__(self, target_language: str, target_unit: Unit, traces: Iterable[Trace] = ()):
        self._bleu, self._unit = RunningBLEU(target_language), target_unit
        self._lagging, self._sentences = 0.0, 0
        for trace in traces:
            self.add(trace)

    def add(self, trace: Trace) -> None:
        self._bleu.add(trace.prediction, trace.reference)
        lagging = latency(trace.delays, trace.source_units, trace.reference, self._unit)["al"]
        if lagging == lagging:  # nan: a sentence without output
            self._lagging += lagging
            self._sentences += 1

    def figures(self) -> dict[str, float]:
        figures = {"bleu": self._bleu.score}
        return figures | {"al": self._lagging / self._sentences} if self._sentences else figures


def _conclude(
    tracker: Guarded,
    folder: RunFolder,
    traces: Sequence[Trace],
    metrics: Mapping[str, Any],
    target_language: str,
    target_unit: Unit,
) -> None:
    """Tell a tracker what came out: every sentence, the metrics, and where and by what it was made."""
    undefined = [key for key, value in metrics.items() if value is None]  # W&B drops what is None
    tracker.summary({**metrics, "undefined": undefined, "folder": str(folder.path), "env": folder.environment()})
    tracker.table("sentence_table", *_sentence_table(traces, target_language, target_unit))


def _sentence_table(
    traces: Sequence[Trace], target_language: str, target_unit: Unit
) -> tuple[list[str], list[list[Any]]]:
    """One row a sentence, for trackers."""
    columns = ["id", "source", "reference", "prediction", "delays", "actions", "path", "bleu", "al"]
    rows: list[list[Any]] = []
    for trace in traces:
        bleu = sentence_bleu(trace.prediction, trace.reference, target_language)
        lagging = latency(trace.delays, trace.source_units, trace.reference, target_unit)["al"]
        delays = " ".join(map(str, trace.delays))
        actions = "".join(LETTERS.get(event.kind, "") for event in trace.events)
        path = Picture(partial(_draw, trace))
        texts = (trace.id, trace.source, trace.reference, trace.prediction, delays, actions)
        rows.append([*texts, path, bleu, lagging])
    return columns, rows


def _draw(trace: Trace) -> bytes:
    from streamllm.plots import path_png  # Matplotlib takes most of a second to import

    return path_png(trace)


def _check_examples(examples: Sequence[Example]) -> None:
    if not examples:
        raise ValueError("the data set has no examples: look at dataset.limit and at its files")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise ValueError(f"the data set has two examples with the id {example.id!r}; each needs its own")
        seen.add(example.id)


def _check_done(folder: RunFolder, traces: Sequence[Trace], examples: Sequence[Example]) -> dict[str, Trace]:
    """Stored traces by id, once they are known to be of these examples: files may have changed since."""
    by_id = {example.id: example for example in examples}
    for trace in traces:
        example = by_id.get(trace.id)
        if example is None or (example.source, example.reference) != (trace.source, trace.reference):
            now = "not there" if example is None else repr(example.source)
            raise ValueError(
                f"{folder.path} was begun on other data: its sentence {trace.id!r} ({trace.source!r}) is {now} now. "
                "Delete the folder, or restore the data"
            )
    return {trace.id: trace for trace in traces}


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Everything that streamllm logs goes to ``path``, and from INFO on to the screen, above the bar."""
    logger = logging.getLogger("streamllm")
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [file]
    if not logging.getLogger().handlers:  # else whoever has set up logging shows them
        screen = _AboveTheBar(logging.INFO)
        handlers.append(screen)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)
