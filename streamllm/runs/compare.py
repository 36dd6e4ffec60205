"""Statistics on runs: intervals of one, differences between two, and the table of their sentences side by side.

One resampling of whole sentences serves all metrics, so quality and latency are judged on the same samples. Intervals
are by bootstrap; whether two runs differ is tested by randomisation. Documents are cut at their reference sentences;
what is drawn and exchanged are documents, and sentences where there are fewer than `documents.FEW`.

Invariant: samples go by ids. Files that hold the same sentences in another order give the same numbers, and A against B
is B against A with the other sign.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamllm.check import whole_number
from streamllm.files import RunError
from streamllm.metrics.scores import Score, scores
from streamllm.records import Trace
from streamllm.runs.folder import RunFolder
from streamllm.runs.randomisation import NAME, TIE, TRIALS, randomisation_p
from streamllm.runs.scored import BLEU_NAME, KNOWN, ON_A_CLOCK, RunPath, Scored
from streamllm.runs.sentence_scores import beside_score
from streamllm.runs.stored import computed_otherwise
from streamllm.runs.sums import SEED, Array, percentiles

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

BOOTSTRAP = "paired bootstrap (sacrebleu's formula, one-sided)"
SHOWN = 3  # ids that an error names

ENOUGH = 30
"""From so many sentences (or documents, where those are drawn) on, intervals go without a warning: of 2,000 draws of 5
sentences, those of 95 % held the true score in 62 to 84 %."""


@dataclass(frozen=True)
class Interval:
    """A corpus score of one run and its 95 % interval, from ``low`` to ``high``; these are nan where a single sentence
    (or document) defines the score."""

    metric: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As in "33.41 BLEU [32.10, 34.72]"."""
        score = _score(self.metric)
        if math.isnan(self.value):
            return f"no {score.name}"
        return f"{score.text(self.value)} {score.name}{_between(self.low, self.high, f'.{score.digits}f')}"


@dataclass(frozen=True)
class Difference:
    """A corpus score of two runs; ``difference`` is system - baseline, from ``low`` to ``high`` with 95 %
    confidence by paired bootstrap. ``test`` is the name of the test that gave the p-value: write it beside the p.

    ``sentences`` is how many were compared: those that define the score in both runs. ``baseline`` and ``system`` are
    the scores of these, so where a sentence has no output in one run, they are not the latencies of ``metrics.json``.
    """

    metric: str
    baseline: float
    system: float
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    sentences: int

    @property
    def p_text(self) -> str:
        """As in "p = 0.012", or "p < 0.001"; "" where there is none."""
        if math.isnan(self.p_value):
            return ""
        return f"p = {self.p_value:.3f}" if self.p_value >= 0.001 else "p < 0.001"

    def __str__(self) -> str:
        """As in "+3.52 BLEU [+1.39, +5.66], p = 0.002 (approximate randomisation)"."""
        score = _score(self.metric)
        if math.isnan(self.difference):
            return f"no {score.name} in both runs"
        form = f"+.{score.digits}f"
        between = _between(self.low, self.high, form)
        p = f", {self.p_text} ({self.test})" if self.p_text else ""
        return f"{self.difference:{form}} {score.name}{between}{p}"


def _score(metric: str) -> Score:
    return scores(documents=True).get(metric) or beside_score(metric)


def _between(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"


def bootstrap(
    run: RunPath, samples: int = 1000, seed: int = SEED, metrics: Sequence[str] | None = None
) -> dict[str, Interval]:
    """How sure the scores of a finished run are: percentile bootstrap over its sentences (Koehn 2004).

    Args:
        run: the run folder.
        samples: how many times as many sentences are drawn, with replacement.
        seed: of the drawing.
        metrics: "bleu", "chrf" and names of `streamllm.metrics.latency.METRICS`, of documents those of
            `streamllm.metrics.longform.LATENCIES`; of a run with a clock (``arrival.words_per_second``) also
            `streamllm.metrics.arrival.KEYS`, of documents "ca_long_laal" and so on; and KEY where the run's folder has
            scores of its sentences in KEY.jsonl, as of COMET and TER. None: all of them.

    Returns: an interval for each metric. ``value`` is what ``metrics.json`` holds; a metric that no sentence
        defines is nan. Below `ENOUGH` sentences a warning is logged: intervals are too narrow there.
    Raises: FileNotFoundError: there is no run. RunError: it has not finished. ValueError: an unknown metric,
        ``samples`` below 1, or a configuration that does not tell the target language.
    """
    scored = scored_run(run, _check_arguments(samples, metrics))
    warn_of_few(scored)
    return bootstrap_of(scored, samples, seed)


def scored_run(run: RunPath, metrics: Sequence[str] | None = None, traces: Sequence[Trace] | None = None) -> "Scored":
    """A finished run's sentences with their scores: for its interval, its table, or both. ``traces`` are its own, if
    they have been read. Raises: as `bootstrap`."""
    return Scored.of(run, metrics, traces)


def bootstrap_of(
    scored: "Scored", samples: int, seed: int = SEED, metrics: Sequence[str] | None = None
) -> dict[str, Interval]:
    """As `bootstrap`, of a run whose sentences have been scored; ``metrics`` are some of those that they have."""
    scored = (scored if metrics is None else replace(scored, names=list(metrics))).by_id()
    drawn = scored.resampled(samples, seed)
    intervals = {}
    for name in scored.names:
        low, high = _ends(scored, name, drawn[name])
        intervals[name] = Interval(name, scored.value(name), low, high)
    return intervals


def warn_of_few(scored: "Scored") -> None:
    """Log a line if intervals over so few sentences are too narrow."""
    if scored.drawn < ENOUGH:
        log.warning(
            "%s has %d %s: below %d, intervals by bootstrap are too narrow (at 5, those of 95 %% hold the true score "
            "in 62 to 84 %% of cases)",
            *(scored.folder, scored.drawn, "documents" if scored.by_document else "sentences", ENOUGH),
        )


def _ends(scored: "Scored", name: str, drawn: Array) -> tuple[float, float]:
    """The interval of what was drawn; none where one sentence alone defines the score, which is the same in all
    samples."""
    return percentiles(drawn) if scored.defined(name) > 1 else (float("nan"), float("nan"))


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
    names, rows = _check_arguments(samples, metrics), []
    least: Scored | None = None
    for folder in runs["folder"]:
        scored = scored_run(folder, names)
        least = scored if least is None or scored.drawn < least.drawn else least
        found = bootstrap_of(scored, samples, seed).values()
        rows.append({f"{i.metric}_{end}": getattr(i, end) for i in found for end in ("low", "high")})
    if least is not None:
        warn_of_few(least)
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

    Every trial exchanges, and every sample draws, the same sentences for all scores at once. Where a metric differs in
    one, two or three sentences that all speak for one run, p is 1, 0.5 or 0.25: so few sentences show nothing. A
    latency is compared over the sentences that define it in both runs, so that sentences without output in one of them
    do not make the other look different. Riezler and Maxwell (2005) recommend randomisation over the bootstrap, whose p
    is too small too often.

    Args:
        baseline, system: the run folders; sentences are matched by id, in any order.
        samples, seed, metrics: as for `bootstrap`.
        trials: of the randomisation.

    Returns: a `Difference` for each metric; ``pandas.DataFrame(result.values())`` makes a table of them.
    Raises: RunError: the runs do not hold the same sentences; and as `bootstrap`.
    """
    names = _check_arguments(samples, metrics)
    return paired_test_of(scored_run(baseline, names), scored_run(system, names), samples, seed, trials, bool(names))


def paired_test_of(
    baseline: Scored, system: Scored, samples: int, seed: int, trials: int, asked: bool
) -> dict[str, Difference]:
    """As `paired_test`, of runs whose sentences have been scored; ``asked`` says that their metrics were chosen."""
    whole_number("seed", seed, 0, of="")
    if trials < 1:
        raise ValueError(f"trials is {trials}; at least 1 is needed, and {TRIALS} is usual")
    a, b = pair(baseline, system, asked)

    def p_value(name: str, drawn: Array, difference: float) -> float:
        return randomisation_p(a.statistics(name), b.statistics(name), partial(a.score, name), trials, seed)

    return _differences(a, b, samples, seed, NAME, p_value)


def paired_bootstrap(
    baseline: RunPath, system: RunPath, samples: int = 1000, seed: int = SEED, metrics: Sequence[str] | None = None
) -> dict[str, Difference]:
    """As `paired_test`, but p by paired bootstrap too, to compare with what others have published.

    The p-value is that of sacrebleu's ``PairedTest(test_type="bs")``, with its seed and for BLEU equal to it: how
    often the absolute difference exceeds its own mean over the samples by more than the real one. For a clear
    difference that is a one-sided p, so an interval of 95 % without zero goes with p < 0.025. It is no p to rely on:
    of equally good systems, 8 to 12 % are below 0.05, and none is above 0.44. Runs that agree in every sample, up to
    the last digits, get 1, where sacrebleu gives its least value.
    """
    names = _check_arguments(samples, metrics)
    a, b = pair(scored_run(baseline, names), scored_run(system, names), names is not None)

    def p_value(name: str, drawn: Array, difference: float) -> float:
        return _p_of_bootstrap(drawn, difference, TIE * max(1.0, abs(a.value(name))))

    return _differences(a, b, samples, seed, BOOTSTRAP, p_value)


def _differences(
    a: "Scored",
    b: "Scored",
    samples: int,
    seed: int,
    test: str,
    p_value: Callable[[str, Array, float], float],
) -> dict[str, Difference]:
    """``p_value`` is asked with a metric, its differences in the samples, and the one found."""
    warn_of_few(a)
    of_a, of_b = a.resampled(samples, seed), b.resampled(samples, seed)
    differences = {}
    for name in a.names:
        drawn = of_b[name] - of_a[name]
        low, high = _ends(a, name, drawn)
        old, new = a.value(name), b.value(name)
        p = p_value(name, drawn, new - old)
        count = a.sentences_with(name)
        differences[name] = Difference(name, old, new, new - old, low, high, p, test + a.drawn_of, count)
    return differences


def sentence_table(run_a: RunPath, run_b: RunPath, metrics: Sequence[str] | None = None) -> "pandas.DataFrame":
    """Two runs sentence by sentence, in the order of the first.

    Args:
        metrics: as for `bootstrap`; None: AL and LAAL, of documents LongAL and LongLAAL.

    Returns: one row a sentence: ``id``, ``source``, ``reference``, ``prediction_a``, ``prediction_b``, sentence
        BLEU (0 to 100) ``bleu_a``, ``bleu_b`` and ``bleu_difference`` (b - a), and the same three columns for
        each latency, in source units; nan where a sentence has no output. The sentences of documents are those after
        re-segmentation, with the ids "DOCUMENT#1" and so on.
    Raises: as `paired_test`.
    """
    import pandas

    names = None if metrics is None else [BLEU_NAME, *(_check_arguments(1, metrics) or ())]
    a, b = matched(scored_run(run_a, names), scored_run(run_b, names))
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


def _p_of_bootstrap(drawn: Array, difference: float, tie: float) -> float:
    sizes = np.abs(drawn[~np.isnan(drawn)])
    if not sizes.size or np.isnan(difference):
        return float("nan")
    if not (sizes > tie).any():
        return 1.0
    return (int(np.sum(sizes - sizes.mean() > abs(difference))) + 1) / (len(sizes) + 1)


# --- checks


def _check_arguments(samples: int, metrics: Sequence[str] | None) -> list[str] | None:
    if isinstance(metrics, str) or (metrics is not None and not metrics):
        raise ValueError(f"metrics: {metrics!r}; give a list of some of {', '.join(KNOWN)}, or of KEY for a KEY.jsonl")
    if samples < 1:
        raise ValueError(f"samples is {samples}; at least 1 is needed, and 1000 is usual")
    return None if metrics is None else list(metrics)


def pair(a: Scored, b: Scored, asked: bool = False) -> tuple[Scored, Scored]:
    """Two runs for a test: in the order of their ids, with the scores that both have, and a latency is undefined in
    both where it is in one. Runs with other clocks have no lags in seconds in common. Scores of files beside the runs
    that were computed otherwise are left out, unless they were ``asked`` for.

    Raises: RunError: they do not hold the same sentences, or their scores cannot be compared.
    """
    a, b = (one.by_id() for one in matched(a, b))
    names = [name for name in a.names if name in b.names and (name not in ON_A_CLOCK or a.clock == b.clock)]
    unlike = {name: why for name in names if name not in KNOWN and (why := _unlike(a, b, name))}
    names = [name for name in names if name not in unlike]
    if unlike and (asked or not names):
        first, why = next(iter(unlike.items()))
        raise RunError(
            f"{first} of {a.folder} and {b.folder} does not compare ({' and '.join(why)}): score both alike, with "
            f"streamllm score RUN… metric={first}"
        )
    if not names:
        raise RunError(
            f"{a.folder} and {b.folder} have different clocks (arrival.words_per_second and the costs), so seconds of "
            "one are not those of the other: run one of them again with that of the other"
        )
    undefined = {name: np.isnan(a.means[name]) | np.isnan(b.means[name]) for name in names if name in a.means}
    a, b = (replace(one, names=names).without(undefined) for one in (a, b))
    return a, b


def _unlike(a: Scored, b: Scored, name: str) -> list[str]:
    """How a score of files beside two runs was computed otherwise in one than in the other; nothing where not."""
    kinds = [(one.formulas[name], one.added[name].shape) if name in one.formulas else None for one in (a, b)]
    if kinds[0] != kinds[1]:
        return [f"{name}.jsonl of two kinds"]
    return computed_otherwise([RunFolder(one.folder).metrics() for one in (a, b)], name)


def matched(a: Scored, b: Scored) -> tuple[Scored, Scored]:
    """Both runs in the order of the first. Raises: as `pair`."""
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
