"""Scores by programs that cannot live in our environment: COMET, MetricX and others, as metrics that are asked for.

A program is called with the names of two files. It reads JSON lines with ``id``, ``src``, ``mt`` and ``ref`` from the
first, and writes a line with ``id`` and ``score`` for each to the second. The score of a run is the mean.
Invariant: what was scored once is not scored again (`environments.cache_folder`), and a stored run names no program."""

import hashlib
import json
import logging
import math
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamllm.contents import of_file
from streamllm.evaluation.environments import PROGRAMS, cache_folder, last_line, own_environment, python_of
from streamllm.files import write_atomically
from streamllm.metrics.own import MetricError
from streamllm.records import Trace
from streamllm.units import unit_of

log = logging.getLogger(__name__)

COMET = "unbabel-comet==2.2.7"


class Program:
    """The mean score of the sentences by a program of another environment.

    Args:
        command: what is started, with the names of two files after it (docs/metrics.md); no shell is involved.
        language: the code of the target language; documents need it, to be cut at their reference sentences.
        key: its name in metrics.json.
        label: its name in tables and on axes; None is the key.
        digits: how many it has there after the point.
        higher_is_better: whether a higher value is better; None where neither way is.

    Raises: ValueError: no command.
    """

    def __init__(
        self,
        command: str | None = None,
        language: str | None = None,
        key: str = "program",
        label: str | None = None,
        digits: int = 4,
        higher_is_better: bool | None = True,
    ):
        if not command:
            raise ValueError("quality=program needs a command: quality.command='python score.py'")
        self._command, self._language = shlex.split(command), language
        self.key, self.label, self.digits, self.higher_is_better = key, label or key, digits, higher_is_better
        self.of_sentences: dict[str, float] = {}

    @property
    def signature(self) -> str:
        """What the score was made with, to be stored beside it."""
        return f"command:{shlex.join(self._command)}"

    def identity(self) -> list[str]:
        """What decides the score of a sentence, besides the sentence."""
        files = [part for part in self._command if Path(part).is_file()]
        return [*self._command, *map(of_file, map(Path, files))]

    def command(self) -> list[str]:
        """What is started."""
        return self._command

    def __call__(self, traces: Sequence[Trace]) -> float | None:
        lines = self._lines(traces)
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        name = hashlib.sha256("\0".join([*self.identity(), content]).encode()).hexdigest()[:24]
        kept = cache_folder() / "scores" / f"{name}.jsonl"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, self._run(content, [line["id"] for line in lines]))
        self.of_sentences = _read(kept.read_text("utf-8"), [line["id"] for line in lines], self.key)
        return math.fsum(self.of_sentences.values()) / len(lines) if lines else None

    def _lines(self, traces: Sequence[Trace]) -> list[dict[str, str]]:
        if any(trace.segments for trace in traces):
            from streamllm.runs.documents import cut

            if not self._language:
                raise MetricError(f"{self.key} of documents needs the target language: add dataset.target_language=…")
            found = cut(list(traces), self._language, unit_of(self._language))
            return [
                _line(f"{one.document}#{one.index + 1}", one.segment.source, one.prediction, one.reference)
                for sentences in found
                for one in sentences
            ]
        return [_line(one.id, one.source, one.prediction, one.reference) for one in traces]

    def _run(self, content: str, ids: Sequence[str]) -> str:
        """What the program writes, once it has been checked."""
        command = self.command()
        log.info("%s: scoring %d sentences with %s", self.key, len(ids), shlex.join(command))
        with tempfile.TemporaryDirectory() as folder:
            given, scored = Path(folder) / "input.jsonl", Path(folder) / "output.jsonl"
            given.write_text(content, "utf-8")
            try:
                done = subprocess.run(
                    [*command, str(given), str(scored)],
                    capture_output=True,
                    text=True,
                    env=own_environment(),
                    check=False,
                )
            except OSError as error:
                raise MetricError(f"{self.key}: {command[0]!r} cannot be started ({error.strerror})") from error
            if done.returncode:
                raise MetricError(
                    f"{self.key}: {shlex.join(command)} ended with {done.returncode}: {last_line(done.stderr)}"
                )
            try:
                text = scored.read_text("utf-8")
            except (OSError, ValueError) as error:
                raise MetricError(f"{self.key}: {shlex.join(command)} wrote no scores ({error})") from error
        _read(text, ids, self.key)
        return text


class Comet(Program):
    """COMET, xCOMET or COMETKiwi by unbabel-comet, in an environment of its own (Rei et al. 2022).

    Args:
        model: a hub id such as Unbabel/wmt22-comet-da, a checkpoint, or a folder that holds checkpoints/model.ckpt.
        batch_size: sentences at a time.
        language, key, label, digits: as for `Program`.

    Raises: ValueError: no model.
    """

    def __init__(
        self,
        model: str | None = None,
        batch_size: int = 16,
        language: str | None = None,
        key: str = "comet",
        label: str = "COMET",
        digits: int = 4,
    ):
        if not model:
            raise ValueError("quality=comet needs a model: quality.model=Unbabel/wmt22-comet-da, or a checkpoint")
        super().__init__(str(PROGRAMS / "comet.py"), language, key, label, digits, True)
        self._model, self._batch_size = model, batch_size

    @property
    def signature(self) -> str:
        """Model and version, as COMET asks to be cited by."""
        return f"model:{self._name}|{COMET.replace('==', ':')}|refs:1"

    @property
    def _name(self) -> str:
        files = self._files()
        return f"{Path(self._model).name}@{of_file(files[0])[:8]}" if files else self._model

    def _files(self) -> list[Path]:
        """The checkpoint and its settings, where they are on this machine."""
        model = Path(self._model).expanduser()
        model = model / "checkpoints" / "model.ckpt" if model.is_dir() else model
        if not model.is_file():
            if "/" not in self._model or self._model.startswith(("/", ".", "~")):
                raise MetricError(f"quality.model is {self._model!r}; there is no such checkpoint, and it is no hub id")
            return []
        return [path for path in (model, model.parent.parent / "hparams.yaml") if path.is_file()]

    def identity(self) -> list[str]:
        model = [of_file(file) for file in self._files()] or [_revision(self._model)]
        return [of_file(PROGRAMS / "comet.txt"), of_file(PROGRAMS / "comet.py"), *model]

    def command(self) -> list[str]:
        try:
            python = python_of("comet", COMET)
        except ValueError as error:
            raise MetricError(str(error)) from error
        files = self._files()
        model = str(files[0].resolve()) if files else self._model
        return [str(python), *self._command, "--model", model, "--batch-size", str(self._batch_size)]


def _line(id: str, source: str, prediction: str, reference: str) -> dict[str, str]:
    return {"id": id, "src": source, "mt": prediction, "ref": reference}


def _revision(hub_id: str) -> str:
    """A hub id with the commit that is in its cache, as far as it is there."""
    from huggingface_hub import constants

    try:
        main = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "refs" / "main"
        return f"{hub_id}@{main.read_text().strip()}"
    except OSError:
        return hub_id


def _read(text: str, ids: Sequence[str], key: str) -> dict[str, float]:
    """Scores by id, in the order of ``ids``.

    Raises: MetricError: they are not one finite number for each.
    """
    found: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            one: Any = json.loads(line)
            found[str(one["id"])] = float(one["score"])
        except (ValueError, KeyError, TypeError) as error:
            raise MetricError(
                f'{key}: line {number} of its scores is {line[:80]!r}; it should be like {{"id": "1", "score": 0.8}}'
            ) from error
    if len(set(ids) & set(found)) != len(ids) or len(found) != len(ids):
        raise MetricError(f"{key}: {len(found)} scores came for {len(ids)} sentences; each id needs one")
    if wrong := [id for id in ids if not math.isfinite(found[id])]:
        raise MetricError(f"{key}: the score of {wrong[0]!r} is {found[wrong[0]]}, which is no finite number")
    return {id: found[id] for id in ids}
