"""Whether two systems differ, by randomisation: if they do not, it is chance which of them wrote which of two outputs.

Invariant: p counts the assignments whose difference is at least as large as the one found, itself among them."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NAME = "approximate randomisation"
TRIALS = 10_000  # sacrebleu's
TIE = 1e-9  # of a score: sums in another order differ by less
BLOCK = 1000  # assignments at a time


def randomisation_p(
    a: Array, b: Array, score: Callable[[Array], Array], trials: int = TRIALS, seed: int | None = None
) -> float:
    """The two-sided p-value of approximate randomisation (Noreen 1989; Riezler and Maxwell 2005).

    In every trial each sentence's two outputs are exchanged or not, by the toss of a coin. p is the share of trials
    whose absolute difference is at least the one found, up to ``TIE``; what was observed counts as one of them. Where
    few sentences differ, all assignments are tried instead, and p is exact: if n sentences differ and all speak for
    one system, it is 2 / 2**n.

    Args:
        a, b: what the scores of both are computed from, (sentences, statistics): a corpus score is one of their sums.
        score: the scores (samples,) of sums (samples, statistics); nan where they define none.
        trials: random assignments.

    Returns: p, 1 for equal systems; nan where a system has no score.
    """
    total_a, total_b = a.sum(0), b.sum(0)
    found_a, found_b = score(total_a[None])[0], score(total_b[None])[0]
    found = abs(found_a - found_b)
    if np.isnan(found):
        return float("nan")
    least = found - TIE * max(1.0, abs(found_a), abs(found_b))
    differing = np.flatnonzero((a != b).any(1))
    gained = (b - a)[differing]  # by the first system, where the sentence's outputs are exchanged

    def count(exchanged: NDArray[np.bool_]) -> int:
        moved = exchanged.astype(np.float64) @ gained
        sizes = np.abs(score(total_a + moved) - score(total_b - moved))
        return int(np.sum(~(sizes < least)))  # no score at all is no evidence of a difference: it counts

    if 2 ** max(len(differing) - 1, 0) <= trials:
        every = list(_all(len(differing)))
        return sum(map(count, every)) / sum(map(len, every))
    generator = np.random.default_rng(seed)
    at_least = 0
    for begin in range(0, trials, BLOCK):
        size = min(BLOCK, trials - begin), len(a)
        at_least += count(generator.integers(2, size=size, dtype=bool)[:, differing])
    return (at_least + 1) / (trials + 1)


def _all(sentences: int) -> Iterator[NDArray[np.bool_]]:
    """Every assignment, in blocks. The first sentence stays: to exchange all the others is the same difference."""
    free = max(sentences - 1, 0)
    for begin in range(0, 2**free, BLOCK):
        numbers = np.arange(begin, min(begin + BLOCK, 2**free))
        exchanged = np.zeros((len(numbers), sentences), bool)
        exchanged[:, 1:] = (numbers[:, None] >> np.arange(free)) & 1
        yield exchanged
