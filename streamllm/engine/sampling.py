"""Sampling a token from its logits. Invariant: what is drawn depends on the seed, on the place in the sentence and on
the logits, and a change of the logits in the last digits draws another token only at a near-tie."""

import mlx.core as mx
import numpy as np

from streamllm.check import number
from streamllm.engine.finite import Logits

LEAST = 2.0**-33
"""Below the smallest random number that is not 0: noise stays finite."""


def check_sampling(temperature: object, top_p: object) -> None:
    """Raises: ValueError: there is no sampling with such a temperature or ``top_p``. Temperature 0 is greedy."""
    number("temperature", temperature, least=0, hint="0 is greedy")
    number("top_p", top_p, above=0, most=1)


class Sampling:
    """Draws tokens: the highest of logits plus temperature times Gumbel noise, which is a draw from the softmax of
    logits / temperature (Gumbel 1954). `mx.random.categorical` adds up probabilities instead: over a large vocabulary,
    what rounding does to the sums decides between tokens that are not alike at all.

    Args:
        seed: of the sentence.
        temperature: above 0.
        top_p: tokens are drawn from the likeliest that together have this probability (Holtzman et al. 2020).
    """

    def __init__(self, seed: int, temperature: float, top_p: float = 1.0):
        self._seed, self._temperature, self._top_p = seed, temperature, top_p

    def draw(self, logits: Logits, reads: int, written: int) -> int:
        """A token from ``logits`` (V,), after so many reads and so many target tokens: the same whenever it is asked
        for, so that what is asked in between changes nothing; and independent of that before the last read."""
        logits = mx.array(logits) if isinstance(logits, np.ndarray) else logits.astype(mx.float32)
        if self._top_p < 1:
            from mlx_lm.sample_utils import apply_top_p

            logits = apply_top_p(logits - mx.logsumexp(logits), self._top_p)
        state = np.random.SeedSequence([self._seed, reads, written]).generate_state(1, np.uint64)
        uniform = mx.random.uniform(LEAST, 1.0, logits.shape, key=mx.random.key(int(state[0])))
        noise = -mx.log(-mx.log1p(-uniform))  # finest where it is largest
        return int(mx.argmax(logits + self._temperature * noise).item())  # type: ignore[arg-type]
