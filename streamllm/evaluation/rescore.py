"""Metrics of what was translated before. Nothing is translated, and no model is loaded.

Invariant: metrics.json is replaced whole, and nothing else that the run made changes."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamllm.files import write_atomically
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.own import Metric, own_scores, own_values, signatures
from streamllm.metrics.summary import summarise
from streamllm.metrics.tokenised import tokenised_warning
from streamllm.records import State
from streamllm.runs.folder import RunFolder
from streamllm.runs.formulas import FORMULAS
from streamllm.runs.load import read_config, stored_run, target_of
from streamllm.runs.made_from import of_metrics
from streamllm.runs.scores import rewrite
from streamllm.runs.sentence_scores import lines_of, lines_of_formula

log = logging.getLogger(__name__)


def with_own(
    folder: RunFolder, metrics: Sequence[Metric], config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The metrics of a finished run, own ones that it lacks, or whose code or settings have changed, computed from its
    traces and put into its folder.

    Args:
        config: of the run, which may say what the metrics are set to.

    Returns: all metrics, and the labels of those that were computed.
    Raises: FileNotFoundError: its traces are gone. RunError, RunInUse: the folder cannot be read or written.
        MetricError: an own metric failed; the folder stays as it is.
    """
    found = folder.metrics()
    then, now = folder.contents() or {}, of_metrics(metrics, config)
    changed = {part for part, names in now.items() if then.get(part, names) != names}
    missing = [metric for metric in metrics if metric.key not in found or f"metric {metric.key}" in changed]
    if not missing:
        return found, []
    found |= own_values(missing, stored_run(folder.path).stored_traces()) | signatures(missing)
    keep_sentences(folder, missing)
    rewrite(folder, found, own_scores(missing), now)
    return found, [metric.label for metric in missing]


def keep_sentences(folder: RunFolder, metrics: Sequence[Metric]) -> None:
    """Write the scores of single sentences beside the run, for metrics that have them: ``KEY.jsonl``; with what each
    sentence adds to it where a metric is a formula of sums."""
    for metric in metrics:
        formula, scores = str(getattr(metric, "formula", "")), getattr(metric, "of_sentences", {})
        added = getattr(metric, "sums", {}) if formula in FORMULAS else {}
        if added or scores:
            lines = lines_of_formula(formula, added) if added else lines_of(scores)
            write_atomically(folder.path / f"{metric.key}.jsonl", "".join(lines))


def rescore(
    run: str | os.PathLike[str],
    metrics: Sequence[Metric] = (),
    arrival: ArrivalClock | None = None,
    at_limit: Callable[[State], bool] | None = None,
) -> dict[str, Any]:
    """Compute all metrics of a finished run anew from its traces, and write them to its folder.

    Args:
        metrics: own ones. Values of others that the run has stay as they are.
        arrival, at_limit: as for `streamllm.metrics.summary.summarise`.

    Raises: FileNotFoundError: there is no run. RunError: it has not finished, or is damaged. RunInUse: another process
        writes it. MetricError: as `with_own`.
    """
    traces, folder = stored_run(run).stored_traces(), RunFolder(run)
    before = folder.metrics()
    own = own_scores(metrics, taken=read_config(run))
    language, unit, tokenizer = target_of(folder.path)
    ours = summarise(traces, language, unit, arrival, at_limit, tokenizer)
    found = {**ours, **{key: value for key, value in before.items() if key not in ours}, **own_values(metrics, traces)}
    found |= signatures(metrics)
    keep_sentences(folder, metrics)
    rewrite(folder, found, own, of_metrics(metrics, {}))
    if tokenised := tokenised_warning(traces):
        log.warning("%s", tokenised)
    return found
