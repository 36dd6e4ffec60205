"""What makes many runs of one command one sweep: a model that stays loaded, one group in W&B, and a table at the end.

Invariant: a sweep leaves in the run folders what single runs leave there, and nothing else.
"""

import atexit
import contextlib
import hashlib
import json
import os
import platform
import re
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
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from streamllm.cli import points
from streamllm.cli.errors import check_repeated, plain, resolved
from streamllm.files import write_atomically
from streamllm.metrics.scores import DOCUMENT_SCORES, SWEEP, described, own_score, shown_on
from streamllm.runs.folder import RunFolder
from streamllm.runs.scores import own_of

# --- the group

GROUP_LENGTH = 128  # characters; W&B takes no more


class SweepGroup(Callback):
    """Groups the points of a sweep in the tracker by the words of its command line, unless ``tracker.group`` is given.
    The same command gives the same group, so a sweep that goes on stays one."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        words = list(config.hydra.overrides.task)
        swept = any(word.startswith("tracker=") and "," in word for word in words)
        tracker = config.get("tracker")
        if swept or not isinstance(tracker, DictConfig) or tracker.get("group", "") is not None:
            return  # null is a tracker that has groups, and was given none
        with read_write(config), open_dict(config):
            config.hydra.overrides.task.append(f"tracker.group='{group_name(words)}'")


def group_name(words: Sequence[str]) -> str:
    """A sweep's command line as the name of a group, without what the tracker and the output are told, and without
    what Hydra's grammar would read something into."""
    told = [word for word in words if word.split("=")[0].split(".")[0].lstrip("+~") not in ("tracker", "output")]
    name = re.sub(r"[$'\\]", "", " ".join(told)) or "sweep"
    if len(name) <= GROUP_LENGTH:
        return name
    return f"{name[: GROUP_LENGTH - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


# --- the table


@dataclass(frozen=True)
class Point:
    """One point of a sweep, as its process left it: metrics of a finished run, and what its ``own`` ones are called, or
    else the error in one line. ``skipped`` is a run that had finished before the sweep came to it; one that was
    interrupted has so many sentences ``stored``."""

    number: int
    policy: str
    overrides: Mapping[str, str]
    folder: str | None = None
    metrics: Mapping[str, float | None] | None = None
    own: Sequence[Mapping[str, Any]] = ()
    error: str | None = None
    skipped: bool = False
    stored: int | None = None


class SweepTable(Callback):
    """Prints one table when a sweep ends, however it ends. Single runs are left alone.

    The points may run in other processes and on other machines, and no launcher hands their results to callbacks: so
    each that runs elsewhere leaves a note in the sweep's folder, and the process that was started by hand reads and
    removes them. Launchers send the callback along with each point, so what it learns at the start of the sweep is
    known there, too.
    """

    def __init__(self) -> None:
        self._sweep: str | None = None
        self._command: list[str] = []
        self._process: str | None = None
        self._made_here: list[Point] = []
        # Of the points that are being made, by their numbers: the folder, whether it had finished before, and what is
        # known of the point.
        self._begun: dict[int, tuple[RunFolder | None, bool, dict[str, Any]]] = {}
        self._ended = self._tells = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._sweep, self._command, self._process = f"points-{secrets.token_hex(4)}", sys.argv, _here()
        self._tells = points.take(config)
        with contextlib.suppress(OmegaConfBaseException):  # no folder for notes: Hydra needs one too, and says so
            # At exit, and not on_multirun_end: that is not called when a point has failed, nor after Ctrl-C.
            atexit.register(self._show, self._notes(config))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self._ended = True

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if self._sweep is None:
            return
        sys.argv = self._command  # env.json tells what was typed, and not how a launcher started this process
        if _here() != self._process:  # points run side by side
            os.environ.setdefault("STREAMLLM_THREADS", "1")
        folder, skips = None, False
        with contextlib.suppress(Exception):  # nothing is checked yet: the run itself says what is wrong
            folder = _folder(_plain_without_hydra(config))
            skips = folder.finished and not config.get("rerun")
        self._begun[int(config.hydra.job.num)] = folder, skips, _known(config)
        if self._tells and _here() == self._process and not skips:  # else its scores are its line
            print(f"#{config.hydra.job.num}: {' '.join(config.hydra.overrides.task)}", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if self._sweep is None:
            return
        folder, skips, _ = self._begun.pop(int(config.hydra.job.num), (None, False, {}))
        point = _point(config, job_return, skips, folder)
        if point.error is not None:
            job_return.__class__ = _Told
        if _here() == self._process:
            self._made_here.append(point)
            return
        path = self._notes(config) / f"{point.number}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(asdict(point)))
        except OSError:  # a full disk: the table lacks it, and the next sweep finds its run
            if point.error is not None:
                print(f"error: {point.error}", file=sys.stderr)

    def _notes(self, config: DictConfig) -> Path:
        return Path(config.hydra.sweep.dir) / str(self._sweep)

    def _show(self, notes: Path) -> None:
        elsewhere = [Point(**json.loads(path.read_text(encoding="utf-8"))) for path in notes.glob("*.json")]
        found = self._made_here + elsewhere + self._interrupted()
        shutil.rmtree(notes, ignore_errors=True)
        if not found:
            return
        print(table(sorted(found, key=lambda point: point.number)))
        if not self._ended:
            print("the same command runs what is missing, and skips what is there")
        sys.stdout.flush()

    def _interrupted(self) -> list[Point]:
        """The points of this process that have begun and not ended."""
        begun = [(known, folder) for folder, _, known in self._begun.values() if folder is not None]
        return [Point(**known, folder=str(folder.path), stored=folder.count()) for known, folder in begun]


class _Told(JobReturn):
    """Of a point whose error stands in the table: Hydra says it no second time."""

    @property
    def return_value(self) -> Any:
        raise self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _here() -> str:
    """This process, among those of all machines."""
    return f"{platform.node()}:{os.getpid()}"


def _plain_without_hydra(config: DictConfig) -> dict[str, Any]:
    """As `resolved`, of a configuration with Hydra's own keys, of which no copy is made."""
    values = {str(key): config[key] for key in config if key not in ("hydra", "rerun")}
    found = {key: plain(value) if OmegaConf.is_config(value) else value for key, value in values.items()}
    check_repeated(found)
    return found


def _folder(values: Mapping[str, Any]) -> RunFolder:
    return RunFolder.of(values, str(values["name"]), str(values["output"]["root"]))


def _point(config: DictConfig, job_return: JobReturn, skipped: bool, folder: RunFolder | None) -> Point:
    known = _known(config)
    if job_return.status != JobStatus.COMPLETED:
        return Point(**known, error=_one_line(job_return._return_value))  # return_value would raise it
    assert job_return.cfg is not None
    folder = folder or _folder(resolved(job_return.cfg))
    own, found = own_of(folder.path), folder.metrics()
    metrics = {score.key: found.get(score.key) for score in shown_on(SWEEP, own, documents=True)}
    return Point(
        **known, folder=str(folder.path), metrics=metrics, own=[described(score) for score in own], skipped=skipped
    )


def _known(config: DictConfig) -> dict[str, Any]:
    """What is known of a point before it is made."""
    overrides = [str(item).lstrip("+~").partition("=") for item in config.hydra.overrides.task]
    return {
        "number": int(config.hydra.job.num),
        "policy": str(config.hydra.runtime.choices.get("policy")),
        "overrides": {key: value for key, _, value in overrides},
    }


DOCUMENTS = {score.key for score in DOCUMENT_SCORES}


def _one_line(error: Any) -> str:
    text = " ".join(str(error).split())
    # Those that the command has put into words stand for themselves.
    return text if isinstance(error, CompactHydraException) else f"{type(error).__name__}: {text}"


def table(points: Sequence[Point]) -> str:
    """The points of a sweep under each other: policy, what differs between them, scores and folder."""
    keys = list(dict.fromkeys(key for point in points for key in point.overrides))
    swept = [key for key in keys if key != "policy" and len({point.overrides.get(key) for point in points}) > 1]
    own = {words["key"]: own_score(**words) for point in points for words in point.own}
    columns = shown_on(SWEEP, own.values(), documents=True)
    sentences = [score for score in columns if score.key not in DOCUMENTS]
    known = [score for score in columns if any((point.metrics or {}).get(score.key) is not None for point in points)]
    columns = sentences if all(score in sentences for score in known) else known  # lags of the one or the other
    rows = [["policy", *swept, *(score.label for score in columns), "folder"]]
    told: set[str] = set()
    for point in points:
        figures = [score.text((point.metrics or {}).get(score.key)) for score in columns]
        rows.append([point.policy, *(point.overrides.get(key, "") for key in swept), *figures, _outcome(point, told)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if 1 <= column < len(widths) - 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    failed = sum(point.error is not None for point in points)
    skipped = sum(point.skipped for point in points)
    stopped = sum(point.stored is not None for point in points)
    done = len(points) - failed - stopped
    head = f"sweep: {done} point{'' if done == 1 else 's'}" + (
        f", {skipped} of them finished before" if skipped else ""
    )
    head += f" and {failed} that failed" * bool(failed) + f" and {stopped} on the way" * bool(stopped)
    return "\n".join([head, *lines])


def _outcome(point: Point, told: set[str]) -> str:
    """Its folder, or its error, unless that has been ``told``."""
    if point.error is not None:
        if point.error in told:
            return "failed for the same reason"
        told.add(point.error)
        return f"failed: {point.error}"
    if point.stored is not None:
        return f"{point.folder} (interrupted: {point.stored} sentence{'s' * (point.stored != 1)} stored)"
    return f"{point.folder} (finished before)" if point.skipped else str(point.folder)
