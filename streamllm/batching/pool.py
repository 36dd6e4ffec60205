"""One memory for many sentences: each is a row, and each forward serves rows that read and rows that write.

Invariant: a row's columns below its length hold exactly the tokens that it was given and has not trimmed; no token
sees any other column, but for the hypotheses of a beam, each of which sees its own tokens.
"""

from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.batching.holder import Answer, Asked, Columns, Fed, Holder, Numbers
from streamllm.batching.in_model import InModel
from streamllm.batching.in_numpy import InNumpy
from streamllm.batching.layer import UNUSED
from streamllm.cpu.decoder import Decoder
from streamllm.engine.attention import Attention
from streamllm.engine.finite import check_logits
from streamllm.engine.paradigms.forgetting import Forgets, Forgetting
from streamllm.engine.paradigms.memory import TargetStart
from streamllm.engine.portions import SCORES, portion, portions
from streamllm.engine.positions import check_end, table

STEP = 32
"""Columns by which the buffers grow and shrink."""

LONG_READ = 16
"""A sentence with more unread source tokens than this is fed them in a forward for reads, which computes no logits."""

AVERAGE_READ = 4
"""If sentences have more unread tokens than this on average, as when all begin, that forward takes those of all."""

READ_AT_ONCE = 512
"""Tokens of all sentences in a forward of numpy's: what is computed on them stays in the cache of a core."""

READ_TOKENS = 4096
"""Tokens of all sentences in a forward for reads, at most, padding included: `portions` of each. Where sentences are
long there are fewer, so that scores of attention stay below `SCORES` a head."""

class Pool:
    """The keys and values of up to ``rows`` sentences in one model.

    A sentence's tokens lie in its row in the order in which they were fed, source and target mixed: keys carry their
    positions, so their order means nothing to attention. What holds them and computes is a `Holder`.

    Args:
        model: an mlx-lm decoder that takes an array of positions (`streamllm.batching.trial.batching` tells).
        rows: sentences at a time.
        target_start: as in `streamllm.engine.paradigms.group.GroupMemory`.
        packs: False where the model computes attention by itself: each token then has a copy of its sentence's keys.
        forgetting: how rows forget the oldest tokens of their streams; None holds all.
        decoder: of this model, where numpy is to compute its forwards (`streamllm.cpu.decoder`); None leaves them to
            MLX.

    Raises:
        ValueError: rows is not positive.
    """

    def __init__(
        self,
        model: Any,
        rows: int,
        target_start: TargetStart = 0,
        packs: bool = True,
        forgetting: Forgetting | None = None,
        decoder: Decoder | None = None,
    ):
        if rows < 1:
            raise ValueError(f"a pool of {rows} rows holds no sentence; accepted is at least 1")
        self._model, self._target_start, self._packs = model, target_start, packs
        self.forgetting = forgetting
        self.positions = table(model)
        self._holder: Holder = InModel(model, packs, forgetting) if decoder is None else InNumpy(decoder, rows)
        self._free = list(range(rows))[::-1]
        self._open: dict[int, Row] = {}
        # (rows, columns): the index of each token in its stream, UNUSED in the array of the other stream.
        self._source = np.full((rows, STEP), UNUSED, np.int32)
        self._target = np.full((rows, STEP), UNUSED, np.int32)
        self.wait: Callable[[Row], None] = lambda row: self.step([row])
        """What a row calls that needs an answer: it must get the row into a `step`. A scheduler sets it."""
        self.forward_passes = self.fed_tokens = 0  # of all rows together, padding included

    @property
    def columns(self) -> int:
        """Tokens that each row has room for."""
        return int(self._source.shape[1])

    @property
    def has_room(self) -> bool:
        """Whether a row is free."""
        return bool(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, slack included."""
        return self._holder.nbytes

    def open(self) -> "Row":
        """An empty row.

        Raises:
            RuntimeError: all are taken.
        """
        if not self._free:
            raise RuntimeError(f"all {len(self._open)} rows are taken: close one first")
        slot = self._free.pop()
        if slot >= len(self._source):
            self._source, self._target = (
                _padded(index, slot + 1, self.columns) for index in (self._source, self._target)
            )
        self._open[slot] = Row(self, slot, self._target_start)
        return self._open[slot]

    def close(self, row: "Row") -> None:
        """Take a row back; its sentence has ended. Idempotent."""
        if self._open.get(row.slot) is row:
            del self._open[row.slot]
            self._source[row.slot] = self._target[row.slot] = UNUSED
            self._holder.close(row.slot)
            self._free.append(row.slot)

    def forget(self, row: "Row", n: int) -> None:
        """Take the last ``n`` tokens of a row, which are target tokens, out of sight.

        Raises:
            RuntimeError: some are source tokens.
        """
        last = slice(row.length - n, row.length)
        if (self._source[row.slot, last] != UNUSED).any():
            raise RuntimeError(f"cannot trim {n} target tokens: source has been read since they were fed")
        self._target[row.slot, last] = UNUSED

    def forget_oldest(self, row: "Row", target: bool, n: int, after: int) -> None:
        """Take the ``n`` tokens of a stream of a row that follow the first ``after`` out of memory. Those behind them
        move down; what is waiting to be read is fed before, since it was to see them."""
        if row.unread:
            self._fit()
            self._read_long([row])
        index = (self._target if target else self._source)[row.slot, : row.length]
        held = index != UNUSED
        gone, moved = held & (index >= after) & (index < after + n), held & (index >= after + n)
        columns = np.flatnonzero(~gone)
        index[moved] -= n
        self._holder.forget(row.slot, columns, moved[columns], -n)
        for stream in (self._source, self._target):
            stream[row.slot, : len(columns)] = stream[row.slot, columns]
            stream[row.slot, len(columns) : row.length] = UNUSED
        row.length = len(columns)

    # Feeding

    def step(self, rows: Sequence["Row"]) -> None:
        """Feed what these rows wait for, and give each its answer. The host waits for the device once."""
        self._fit()
        self._read_ahead(rows)
        feed = _Feed()
        asked = Asked([], [], [bool(row.paths) or row.checked > 1 for row in rows], [row.attends for row in rows])
        paths: dict[int, Columns] = {}
        for row in rows:
            if row.unread:
                feed.source(row, len(row.unread))
            if row.unwritten:
                feed.target(row)
            if row.paths:
                paths |= {len(feed.tokens) + i: path for i, path in enumerate(row.paths)}
                feed.hypotheses(row)
            # Of a row one, those checked, or those of its beam's hypotheses.
            end = len(feed.tokens)
            asked.tokens.extend(range(end - (len(row.paths) or row.checked), end))
            asked.ends.append(len(asked.tokens))
        for row, answer in zip(
            rows,
            self._holder.step(self._placed(feed), self._source, self._target, asked, paths),
            strict=True,
        ):
            row.answer = answer

    def _placed(self, feed: "_Feed") -> Fed:
        """These tokens, in the columns that they will have."""
        self.forward_passes += 1
        self.fed_tokens += len(feed.tokens)
        fed, index = feed.arrays()
        for stream, of_it in ((self._source, index[0]), (self._target, index[1])):
            stream[fed.slot[of_it], fed.column[of_it]] = (fed.source_end if stream is self._source else fed.target_end)[
                of_it
            ] - 1
        return fed

    def _read_ahead(self, rows: Sequence["Row"]) -> None:
        """Feed what is read before the step, so that this stays small."""
        unread = sum(len(row.unread) for row in rows)
        if self._holder.reads_apart:
            few = sum(len(row.unread) for row in rows if len(row.unread) <= LONG_READ)
            short = 0 if few > AVERAGE_READ * len(rows) else LONG_READ
            self._read_long([row for row in rows if len(row.unread) > short])
        elif unread > READ_AT_ONCE:
            self._read_long([row for row in rows if row.unread])

    def _read_long(self, rows: Sequence["Row"]) -> None:
        """Feed all source tokens of these rows. Their logits are never computed."""
        if self._holder.reads_apart:
            self._read_padded(rows)
            return
        feed = _Feed()
        for row in rows:
            while row.unread:
                feed.source(row, min(portion(row.length), READ_AT_ONCE - len(feed.tokens)))
                if len(feed.tokens) >= READ_AT_ONCE or row.unread:
                    self._holder.read(self._placed(feed), self._source, self._target)
                    feed = _Feed()
        if feed.tokens:
            self._holder.read(self._placed(feed), self._source, self._target)

    def _read_padded(self, rows: Sequence["Row"]) -> None:
        while rows:
            rows = sorted(rows, key=lambda row: -len(row.unread))
            held = max(row.length for row in rows)
            length = min(len(rows[0].unread), portion(held))
            most = min(READ_TOKENS, SCORES // max(1, held))
            feed = _Feed()
            some = rows[: max(1, most // length)]
            for row in some:
                feed.source(row, length)
            self.fed_tokens += length * len(some) - len(feed.tokens)
            self._holder.read(_padded_rows(self._placed(feed), length), self._source, self._target)
            rows = [row for row in rows if row.unread]

    def _fit(self) -> None:
        """Make room for what the rows are about to be fed, and give back room that has long been too much."""
        longest = max(row.end for row in self._open.values())
        columns = -(-longest // STEP) * STEP
        if self.columns < columns:
            # By a share of what is there: one endless sentence would copy all rows again and again.
            columns = max(columns, (self.columns + self.columns // 4) // STEP * STEP)
        if self.columns < columns or self.columns >= 2 * columns:
            self._close_ranks()
            self._source, self._target = (
                _padded(index[:, :columns], len(index), columns) for index in (self._source, self._target)
            )

    def _close_ranks(self) -> None:
        """Give back the memory of rows that are free: what is copied is copied for the others only."""
        slots = sorted(self._open)
        if len(slots) == len(self._source):
            return
        capacity = len(self._open) + len(self._free)
        self._holder.keep(slots)
        self._source, self._target = self._source[slots], self._target[slots]
        self._open = {slot: self._open[old] for slot, old in enumerate(slots)}
        for slot, row in self._open.items():
            row.slot = slot
        self._free = list(range(len(slots), capacity))[::-1]


class _Feed:
    """Tokens of a forward, as they are gathered from rows: stretches of tokens that follow each other in a stream."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        # Of each stretch: its length and slot, the column, position and ends of its first token, which of the ends
        # move on with the tokens, and whether the tokens have columns of their own.
        self._stretches: list[tuple[int, int, int, int, int, int, bool, bool]] = []

    def source(self, row: "Row", n: int) -> None:
        """The next tokens of what the row is to read, at most ``n``."""
        tokens, row.unread = row.unread[:n], row.unread[n:]
        at, held = row.source_offset, len(tokens)
        self.tokens += tokens
        self._stretches.append((held, row.slot, row.length, at, at + 1, 0, True, True))
        row.length, row.source_offset = row.length + held, at + held

    def target(self, row: "Row") -> None:
        """What the row is to write."""
        tokens, row.unwritten = row.unwritten, []
        at, held = row.target_offset, len(tokens)
        seen = row.source_offset - row.hidden
        self.tokens += tokens
        self._stretches.append((held, row.slot, row.length, row.target_start + at, seen, at + 1, False, True))
        row.length, row.target_offset = row.length + held, at + held

    def hypotheses(self, row: "Row") -> None:
        """The last tokens of the row's hypotheses, each in the last column of its path."""
        first, seen = row.target_start + row.target_offset - 1, row.source_offset
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


def _padded_rows(fed: Fed, length: int) -> Fed:
    """(S, length): a row for each sentence. Padding goes into the column after, which is free, and is seen by nobody."""
    firsts = np.flatnonzero(np.diff(fed.slot, prepend=-1))
    counts = np.diff(firsts, append=len(fed.slot))
    within = np.minimum(np.arange(length), counts[:, None] - 1)
    rows = Fed(*(each[firsts[:, None] + within] for each in fed))
    return rows._replace(column=rows.column + (np.arange(length) >= counts[:, None]))


def _padded(index: np.ndarray[Any, Any], rows: int, columns: int) -> np.ndarray[Any, Any]:
    slack = (0, rows - index.shape[0]), (0, columns - index.shape[1])
    return np.pad(index, slack, constant_values=UNUSED)


# One sentence


class Row(Forgets):
    """One sentence's memory (`streamllm.engine.paradigms.memory.Memory`) in a pool. A read waits for the next write: so
    it costs no forward of its own.

    ``forward_passes`` counts what the sentence asked for, so that it does not depend on the sentences beside it.
    """

    def __init__(self, pool: Pool, slot: int, target_start: TargetStart):
        self._pool, self.slot, self._positions = pool, slot, pool.positions
        self._after_source, self._keeps_start = target_start == "after_source", False
        self.target_start = 0 if target_start == "after_source" else target_start
        self.unread: list[int] = []  # source tokens to be fed
        self.unwritten: list[int] = []  # target tokens to be fed after them
        self.hidden = 0  # source tokens, from the last one back, that the latter do not see
        self.attends = False  # whether attention is read out
        self.checked = 1  # of how many of the last tokens logits are wanted
        self.branching: list[int] = []  # the next token of each hypothesis of a beam, to be fed
        self.paths: list[Columns] = []  # of these hypotheses, with that token
        self.branches_end = 0  # columns up to which hypotheses may lie that go on later
        self.length = self.source_offset = self.target_offset = 0  # tokens held
        self.answer: Answer | None = None
        self.forward_passes = self.source_tokens = self.fed_tokens = 0
        self.forgetting = pool.forgetting

    @property
    def source_held(self) -> int:
        return self.source_offset + len(self.unread)

    @property
    def target_held(self) -> int:
        return self.target_offset

    def read(self, tokens: list[int]) -> None:
        self.read_in_windows(tokens, self._read)

    def _read(self, tokens: list[int]) -> None:
        check_end(self._positions, self.source_held + len(tokens))
        self._count(tokens, self.source_held)
        self.unread += tokens
        self.source_tokens += len(tokens)

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        return self._ask(tokens, hidden).logits

    def attend(self, tokens: list[int]) -> tuple[mx.array, Attention]:
        self.attends = True
        try:
            answer = self._ask(tokens, 0)
        finally:
            self.attends = False
        assert answer.attention is not None
        return answer.logits, answer.attention

    def check(self, tokens: list[int], last: int) -> tuple[mx.array, list[int]]:
        self.checked = last
        try:
            answer = self._ask(tokens, 0)
        finally:
            self.checked = 1
        return answer.logits.reshape(last, -1), answer.likeliest

    def _ask(self, tokens: list[int], hidden: int) -> Answer:
        if self._after_source and not self.target_offset and not self._keeps_start:
            self.target_start = self.source_held - hidden
        self._keeps_start = self._keeps_start and hidden > 0
        check_end(self._positions, self.target_start + self.target_offset + len(tokens))
        self.branches_end = 0
        self._count(tokens, self.source_held + self.target_offset)
        return self._wait(tokens, hidden)

    def _wait(self, tokens: list[int], hidden: int) -> Answer:
        self.unwritten, self.hidden, self.answer = tokens, hidden, None
        self._pool.wait(self)
        assert self.answer is not None
        # Here, not in the step: the error is this sentence's alone.
        check_logits(self.answer.highest, self.source_tokens, self.target_offset)
        return self.answer

    def likeliest(self, logits: mx.array) -> int:
        assert self.answer is not None
        return self.answer.likeliest[-1]

    def trim(self, n: int) -> None:
        """Raises: RuntimeError: source has been read since these tokens were fed."""
        n = min(n, self.target_offset)
        self._pool.forget(self, n)
        self.length -= n
        self.target_offset -= n

    def reset_target(self) -> None:
        self._pool.forget_oldest(self, True, self.target_offset, 0)
        self.target_offset = 0

    def forget_oldest(self, forgetting: Forgetting, target: bool, n: int) -> None:
        window = forgetting.target if target else forgetting.source
        self._pool.forget_oldest(self, target, n, window.sinks)
        if target:
            self.target_offset -= n
        else:
            self.source_offset -= n

    def keep_start(self, keep: bool) -> None:
        self._keeps_start = keep

    def fork(self) -> "RowBranches":
        return RowBranches(self)

    def branch(self, tokens: list[int], paths: list[Columns]) -> mx.array:
        """Feed one token to each hypothesis, in the last column of its path; logits (len(tokens), V)."""
        check_end(self._positions, self.target_start + self.target_offset + len(paths[0]))
        self.branching, self.paths = tokens, paths
        self.branches_end = max(self.branches_end, *(path[-1] + 1 for path in paths))
        try:
            self.forward_passes += 1
            self.fed_tokens += len(tokens)
            return self._wait([], 0).logits
        finally:
            self.branching, self.paths = [], []

    @property
    def end(self) -> int:
        """Columns that the row needs for what it holds and for what it is about to be fed."""
        return max(self.length + len(self.unread) + len(self.unwritten), self.branches_end)

    def _count(self, tokens: list[int], held: int) -> None:
        """What the sentence would cost alone."""
        self.forward_passes += len(portions(len(tokens), held))
        self.fed_tokens += len(tokens)


class RowBranches:
    """The hypotheses of a beam (`streamllm.engine.paradigms.memory.Fork`), in the columns behind those of the row.
    Nothing is copied: they share what they have in common, and columns of those that were given up are used again."""

    def __init__(self, row: Row):
        self._row = row
        self._paths: list[Columns] = [[]]

    def step(self, parents: list[int], tokens: list[int]) -> mx.array:
        paths = [self._paths[parent] for parent in parents]
        taken = {column for path in paths for column in path}
        free = (column for column in count(self._row.length) if column not in taken)
        self._paths = [[*path, column] for path, column in zip(paths, islice(free, len(paths)), strict=True)]
        return self._row.branch(tokens, self._paths)
