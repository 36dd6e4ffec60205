"""Read/write paths that a training draws: how many source units each target unit is predicted from."""

import random
from dataclasses import dataclass

RANDOM = "random"

LEAST_LAG, MOST_LAG = 1 / 3, 4.0
JUMPS = 0.3


@dataclass(frozen=True)
class RandomPath:
    """A monotone path at random, near the diagonal of its sentence, as a policy that decides for itself takes it.

    Target unit i of n is predicted from the source up to the unit across from it, floor((i + 1/2) · |x| / n), and
    ``lag`` units more, and never from less than the unit before it. The lag is 0 or more, geometrically distributed;
    it stays from unit to unit, but for a probability of `JUMPS` with which it is drawn anew: then the path reads a
    few units at once, or writes several without a READ. A sentence draws the mean of its lags between `LEAST_LAG` and
    `MOST_LAG`, evenly in its logarithm. The end token is across from the last source unit; the last word and the end
    token see the end of the source (its footer) where their lag is more than 0.

    For Multi30k, the LAAL of such paths is below 1.3, 1.9 and 3.0 for a quarter, half and three quarters of them, and
    between 1.0 and 6.0 for nine in ten: where policies work (wait-3 is at 2.9). Paths below the diagonal, and far above
    it, are those of wait-k and of the whole source, which ``data.k`` names beside this one.

    Args:
        seed: what the path follows from, with its place and the lengths of the sentence.
    """

    seed: int

    def counts(self, source: int, target: int, place: int = 0) -> list[int]:
        """How many source units the first ``target`` units and the end token see, at least 1, and more than ``source``
        where they see the footer, or units of the next sentence.

        Args:
            source, target: units of the sentence.
            place: which sentence of its stream it is.
        """
        rng = random.Random(f"{self.seed}/{place}")
        mean = LEAST_LAG * (MOST_LAG / LEAST_LAG) ** rng.random()
        lag = _geometric(mean, rng)
        before, found = 1, []
        for i in range(target + 1):
            if i and rng.random() < JUMPS:
                lag = _geometric(mean, rng)
            across = (2 * i + 1) * source // (2 * target) + 1 if i < target else source
            before = max(before, across + lag)
            found.append(before)
        return found


def _geometric(mean: float, rng: random.Random) -> int:
    """0, 1, 2, …, each less likely than the one before it by the same factor."""
    number = 0
    while rng.random() < mean / (1 + mean):
        number += 1
    return number
