"""Scores of single sentences in files beside a run, such as ``comet.jsonl``: a line with ``id`` and ``score`` for each.

The score of the run is their mean; where lines also have what each sentence adds, under the name of a formula
(``"ratio": [2, 11]`` in ``ter.jsonl``), it is that formula of the sums. Sentences of documents have the ids
"DOCUMENT#1" and so on, as in `streamllm.runs.compare.sentence_table`."""

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamllm.checked import shown
from streamllm.files import RunError
from streamllm.metrics.scores import Score, own_score, scores
from streamllm.runs.formulas import FORMULAS
from streamllm.runs.stored import METRICS, PREDICTIONS, TIMINGS, StoredRun
from streamllm.runs.sums import Array

log = logging.getLogger(__name__)

SHOWN = 3  # ids that an error names
ALIKE = 1e-6  # of a mean: files of others may hold fewer digits


@dataclass(frozen=True)
class SentenceScores:
    """The file of one score, and its scores by id; nan where it is null. ``added`` is what each sentence adds to the
    sums that the score of the run is a ``formula`` of; without one, it is a mean."""

    path: Path
    of: dict[str, float]
    formula: str | None = None
    added: dict[str, list[float]] = field(default_factory=dict)

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

    def numbers(self, ids: Sequence[str]) -> Array:
        """What the sentences add (sentences, numbers), in their order. Raises: as `array`."""
        self.array(ids)
        return np.array([self.added[id] for id in ids], np.float64)

    @property
    def value(self) -> float | None:
        """The score of the run; None where nothing defines it."""
        if self.formula is not None:
            sums = np.array([*self.added.values()], np.float64).sum(0, keepdims=True)
            score = float(FORMULAS[self.formula].corpus(sums)[0])
            return None if math.isnan(score) else score
        found = [score for score in self.of.values() if not math.isnan(score)]
        return math.fsum(found) / len(found) if found else None


def sentence_scores(run: StoredRun) -> dict[str, SentenceScores]:
    """The files of sentence scores beside a finished run, by their keys: ``KEY.jsonl``.

    A file that does not come to the score which ``metrics.json`` has under this key is left out, which is said: a test
    over its sentences would be one of another number.

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
        if known is not None and (one.value is None or abs(one.value - known) > ALIKE * max(1.0, abs(known))):
            log.warning(
                "%s comes to %s, and %s says %s: it is left out; `streamllm score` writes both anew",
                *(path, one.value, METRICS, known),
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
    formula, added = None, dict[str, list[float]]()
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
        if number == 1:
            formula = next((name for name in FORMULAS if name in one), None)
        if formula is not None:
            added[id] = _numbers(one.get(formula), formula, len(next(iter(added.values()), ())), wrong)
    return SentenceScores(path, found, formula, added) if found else None


def _numbers(value: Any, formula: str, many: int, wrong: str) -> list[float]:
    """What a line says that its sentence adds; ``many`` is how many numbers others have (0 for the first)."""
    if not (
        isinstance(value, list)
        and all(type(one) in (int, float) and math.isfinite(one) for one in value)
        and FORMULAS[formula].takes(len(value))
        and len(value) == (many or len(value))
    ):
        usual = many or FORMULAS[formula].numbers
        raise RunError(f"{wrong}{formula} should be a list of {usual} numbers: score the run anew")
    return [float(one) for one in value]


def lines_of(scores: Mapping[str, float]) -> Iterator[str]:
    """The lines of such a file, of scores by id; nan becomes null."""
    for id, score in scores.items():
        yield _line(id, score)


def lines_of_formula(formula: str, added: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """The lines of such a file, with what each sentence adds, by id; the scores are those of the sentences alone."""
    if added:
        found = FORMULAS[formula].sentences(np.array([*added.values()], np.float64)).tolist()
        for (id, numbers), score in zip(added.items(), found, strict=True):
            yield _line(id, score, **{formula: list(numbers)})


def _line(id: str, score: float, **more: list[float]) -> str:
    return json.dumps({"id": id, "score": None if math.isnan(score) else score, **more}, ensure_ascii=False) + "\n"


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line for line in file if line.strip())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error})") from error
