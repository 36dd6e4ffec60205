"""Statistics on runs: intervals of one, differences between two, and the table of their sentences side by side.

One resampling of whole sentences serves all metrics, so quality and latency are judged on the same samples. Intervals
are by bootstrap; whether two runs differ is tested by randomisation. Documents are cut at their reference sentences;
what is drawn and exchanged are documents, and sentences where there are fewer than `documents.FEW`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamllm.check import whole_number
from streamllm.files import RunError
from streamllm.metrics.latency import METRICS, corpus_latency, latency
from streamllm.metrics.longform import LATENCIES, Sentence, sentence_latency
from streamllm.records import Trace
from streamllm.runs.documents import FEW, cut, summed
from streamllm.runs.folder import RunFolder
from streamllm.runs.load import load_traces, target_of
from streamllm.runs.randomisation import NAME, TRIALS, randomisation_p
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

if TYPE_CHECKING:
    import pandas

RunPath = str | os.PathLike[str]

BLEU_NAME = "bleu"
BOOTSTRAP = "paired bootstrap"
SHOWN = 3  # ids that an error names


@dataclass(frozen=True)
class Interval:
    """A corpus score of one run and its 95 % interval, from ``low`` to ``high``."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A corpus score of two runs; ``difference`` is system - baseline, from ``low`` to ``high`` with 95 %
    confidence by paired bootstrap. ``test`` is the name of the test that gave the p-value: write it beside the p."""

    metric: str
    baseline: float
    system: float
    difference: float
    low: float
    high: float
    p_value: float
    test: str


def bootstrap(
    run: RunPath, samples: int = 1000, seed: int = SEED, metrics: Sequence[str] | None = None
) -> dict[str, Interval]:
    """How sure the scores of a finished run are: percentile bootstrap over its sentences (Koehn 2004).

    Args:
        run: the run folder.
        samples: how many times as many sentences are drawn, with replacement.
        seed: of the drawing.
        metrics: "bleu" and names of `streamllm.metrics.latency.METRICS`, of documents those of
            `streamllm.metrics.longform.LATENCIES`; None: all of them.

    Returns: an interval for each metric. ``value`` is what ``metrics.json`` holds; a metric that no sentence
        defines is nan.
    Raises: FileNotFoundError: there is no run. RunError: it has not finished. ValueError: an unknown metric,
        ``samples`` below 1, or a configuration that does not tell the target language.
    """
    return bootstrap_of(scored_run(run, _check_arguments(samples, metrics)), samples, seed)


def scored_run(run: RunPath, metrics: Sequence[str] | None = None) -> "_Scored":
    """A finished run's sentences with their scores: for its interval, its table, or both. Raises: as `bootstrap`."""
    return _Scored.of(run, metrics)


def bootstrap_of(
    scored: "_Scored", samples: int, seed: int = SEED, metrics: Sequence[str] | None = None
) -> dict[str, Interval]:
    """As `bootstrap`, of a run whose sentences have been scored; ``metrics`` are some of those that they have."""
    scored = scored if metrics is None else replace(scored, names=list(metrics))
    counts = resample(scored.drawn, samples, seed)
    intervals = {}
    for name in scored.names:
        low, high = percentiles(scored.corpus(name, counts))
        intervals[name] = Interval(name, scored.value(name), low, high)
    return intervals


def intervals(
    runs: "pandas.DataFrame", samples: int = 1000, seed: int = SEED, metrics: Sequence[str] | None = None
) -> "pandas.DataFrame":
    """`bootstrap` of each row of `streamllm.runs.load.load_runs`, for the bands of `streamllm.plots`.

    Returns: columns ``bleu_low``, ``bleu_high``, ``laal_low`` … with the index of ``runs``.
    Raises: ValueError: ``runs`` has no column ``folder``; and as `bootstrap`.
    """
    import pandas

    if "folder" not in runs:
        raise ValueError("runs has no column 'folder': take the DataFrame of streamllm.runs.load.load_runs")
    rows = []
    for folder in runs["folder"]:
        found = bootstrap(folder, samples, seed, metrics).values()
        rows.append({f"{i.metric}_{end}": getattr(i, end) for i in found for end in ("low", "high")})
    return pandas.DataFrame(rows, index=runs.index)


def paired_test(
    baseline: RunPath,
    system: RunPath,
    samples: int = 1000,
    seed: int = SEED,
    metrics: Sequence[str] | None = None,
    trials: int = TRIALS,
) -> dict[str, Difference]:
    """Whether two finished runs over the same sentences differ: p by approximate randomisation, two-sided, and exact
    where few sentences differ (`randomisation_p`); the interval by paired bootstrap (Koehn 2004).

    Every trial exchanges, and every sample draws, the same sentences for BLEU and all latencies at once. Where a
    metric differs in one, two or three sentences that all speak for one run, p is 1, 0.5 or 0.25: so few sentences
    show nothing. Riezler and Maxwell (2005) recommend randomisation over the bootstrap, whose p is too small too often.

    Args:
        baseline, system: the run folders; sentences are matched by id, in any order.
        samples, seed, metrics: as for `bootstrap`.
        trials: of the randomisation.

    Returns: a `Difference` for each metric; ``pandas.DataFrame(result.values())`` makes a table of them.
    Raises: RunError: the runs do not hold the same sentences; and as `bootstrap`.
    """
    whole_number("seed", seed, 0, of="")
    if trials < 1:
        raise ValueError(f"trials is {trials}; at least 1 is needed, and {TRIALS} is usual")
    names = _check_arguments(samples, metrics)
    a, b = _pair(_Scored.of(baseline, names), _Scored.of(system, names))

    def p_value(name: str, drawn: Array, difference: float) -> float:
        return randomisation_p(a.statistics(name), b.statistics(name), partial(a.score, name), trials, seed)

    return _differences(a, b, samples, seed, NAME, p_value)


def paired_bootstrap(
    baseline: RunPath, system: RunPath, samples: int = 1000, seed: int = SEED, metrics: Sequence[str] | None = None
) -> dict[str, Difference]:
    """As `paired_test`, but p by paired bootstrap too, to compare with what others have published.

    The p-value is that of sacrebleu's ``PairedTest(test_type="bs")``, with its seed and for BLEU equal to it: how
    often the absolute difference exceeds its own mean over the samples by more than the real one. For a clear
    difference that is a one-sided p, so an interval of 95 % without zero goes with p < 0.025. Runs that agree in
    every sample get 1, where sacrebleu gives its least value.
    """
    names = _check_arguments(samples, metrics)
    a, b = _pair(_Scored.of(baseline, names), _Scored.of(system, names))
    return _differences(a, b, samples, seed, BOOTSTRAP, lambda _, drawn, difference: _p_of_bootstrap(drawn, difference))


def _differences(
    a: "_Scored",
    b: "_Scored",
    samples: int,
    seed: int,
    test: str,
    p_value: Callable[[str, Array, float], float],
) -> dict[str, Difference]:
    """``p_value`` is asked with a metric, its differences in the samples, and the one found."""
    counts = resample(a.drawn, samples, seed)
    differences = {}
    for name in a.names:
        drawn = b.corpus(name, counts) - a.corpus(name, counts)
        low, high = percentiles(drawn)
        old, new = a.value(name), b.value(name)
        p = p_value(name, drawn, new - old)
        differences[name] = Difference(name, old, new, new - old, low, high, p, test + a.drawn_of)
    return differences


def sentence_table(run_a: RunPath, run_b: RunPath, metrics: Sequence[str] | None = None) -> "pandas.DataFrame":
    """Two runs sentence by sentence, in the order of the first.

    Args:
        metrics: names of `streamllm.metrics.latency.METRICS`, of documents those of
            `streamllm.metrics.longform.LATENCIES`; None: AL and LAAL, of documents LongAL and LongLAAL.

    Returns: one row a sentence: ``id``, ``source``, ``reference``, ``prediction_a``, ``prediction_b``, sentence
        BLEU (0 to 100) ``bleu_a``, ``bleu_b`` and ``bleu_difference`` (b - a), and the same three columns for
        each latency, in source units; nan where a sentence has no output. The sentences of documents are those after
        re-segmentation, with the ids "DOCUMENT#1" and so on.
    Raises: as `paired_test`.
    """
    import pandas

    names = None if metrics is None else [BLEU_NAME, *(_check_arguments(1, metrics) or ())]
    a, b = _pair(_Scored.of(run_a, names), _Scored.of(run_b, names))
    if names is None:
        names = [BLEU_NAME, *(("long_al", "long_laal") if a.of_document is not None else ("al", "laal"))]
    columns: dict[str, Any] = {
        "id": [trace.id for trace in a.traces],
        "source": [trace.source for trace in a.traces],
        "reference": [trace.reference for trace in a.traces],
        "prediction_a": [trace.prediction for trace in a.traces],
        "prediction_b": [trace.prediction for trace in b.traces],
    }
    for name in dict.fromkeys(names):
        of_a, of_b = a.sentences(name), b.sentences(name)
        columns |= {f"{name}_a": of_a, f"{name}_b": of_b, f"{name}_difference": of_b - of_a}
    return pandas.DataFrame(columns)


# --- the statistics of one run


@dataclass(frozen=True)
class _Scored:
    """The traces of a run, of documents one for each sentence, with what its corpus scores are sums of."""

    folder: Path
    language: str
    tokenizer: str | None
    names: list[str]
    traces: list[Trace]
    of_document: Any  # (sentences,): the number of the document of each; None for a run over sentences
    bleu: Any  # (sentences, 2 + 2 * 4): lengths, matching n-grams, n-grams; empty if not asked for
    latencies: dict[str, Array]  # each (sentences,), nan where undefined

    @classmethod
    def of(cls, run: RunPath, asked: Sequence[str] | None) -> "_Scored":
        traces, folder = load_traces(run), RunFolder(run)
        folder.metrics()  # raises for a run that has not finished
        language, unit, chosen_tokenizer = target_of(folder.path)
        of_document = None
        if any(trace.segments for trace in traces):
            found = cut(traces, language, unit)
            of_document = np.array([number for number, one in enumerate(found) for _ in one])
            every = [sentence for one in found for sentence in one]
            traces, known = [_as_trace(sentence) for sentence in every], list(LATENCIES)
            names = _named(asked, known, f"{folder.path}, a run over documents,")
            rows = [sentence_latency(sentence, unit) for sentence in every]
        else:
            names = _named(asked, list(METRICS), str(folder.path))
            chosen = {name: METRICS[name] for name in names if name != BLEU_NAME}
            rows = [latency(t.delays, t.source_units, t.reference, unit, chosen) for t in traces]
        return cls(
            folder=folder.path,
            language=language,
            tokenizer=chosen_tokenizer,
            names=names,
            traces=traces,
            of_document=of_document,
            bleu=bleu_statistics(traces, language, chosen_tokenizer) if BLEU_NAME in names else np.zeros((0, 0)),
            latencies={name: np.array([row[name] for row in rows], np.float64) for name in names if name != BLEU_NAME},
        )

    def take(self, order: Sequence[int]) -> "_Scored":
        return replace(
            self,
            traces=[self.traces[index] for index in order],
            of_document=None if self.of_document is None else self.of_document[list(order)],
            bleu=self.bleu[list(order)] if self.bleu.size else self.bleu,
            latencies={name: values[list(order)] for name, values in self.latencies.items()},
        )

    @property
    def by_document(self) -> bool:
        """Whether samples are of whole documents."""
        return self.of_document is not None and int(self.of_document.max()) + 1 >= FEW

    @property
    def drawn(self) -> int:
        """How many things a sample draws from."""
        return int(self.of_document.max()) + 1 if self.by_document else len(self.traces)

    @property
    def drawn_of(self) -> str:
        """What a test of a run over documents exchanges, to be added to its name."""
        return "" if self.of_document is None else " of documents" if self.by_document else " of their sentences"

    def sentences(self, name: str) -> Array:
        """The score of each sentence."""
        if name == BLEU_NAME:
            how = self.language, self.tokenizer
            found = self.bleu if BLEU_NAME in self.names else bleu_statistics(self.traces, *how)
            return bleu_of_sums(found.astype(np.float64), bleu_scorer(*how), effective_order=True)
        return self.latencies[name]

    def statistics(self, name: str) -> Array:
        """What its corpus score is computed from, (drawn, statistics), when it has been summed."""
        found = self.bleu.astype(np.float64) if name == BLEU_NAME else mean_statistics(self.latencies[name])
        return summed(found, self.of_document, self.drawn) if self.by_document else np.asarray(found)

    def score(self, name: str, sums: Array) -> Array:
        """The corpus scores (samples,) of sums of `statistics`."""
        if name == BLEU_NAME:
            return bleu_of_sums(sums, bleu_scorer(self.language, self.tokenizer))
        return mean_of_sums(sums)

    def corpus(self, name: str, counts: Array) -> Array:
        """The corpus score of each sample; ``counts`` (samples, drawn) is how often each of them is in it."""
        return self.score(name, counts @ self.statistics(name))

    def value(self, name: str) -> float:
        """The score of the run itself, to the last digit that of ``metrics.json``."""
        if name == BLEU_NAME:
            return float(self.corpus(name, np.ones((1, self.drawn)))[0])
        return corpus_latency({name: value} for value in self.latencies[name].tolist()).means[name]


def _p_of_bootstrap(drawn: Array, difference: float) -> float:
    sizes = np.abs(drawn[~np.isnan(drawn)])
    if not sizes.size or np.isnan(difference):
        return float("nan")
    if not sizes.any():
        return 1.0
    return (int(np.sum(sizes - sizes.mean() > abs(difference))) + 1) / (len(sizes) + 1)


# --- checks


def _check_arguments(samples: int, metrics: Sequence[str] | None) -> list[str] | None:
    if metrics is not None:
        _named(metrics, [*METRICS, *LATENCIES], "")
    if samples < 1:
        raise ValueError(f"samples is {samples}; at least 1 is needed, and 1000 is usual")
    return None if metrics is None else list(metrics)


def _named(metrics: Sequence[str] | None, latencies: Sequence[str], run: str) -> list[str]:
    """The scores that are asked for; None asks for all. ``run`` says whose ``latencies`` they are."""
    known = [BLEU_NAME, *latencies]
    names = known if metrics is None else list(metrics)
    if isinstance(metrics, str) or not names or (unknown := [name for name in names if name not in known]):
        given = metrics if isinstance(metrics, str) or not names else unknown
        of = f"; {run} has" if run else " is not accepted; give a list of some of"
        raise ValueError(f"metrics: {given!r}{of} {', '.join(known)}")
    return names


def _as_trace(sentence: Sentence) -> Trace:
    """A sentence of a document as if it stood alone, without times and events."""
    return Trace(
        id=f"{sentence.document}#{sentence.index + 1}",
        source=sentence.segment.source,
        reference=sentence.reference,
        units=sentence.units,
        delays=tuple(int(delay) for delay in sentence.delays),
        elapsed=(0.0,) * len(sentence.units),
        events=(),
        source_units=sentence.segment.units,
        prediction=sentence.prediction,
    )


def _pair(a: _Scored, b: _Scored) -> tuple[_Scored, _Scored]:
    """Both runs in the order of the first."""
    if (a.of_document is None) != (b.of_document is None):
        whole, single = (a, b) if b.of_document is None else (b, a)
        raise RunError(
            f"{whole.folder} is over documents and {single.folder} over single sentences: compare two runs of a kind, "
            "or look at both by position (streamllm.runs.drift_table)"
        )
    places = {trace.id: index for index, trace in enumerate(b.traces)}
    for one, other in ((a, b), (b, a)):
        ids = {trace.id for trace in other.traces}
        if missing := [trace.id for trace in one.traces if trace.id not in ids]:
            raise RunError(
                f"{len(missing)} of the {len(one.traces)} sentences of {one.folder} are not in {other.folder} "
                f"({', '.join(missing[:SHOWN])}{' …' if missing[SHOWN:] else ''}): compare runs over the same data set"
            )
    ordered = b.take([places[trace.id] for trace in a.traces])
    for left, right in zip(a.traces, ordered.traces, strict=True):
        if (left.source, left.reference) != (right.source, right.reference):
            raise RunError(
                f"sentence {left.id!r} is {left.source!r} -> {left.reference!r} in {a.folder}, but {right.source!r} "
                f"-> {right.reference!r} in {b.folder}: compare runs over the same data set"
            )
    if a.language != b.language:
        raise RunError(f"the target is {a.language!r} in {a.folder}, but {b.language!r} in {b.folder}")
    if a.tokenizer != b.tokenizer:
        raise RunError(
            f"dataset.bleu_tokenizer is {a.tokenizer!r} in {a.folder}, but {b.tokenizer!r} in {b.folder}: their BLEU "
            "cannot be compared; run one of them again with that of the other"
        )
    return a, ordered
