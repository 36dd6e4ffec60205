"""Statistics on runs: intervals of one, differences between two, and the table of their sentences side by side.

One resampling of whole sentences serves all metrics, so quality and latency are judged on the same samples. Intervals
are by bootstrap; whether two runs differ is tested by randomisation. Documents are cut at their reference sentences;
what is drawn and exchanged are documents, and sentences where there are fewer than `documents.FEW`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamllm.check import whole_number
from streamllm.files import RunError
from streamllm.metrics.latency import METRICS
from streamllm.metrics.longform import LATENCIES
from streamllm.runs.randomisation import NAME, TRIALS, randomisation_p
from streamllm.runs.scored import BLEU_NAME, RunPath, Scored, named
from streamllm.runs.sums import SEED, Array, percentiles

if TYPE_CHECKING:
    import pandas

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


def scored_run(run: RunPath, metrics: Sequence[str] | None = None) -> "Scored":
    """A finished run's sentences with their scores: for its interval, its table, or both. Raises: as `bootstrap`."""
    return Scored.of(run, metrics)


def bootstrap_of(
    scored: "Scored", samples: int, seed: int = SEED, metrics: Sequence[str] | None = None
) -> dict[str, Interval]:
    """As `bootstrap`, of a run whose sentences have been scored; ``metrics`` are some of those that they have."""
    scored = scored if metrics is None else replace(scored, names=list(metrics))
    drawn = scored.resampled(samples, seed)
    intervals = {}
    for name in scored.names:
        low, high = percentiles(drawn[name])
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
    a, b = _pair(Scored.of(baseline, names), Scored.of(system, names))

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
    a, b = _pair(Scored.of(baseline, names), Scored.of(system, names))
    return _differences(a, b, samples, seed, BOOTSTRAP, lambda _, drawn, difference: _p_of_bootstrap(drawn, difference))


def _differences(
    a: "Scored",
    b: "Scored",
    samples: int,
    seed: int,
    test: str,
    p_value: Callable[[str, Array, float], float],
) -> dict[str, Difference]:
    """``p_value`` is asked with a metric, its differences in the samples, and the one found."""
    of_a, of_b = a.resampled(samples, seed), b.resampled(samples, seed)
    differences = {}
    for name in a.names:
        drawn = of_b[name] - of_a[name]
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
    a, b = _pair(Scored.of(run_a, names), Scored.of(run_b, names))
    if names is None:
        names = [BLEU_NAME, *(("long_al", "long_laal") if a.of_document is not None else ("al", "laal"))]
    columns: dict[str, Any] = {
        "id": [trace.id for trace in a.texts],
        "source": [trace.source for trace in a.texts],
        "reference": [trace.reference for trace in a.texts],
        "prediction_a": [trace.prediction for trace in a.texts],
        "prediction_b": [trace.prediction for trace in b.texts],
    }
    for name in dict.fromkeys(names):
        of_a, of_b = a.sentences(name), b.sentences(name)
        columns |= {f"{name}_a": of_a, f"{name}_b": of_b, f"{name}_difference": of_b - of_a}
    return pandas.DataFrame(columns)


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
        named(metrics, [*METRICS, *LATENCIES], "")
    if samples < 1:
        raise ValueError(f"samples is {samples}; at least 1 is needed, and 1000 is usual")
    return None if metrics is None else list(metrics)


def _pair(a: Scored, b: Scored) -> tuple[Scored, Scored]:
    """Both runs in the order of the first."""
    if (a.of_document is None) != (b.of_document is None):
        whole, single = (a, b) if b.of_document is None else (b, a)
        raise RunError(
            f"{whole.folder} is over documents and {single.folder} over single sentences: compare two runs of a kind, "
            "or look at both by position (streamllm.runs.drift_table)"
        )
    places = {trace.id: index for index, trace in enumerate(b.texts)}
    for one, other in ((a, b), (b, a)):
        ids = {trace.id for trace in other.texts}
        if missing := [trace.id for trace in one.texts if trace.id not in ids]:
            raise RunError(
                f"{len(missing)} of the {len(one.texts)} sentences of {one.folder} are not in {other.folder} "
                f"({', '.join(missing[:SHOWN])}{' …' if missing[SHOWN:] else ''}): compare runs over the same data set"
            )
    ordered = b.take([places[trace.id] for trace in a.texts])
    for left, right in zip(a.texts, ordered.texts, strict=True):
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
