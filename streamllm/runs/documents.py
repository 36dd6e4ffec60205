"""Runs over documents read sentence by sentence: output cut at the reference sentences, and scores by the place of a
sentence in its document.

Invariant: cuts are those of the soft alignment, as in ``metrics.json``."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from streamllm.files import RunError
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.longform import LATENCIES, Sentence, document, one_line, resegment, sentence_latency
from streamllm.records import Trace
from streamllm.runs.load import load_traces, target_of
from streamllm.runs.sums import (
    SEED,
    Array,
    bleu_of_sums,
    bleu_scorer,
    bleu_statistics,
    mean_of_sums,
    mean_statistics,
    percentiles,
    resample,
)
from streamllm.units import Unit, join, split

if TYPE_CHECKING:
    import pandas

RunPath = str | os.PathLike[str]
Groups = int | Literal["sentence"]

FEW = 8
"""Below so many documents, samples are drawn of sentences: so few documents tell little of others."""
SHORT, LONG = 8, 100
"""Up to so many sentences in a document, each place is a group; from so many on, each tenth; else each quarter."""


def cut(
    traces: Sequence[Trace], target_language: str, unit: Unit, clock: ArrivalClock | None = None
) -> list[list[Sentence]]:
    """The sentences of each document, with what was written for them.

    Args:
        target_language, unit: of the target.
        clock: for lags with compute, in source units; None leaves them undefined.

    Raises: ValueError: as `streamllm.metrics.longform.document`, also for a trace that is of no document.
    """
    rate = clock.words_per_second if clock else None
    documents = [document(trace, unit, clock) for trace in traces]
    found = iter(resegment(documents, target_language, unit, units_per_second=rate))
    return [list(islice(found, len(trace.segments))) for trace in traces]


def drift_table(
    runs: Mapping[str, RunPath],
    groups: Groups | None = None,
    latency: str = "long_laal",
    samples: int = 1000,
    seed: int = SEED,
) -> "pandas.DataFrame":
    """Quality and latency of runs by position in the document, which tells whether they drift.

    Texts differ from position to position, so compare a run with another over the same sentences. One of the runs may
    be over single sentences: they take the places that they have in the documents of the others.

    Args:
        runs: run folders by name, one or more over documents.
        groups: into how many equal parts each document is divided; "sentence" groups first sentences, second ones and
            so on; None chooses by the longest document: places up to 8 sentences, quarters, and tenths from 100 on.
        latency: of `streamllm.metrics.longform.LATENCIES`.
        samples, seed: of the percentile bootstrap, which draws documents; where a run has fewer than 8, sentences.
            0 samples leave intervals undefined.

    Returns: a row for each run and group: ``run``, ``group`` (from 1), ``position`` in words, ``documents``,
        ``sentences``, ``bleu`` (corpus BLEU of the group), ``bleu_low``, ``bleu_high``, and three columns of the
        latency, which is a mean over sentences, in source units; ``drawn`` is "documents" or "sentences".
    Raises: FileNotFoundError: there is no run. RunError: none is over documents, or one is over other sentences.
        ValueError: ``groups``, ``latency`` or ``samples`` is none of those.
    """
    import pandas

    _check(groups, latency, samples)
    scored = _scored(runs, latency)
    chosen = groups or _groups(max(one.longest for one in scored.values()))
    rows: list[dict[str, Any]] = []
    for name, one in scored.items():
        rows += [{"run": name, **row} for row in one.rows(chosen, latency, samples, seed)]
    return pandas.DataFrame(rows)


def drift_rows(
    name: str,
    sentences: Sequence[Sequence[Sentence]],
    target_language: str,
    unit: Unit,
    tokenizer: str | None = None,
    samples: int = 1000,
) -> list[dict[str, Any]]:
    """The rows of `drift_table` of one run, which is called ``name``, from what `cut` gives."""
    scored = _of(sentences, target_language, unit, tokenizer, "long_laal")
    return [{"run": name, **row} for row in scored.rows(_groups(scored.longest), "long_laal", samples, SEED)]


def _groups(longest: int) -> Groups:
    return "sentence" if longest <= SHORT else 10 if longest >= LONG else 4


def _check(groups: Groups | None, latency: str, samples: int) -> None:
    if not (groups in (None, "sentence") or (type(groups) is int and groups > 0)):
        raise ValueError(f'groups is {groups!r}; accepted are a number of parts from 1 on, "sentence" and None')
    if latency not in LATENCIES:
        raise ValueError(f"latency is {latency!r}; accepted are {', '.join(LATENCIES)}")
    if type(samples) is not int or samples < 0:
        raise ValueError(f"samples is {samples!r}; give a number of samples, such as 1000, or 0 for no intervals")


@dataclass(frozen=True)
class _Place:
    """Where a sentence stands: the number of its document, its place there from 0, and how many sentences that has."""

    document: int
    index: int
    length: int


@dataclass(frozen=True)
class _Scored:
    """What the scores of a run are sums of: BLEU (sentences, 2 + 2 * 4), and latency (sentences,), nan if undefined."""

    places: list[_Place]
    language: str
    tokenizer: str | None
    bleu: Array
    lags: Array

    @property
    def longest(self) -> int:
        """Sentences of the longest document."""
        return max(place.length for place in self.places)

    def rows(self, groups: Groups, latency: str, samples: int, seed: int) -> list[dict[str, Any]]:
        of = np.array(
            [place.index if groups == "sentence" else place.index * groups // place.length for place in self.places]
        )
        documents = np.array([place.document for place in self.places])
        every = int(documents.max()) + 1
        drawn = "documents" if every >= FEW else "sentences"
        return [
            {
                "group": int(group) + 1,
                "position": position(int(group), groups),
                "documents": len(np.unique(documents[of == group])),
                "sentences": int(np.sum(of == group)),
                **self._scores(of == group, documents if drawn == "documents" else None, latency, samples, seed),
                "drawn": drawn,
            }
            for group in np.unique(of)
        ]

    def _scores(self, chosen: Any, documents: Any, latency: str, samples: int, seed: int) -> dict[str, float]:
        bleu, lag = self.bleu[chosen], mean_statistics(self.lags[chosen])
        if documents is not None:
            bleu, lag = (summed(values, documents[chosen], int(documents.max()) + 1) for values in (bleu, lag))
        counts = np.ones((1, len(bleu)))
        if samples:
            counts = np.concatenate([counts, resample(len(bleu), samples, seed)])
        qualities = bleu_of_sums(counts @ bleu, bleu_scorer(self.language, self.tokenizer))
        latencies = mean_of_sums(counts @ lag)
        found: dict[str, float] = {}
        for name, (value, *values) in (("bleu", qualities.tolist()), (latency, latencies.tolist())):
            low, high = percentiles(np.array(values))
            found |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return found


def position(group: int, groups: Groups) -> str:
    """A group in words, such as "3" for third sentences or "25–50 %" for the second quarter; ``group`` from 0."""
    if groups == "sentence":
        return str(group + 1)
    return f"{round(100 * group / groups)}–{round(100 * (group + 1) / groups)} %"


def summed(values: Array, documents: Any, count: int) -> Array:
    """Statistics (sentences, n) summed over the sentences of each document: (count, n)."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, documents, values)
    return sums


def _scored(runs: Mapping[str, RunPath], latency: str) -> dict[str, _Scored]:
    if not runs:
        raise ValueError("0 runs; give at least one over documents, by name")
    loaded = {name: (load_traces(run), target_of(run)) for name, run in runs.items()}
    sentences = {
        name: cut(traces, target[0], target[1])
        for name, (traces, target) in loaded.items()
        if any(trace.segments for trace in traces)
    }
    if not sentences:
        raise RunError(
            f"{', '.join(map(str, runs.values()))}: no run over documents; position needs one, such as with "
            "dataset.sentences_per_document=20 (docs/documents.md)"
        )
    first = next(iter(sentences.values()))
    for name, (traces, target) in loaded.items():
        if name not in sentences:
            sentences[name] = _laid_over(traces, first, target[1], runs[name])
    return {name: _of(sentences[name], *loaded[name][1], latency) for name in runs}


def _of(
    sentences: Sequence[Sequence[Sentence]], language: str, unit: Unit, tokenizer: str | None, latency: str
) -> _Scored:
    every = [sentence for one in sentences for sentence in one]
    return _Scored(
        [_Place(number, index, len(one)) for number, one in enumerate(sentences) for index in range(len(one))],
        language,
        tokenizer,
        bleu_statistics(every, language, tokenizer).astype(np.float64),
        np.array([sentence_latency(sentence, unit)[latency] for sentence in every], np.float64),
    )


def _laid_over(
    traces: Sequence[Trace], documents: list[list[Sentence]], unit: Unit, run: RunPath
) -> list[list[Sentence]]:
    """The sentences of documents as a run over single sentences has them.

    Raises: RunError: it lacks one.
    """
    found: dict[tuple[str, str], list[Trace]] = {}
    for trace in reversed(traces):
        found.setdefault(_texts(trace.source, trace.reference), []).append(trace)

    def taken(sentence: Sentence) -> Sentence:
        same = found.get(_texts(sentence.segment.source, sentence.segment.reference))
        if not same:
            raise RunError(
                f"{run} is over single sentences and has none for sentence {sentence.index + 1} of document "
                f"{sentence.document!r}: give runs over the same text"
            )
        trace = same.pop() if len(same) > 1 else same[0]
        parts = [split(text, unit) for text in trace.units]
        units = tuple(part for those in parts for part in those)
        return replace(
            sentence,
            prediction=join(units, unit),
            units=units,
            places=tuple(range(len(units))),
            delays=tuple(delay for delay, those in zip(trace.delays, parts, strict=True) for _ in those),
            elapsed=None,
            to_end=math.inf,
            cut_short=False,
        )

    return [[taken(sentence) for sentence in one] for one in documents]


def _texts(source: str, reference: str) -> tuple[str, str]:
    return " ".join(source.split()), one_line(reference)
