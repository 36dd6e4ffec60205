"""The tokens of a forward, as a pool gathers them from its rows."""

import numpy as np

from streamllm.batching.holder import Fed, Numbers
from streamllm.batching.row import Row


class Gathered:
    """Tokens in stretches that follow each other in a stream."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        # Of each stretch: its length and slot, the column, position and ends of its first token, which of the ends
        # move on with the tokens, and whether the tokens have columns of their own.
        self._stretches: list[tuple[int, int, int, int, int, int, bool, bool]] = []

    def source(self, row: Row, n: int) -> None:
        """The next tokens of what the row is to read, at most ``n``."""
        tokens, row.unread = row.unread[:n], row.unread[n:]
        at, held = row.source_offset, len(tokens)
        self.tokens += tokens
        self._stretches.append((held, row.slot, row.length, at, at + 1, 0, True, True))
        row.length, row.source_offset = row.length + held, at + held
        row.source_end = row.length

    def target(self, row: Row) -> None:
        """What the row is to write."""
        tokens, row.unwritten = row.unwritten, []
        at, held = row.target_offset, len(tokens)
        seen = row.source_offset - row.hidden
        self.tokens += tokens
        self._stretches.append((held, row.slot, row.length, row.target_start + at, seen, at + 1, False, True))
        row.length, row.target_offset = row.length + held, at + held

    def hypotheses(self, row: Row) -> None:
        """The last tokens of the row's hypotheses, each in the last column of its path."""
        first, seen = row.target_start + row.target_offset - 1, row.source_offset - row.hidden
        self.tokens += row.branching
        for path in row.paths:
            n = len(path)
            self._stretches.append((1, row.slot, path[-1], first + n, seen, row.target_offset + n, False, False))

    def arrays(self) -> tuple[Fed, tuple[Numbers, Numbers]]:
        """All of them; and which are of the source, and of the target but for hypotheses."""
        lengths, *firsts = np.array(self._stretches, np.int64).T
        slots, columns, positions, source_ends, target_ends, reads, keeps = (np.repeat(one, lengths) for one in firsts)
        within = np.arange(len(slots)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        fed = Fed(
            np.array(self.tokens, np.int64),
            slots,
            columns + within,
            positions + within,
            source_ends + reads * within,
            target_ends + (1 - reads) * within,
        )
        return fed, (np.flatnonzero(reads), np.flatnonzero(keeps & (1 - reads)))


def padded_rows(fed: Fed, length: int) -> Fed:
    """(S, length): a row for each sentence. Padding goes into the column after, which is free; nobody sees it."""
    firsts = np.flatnonzero(np.diff(fed.slot, prepend=-1))
    counts = np.diff(firsts, append=len(fed.slot))
    within = np.minimum(np.arange(length), counts[:, None] - 1)
    rows = Fed(*(each[firsts[:, None] + within] for each in fed))
    return rows._replace(column=rows.column + (np.arange(length) >= counts[:, None]))
