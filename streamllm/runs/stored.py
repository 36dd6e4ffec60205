"""Reading a run folder: its digest, its metrics, what began it, its traces. It needs no lock: at any moment a reader
sees whole lines and whole files."""

import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamllm.checked import fit, parse, read_json, read_json_lines, shown
from streamllm.contents import listed
from streamllm.files import RunError, read_bytes
from streamllm.records import Trace
from streamllm.runs.lines import PredictionLine, TimingLine, from_lines, matching

if TYPE_CHECKING:
    from streamllm.runs.traces import StoredTraces

log = logging.getLogger(__name__)

CONFIG, ENVIRONMENT, CONTENTS, METRICS = "run.yaml", "env.json", "contents.json", "metrics.json"
PREDICTIONS, TIMINGS, INSTANCES, LOG = "predictions.jsonl", "timings.jsonl", "instances.log", "run.log"

SIGNATURE = "_signature"  # how keys of metrics end that are texts

BEFORE = ".before-"  # between the name of a run and a number, once the run was made anew


class StoredRun:
    """What the folder of a run holds, finished or not."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    @property
    def digest(self) -> str:
        return self.path.name.rpartition("-")[2]

    @property
    def finished(self) -> bool:
        return (self.path / METRICS).exists()

    @property
    def was_set_aside(self) -> bool:
        """Whether another run has taken its place (`RunFolder.set_aside`)."""
        return re.search(rf"{re.escape(BEFORE)}\d+$", self.path.name) is not None

    @property
    def name_aside(self) -> str:
        """The name that the folder would get now: ``NAME.before-1``, or the next number that is free."""
        names = (f"{self.path.name}{BEFORE}{number}" for number in itertools.count(1))
        return next(name for name in names if not self.path.with_name(name).exists())

    @property
    def begun(self) -> bool:
        return (self.path / CONFIG).exists()

    def contents(self) -> dict[str, dict[str, str]] | None:
        """What the run was made from (`streamllm.contents`); None where that was not recorded.

        Raises:
            RunError: the file is damaged.
        """
        otherwise = (
            "nobody knows what the run was made from, so give rerun=true, or delete that file if you know that nothing "
            "has changed"
        )
        try:
            return read_json(self.path / CONTENTS, dict[str, dict[str, str]], otherwise)
        except FileNotFoundError:
            return None

    def metrics(self) -> dict[str, Any]:
        """The flat metrics of a finished run.

        Raises:
            RunError: the run has not finished, or the file is damaged.
        """
        if not self.finished:
            raise RunError(f"{self.path} has no {METRICS}: the run has not finished; start its command again")
        otherwise = "delete that file, and the same command finishes the run again"
        found = read_json(self.path / METRICS, dict[str, Any], otherwise)
        try:
            check_metrics(found)
        except ValueError as error:
            raise RunError(f"{self.path / METRICS} is damaged ({error}): {otherwise}") from error
        return found

    def environment(self) -> dict[str, Any]:
        """What the run was begun with (`streamllm.runs.environment`); empty before that, and where the file is damaged,
        which is said once."""
        return dict(self._environment)

    @cached_property
    def _environment(self) -> dict[str, Any]:
        path = self.path / ENVIRONMENT
        try:
            content = parse(read_bytes(path))
            fit(content, Environment)
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            log.warning("%s is damaged (%s), so nobody knows with what code the run was begun", path, error)
            return {}
        found: dict[str, Any] = content
        return found

    def lines(self) -> Iterator[PredictionLine]:
        """The lines of ``predictions.jsonl``, one after the other; a half-written last one is left out.

        Raises:
            RunError: another line is damaged, or two hold one sentence.
        """
        return (line for _, line in self._lines())

    def _lines(self) -> Iterator[tuple[int, PredictionLine]]:
        """The lines, each with the byte where it begins."""
        from streamllm.runs.quick import quick_prediction  # msgspec is not waited for where no line is read

        path = self.path / PREDICTIONS
        again = f"remove that line (and {METRICS}, if it is there), and the same command translates it again"

        def damaged(number: int, error: ValueError) -> None:
            raise RunError(f"{path}, line {number} is damaged ({error}): {again}") from error

        numbers: dict[str, int] = {}
        for number, begin, line in read_json_lines(path, PredictionLine, damaged, quick_prediction):
            if line.id in numbers:
                raise RunError(
                    f"{path}, lines {numbers[line.id]} and {number} both hold the sentence {shown(line.id)}: remove "
                    "one of them, and the same command goes on"
                )
            numbers[line.id] = number
            yield begin, line

    def traces(self) -> list[Trace]:
        """What has been translated so far, in the order of the file. Damaged times are zero, which is said.

        Raises:
            RunError: as `lines`.
        """
        lines = [line for _, line in self._lines()]
        times = {line.id: line for _, line in self._time_lines()}
        return [from_lines(line, matching(line, times.get(line.id))) for line in lines]

    def stored_traces(self, look: Callable[[PredictionLine], None] = lambda line: None) -> "StoredTraces":
        """As `traces`, but each is read when it is asked for; all lines are checked now.

        Args:
            look: is shown every line.
        """
        from streamllm.runs.traces import NOWHERE, StoredTraces

        found = StoredTraces(self.path / PREDICTIONS, self.path / TIMINGS)
        lines: list[int] = []
        ids: list[str] = []
        for begin, line in self._lines():
            look(line)
            lines.append(begin)
            ids.append(line.id)
        times = {line.id: begin for begin, line in self._time_lines()}
        for id, begin in zip(ids, lines, strict=True):
            found.append(id, begin, times.get(id, NOWHERE))
        return found

    def _time_lines(self) -> Iterator[tuple[int, TimingLine]]:
        """The times of the sentences, each with the byte where its line begins. Of two for one sentence, the last
        counts: a kill left a time without its sentence."""
        from streamllm.runs.quick import quick_timing

        path = self.path / TIMINGS
        wrong: list[str] = []

        def damaged(number: int, why: ValueError) -> None:
            wrong.append(f"line {number}: {why}")

        try:
            for _, begin, line in read_json_lines(path, TimingLine, damaged, quick_timing):
                yield begin, line
        except OSError as error:
            wrong.append(str(error))
        if wrong:
            log.warning(
                "%s is damaged (%s), so the times of %d sentences are lost: they count as 0; nothing else is wrong",
                *(path, listed(wrong, 1), len(wrong)),
            )


# --- what the files hold


@dataclass(frozen=True)
class Environment:
    """What is read of ``env.json``; it holds more."""

    commit: str | None = None
    dirty: bool | None = None
    command: str | None = None
    device: str | None = None
    device_name: str | None = None


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Raises: ValueError: these are no metrics: a number for each key, null where one is not defined, and texts for the
    signatures."""
    if not metrics:
        raise ValueError("it holds no metrics")
    for key, value in metrics.items():
        if key.endswith(SIGNATURE):
            if not isinstance(value, str | None):
                raise ValueError(f"{key} is {shown(value)}; it should be text")
        elif value is not None and not (type(value) in (int, float) and abs(value) <= sys.float_info.max):
            raise ValueError(f"{key} is {shown(value)}; it should be a finite number or null")


def computed_otherwise(found: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """What the signatures of a score differ in, such as "nrefs:2" and "nrefs:1", in the order of the runs' metrics;
    empty if nothing, but for versions and names of files (what is before an @ and a digest). Runs without the score, or
    without a signature of it, do not count."""
    signed = [str(one[f"{key}{SIGNATURE}"]).split("|") for one in found if one.get(f"{key}{SIGNATURE}")]
    parts = [[part for part in parts if not part.startswith("version:")] for parts in signed]
    contents = [{_content(part) for part in some} for some in parts]
    own = ["|".join(part for part in some if any(_content(part) not in other for other in contents)) for some in parts]
    return list(dict.fromkeys(own)) if any(own) else []


def _content(part: str) -> str:
    """A part of a signature without the name of a file, of which it has a digest: "tokenizer:spm.model@0a1b2c3d"."""
    return re.sub(r":.*@(?=[0-9a-f]{8}$)", ":@", part)
