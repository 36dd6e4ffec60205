"""Run folders: addressed by their configuration, written sentence by sentence, resumable after any kill.

Invariant: every byte of ``predictions.jsonl`` follows from the configuration and the batch size, which decides a
near-tie here and there. What the clock said is kept beside it in ``timings.jsonl``, so an interrupted run ends with the
same bytes as an uninterrupted one.
"""

import fcntl
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from streamllm.files import RunError, open_for_append, read_json_lines, write_atomically
from streamllm.records import Trace
from streamllm.runs.lines import from_lines, json_line, matching, to_instance, to_prediction, to_timing
from streamllm.runs.naming import digest

log = logging.getLogger(__name__)

CONFIG, ENVIRONMENT, METRICS = "run.yaml", "env.json", "metrics.json"
PREDICTIONS, TIMINGS, INSTANCES, LOG = "predictions.jsonl", "timings.jsonl", "instances.log", "run.log"
LOCK = ".lock"


class RunInUse(RuntimeError):
    """Another process is writing this run folder."""


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
        timings = {line["id"]: line for line in read_json_lines(self.path / TIMINGS, strict=False)}
        return [
            from_lines(line, matching(line, timings.get(line["id"])))
            for line in read_json_lines(self.path / PREDICTIONS, strict=True)
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
        self._timings.write(json_line(to_timing(trace)))
        self._timings.flush()
        self._predictions.write(json_line(to_prediction(trace)))
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
            write_atomically(self.path / PREDICTIONS, b"".join(json_line(to_prediction(trace)) for trace in ordered))
        write_atomically(self.path / TIMINGS, b"".join(json_line(to_timing(trace)) for trace in ordered))
        rows = (json.dumps(to_instance(index, trace)) for index, trace in enumerate(ordered))
        write_atomically(self.path / INSTANCES, "".join(row + "\n" for row in rows))
        write_atomically(self.path / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")

    def _check_held(self) -> None:
        if self._lock is None:
            raise RuntimeError("a run folder is written inside `with folder:` only")


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
