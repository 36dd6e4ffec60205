"""What a run says when it has ended: the printed summary, and what a tracker is told."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from streamllm.metrics.latency import METRICS, corpus_latency, latency
from streamllm.metrics.quality import quality, sentence_bleu
from streamllm.metrics.scores import SCREEN, SENTENCES, SWEEP, Score, notes, shown_on
from streamllm.records import Trace
from streamllm.runs.environment import code
from streamllm.runs.folder import RunFolder
from streamllm.runs.scores import own_of
from streamllm.tracking.tracker import Guarded, Picture
from streamllm.units import Unit

LETTERS = {"read": "R", "forced_read": "F", "write": "W"}
"""How the actions of a sentence are written for trackers: RRWRWW."""

if TYPE_CHECKING:
    from streamllm.metrics.longform import Sentence

DRIFT_SAMPLES = 200  # of the bootstrap: a run should not wait for its figure

LONG_LAGS = ("long_yaal", "long_laal")
"""The latencies of documents that trackers are told for each document and sentence."""


def summary_text(folder: RunFolder, metrics: Mapping[str, Any]) -> str:
    """The results of a run, to be read by people."""
    return f"{folder.path}: {figures_text(metrics, own_of(folder.path))}"


def brief_text(folder: RunFolder, metrics: Mapping[str, Any]) -> str:
    """The scores of a run that a sweep's table has, in one line."""
    shown = shown_on(SWEEP, own_of(folder.path), documents=True)
    said = [score.said(metrics[score.key]) for score in shown if metrics.get(score.key) is not None]
    return f"{folder.path}: {'   '.join(said)}"


def figures_text(metrics: Mapping[str, Any], own: Sequence[Score] = ()) -> str:
    """How many sentences there are, and below it their scores, a line for each group, and what else happened."""
    lines: dict[str, list[str]] = {}
    for score in shown_on(SCREEN, own, documents="documents" in metrics):
        if metrics.get(score.key) is not None:
            lines.setdefault(score.group, []).append(score.said(metrics[score.key]))
    sentences = f"{metrics.get('sentences', '?')} sentences"
    if "documents" in metrics:
        sentences = f"{metrics['documents']} document{'s' * (metrics['documents'] != 1)} of {sentences}"
    if metrics.get("sentences_left_out"):
        sentences += f"; {metrics['sentences_left_out']} left out, too long (dataset.skip_long)"
    scores = (f"  {group:<9}{'   '.join(said)}" for group, said in lines.items())
    return "\n".join([sentences, *scores, *(f"  {note}" for note in notes(metrics))])


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
    """Tell a tracker what came out: every sentence, the metrics, and where and by what it was made. Of documents, each
    of them too, and the scores by position."""
    if tracker.hears_nothing:
        return
    undefined = [key for key, value in metrics.items() if value is None]  # W&B drops what is None
    tracker.summary({**metrics, "undefined": undefined, "folder": str(folder.path), "env": folder.environment()})
    if "documents" in metrics:
        from streamllm.runs.documents import cut

        sentences = cut(traces, target_language, target_unit)
        tracker.table("document_table", *_document_table(traces, sentences, target_language, target_unit, tokenizer))
        tracker.table("sentence_table", *_cut_table(sentences, target_language, target_unit, tokenizer))
        tracker.table("drift_table", *_drift_table(folder, sentences, target_language, target_unit, tokenizer))
        return
    tracker.table("sentence_table", *_sentence_table(traces, target_language, target_unit, tokenizer))


def _sentence_table(
    traces: Sequence[Trace], target_language: str, target_unit: Unit, tokenizer: str | None
) -> tuple[list[str], list[list[Any]]]:
    """One row a sentence, for trackers."""
    lags = [score.key for score in shown_on(SENTENCES) if score.key in METRICS]
    columns = ["id", "source", "reference", "prediction", "delays", "actions", "path", "bleu", *lags]
    rows: list[list[Any]] = []
    for number, trace in enumerate(traces):
        bleu = sentence_bleu(trace.prediction, trace.reference, target_language, tokenizer)
        latencies = latency(trace.delays, trace.source_units, trace.reference, target_unit)
        delays = " ".join(map(str, trace.delays))
        actions = "".join(LETTERS.get(event.kind, "") for event in trace.events)
        path = Picture(partial(_draw_one, traces, number))  # not of ``trace``, which would stay in memory
        texts = (trace.id, trace.source, trace.reference, trace.prediction, delays, actions)
        rows.append([*texts, path, bleu, *(latencies[key] for key in lags)])
    return columns, rows


def _document_table(
    traces: Sequence[Trace],
    sentences: "Sequence[Sequence[Sentence]]",
    language: str,
    unit: Unit,
    tokenizer: str | None,
) -> tuple[list[str], list[list[Any]]]:
    """One row a document, with its picture."""
    from streamllm.metrics.longform import sentence_latency  # runs over sentences do not wait for it

    rows: list[list[Any]] = []
    for trace, own in zip(traces, sentences, strict=True):
        texts = [one.prediction for one in own], [one.reference for one in own]
        lags = corpus_latency(sentence_latency(one, unit) for one in own).means
        path = Picture(partial(_draw, trace))
        scores = quality(*texts, language, tokenizer)["bleu"], *(lags[key] for key in LONG_LAGS)
        rows.append([trace.id, len(own), trace.source, trace.prediction, path, *scores])
    return ["id", "sentences", "source", "prediction", "path", "bleu", *LONG_LAGS], rows


def _cut_table(
    sentences: "Sequence[Sequence[Sentence]]", language: str, unit: Unit, tokenizer: str | None
) -> tuple[list[str], list[list[Any]]]:
    """One row a sentence of a document; delays are counted from its beginning."""
    from streamllm.metrics.longform import sentence_latency

    columns = ["document", "sentence", "source", "reference", "prediction", "delays", "bleu", *LONG_LAGS]
    rows: list[list[Any]] = []
    for one in (one for own in sentences for one in own):
        bleu = sentence_bleu(one.prediction, one.reference, language, tokenizer)
        lags = sentence_latency(one, unit)
        texts = one.segment.source, one.reference, one.prediction, " ".join(f"{delay:g}" for delay in one.delays)
        rows.append([one.document, one.index + 1, *texts, bleu, *(lags[key] for key in LONG_LAGS)])
    return columns, rows


def _drift_table(
    folder: RunFolder, sentences: "Sequence[Sequence[Sentence]]", language: str, unit: Unit, tokenizer: str | None
) -> tuple[list[str], list[list[Any]]]:
    """One row for each part of the documents; the figure of all stands in the first."""
    from streamllm.runs.documents import drift_rows

    found = drift_rows(folder.path.name, sentences, language, unit, tokenizer, DRIFT_SAMPLES)
    columns = [column for column in found[0] if column != "run"]
    figures = [Picture(partial(_draw_drift, found)), *[None] * (len(found) - 1)]
    rows = [[*(row[column] for column in columns), figure] for row, figure in zip(found, figures, strict=True)]
    return [*columns, "figure"], rows


def _draw_drift(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pandas

    from streamllm.plots.documents import drift_png

    return drift_png(pandas.DataFrame(rows))


def _draw_one(traces: Sequence[Trace], number: int) -> bytes:
    return _draw(traces[number])


def _draw(trace: Trace) -> bytes:
    from streamllm.plots import path_png  # Matplotlib takes most of a second to import

    return path_png(trace)
