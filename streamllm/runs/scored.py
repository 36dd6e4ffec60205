"""A finished run as what its scores are computed from: numbers for each sentence, read line by line.

Invariant: a corpus score is a function of sums of these numbers, and its value is the one of ``metrics.json``."""

import os
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from streamllm.metrics.arrival import KEYS, ArrivalClock, arrival_latency
from streamllm.metrics.latency import METRICS, Metric, corpus_latency, latency
from streamllm.metrics.longform import LATENCIES, sentence_latency
from streamllm.records import Trace
from streamllm.runs.documents import FEW, cut, summed
from streamllm.runs.formulas import FORMULAS
from streamllm.runs.load import clock_of, stored_run, target_of
from streamllm.runs.sentence_scores import SentenceScores, sentence_scores
from streamllm.runs.stored import StoredRun
from streamllm.runs.sums import (
    Array,
    bleu_of_sums,
    bleu_scorer,
    bleu_statistics,
    chrf_of_sums,
    chrf_statistics,
    mean_of_sums,
    mean_statistics,
    resampled_sums,
)
from streamllm.units import Unit

RunPath = str | os.PathLike[str]

BLEU_NAME = "bleu"
QUALITY = (BLEU_NAME, "chrf")
"""Scores of the corpus; all others are means over sentences."""
AWARE = {f"ca_{name}": name for name in LATENCIES}
"""Latencies of documents with compute included, and those without."""
ON_A_CLOCK = (*KEYS, *AWARE)
"""Latencies that a run has which was given a clock (arrival.words_per_second)."""
KNOWN = [*QUALITY, *METRICS, *KEYS, *LATENCIES, *AWARE]


@dataclass(frozen=True, slots=True)
class Text:
    """What is kept of a sentence besides its numbers."""

    id: str
    source: str
    reference: str
    prediction: str


@dataclass(frozen=True)
class Scored:
    """The sentences of a run, those of documents too, with what its corpus scores are sums of."""

    folder: Path
    language: str
    tokenizer: str | None
    names: list[str]
    texts: list[Text]
    of_document: Any  # (sentences,): the number of the document of each; None for a run over sentences
    bleu: Any  # (sentences, 2 + 2 * 4): lengths, matching n-grams, n-grams; empty if not asked for
    means: dict[str, Array]  # latencies, and means of files beside the run; each (sentences,), nan where undefined
    chrf: Any = field(
        default_factory=lambda: np.zeros((0, 0))
    )  # (sentences, 3 * 6): n-grams of characters; empty if not asked for
    clock: ArrivalClock | None = None  # of the latencies in `ON_A_CLOCK`
    added: dict[str, Array] = field(default_factory=dict)  # what sentences add to scores of files beside the run, each
    # (sentences, numbers)
    formulas: dict[str, str] = field(default_factory=dict)  # of those scores

    @classmethod
    def of(cls, run: RunPath, asked: Sequence[str] | None, traces: Sequence[Trace] | None = None) -> "Scored":
        """``traces`` are those of the run, if somebody has read them."""
        stored = stored_run(run)
        stored.metrics()  # raises for a run that has not finished
        beside = sentence_scores(stored) if asked is None or not {*asked} <= {*KNOWN} else {}
        language, unit, chosen_tokenizer = target_of(stored.path)
        clock = clock_of(stored.path)
        texts: list[Text] = []
        lags: dict[str, array[float]] = {}
        names: list[str] = []
        chosen: dict[str, Metric] = {}
        on_clock: list[str] = []
        in_time = clock is not None and (asked is None or not {*asked}.isdisjoint(ON_A_CLOCK))
        # One at a time: of a long run, whole traces are gigabytes.
        for line in traces or (stored.stored_traces() if in_time else stored.lines()):
            if line.segments:
                return cls._of_documents(stored, asked, beside, language, unit, chosen_tokenizer, clock)
            if not names:
                names = named(asked, [*METRICS, *(KEYS if clock else ()), *beside], str(stored.path))
                chosen = {name: METRICS[name] for name in names if name in METRICS}
                on_clock = [name for name in names if name in KEYS]
                lags = {name: array("d") for name in names if name not in (*QUALITY, *beside)}
            texts.append(Text(line.id, line.source, line.reference, line.prediction))
            of_line = latency(line.delays, line.source_units, line.reference, unit, chosen)
            if on_clock and clock is not None and isinstance(line, Trace):
                in_seconds = arrival_latency(line, clock, unit)
                of_line |= {name: in_seconds[name] for name in on_clock}
            for name, lag in of_line.items():
                lags[name].append(lag)
        return cls._made(stored, names, texts, None, lags, beside, language, chosen_tokenizer, clock)

    @classmethod
    def _of_documents(
        cls,
        stored: StoredRun,
        asked: Sequence[str] | None,
        beside: Mapping[str, SentenceScores],
        language: str,
        unit: Unit,
        tokenizer: str | None,
        clock: ArrivalClock | None,
    ) -> "Scored":
        known = [*LATENCIES, *(AWARE if clock else ()), *beside]
        names = named(asked, known, f"{stored.path}, a run over documents,")
        found = cut(stored.traces(), language, unit, clock)
        of_document = np.array([number for number, one in enumerate(found) for _ in one])
        every = [sentence for one in found for sentence in one]
        texts = [
            Text(f"{one.document}#{one.index + 1}", one.segment.source, one.reference, one.prediction) for one in every
        ]
        rows = [sentence_latency(sentence, unit) for sentence in every]
        if not {*names}.isdisjoint(AWARE):
            with_compute = [sentence_latency(sentence, unit, True) for sentence in every]
            rows = [
                plain | {key: aware[name] for key, name in AWARE.items()}
                for plain, aware in zip(rows, with_compute, strict=True)
            ]
        ours = [name for name in names if name not in (*QUALITY, *beside)]
        lags = {name: array("d", (row[name] for row in rows)) for name in ours}
        return cls._made(stored, names, texts, of_document, lags, beside, language, tokenizer, clock)

    @classmethod
    def _made(
        cls,
        stored: StoredRun,
        names: list[str],
        texts: list[Text],
        of_document: Any,
        lags: Mapping[str, "array[float]"],
        beside: Mapping[str, SentenceScores],
        language: str,
        tokenizer: str | None,
        clock: ArrivalClock | None,
    ) -> "Scored":
        ids = [text.id for text in texts]
        return cls(
            folder=stored.path,
            language=language,
            tokenizer=tokenizer,
            names=names,
            texts=texts,
            of_document=of_document,
            bleu=bleu_statistics(texts, language, tokenizer) if BLEU_NAME in names else np.zeros((0, 0)),
            chrf=chrf_statistics(texts) if "chrf" in names else np.zeros((0, 0)),
            clock=clock,
            means={name: np.array(values) for name, values in lags.items()}
            | {name: one.array(ids) for name, one in beside.items() if name in names and one.formula is None},
            added={name: one.numbers(ids) for name, one in beside.items() if name in names and one.formula},
            formulas={name: one.formula for name, one in beside.items() if name in names and one.formula},
        )

    def take(self, order: Sequence[int]) -> "Scored":
        return replace(
            self,
            texts=[self.texts[index] for index in order],
            of_document=None if self.of_document is None else self.of_document[list(order)],
            bleu=self.bleu[list(order)] if self.bleu.size else self.bleu,
            chrf=self.chrf[list(order)] if self.chrf.size else self.chrf,
            means={name: values[list(order)] for name, values in self.means.items()},
            added={name: numbers[list(order)] for name, numbers in self.added.items()},
        )

    def by_id(self) -> "Scored":
        """In the order of the ids, where "10" comes after "9": so samples do not depend on the order of a file."""
        order = sorted(range(len(self.texts)), key=lambda place: _natural(self.texts[place].id))
        found = self if order == list(range(len(order))) else self.take(order)
        if found.of_document is None:
            return found
        numbers: dict[int, int] = {}
        for document in found.of_document.tolist():
            numbers.setdefault(document, len(numbers))
        return replace(found, of_document=np.array([numbers[document] for document in found.of_document.tolist()]))

    def without(self, undefined: Mapping[str, Any]) -> "Scored":
        """With the scores that ``undefined`` names, undefined where its (sentences,) are true."""
        return replace(
            self, means={name: np.where(where, np.nan, self.means[name]) for name, where in undefined.items()}
        )

    @property
    def by_document(self) -> bool:
        """Whether samples are of whole documents."""
        return self.of_document is not None and int(self.of_document.max()) + 1 >= FEW

    @property
    def drawn(self) -> int:
        """How many things a sample draws from."""
        return int(self.of_document.max()) + 1 if self.by_document else len(self.texts)

    @property
    def drawn_of(self) -> str:
        """What a test of a run over documents exchanges, to be added to its name."""
        return "" if self.of_document is None else " of documents" if self.by_document else " of their sentences"

    def sentences(self, name: str) -> Array:
        """The score of each sentence."""
        if name == BLEU_NAME:
            how = self.language, self.tokenizer
            found = self.bleu if BLEU_NAME in self.names else bleu_statistics(self.texts, *how)
            return bleu_of_sums(found.astype(np.float64), bleu_scorer(*how), effective_order=True)
        if name in self.formulas:
            return FORMULAS[self.formulas[name]].sentences(self.added[name])
        return chrf_of_sums(self.chrf) if name in QUALITY else self.means[name]

    def is_mean(self, name: str) -> bool:
        """Whether a score is a mean over sentences; else it is of the whole corpus, to which all of them add."""
        return name in self.means

    def sentences_with(self, name: str) -> int:
        """How many sentences define a score."""
        return len(self.texts) if not self.is_mean(name) else int(np.sum(~np.isnan(self.means[name])))

    def defined(self, name: str) -> int:
        """How many of the things that samples draw define a score."""
        if not self.by_document:
            return self.sentences_with(name)
        return self.drawn if not self.is_mean(name) else int(np.sum(self.statistics(name)[:, 1] > 0))

    def statistics(self, name: str) -> Array:
        """What its corpus score is computed from, (drawn, statistics), when it has been summed."""
        counts = {BLEU_NAME: self.bleu, "chrf": self.chrf, **self.added}
        found = counts[name].astype(np.float64) if name in counts else mean_statistics(self.means[name])
        return summed(found, self.of_document, self.drawn) if self.by_document else np.asarray(found)

    def score(self, name: str, sums: Array) -> Array:
        """The corpus scores (samples,) of sums of `statistics`."""
        if name == BLEU_NAME:
            return bleu_of_sums(sums, bleu_scorer(self.language, self.tokenizer))
        if name in self.formulas:
            return FORMULAS[self.formulas[name]].corpus(sums)
        return chrf_of_sums(sums) if name in QUALITY else mean_of_sums(sums)

    def resampled(self, samples: int, seed: int) -> dict[str, Array]:
        """The corpus scores (samples,) of samples with replacement: the same samples for each of its scores."""
        statistics = {name: self.statistics(name) for name in self.names}
        sums = resampled_sums(statistics, self.drawn, samples, seed)
        return {name: self.score(name, sums[name]) for name in self.names}

    def value(self, name: str) -> float:
        """The score of the run itself, to the last digit that of ``metrics.json``."""
        if not self.is_mean(name):
            return float(self.score(name, self.statistics(name).sum(0, keepdims=True))[0])
        return corpus_latency({name: value} for value in self.means[name].tolist()).means[name]


def _natural(id: str) -> tuple[list[Any], str]:
    """Numbers within an id count as numbers, of any length."""
    parts = re.split(r"([0-9]+)", id)
    numbers = [(len(part.lstrip("0")), part.lstrip("0")) for part in parts[1::2]]
    return [item for pair in zip_longest(parts[::2], numbers, fillvalue=(0, "")) for item in pair], id


def named(metrics: Sequence[str] | None, means: Sequence[str], run: str) -> list[str]:
    """The scores that are asked for; None asks for all. ``run`` says whose ``means`` they are."""
    known = list(dict.fromkeys([*QUALITY, *means]))
    names = known if metrics is None else list(metrics)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"metrics: {unknown!r}; {run} has {', '.join(known)}")
    return names
