"""What a report says, taken from run folders: runs with their scores, and sentences matched across runs.

Sentences, and documents, are the same when id, source, reference and source units are; runs may cover different
ones."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamllm.files import RunError
from streamllm.machine import fewer_collections
from streamllm.metrics.latency import corpus_latency
from streamllm.metrics.longform import LATENCIES, sentence_latency
from streamllm.metrics.quality import quality, sentence_bleu
from streamllm.metrics.scores import SENTENCES, Score, shown_on
from streamllm.records import Segment, Trace
from streamllm.report.curve_facts import CurveFacts, curve_facts
from streamllm.report.names import settings, titles, varied
from streamllm.runs.compare import Interval, bootstrap_of, scored_run
from streamllm.runs.documents import cut
from streamllm.runs.folder import CONFIG, METRICS, RunFolder
from streamllm.runs.load import (
    flat_config,
    is_training,
    load_runs,
    load_traces,
    read_config,
    runs_in,
    target_of,
    trainings_in,
)
from streamllm.runs.scored import Scored
from streamllm.runs.scores import own_of
from streamllm.units import split

if TYPE_CHECKING:
    import pandas


OF_DOCUMENTS = [key for key in LATENCIES if key in ("long_yaal", "long_laal")]
"""Latencies of single documents, which the page shows."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of a data set, or a document, which has ``segments``."""

    id: str
    source: str
    reference: str
    units: tuple[str, ...]
    segments: tuple[Segment, ...] = ()


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cut:
    """What was written for one sentence of a document, BLEU, and LongLAAL (None without output)."""

    prediction: str
    bleu: float
    long_laal: float | None


@dataclass(frozen=True)
class Result:
    """What a run did with a sentence.

    ``forced`` holds (units read, units written) before each forced READ, ``read`` all units read, and ``stop``
    why the sentence ended. A score is None where it is not defined.

    Of a document, scores are those of its sentences, which ``cut`` holds; in ``ends`` are source and target units at
    the end of each sentence, by the system itself if ``told``.
    """

    prediction: str
    units: tuple[str, ...]
    delays: tuple[int, ...]
    forced: tuple[tuple[int, int], ...]
    read: int
    stop: str
    scores: dict[str, float | None]
    cut: tuple[Cut, ...] = ()
    ends: tuple[tuple[int, int], ...] = ()
    told: bool = False


@dataclass(frozen=True)
class Run:
    """A finished run. ``title`` tells it from the others. ``setting`` is what its policy was set to, ``varied`` holds
    other keys that differ between runs, ``interval`` is that of BLEU, and ``own`` is what its own metrics are called.
    ``results`` go by the number of the sentence."""

    title: str
    policy: str
    setting: str
    varied: dict[str, str]
    folder: str
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, Any]
    interval: tuple[float, float] | None
    own: list[Score]
    results: dict[int, Result]

    @property
    def is_over_documents(self) -> bool:
        return self.metrics.get("documents") is not None


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"


@dataclass(frozen=True)
class Report:
    """Runs in order, the sentences of all of them, and ``table``: the rows of `load_runs`, in the same order, with
    ``bleu_low`` and ``bleu_high`` if intervals were asked for. ``unfinished`` runs and ``trainings`` are left out."""

    runs: list[Run]
    sentences: list[Sentence]
    table: "pandas.DataFrame"
    unfinished: list[Path]
    samples: int = 1000
    trainings: list[Path] = field(default_factory=list)
    curves: list[CurveFacts] = field(default_factory=list)

    @property
    def size(self) -> str:
        """How many runs there are, and over what: "2 runs, 30 sentences"."""
        documents = [one for one in self.sentences if one.segments]
        inside = sum(len(one.segments) for one in documents)
        texts = [_counted(len(self.runs), "run")]
        if documents:
            texts.append(f"{_counted(len(documents), 'document')} of {_counted(inside, 'sentence')}")
        if alone := len(self.sentences) - len(documents):
            texts.append(_counted(alone, "sentence"))
        return ", ".join(texts)


def gather(paths: Sequence[str | os.PathLike[str]], samples: int = 1000) -> Report:
    """Read all runs that ``paths`` give. Arguments and errors are those of `streamllm.report.write_report`."""
    if samples < 0:
        raise ValueError(f"samples is {samples}; give a number of samples, or 0 for no intervals")
    with fewer_collections():
        return _gathered(paths, samples)


def _gathered(paths: Sequence[str | os.PathLike[str]], samples: int) -> Report:
    import pandas

    from streamllm.plots import policy_name

    table, unfinished, trainings = _find(paths)
    folders = [Path(folder) for folder in table["folder"]]
    configs = [flat_config(read_config(folder)) for folder in folders]
    policies = [policy_name(target) for target in table["policy._target_"]]
    of_policy, others = settings(table, configs), varied(configs)
    names = titles(policies, of_policy, others, list(table["digest"]))
    intervals: list[Interval] = []
    scored: dict[str, Scored] = {}
    numbers: dict[Sentence, int] = {}
    runs = [
        Run(
            title=names[place],
            policy=policies[place],
            setting=of_policy[place],
            varied=others[place],
            folder=folder.name,
            config=configs[place],
            environment=RunFolder(folder).environment(),
            metrics=RunFolder(folder).metrics(),
            interval=None,
            own=own_of(folder),
            results=dict(_results(folder, numbers, samples, intervals, scored)),
        )
        for place, folder in enumerate(folders)
    ]
    if samples:
        ends = [{"bleu_low": one.low, "bleu_high": one.high} for one in intervals]
        table = pandas.concat([table, pandas.DataFrame(ends, index=table.index)], axis=1)
        runs = [
            replace(run, interval=(one.low, one.high)) if math.isfinite(one.low) else run
            for run, one in zip(runs, intervals, strict=True)
        ]
    return Report(runs, list(numbers), table, unfinished, samples, trainings, curve_facts(table, scored, samples))


# --- finding runs


def _deeper(path: Path) -> list[Path]:
    """The finished runs in folders of ``path`` that are no runs, at any depth; what is hidden is left out."""
    found: list[Path] = []
    for folder in sorted(path.iterdir()):
        if folder.name[0] != "." and folder.is_dir() and not folder.is_symlink() and not (folder / CONFIG).exists():
            found += [*runs_in(folder)[0], *_deeper(folder)]
    return found


def _find(paths: Sequence[str | os.PathLike[str]]) -> tuple["pandas.DataFrame", list[Path], list[Path]]:
    """The rows of all runs that ``paths`` give, each once, and the folders of runs that have not finished, and of
    trainings."""
    import pandas

    wanted: dict[Path, None] = {}  # an ordered set
    unfinished: dict[Path, None] = {}
    trainings: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder: give run folders, or folders that hold runs")
        if is_training(path):
            raise RunError(f"{path} is a training, which has no sentences: give runs of its model")
        if (path / CONFIG).exists():
            RunFolder(path).metrics()  # raises for a run that has not finished
            wanted[path.resolve()] = None
            continue
        finished, begun = runs_in(path)
        deeper = _deeper(path)
        if finished and deeper:
            log.warning(
                "%s: %s in folders below it (%s) are not in this report: give those folders, too",
                *(path, _counted(len(deeper), "run"), ", ".join(sorted({str(run.parent) for run in deeper})[:3])),
            )
        finished = finished or deeper
        wanted |= dict.fromkeys(run.resolve() for run in finished)
        unfinished |= dict.fromkeys(begun)
        trainings |= dict.fromkeys(learned := trainings_in(path))
        if not finished:
            state = f"no finished run, and {len(begun)} unfinished" if begun else "no run"
            state += f" (but {_counted(len(learned), 'training')}, which no report is about)" if learned else ""
            raise FileNotFoundError(f"{path} holds {state}: give a folder with finished runs of streamllm, or one run")
    loaded = {parent: load_runs(parent, set_aside=True) for parent in dict.fromkeys(run.parent for run in wanted)}
    if all(rows.empty for rows in loaded.values()):
        raise FileNotFoundError(f"no run of {', '.join(map(str, loaded))} can be read: look at the warnings")
    loaded = {parent: rows for parent, rows in loaded.items() if not rows.empty}
    rows = pandas.concat(
        [rows[[Path(folder) in wanted for folder in rows["folder"]]] for rows in loaded.values()], ignore_index=True
    )
    if "policy._target_" not in rows or (unknown := rows["policy._target_"].isna()).any():
        folder = rows["folder"][0] if "policy._target_" not in rows else rows["folder"][unknown].iloc[0]
        raise RunError(f"{folder}/{CONFIG} does not tell the policy (policy._target_): give runs of streamllm")
    if missing := sorted({"bleu", "laal"} - set(rows)):
        raise RunError(f"{rows['folder'][0]}/{METRICS} has no {missing[0]}: `streamllm score` computes it anew")
    rows["lag"] = rows["laal"].astype(float)
    if "long_yaal" in rows:
        rows["lag"] = rows["lag"].fillna(rows["long_yaal"].astype(float))
    order = ["policy._target_", *(key for key in ("dataset.name", "model.path") if key in rows), "lag"]
    return rows.sort_values(order, kind="stable", ignore_index=True).drop(columns="lag"), [*unfinished], [*trainings]


# --- sentences


def _results(
    folder: Path,
    numbers: dict[Sentence, int],
    samples: int,
    intervals: list[Interval],
    kept: dict[str, Scored],
) -> Iterable[tuple[int, Result]]:
    """The results of a run by the numbers of their sentences; new sentences are given the next ones. Its interval of
    BLEU is added to ``intervals``, if there are ``samples``. The sentences are scored once, and
    those of no documents are ``kept`` for the curves."""
    traces = load_traces(folder)
    documents = any(trace.segments for trace in traces)
    names = [score.key for score in shown_on(SENTENCES)]
    scored = scored_run(folder, ["bleu"] if documents else names, traces)
    if samples:
        intervals.append(bootstrap_of(scored, samples, metrics=["bleu"])["bleu"])
    if documents:
        yield from _documents(folder, traces, numbers)
        return
    kept[str(folder)] = scored
    columns = [scored.sentences(name).tolist() for name in names]
    for trace, *scores in zip(traces, *columns, strict=True):
        units = _source_units(trace)
        number = numbers.setdefault(Sentence(trace.id, trace.source, trace.reference, units), len(numbers))
        defined = {name: float(s) if math.isfinite(s) else None for name, s in zip(names, scores, strict=True)}
        yield number, _result(trace, defined)


def _documents(folder: Path, traces: Sequence[Trace], numbers: dict[Sentence, int]) -> Iterable[tuple[int, Result]]:
    from streamllm.plots.documents import ends_of_document

    language, unit, tokenizer = target_of(folder)
    for trace, own in zip(traces, cut(traces, language, unit), strict=True):
        found = Sentence(trace.id, trace.source, trace.reference, _source_units(trace), trace.segments)
        lags = [sentence_latency(one, unit) for one in own]
        means = corpus_latency(lags).means
        texts = [one.prediction for one in own], [one.reference for one in own]
        scores: dict[str, float | None] = {"bleu": float(quality(*texts, language, tokenizer)["bleu"])}
        scores |= {key: _defined(means[key]) for key in OF_DOCUMENTS}
        pieces = tuple(
            Cut(
                one.prediction,
                sentence_bleu(one.prediction, one.reference, language, tokenizer),
                _defined(lag["long_laal"]),
            )
            for one, lag in zip(own, lags, strict=True)
        )
        ends, told = ends_of_document(trace)
        result = replace(_result(trace, scores), cut=pieces, ends=tuple(ends), told=told)
        yield numbers.setdefault(found, len(numbers)), result


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _result(trace: Trace, scores: dict[str, float | None]) -> Result:
    read = written = 0
    forced, stop = [], ""
    for event in trace.events:
        if event.kind == "forced_read":
            forced.append((read, written))
        elif event.kind == "stop":
            stop = event.text
        read += event.kind in ("read", "forced_read")
        written += event.kind == "write"
    read = max(read, *trace.delays, 0)
    return Result(trace.prediction, trace.units, trace.delays, tuple(forced), read, stop, scores)


def _source_units(trace: Trace) -> tuple[str, ...]:
    """The units of the source, as many as the trace counts."""
    words = tuple(split(trace.source, "word"))
    if len(words) == trace.source_units:
        return words
    characters = tuple(split(trace.source, "character"))
    if len(characters) == trace.source_units:
        return characters
    read = [event.text for event in trace.events if event.kind in ("read", "forced_read")]
    return (*read[: trace.source_units], *[""] * (trace.source_units - len(read)))
