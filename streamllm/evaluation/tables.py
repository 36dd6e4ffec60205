"""What a run says when it has ended: the printed summary, and what a tracker is told."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from streamllm.metrics.latency import latency
from streamllm.metrics.quality import sentence_bleu
from streamllm.records import Trace
from streamllm.runs.environment import code
from streamllm.runs.folder import RunFolder
from streamllm.tracking.tracker import Guarded, Picture
from streamllm.units import Unit

LETTERS = {"read": "R", "forced_read": "F", "write": "W"}
"""How the actions of a sentence are written for trackers: RRWRWW."""


def summary_text(folder: RunFolder, metrics: Mapping[str, Any]) -> str:
    """The results of a run, to be read by people."""
    lines = {
        "quality": {"bleu": "BLEU {:.2f}", "chrf": "chrF {:.2f}", "length_ratio": "length ratio {:.3f}"},
        "latency": {"al": "AL {:.2f}", "laal": "LAAL {:.2f}", "ap": "AP {:.3f}", "dal": "DAL {:.2f}"},
        "cost": {
            "seconds_per_sentence": "{:.3f} s per sentence",
            "target_tokens_per_second": "{:.1f} target tokens/s",
            "forward_passes_per_target_token": "{:.2f} forward passes per target token",
        },
    }
    figures = {
        name: "   ".join(text.format(metrics[key]) for key, text in formats.items() if metrics.get(key) is not None)
        for name, formats in lines.items()
    }
    sentences = f"{metrics.get('sentences', '?')} sentences"
    if metrics.get("sentences_without_output"):
        sentences += f", {metrics['sentences_without_output']} of them without output"
    body = [f"  {name:<9}{text}" for name, text in figures.items() if text]
    return "\n".join([f"{folder.path}: {sentences}", *body])


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
) -> None:
    """Tell a tracker what came out: every sentence, the metrics, and where and by what it was made."""
    undefined = [key for key, value in metrics.items() if value is None]  # W&B drops what is None
    tracker.summary({**metrics, "undefined": undefined, "folder": str(folder.path), "env": folder.environment()})
    tracker.table("sentence_table", *_sentence_table(traces, target_language, target_unit))


def _sentence_table(
    traces: Sequence[Trace], target_language: str, target_unit: Unit
) -> tuple[list[str], list[list[Any]]]:
    """One row a sentence, for trackers."""
    columns = ["id", "source", "reference", "prediction", "delays", "actions", "path", "bleu", "al"]
    rows: list[list[Any]] = []
    for trace in traces:
        bleu = sentence_bleu(trace.prediction, trace.reference, target_language)
        lagging = latency(trace.delays, trace.source_units, trace.reference, target_unit)["al"]
        delays = " ".join(map(str, trace.delays))
        actions = "".join(LETTERS.get(event.kind, "") for event in trace.events)
        path = Picture(partial(_draw, trace))
        texts = (trace.id, trace.source, trace.reference, trace.prediction, delays, actions)
        rows.append([*texts, path, bleu, lagging])
    return columns, rows


def _draw(trace: Trace) -> bytes:
    from streamllm.plots import path_png  # Matplotlib takes most of a second to import

    return path_png(trace)
