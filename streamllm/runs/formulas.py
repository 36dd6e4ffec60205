"""Scores of a corpus that are no means: each is a formula of sums of what its sentences add.

Invariant: the formula of the sums over all sentences is the score of the run, as its metric gives it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from streamllm.runs.sums import Array, bleu_of_sums, bleu_scorer, chrf_of_sums


@dataclass(frozen=True)
class Formula:
    """How a score comes of sums.

    Args:
        corpus: the scores (samples,) of sums (samples, numbers); nan where they define none.
        sentences: those of single sentences, of what each of them adds (sentences, numbers).
        numbers: how many numbers a sentence adds.
        repeated: whether it may be a multiple of these.
    """

    corpus: Callable[[Array], Array]
    sentences: Callable[[Array], Array]
    numbers: int
    repeated: bool = False

    def takes(self, numbers: int) -> bool:
        """Whether a sentence may add so many numbers."""
        return numbers == self.numbers or (self.repeated and numbers > 0 and numbers % self.numbers == 0)


def ratio(sums: Array) -> Array:
    """Edits in percent of lengths, of both (samples, 2); nan where the length is 0."""
    edits, lengths = sums.T
    found: Array = np.full(len(sums), np.nan)
    np.divide(100 * edits, lengths, out=found, where=lengths > 0)
    return found


def bleu(sums: Array, of_sentences: bool = False) -> Array:
    """As `bleu_of_sums`, whatever cut the tokens that were counted."""
    return bleu_of_sums(sums, bleu_scorer("", "none"), effective_order=of_sentences)


FORMULAS = {
    "ratio": Formula(ratio, ratio, 2),  # edits and length: TER, WER, CER
    "chrf": Formula(chrf_of_sums, chrf_of_sums, 3, repeated=True),  # of output, reference and both, for each order
    "bleu": Formula(bleu, partial(bleu, of_sentences=True), 10),  # lengths, matching n-grams and n-grams of the output
}
"""The formulas by their names, under which files of sentence scores have what a sentence adds."""
