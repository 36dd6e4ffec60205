"""Scores of single sentences in files beside a run, such as ``comet.jsonl``: a line with ``id`` and ``score`` for each.

The score of the run is their mean. Sentences of documents have the ids "DOCUMENT#1" and so on, as in
`streamllm.runs.compare.sentence_table`."""

import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamllm.checked import shown
from streamllm.files import RunError
from streamllm.metrics.scores import Score, own_score, scores
from streamllm.runs.stored import METRICS, PREDICTIONS, TIMINGS, StoredRun
from streamllm.runs.sums import Array

log = logging.getLogger(__name__)

SHOWN = 3  # ids that an error names
ALIKE = 1e-6  # of a mean: files of others may hold fewer digits


@dataclass(frozen=True)
class SentenceScores:
    """The file of one score, and its scores by id; nan where it is null."""

    path: Path
    of: dict[str, float]

    def array(self, ids: Sequence[str]) -> Array:
        """The scores of the sentences (sentences,), in their order.

        Raises: RunError: the file is about other sentences.
        """
        for names, what in (
            ([id for id in ids if id not in self.of], "has no score for"),
            ([id for id in self.of if id not in {*ids}], "has scores for what the run does not hold:"),
        ):
            if names:
                some = ", ".join(names[:SHOWN]) + " …" * bool(names[SHOWN:])
                raise RunError(
                    f"{self.path} {what} {some} ({len(names)} in all): each sentence of the run needs a line, with "
                    '"score": null where there is none; score the run anew, or move the file away'
                )
        return np.array([self.of[id] for id in ids])

    @property
    def mean(self) -> float | None:
        """Over the sentences that have one."""
        found = [score for score in self.of.values() if not math.isnan(score)]
        return math.fsum(found) / len(found) if found else None


def sentence_scores(run: StoredRun) -> dict[str, SentenceScores]:
    """The files of sentence scores beside a finished run, by their keys: ``KEY.jsonl``.

    A file whose mean is not the score that ``metrics.json`` has under this key is left out, which is said: a test over
    its sentences would be one of another number.

    Raises: RunError: a file is damaged, or bears the name of a score that every run has.
    """
    found = {}
    for path in sorted(run.path.glob("*.jsonl")):
        if path.name in (PREDICTIONS, TIMINGS) or not re.fullmatch("[a-z][a-z0-9_]*", path.stem):
            continue
        one = _read(path)
        if one is None:
            continue
        if path.stem in scores(documents=True):
            raise RunError(f"{path}: {path.stem} is a score that runs have anyway; give the file another name")
        known = run.metrics().get(path.stem)
        if known is not None and (one.mean is None or abs(one.mean - known) > ALIKE * max(1.0, abs(known))):
            log.warning(
                "%s has the mean %s, and %s says %s: it is left out; `streamllm score` writes both anew",
                *(path, one.mean, METRICS, known),
            )
            continue
        found[path.stem] = one
    return found


def beside_score(key: str) -> Score:
    """The score of a file of which ``scores.json`` says nothing."""
    return own_score(key, key, 4, None)


def _read(path: Path) -> SentenceScores | None:
    """None for a file of something else, which its first line tells."""
    found: dict[str, float] = {}
    for number, line in enumerate(_lines(path), start=1):
        wrong = f"{path}, line {number} is {line[:80]!r}; "
        try:
            one: Any = json.loads(line)
        except ValueError:
            one = None
        if not isinstance(one, dict) or not {"id", "score"} <= one.keys():
            if number == 1:
                return None
            raise RunError(f'{wrong}it should be like {{"id": "1", "score": 0.8}}: score the run anew')
        id, score = str(one["id"]), one["score"]
        if score is not None and not (type(score) in (int, float) and math.isfinite(score)):
            raise RunError(f"{path}, line {number}: score is {shown(score)}; it should be a finite number or null")
        if id in found:
            raise RunError(f"{path}, line {number}: {shown(id)} has a score already; give each sentence one")
        found[id] = math.nan if score is None else float(score)
    return SentenceScores(path, found) if found else None


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line for line in file if line.strip())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error})") from error
