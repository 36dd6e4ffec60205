"""Run folders: addressed by their configuration, written sentence by sentence, resumable after any kill.

Invariant: every byte of ``predictions.jsonl`` follows from the configuration and the batch size, which decides a
near-tie here and there. What the clock said is kept beside it in ``timings.jsonl``, so an interrupted run ends with the
same bytes as an uninterrupted one.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Self

from streamllm.records import Event, Trace

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

LAG_BOUNDS = ("min_lag", "max_lag")  # keys at the top that bound any policy

# Top-level keys that say where and how a run is made and recorded, not what comes out of it.
NOT_IN_DIGEST = frozenset({"hydra", "tracker", "output", "experiment", "name", "debug", "objective", "batch_size"})

CONFIG, ENVIRONMENT, METRICS = "run.yaml", "env.json", "metrics.json"
PREDICTIONS, TIMINGS, INSTANCES, LOG = "predictions.jsonl", "timings.jsonl", "instances.log", "run.log"
LOCK = ".lock"


class RunError(ValueError):
    """A run folder that cannot be read or continued; the message says why and what to do."""


class RunInUse(RuntimeError):
    """Another process is writing this run folder."""


def digest(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name the resolved ``config``, whatever the order of its keys.

    Keys of `NOT_IN_DIGEST` do not count, and 0 is the same as 0.0.
    """
    counted = {key: value for key, value in config.items() if key not in NOT_IN_DIGEST}
    text = json.dumps(_plain(counted), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- one trace, two lines


def to_prediction(trace: Trace) -> dict[str, Any]:
    """The line of a trace in ``predictions.jsonl``: all of it but the times.

    ``elapsed`` is all zero, which is SimulEval's convention for text input.
    """
    return {
        "id": trace.id,
        "source": trace.source,
        "reference": trace.reference,
        "prediction": trace.prediction,
        "delays": list(trace.delays),
        "elapsed": [0] * len(trace.elapsed),
        "units": list(trace.units),
        "source_units": trace.source_units,
        "events": [{"kind": event.kind, "text": event.text} for event in trace.events],
        "stats": {key: value for key, value in trace.stats.items() if not _is_time(key)},
    }


def to_timing(trace: Trace) -> dict[str, Any]:
    """The line of a trace in ``timings.jsonl``: seconds since the start of the sentence, and the stats whose
    names end in "seconds"."""
    return {
        "id": trace.id,
        "elapsed": list(trace.elapsed),
        "events": [event.seconds for event in trace.events],
        "stats": {key: value for key, value in trace.stats.items() if _is_time(key)},
    }


def from_lines(prediction: Mapping[str, Any], timing: Mapping[str, Any] | None) -> Trace:
    """The trace of `to_prediction` and `to_timing`; times are zero where ``timing`` is None."""
    events = prediction["events"]
    seconds = timing["events"] if timing else [0.0] * len(events)
    elapsed = timing["elapsed"] if timing else [0.0] * len(prediction["elapsed"])
    return Trace(
        id=prediction["id"],
        source=prediction["source"],
        reference=prediction["reference"],
        units=tuple(prediction["units"]),
        delays=tuple(prediction["delays"]),
        elapsed=tuple(elapsed),
        events=tuple(
            Event(event["kind"], event["text"], second) for event, second in zip(events, seconds, strict=True)
        ),
        source_units=prediction["source_units"],
        prediction=prediction["prediction"],
        stats=prediction["stats"] | (timing["stats"] if timing else {}),
    )


def to_instance(index: int, trace: Trace) -> dict[str, Any]:
    """The row of SimulEval 1.1.4's ``instances.log``; ``index`` is the sentence's place in the data set."""
    return {
        "index": index,
        "prediction": trace.prediction,
        "delays": list(trace.delays),
        "elapsed": [0] * len(trace.delays),
        "prediction_length": len(trace.delays),
        "reference": trace.reference,
        "source": trace.source,
        "source_length": trace.source_units,
    }


def _is_time(key: str) -> bool:
    return key == "seconds" or key.endswith("_seconds")


# --- the folder


class RunFolder:
    """The folder of one run. Reading needs nothing; writing happens inside ``with folder:``, which holds it
    against other processes, and after `begin`.

    Raises:
        RunInUse: on entering, when another process has it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._lock: IO[bytes] | None = None
        self._predictions: IO[bytes] | None = None
        self._timings: IO[bytes] | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str, root: str | os.PathLike[str] = "outputs") -> Self:
        """The folder ``root/<name>-<digest of config>``; nothing is created.

        Raises:
            RunError: ``name`` is not fit for a folder name.
        """
        if not re.fullmatch(r"[\w.+=-]+", name) or name.startswith("."):
            raise RunError(f"name is {name!r}; accepted are letters, digits and _ . + = - (not a dot first)")
        return cls(Path(root) / f"{name}-{digest(config)}")

    @property
    def digest(self) -> str:
        return self.path.name.rpartition("-")[2]

    @property
    def finished(self) -> bool:
        return (self.path / METRICS).exists()

    def metrics(self) -> dict[str, Any]:
        """The flat metrics of a finished run.

        Raises:
            RunError: the run has not finished, or the file is damaged.
        """
        if not self.finished:
            raise RunError(f"{self.path} has no {METRICS}: the run has not finished; start its command again")
        path = self.path / METRICS
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{path} is damaged ({error}): delete that file, and the same command finishes the run again"
            ) from error

    def environment(self) -> dict[str, Any]:
        """What the run was begun with (`streamllm.environment`); empty before that."""
        path = self.path / ENVIRONMENT
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found

    def traces(self) -> list[Trace]:
        """What has been translated so far, in the order of the file; a half-written last line is left out.

        Raises:
            RunError: a line before the last is damaged.
        """
        timings = {line["id"]: line for line in read_lines(self.path / TIMINGS, strict=False)}
        return [
            from_lines(line, _matching(line, timings.get(line["id"])))
            for line in read_lines(self.path / PREDICTIONS, strict=True)
        ]

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make the run folder {self.path} ({error.strerror})"
            raise type(error)(f"{what}: give output.root=FOLDER, where you may write") from error
        self._lock = _take_lock(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._timings, self._predictions):
            if file is not None:
                file.close()
        self._timings = self._predictions = None
        # Removed while still held: whoever waits for the name finds a new file (see _take_lock).
        (self.path / LOCK).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()  # nothing was written, e.g. because the model could not be loaded
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def begin(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Make the folder ready for `append`: configuration and environment are written if they are not
        there, and what a kill left of a last line is cut off."""
        import yaml

        self._check_held()
        if not (self.path / CONFIG).exists():
            write_atomically(self.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        if not (self.path / ENVIRONMENT).exists():
            write_atomically(self.path / ENVIRONMENT, json.dumps(environment, indent=2, ensure_ascii=False) + "\n")
        self._timings = open_for_append(self.path / TIMINGS)
        self._predictions = open_for_append(self.path / PREDICTIONS)

    def append(self, trace: Trace) -> None:
        """Store one trace; when this returns, it is on disk."""
        if self._timings is None or self._predictions is None:
            raise RuntimeError("call begin() before append()")
        # The times go first: a kill in between loses a time, never a trace's place in the file.
        self._timings.write(_line(to_timing(trace)))
        self._timings.flush()
        self._predictions.write(_line(to_prediction(trace)))
        self._predictions.flush()
        os.fsync(self._predictions.fileno())

    def finish(self, metrics: Mapping[str, Any], order: Sequence[str]) -> None:
        """Put the traces into ``order`` (ids in the order of the data set), write ``instances.log`` and, last,
        ``metrics.json``.

        Raises:
            RunError: the ids in the folder are not those of ``order``.
        """
        self._check_held()
        traces = self.traces()
        by_id = {trace.id: trace for trace in traces}
        if len(by_id) != len(traces) or by_id.keys() != set(order):
            count = len(order)
            raise RunError(f"{self.path / PREDICTIONS} does not hold the {count} examples of the data set once each")
        ordered = [by_id[name] for name in order]
        if [trace.id for trace in traces] != list(order):  # a batch may finish out of order
            write_atomically(self.path / PREDICTIONS, b"".join(_line(to_prediction(trace)) for trace in ordered))
        write_atomically(self.path / TIMINGS, b"".join(_line(to_timing(trace)) for trace in ordered))
        rows = (json.dumps(to_instance(index, trace)) for index, trace in enumerate(ordered))
        write_atomically(self.path / INSTANCES, "".join(row + "\n" for row in rows))
        write_atomically(self.path / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")

    def _check_held(self) -> None:
        if self._lock is None:
            raise RuntimeError("a run folder is written inside `with folder:` only")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content``, see `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` in the end: at any moment, readers see the old file or the whole
    new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _take_lock(folder: Path) -> IO[bytes]:
    path = folder / LOCK
    while True:
        try:
            file = path.open("a+b")
        except FileNotFoundError:  # its last holder has just removed the empty folder
            folder.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "unknown"
            file.close()
            raise RunInUse(
                f"{folder} is being written by another process (id {holder}): wait for it, or stop it and run again"
            ) from error
        try:
            same = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            same = False
        if same:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
            return file
        file.close()  # the holder released and removed it between open and flock


def open_for_append(path: Path) -> IO[bytes]:
    """Open a file of lines, cutting off a last line without a line end."""
    file = path.open("a+b")
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)
    return file


def _line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def read_lines(path: Path, strict: bool) -> Iterable[dict[str, Any]]:
    """The JSON objects of a file of lines, each with an ``id``; what follows the last line end is left out.

    Raises:
        RunError: with ``strict``, a line is damaged; else it is left out.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            yield _with_id(json.loads(line))
        except ValueError as error:
            if strict:
                raise RunError(
                    f"{path}, line {number} is damaged ({error}): remove that line, and the same command "
                    "translates its sentence again"
                ) from error


def _with_id(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or "id" not in row:
        raise ValueError("it has no id")
    return row


def _matching(prediction: Mapping[str, Any], timing: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """``timing`` if it is of this very translation: hand-edited files may disagree in length."""
    if timing is None or len(timing["events"]) != len(prediction["events"]):
        return None
    return timing if len(timing["elapsed"]) == len(prediction["elapsed"]) else None


# --- reading runs back


def load_traces(run: str | os.PathLike[str]) -> list[Trace]:
    """The traces of a run folder, finished or not, times included.

    Raises:
        FileNotFoundError: there is no run in this folder.
    """
    folder = RunFolder(run)
    if not (folder.path / PREDICTIONS).exists():
        raise FileNotFoundError(f"{run} has no {PREDICTIONS}: give the folder of one run (outputs/<name>-<digest>)")
    return folder.traces()


def load_delays(run: str | os.PathLike[str]) -> dict[str, list[int]]:
    """After how many units each unit of each sentence of a run was written, to replay it (`policies.Oracle`).

    What was written after the end of the source counts one more than the source has: that end was read, too.

    Raises: as `load_traces`.
    """
    return {trace.id: _delays(trace) for trace in load_traces(run)}


def _delays(trace: Trace) -> list[int]:
    written = 0
    for event in trace.events:
        if event.kind == "end":
            break
        written += event.kind == "write"
    return [*trace.delays[:written], *[trace.source_units + 1] * (len(trace.delays) - written)]


def load_runs(root: str | os.PathLike[str] = "outputs") -> "pandas.DataFrame":
    """One row for each finished run in ``root``: ``folder``, ``name`` and ``digest``, its configuration with
    dots between keys (``policy.k``), and its metrics. A run whose metrics are damaged is left out, with a warning.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
    """
    import pandas

    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give the folder that holds the runs (output.root)")
    rows = []
    for path in sorted(Path(root).iterdir()):
        folder = RunFolder(path)
        if path.name.startswith(".") or not folder.finished:
            continue
        try:
            metrics = folder.metrics()
        except RunError as error:
            log.warning("left out: %s", error)
            continue
        config = read_config(path)
        name, _, digits = path.name.rpartition("-")
        rows.append({"folder": str(path), **flatten(config), **metrics, "name": name, "digest": digits})
    return pandas.DataFrame(rows)


def read_config(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The resolved configuration of a run folder."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times faster, if it was built
    with (Path(run) / CONFIG).open("rb") as file:
        config: dict[str, Any] = yaml.load(file, loader)
    return config


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
