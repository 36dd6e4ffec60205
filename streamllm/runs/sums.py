"""Corpus scores from sums of what single sentences give, and samples of such sums.

Invariant: a corpus score is a function of a sum, so a sample costs a product of matrices, not a scoring."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamllm.metrics.quality import bleu_counts, chrf_counts, chrf_of_counts, tokenizer

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

Array = NDArray[np.float64]
SEED = 12345  # sacrebleu's, so that its paired test draws the very same samples


class Written(Protocol):
    """A sentence that was translated: a trace, or one of a document."""

    @property
    def prediction(self) -> str: ...

    @property
    def reference(self) -> str: ...


def bleu_scorer(language: str, chosen: str | None) -> "BLEU":
    """``chosen`` is a tokenizer in place of the language's."""
    from sacrebleu.metrics.bleu import BLEU

    # Effective order changes single sentences only (and hushes a warning about them), not what follows here.
    return BLEU(tokenize=chosen or tokenizer(language), force=True, effective_order=True)


def bleu_statistics(sentences: Iterable[Written], language: str, chosen: str | None) -> NDArray[np.int64]:
    """Lengths of output and reference, matching n-grams and n-grams of each sentence: (sentences, 2 + 2 * orders)."""
    return bleu_counts(bleu_scorer(language, chosen), *_texts(sentences))


def bleu_of_sums(sums: Array, scorer: "BLEU", effective_order: bool = False) -> Array:
    """Corpus BLEU (samples,) of summed statistics (samples, 2 + 2 * orders). With ``effective_order``, BLEU of single
    sentences (`metrics.quality.sentence_bleu`) of what `bleu_statistics` gives."""
    orders = scorer.max_ngram_order
    return np.array(
        [
            scorer.compute_bleu(
                correct=correct_and_total[:orders],
                total=correct_and_total[orders:],
                sys_len=system_length,
                ref_len=reference_length,
                smooth_method=scorer.smooth_method,
                smooth_value=scorer.smooth_value,
                effective_order=effective_order,
            ).score
            for system_length, reference_length, *correct_and_total in np.rint(sums).astype(np.int64).tolist()
        ]
    )


def chrf_statistics(sentences: Iterable[Written]) -> NDArray[np.int64]:
    """N-grams of characters of each sentence, of its output, its reference, and both: (sentences, 3 * orders)."""
    return chrf_counts(*_texts(sentences))


def _texts(sentences: Iterable[Written]) -> tuple[list[str], list[str]]:
    """Those of their predictions and of their references."""
    texts = [(one.prediction, one.reference) for one in sentences]
    return [prediction for prediction, _ in texts], [reference for _, reference in texts]


def chrf_of_sums(sums: Array) -> Array:
    """Corpus chrF (samples,) of summed statistics (samples, 3 * orders); of a sentence alone, that of the sentence."""
    return np.array([chrf_of_counts(counts) for counts in np.rint(sums).astype(np.int64).tolist()])


def mean_statistics(values: Array) -> Array:
    """What a mean over the sentences where a value is defined is computed from: (sentences, 2), nan where undefined."""
    defined = ~np.isnan(values)
    return np.stack([np.where(defined, values, 0.0), defined.astype(np.float64)], 1)


def mean_of_sums(sums: Array) -> Array:
    """Means (samples,) of summed statistics (samples, 2); nan where no sentence has a value."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        means: Array = np.divide(*sums.T)
    return means


def resample(sentences: int, samples: int, seed: int) -> Array:
    """How often each sample holds each sentence: (samples, sentences). The draws are sacrebleu's."""
    return np.concatenate(list(resampled(sentences, samples, seed)))


K = TypeVar("K")

BLOCK = 2_000_000  # draws at a time, which take 16 MB
LEAST = 16  # samples at a time: products of fewer rows are rounded otherwise


def resampled(sentences: int, samples: int, seed: int) -> Iterator[Array]:
    """The rows of `resample`, some at a time."""
    generator = np.random.default_rng(seed)
    most = max(LEAST, BLOCK // max(sentences, 1))
    for begin in range(0, samples, most):
        rows = min(most, samples - begin)
        drawn = generator.choice(sentences, size=(rows, sentences), replace=True)
        yield np.stack([np.bincount(row, minlength=sentences) for row in drawn]).astype(np.float64)


def resampled_sums(statistics: Mapping[K, Array], sentences: int, samples: int, seed: int) -> dict[K, Array]:
    """The sums (samples, statistics) of each sample, of each of some statistics (sentences, statistics): all of the
    same draws."""
    sums: dict[K, list[Array]] = {name: [] for name in statistics}
    for counts in resampled(sentences, samples, seed):
        for name, found in statistics.items():  # one product for all would round otherwise
            sums[name].append(counts @ found)
    return {name: np.concatenate(blocks) for name, blocks in sums.items()}


def percentiles(drawn: Array) -> tuple[float, float]:
    """The ends of the middle 95 % of what is defined; nan where nothing is."""
    defined = drawn[~np.isnan(drawn)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def p_of_samples(drawn: Array, tie: float = 0.0) -> float:
    """The two-sided p that goes with the interval of `percentiles`: below 0.05 where that leaves out 0.

    It is twice the share of samples on the side of 0 that has fewer, where what is within ``tie`` of 0 counts on both,
    and what was observed as one of them (Davison and Hinkley 1997); nan where nothing is defined.
    """
    defined = drawn[~np.isnan(drawn)]
    if not defined.size:
        return float("nan")
    fewer = min(int(np.sum(defined <= tie)), int(np.sum(defined >= -tie)))
    return min(1.0, 2 * (fewer + 1) / (len(defined) + 1))
