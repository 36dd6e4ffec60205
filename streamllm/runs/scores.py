"""The scores of a finished run: its numbers, and beside them, in ``scores.json``, what its own metrics are called.

Invariant: ``metrics.json`` is written last, and whole."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.checked import fit, parse
from streamllm.contents import Contents
from streamllm.files import read_bytes, write_atomically
from streamllm.metrics.scores import Score, described, own_score
from streamllm.runs.folder import METRICS, RunFolder

log = logging.getLogger(__name__)

SCORES = "scores.json"


def own_of(run: str | os.PathLike[str]) -> list[Score]:
    """What the own metrics of a run are called; [] where it has none. A damaged file costs names, not numbers."""
    path = Path(run) / SCORES
    try:
        return [own_score(**vars(score)) for score in fit(parse(read_bytes(path)), list[_OwnScore])]
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        log.warning(
            "%s is damaged (%s), so own metrics go by their keys: `streamllm score` writes it anew", path, error
        )
        return []


@dataclass(frozen=True)
class _OwnScore:
    """The arguments of `own_score`, as they are stored."""

    key: str
    label: str
    digits: int
    higher_is_better: bool | None
    description: str = ""


def name_own(run: str | os.PathLike[str], own: Iterable[Score]) -> None:
    """Add to what is known of a run's own metrics."""
    known = {score.key: score for score in own_of(run)}
    named = known | {score.key: score for score in own}
    if named != known:
        rows = [described(score) for score in named.values()]
        write_atomically(Path(run) / SCORES, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def rewrite(
    folder: RunFolder, metrics: Mapping[str, Any], own: Sequence[Score] = (), contents: Contents | None = None
) -> None:
    """Replace the metrics of a finished run; nothing else of it changes. ``own`` names what is new in them, and
    ``contents`` is what their code was."""
    with folder:
        folder.add_contents(contents or {}, anew=True)
        name_own(folder.path, own)
        write_atomically(folder.path / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def own_of_runs(folders: Iterable[str | os.PathLike[str]]) -> list[Score]:
    """The own metrics of several runs, each key once, as the first of them calls it."""
    found: dict[str, Score] = {}
    for folder in folders:
        for score in own_of(folder):
            found.setdefault(score.key, score)
    return list(found.values())
