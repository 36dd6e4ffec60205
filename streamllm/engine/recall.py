"""Guesses what comes next in a translation from earlier ones of the same stream. Invariant: its memory is bounded."""

from collections.abc import Sequence

RECALLED = 500
"""How many outputs are recalled at least; at most twice as many."""

_Followed = dict[tuple[int, ...], tuple[Sequence[int], int]]


class Recall:
    """What followed when the last two tokens, or else the last one, came for the last time; where they never came, or
    nothing is written yet, the last output from the same place on (as in prompt lookup decoding, Saxena 2023).

    Call it with the tokens of an output so far. Each token that is guessed right saves a forward, and a wrong one costs
    none.
    """

    def __init__(self) -> None:
        self._last: Sequence[int] = ()
        # Where outputs go on after one or two tokens; in two parts, so that the older one can be forgotten.
        self._followed: _Followed = {}
        self._before: _Followed = {}
        self._held = 0

    def add(self, output: Sequence[int]) -> None:
        """A whole output; the next one is of the same sentence, unless `forget_last` is called."""
        if self._held == RECALLED:
            self._before, self._followed, self._held = self._followed, {}, 0
        for i in range(1, len(output)):
            self._followed[(output[i - 1],)] = self._followed[tuple(output[max(0, i - 2) : i])] = output, i
        self._last = output
        self._held += 1

    def forget_last(self) -> None:
        """Another sentence begins."""
        self._last = ()

    def __call__(self, written: list[int]) -> Sequence[int]:
        for tokens in (written[-2:], written[-1:]) if written else ():
            for followed in (self._followed, self._before):
                if found := followed.get(tuple(tokens)):
                    output, i = found
                    return output[i:]
        return self._last[len(written) :]
