"""Runs read back from Weights & Biases. Invariant: the columns are those of `streamllm.runs.load.load_runs`."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from streamllm.check import text
from streamllm.checked import fit, plain
from streamllm.metrics.scores import TEXTS, scores
from streamllm.runs.load import flatten
from streamllm.runs.stored import check_metrics

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)


def load_wandb_runs(project: str, filters: Mapping[str, Any] | None = None, *, api: Any = None) -> "pandas.DataFrame":
    """One row for each finished run in a project of W&B, with the columns of `streamllm.runs.load.load_runs`;
    ``folder`` is where the run was made. Of several runs with one configuration, the last is taken.

    Args:
        project: "entity/project", or "project" for your own entity.
        filters: of ``wandb.Api().runs``, such as ``{"group": "k=1,3,5"}`` or ``{"tags": "sample-waitk"}``.
        api: a ``wandb.Api``; None makes one, which needs a network and a key (``wandb login``).

    Raises: ConnectionError: W&B cannot be reached, takes no key, or has no such project.
    """
    import pandas
    import wandb

    wanted = {"jobType": "evaluate", **(filters or {})}
    try:
        found = (api or wandb.Api()).runs(project, filters=wanted, order="-created_at", per_page=200, lazy=False)
        rows = [row for run in found if (row := _checked(run))]
    except (wandb.Error, ValueError, OSError) as error:
        raise ConnectionError(
            f"the runs of {project!r} cannot be read from W&B ({type(error).__name__}: {error}): look at its name, at "
            "`wandb login` and at the network; runs of this machine are read by streamllm.runs.load.load_runs"
        ) from error
    ordered = sorted(_one_each(rows), key=lambda row: PurePath(row["folder"]).name)
    return pandas.DataFrame(ordered)


def _checked(run: Any) -> dict[str, Any] | None:
    """A row as `_row` makes it; None, with a warning, for a run that holds other things than ours do."""
    try:
        return _row(run)
    except ValueError as error:
        log.warning("left out: the run %s of W&B is none of ours (%s)", getattr(run, "id", "?"), error)
        return None


def _row(run: Any) -> dict[str, Any] | None:
    """None for a run that has not finished: its summary comes last, after all results.

    Raises: ValueError: its configuration, its folder or its metrics have another shape than ours.
    """
    summary = dict(run.summary_metrics)
    folder = summary.pop("folder", None)
    if folder is None:
        return None
    text("folder", folder)
    plain(config := fit(run.config, dict[str, Any]))
    metrics = {
        key: value
        for key, value in summary.items()
        if not key.startswith("_") and "/" not in key and not isinstance(value, Mapping)  # W&B's own; running; tables
    }
    metrics |= dict.fromkeys(fit(metrics.pop("undefined", []), list[str]))
    check_metrics({key: metrics[key] for key in (*scores(), *TEXTS) if key in metrics})  # others are somebody's own
    name, _, digits = PurePath(folder).name.rpartition("-")
    return {"folder": folder, **flatten(config), **metrics, "name": name, "digest": digits}


def _one_each(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first row of each digest."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["digest"], row)
    return list(first.values())
