"""What makes many runs of run.py one sweep: a model that stays loaded, and a table at the end.

Invariant: a sweep leaves in the run folders what single runs leave there, and nothing else.
"""

import atexit
import json
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from entry import resolved
from streamllm.runs import RunFolder, write_atomically

# --- one model in memory


class OneModel:
    """The model that was loaded last, for the next run of this process that wants the same."""

    def __init__(self) -> None:
        self._wanted: Any = None
        self._loaded: Any = None

    def load(self, model: Any, *how: Any) -> Any:
        """``model.load(*how)``, or what it gave when it was last called with equal arguments."""
        if self._loaded is None or self._wanted != (model, how):
            self._wanted = self._loaded = None  # let go first: there is never a second model in memory
            self._loaded = model.load(*how)
            self._wanted = (model, how)
        return self._loaded


_ONE = OneModel()


@dataclass(frozen=True)
class LoadedOnce:
    """A model configuration for a process that runs many points: where the next one wants the same model, prompt,
    units and paradigm, the model in memory is taken. Its files are not looked at again."""

    model: Any

    def load(self, *how: Any) -> Any:
        return _ONE.load(self.model, *how)


# --- the table


@dataclass(frozen=True)
class Point:
    """One point of a sweep, as its process left it: metrics of a finished run, else the error in one line."""

    number: int
    policy: str
    overrides: Mapping[str, str]
    folder: str | None = None
    metrics: Mapping[str, float | None] | None = None
    error: str | None = None


SCORES = ("bleu", "laal", "al")


class SweepTable(Callback):
    """Prints one table when a sweep ends, however it ends. Single runs are left alone.

    The points may run in other processes and on other machines, and no launcher hands their results to callbacks: so
    each leaves a note in the sweep's folder, and the process that was started by hand reads and removes them.

    Args:
        sweep: names the folder of the notes; made when the sweep starts, and handed to its points as an override.
    """

    def __init__(self, sweep: str | None = None) -> None:
        self._sweep, self._ended = sweep, False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._sweep = f"points-{secrets.token_hex(4)}"
        with read_write(config), open_dict(config):
            config.hydra.overrides.hydra.append(f"++hydra.callbacks.table.sweep={self._sweep}")
        # At exit, and not on_multirun_end: that is not called when a point has failed, nor after Ctrl-C.
        atexit.register(self._show, self._notes(config))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self._ended = True

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if self._sweep is None:
            return
        point = _point(config, job_return)
        path = self._notes(config) / f"{point.number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(point)))

    def _notes(self, config: DictConfig) -> Path:
        return Path(config.hydra.sweep.dir) / str(self._sweep)

    def _show(self, notes: Path) -> None:
        points = [Point(**json.loads(path.read_text(encoding="utf-8"))) for path in notes.glob("*.json")]
        shutil.rmtree(notes, ignore_errors=True)
        if not points:
            return
        print(table(sorted(points, key=lambda point: point.number)))
        if not self._ended:
            print("the same command runs what is missing, and skips what is there")
        sys.stdout.flush()


def _point(config: DictConfig, job_return: JobReturn) -> Point:
    overrides = [str(item).lstrip("+~").partition("=") for item in config.hydra.overrides.task]
    known = {
        "number": int(config.hydra.job.num),
        "policy": str(config.hydra.runtime.choices.get("policy")),
        "overrides": {key: value for key, _, value in overrides},
    }
    if job_return.status != JobStatus.COMPLETED:
        return Point(**known, error=_one_line(job_return._return_value))  # return_value would raise it
    assert job_return.cfg is not None
    values = resolved(job_return.cfg)
    folder = RunFolder.of(values, values["name"], values["output"]["root"])
    metrics = folder.metrics()
    return Point(**known, folder=str(folder.path), metrics={key: metrics.get(key) for key in SCORES})


def _one_line(error: Any) -> str:
    text = " ".join(str(error).split())
    # Those that run.py has put into words stand for themselves.
    return text if isinstance(error, CompactHydraException) else f"{type(error).__name__}: {text}"


def table(points: Sequence[Point]) -> str:
    """The points of a sweep under each other: policy, what differs between them, scores and folder."""
    keys = list(dict.fromkeys(key for point in points for key in point.overrides))
    swept = [key for key in keys if key != "policy" and len({point.overrides.get(key) for point in points}) > 1]
    rows = [["policy", *swept, *(score.upper() for score in SCORES), "folder"]]
    for point in points:
        scores = [_figure(point.metrics.get(score)) for score in SCORES] if point.metrics else ["-"] * len(SCORES)
        last = point.folder if point.error is None else f"failed: {point.error}"
        rows.append([point.policy, *(point.overrides.get(key, "") for key in swept), *scores, str(last)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if 1 <= column < len(widths) - 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    failed = sum(point.error is not None for point in points)
    head = f"sweep: {len(points) - failed} points" + (f" and {failed} that failed" if failed else "")
    return "\n".join([head, *lines])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
