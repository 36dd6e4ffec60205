"""Reading a run folder: its digest, its metrics, what began it, its traces. It needs no lock: at any moment a reader
sees whole lines and whole files."""

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from streamllm.files import RunError, read_json_lines, read_text
from streamllm.records import Trace
from streamllm.runs.lines import from_lines, matching

CONFIG, ENVIRONMENT, CONTENTS, METRICS = "run.yaml", "env.json", "contents.json", "metrics.json"
PREDICTIONS, TIMINGS, INSTANCES, LOG = "predictions.jsonl", "timings.jsonl", "instances.log", "run.log"


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
        path = self.path / CONTENTS
        try:
            found = json.loads(read_text(path))
            return {part: dict(names) for part, names in found.items()}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is damaged ({error}), so nobody knows what the run was made from: give rerun=true, or delete "
                "that file if you know that nothing has changed"
            ) from error

    def metrics(self) -> dict[str, Any]:
        """The flat metrics of a finished run.

        Raises:
            RunError: the run has not finished, or the file is damaged.
        """
        if not self.finished:
            raise RunError(f"{self.path} has no {METRICS}: the run has not finished; start its command again")
        path = self.path / METRICS
        try:
            return dict(json.loads(read_text(path)))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{path} is damaged ({error}): delete that file, and the same command finishes the run again"
            ) from error

    def environment(self) -> dict[str, Any]:
        """What the run was begun with (`streamllm.runs.environment`); empty before that."""
        path = self.path / ENVIRONMENT
        found: dict[str, Any] = json.loads(read_text(path)) if path.exists() else {}
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
