"""Run folders: addressed by their configuration, written sentence by sentence, resumable after any kill.

Invariant: every byte of ``predictions.jsonl`` follows from the configuration and the batch size (which decides a
near-tie here and there), so an interrupted run ends with the same bytes as an uninterrupted one. Times are kept beside
it, in ``timings.jsonl``.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from streamllm.files import (
    Held,
    RunError,
    count_lines,
    holding,
    open_for_append,
    replacing,
    sync,
    write_atomically,
)
from streamllm.records import Trace
from streamllm.runs.lines import PredictionLine, json_line, to_instance, to_prediction, to_timing
from streamllm.runs.naming import check_name, digest
from streamllm.runs.stored import (
    CONFIG,
    CONTENTS,
    ENVIRONMENT,
    INSTANCES,
    LOG,
    METRICS,
    PREDICTIONS,
    TIMINGS,
    StoredRun,
)

if TYPE_CHECKING:
    from streamllm.runs.traces import StoredTraces

__all__ = [  # with the names of its files
    "CONFIG",
    "CONTENTS",
    "ENVIRONMENT",
    "INSTANCES",
    "LOG",
    "METRICS",
    "PREDICTIONS",
    "TIMINGS",
    "RunFolder",
    "RunInUse",
]

LOCK = ".lock"

SYNCED = 0.1
"""Seconds between two times that what is stored is forced onto the disk: of fast runs a power cut takes so much. After
each of hundreds of sentences a second it would cost a tenth of the run."""


class RunInUse(RuntimeError):
    """Another process is writing this run folder."""


class RunFolder(StoredRun):
    """The folder of one run, read by anybody. Writing happens inside ``with folder:``, which holds it against other
    processes, and after `begin`.

    Raises:
        RunInUse: on entering, when another process has it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(path)
        self._held: ExitStack | None = None  # the lock, and the files that are open
        self._predictions: BinaryIO | None = None
        self._timings: BinaryIO | None = None
        self._known: StoredTraces | None = None  # while it is held
        self._sizes = [0, 0]  # bytes of both files of lines
        self._synced = -math.inf  # when that was done
        self._resumed = False  # there were lines before this process wrote any

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str, root: str | os.PathLike[str] = "outputs") -> Self:
        """The folder ``root/<name>-<digest of config>``; nothing is created.

        Raises:
            RunError: ``name`` is not fit for a folder name.
        """
        check_name(name)
        return cls(Path(root) / f"{name}-{digest(config)}")

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make the run folder {self.path} ({error.strerror})"
            raise type(error)(f"{what}: give output.root=FOLDER, where you may write") from error
        with ExitStack() as held:
            try:
                held.enter_context(holding(self.path / LOCK))
            except Held as error:
                raise RunInUse(
                    f"{self.path} is being written by another process (id {error.holder}): wait for it, or stop it and "
                    "run again"
                ) from error
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, self._held = self._held, None
        self._timings = self._predictions = self._known = None
        if held is None:
            return
        try:
            held.close()  # all of it, the lock last, whatever fails
        except OSError:  # such as a file that cannot write its rest either
            if error is None:
                raise

    def set_aside(self) -> Path | None:
        """Give the folder another name (`name_aside`), so that the run begins anew.

        Returns: where it is now; None where there is no run.
        Raises: RunInUse: another process is writing it.
        """
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return None
        with self:
            aside = self.path.rename(self.path.with_name(self.name_aside))
        (aside / LOCK).unlink(missing_ok=True)
        return aside

    def begin(
        self,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        contents: Mapping[str, Mapping[str, str]] | None = None,
        traces: bool = True,
    ) -> None:
        """Write configuration, environment and contents if they are not there, and make the folder ready for `append`:
        a last line that a kill cut short is removed.

        Args:
            contents: what the run is made from (`streamllm.contents`), kept if this is the run's beginning.
            traces: False for a run without traces, such as a training: then there is no file for them.

        Raises:
            RunError: a line before the last is damaged.
        """
        import yaml

        held = self._check_held()
        if contents is not None and not self.begun:
            self._write_contents(contents)
        if not self.begun:
            write_atomically(self.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        if not (self.path / ENVIRONMENT).exists():
            write_atomically(self.path / ENVIRONMENT, json.dumps(environment, indent=2, ensure_ascii=False) + "\n")
        if traces:
            self._timings = held.enter_context(open_for_append(self.path / TIMINGS))
            self._predictions = held.enter_context(open_for_append(self.path / PREDICTIONS))
            held.callback(sync, self._predictions, self.path / PREDICTIONS)
            self._sizes = [(self.path / name).stat().st_size for name in (PREDICTIONS, TIMINGS)]
            self._resumed = any(self._sizes)
            self.stored_traces()

    def stored_traces(self, look: Callable[[PredictionLine], None] = lambda line: None) -> "StoredTraces":
        """As `StoredRun.stored_traces`. While the folder is held, lines are looked up once, and what is appended is
        among them."""
        if self._held is None:
            return super().stored_traces(look)
        if self._known is None:
            self._known = super().stored_traces(look)
        return self._known

    def add_contents(self, contents: Mapping[str, Mapping[str, str]], anew: bool = False) -> None:
        """Record what the run is made from beyond what `begin` knew. What is recorded already stays, unless it is made
        ``anew``; a run that began without a record gets none."""
        self._check_held()
        known = self.contents()
        if known is None:
            return
        every = {**known, **contents} if anew else {**contents, **known}
        if every != known:
            self._write_contents(every)

    def _write_contents(self, contents: Mapping[str, Mapping[str, str]]) -> None:
        write_atomically(self.path / CONTENTS, json.dumps(contents, indent=2, ensure_ascii=False) + "\n")

    def append(self, trace: Trace) -> None:
        """Store one trace; when this returns, it outlives the process, and the machine some `SYNCED` seconds later."""
        if self._timings is None or self._predictions is None:
            raise RuntimeError("call begin() before append()")
        # The times go first: a kill in between loses a time, never a trace's place in the file.
        times, line = json_line(to_timing(trace)), json_line(to_prediction(trace))
        self._timings.write(times)
        self._timings.flush()
        self._predictions.write(line)
        self._predictions.flush()
        if time.monotonic() - self._synced >= SYNCED:
            sync(self._predictions, self.path / PREDICTIONS)
            self._synced = time.monotonic()
        self.stored_traces().append(trace.id, *self._sizes)
        self._sizes = [self._sizes[0] + len(line), self._sizes[1] + len(times)]

    def count(self) -> int:
        """How many sentences are stored, by their lines."""
        return count_lines(self.path / PREDICTIONS)

    def finish(self, metrics: Mapping[str, Any], order: Sequence[str]) -> "StoredTraces":
        """Bring the files into the order of the data set, write ``instances.log`` and, last, ``metrics.json``.

        Args:
            order: the ids of the whole data set in its order.

        Returns: the traces in that order.
        Raises:
            RunError: the ids in the folder are not those, each once.
        """
        self._check_held()
        if self._predictions is not None:
            sync(self._predictions, self.path / PREDICTIONS)  # before there are metrics of it
        stored = self.stored_traces()
        if len(set(order)) != len(order) or sorted(stored.ids) != sorted(order):
            count = len(order)
            raise RunError(f"{self.path / PREDICTIONS} does not hold the {count} examples of the data set once each")
        in_order = stored.ids == list(order)  # a batch may finish out of order
        whole = in_order and not self._resumed  # else a kill may have left times without a prediction, or the reverse
        anew = {INSTANCES} | (set() if in_order else {PREDICTIONS}) | (set() if whole else {TIMINGS})
        with ExitStack() as replaced:  # the first that is opened is the last that is replaced
            files = {
                name: replaced.enter_context(replacing(self.path / name))
                for name in (INSTANCES, TIMINGS, PREDICTIONS)
                if name in anew
            }
            sizes = [0, 0]
            known = stored.ordered(())  # their lines begin elsewhere now
            for index, (line, times, prediction, _) in enumerate(stored.ordered(order).lines()):
                for name, content in ((PREDICTIONS, line), (TIMINGS, times)):
                    if name in files:
                        files[name].write(content)
                files[INSTANCES].write((json.dumps(to_instance(index, prediction)) + "\n").encode())
                known.append(prediction.id, *sizes)
                sizes = [sizes[0] + len(line), sizes[1] + len(times)]
        self._known = known
        write_atomically(self.path / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
        return known

    def _check_held(self) -> ExitStack:
        if self._held is None:
            raise RuntimeError("a run folder is written inside `with folder:` only")
        return self._held
