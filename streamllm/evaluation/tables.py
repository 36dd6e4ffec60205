"""What a run says when it has ended: the printed summary, and what a tracker is told."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from streamllm.metrics.latency import METRICS, latency
from streamllm.metrics.quality import sentence_bleu
from streamllm.metrics.scores import SCREEN, SENTENCES, Score, shown_on
from streamllm.records import Trace
from streamllm.runs.environment import code
from streamllm.runs.folder import RunFolder
from streamllm.runs.scores import own_of
from streamllm.tracking.tracker import Guarded, Picture
from streamllm.units import Unit

LETTERS = {"read": "R", "forced_read": "F", "write": "W"}
"""How the actions of a sentence are written for trackers: RRWRWW."""


def summary_text(folder: RunFolder, metrics: Mapping[str, Any]) -> str:
    """The results of a run, to be read by people."""
    return f"{folder.path}: {figures_text(metrics, own_of(folder.path))}"


def figures_text(metrics: Mapping[str, Any], own: Sequence[Score] = ()) -> str:
    """How many sentences there are, and below it their scores, a line for each group."""
    lines: dict[str, list[str]] = {}
    for score in shown_on(SCREEN, own, documents="documents" in metrics):
        if metrics.get(score.key) is not None:
            lines.setdefault(score.group, []).append(score.said(metrics[score.key]))
    sentences = f"{metrics.get('sentences', '?')} sentences"
    if "documents" in metrics:
        sentences = f"{metrics['documents']} document{'s' * (metrics['documents'] != 1)} of {sentences}"
    if metrics.get("sentences_without_output"):
        sentences += f", {metrics['sentences_without_output']} of them without output"
    if metrics.get("sentences_left_out"):
        sentences += f"; {metrics['sentences_left_out']} left out, too long (dataset.skip_long)"
    return "\n".join([sentences, *(f"  {group:<9}{'   '.join(said)}" for group, said in lines.items())])


def other_code(folder: RunFolder) -> str:
    """Words for a run that was begun with other code than this; none where one of the two is not known."""
    try:
        then, now = folder.environment(), code()
    except ValueError:  # a damaged env.json costs no result
        return ""
    if then.get("commit") is None or now["commit"] is None:
        return ""
    was, this = (f"{of['commit'][:10]}{' with changes' * bool(of.get('dirty'))}" for of in (then, now))
    return "" if was == this else f" with other code ({was}; now it is {this})"


def conclude(
    tracker: Guarded,
    folder: RunFolder,
    traces: Sequence[Trace],
    metrics: Mapping[str, Any],
    target_language: str,
    target_unit: Unit,
    tokenizer: str | None = None,
) -> None:
    """Tell a tracker what came out: every sentence, the metrics, and where and by what it was made."""
    undefined = [key for key, value in metrics.items() if value is None]  # W&B drops what is None
    tracker.summary({**metrics, "undefined": undefined, "folder": str(folder.path), "env": folder.environment()})
    tracker.table("sentence_table", *_sentence_table(traces, target_language, target_unit, tokenizer))


def _sentence_table(
    traces: Sequence[Trace], target_language: str, target_unit: Unit, tokenizer: str | None
) -> tuple[list[str], list[list[Any]]]:
    """One row a sentence, for trackers."""
    lags = [score.key for score in shown_on(SENTENCES) if score.key in METRICS]
    columns = ["id", "source", "reference", "prediction", "delays", "actions", "path", "bleu", *lags]
    rows: list[list[Any]] = []
    for trace in traces:
        bleu = sentence_bleu(trace.prediction, trace.reference, target_language, tokenizer)
        latencies = latency(trace.delays, trace.source_units, trace.reference, target_unit)
        delays = " ".join(map(str, trace.delays))
        actions = "".join(LETTERS.get(event.kind, "") for event in trace.events)
        path = Picture(partial(_draw, trace))
        texts = (trace.id, trace.source, trace.reference, trace.prediction, delays, actions)
        rows.append([*texts, path, bleu, *(latencies[key] for key in lags)])
    return columns, rows


def _draw(trace: Trace) -> bytes:
    from streamllm.plots import path_png  # Matplotlib takes most of a second to import

    return path_png(trace)
