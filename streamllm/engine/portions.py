"""How many tokens one forward takes. Invariant: what a forward holds besides the memory is bounded, however many tokens
are fed: 4 bytes for each of `SCORES` scores of attention a head (16 MiB), and `AT_ONCE` tokens in each layer."""

AT_ONCE = 256
"""Tokens of one sentence in one forward, at most. More are fed in several forwards, with the same results."""

SCORES = 1 << 22
"""Scores of attention for each head, tokens fed times tokens held: beside many, fewer than `AT_ONCE` are fed."""

FEWEST = 16
"""Fewer than these are never fed at a time: beside so many tokens held, the memory itself is what counts."""

TOGETHER = 16
"""Source tokens that wait for the next write, and the tokens of that, are fed in one forward if they are so many at
most: each is a batch row of its own there."""


def portion(held: int) -> int:
    """How many tokens a forward may feed to a sentence that holds so many."""
    return AT_ONCE if held <= SCORES // AT_ONCE else max(FEWEST, SCORES // held)


def portions(tokens: int, held: int) -> list[int]:
    """How many of so many tokens each forward feeds, one after the other."""
    sizes: list[int] = []
    while tokens > (size := portion(held)):
        sizes.append(size)
        tokens, held = tokens - size, held + size
    return [*sizes, tokens]
