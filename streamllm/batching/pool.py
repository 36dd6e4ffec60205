"""One memory for many sentences: each is a row, and each forward serves rows that read and rows that write.

Invariant: a row's columns below its length hold exactly the tokens that it was given and has not trimmed; no token
sees any other column, but for the hypotheses of a beam, each of which sees its own tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streamllm.batching.gathered import Gathered, padded_rows
from streamllm.batching.holder import Asked, Columns, Fed, Holder
from streamllm.batching.in_model import InModel
from streamllm.batching.in_numpy import InNumpy
from streamllm.batching.layer import UNUSED
from streamllm.batching.row import Row
from streamllm.cpu.decoder import Decoder
from streamllm.engine.paradigms.forgetting import Forgetting
from streamllm.engine.paradigms.memory import TargetStart
from streamllm.engine.portions import SCORES, portion
from streamllm.engine.positions import table
from streamllm.engine.prefix import Prefix
from streamllm.engine.write_head import WriteHead

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
        prefix: what the sources begin with, if that is known.
        write_head: what rows ask that `Row.judge`.

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
        prefix: Prefix | None = None,
        write_head: WriteHead | None = None,
    ):
        if rows < 1:
            raise ValueError(f"a pool of {rows} rows holds no sentence; accepted is at least 1")
        self._target_start = target_start
        self.forgetting, self.prefix, self.write_head = forgetting, prefix, write_head
        self.positions = table(model)
        self._holder: Holder = (
            InModel(model, packs, forgetting, prefix, write_head)
            if decoder is None
            else InNumpy(decoder, rows, prefix, write_head)
        )
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

    def open(self) -> Row:
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

    def close(self, row: Row) -> None:
        """Take a row back; its sentence has ended. Idempotent."""
        if self._open.get(row.slot) is row:
            del self._open[row.slot]
            self._source[row.slot] = self._target[row.slot] = UNUSED
            self._holder.close(row.slot)
            self._free.append(row.slot)

    def begin(self, row: Row) -> None:
        """Let an empty row hold the prefix."""
        assert self.prefix is not None
        row.length = row.source_offset = row.source_end = n = len(self.prefix)
        self._fit()
        self._source[row.slot, :n] = np.arange(n)
        self._target[row.slot, :n] = UNUSED  # of what may have been trimmed
        self._holder.begin(row.slot, self._source.shape)

    def forget_oldest(self, row: Row, target: bool, n: int, after: int) -> None:
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
            stream[row.slot, len(columns) :] = UNUSED  # what was trimmed, too: indices begin lower from here on
        row.length = len(columns)
        sources = np.flatnonzero(self._source[row.slot, : row.length] != UNUSED)
        row.source_end = int(sources[-1]) + 1 if len(sources) else 0

    def cut(self, row: Row, source: int, target: int) -> None:
        """Of a row, forget the columns from the first on that holds a token of the source behind its first ``source``
        ones, or of the target behind its first ``target`` ones."""
        sources, targets = self._source[row.slot], self._target[row.slot]
        gone = ((sources >= source) & (sources != UNUSED)) | ((targets >= target) & (targets != UNUSED))
        row.length = int(np.flatnonzero(np.append(gone[: row.length], True))[0])
        sources[row.length :] = targets[row.length :] = UNUSED  # indices begin lower from here on
        held = np.flatnonzero(sources[: row.length] != UNUSED)
        row.source_end = int(held[-1]) + 1 if len(held) else 0

    # Feeding

    def step(self, rows: Sequence[Row]) -> None:
        """Feed what these rows wait for, and give each its answer. The host waits for the device once."""
        self._fit()
        self._read_ahead(rows)
        feed = Gathered()
        several = [bool(row.paths) or row.checked > 1 for row in rows]
        asked = Asked([], [], several, [row.attends for row in rows], [row.judges for row in rows])
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

    def _placed(self, feed: Gathered) -> Fed:
        """These tokens, in the columns that they will have."""
        self.forward_passes += 1
        self.fed_tokens += len(feed.tokens)
        fed, index = feed.arrays()
        for of_it, stream, ends, other in (
            (index[0], self._source, fed.source_end, self._target),
            (index[1], self._target, fed.target_end, self._source),
        ):
            stream[fed.slot[of_it], fed.column[of_it]] = ends[of_it] - 1
            other[fed.slot[of_it], fed.column[of_it]] = UNUSED  # what was trimmed there
        return fed

    def _read_ahead(self, rows: Sequence[Row]) -> None:
        """Feed what is read before the step, so that this stays small."""
        unread = sum(len(row.unread) for row in rows)
        if self._holder.reads_apart:
            few = sum(len(row.unread) for row in rows if len(row.unread) <= LONG_READ)
            short = 0 if few > AVERAGE_READ * len(rows) else LONG_READ
            self._read_long([row for row in rows if len(row.unread) > short])
        elif unread > READ_AT_ONCE:
            self._read_long([row for row in rows if row.unread])

    def _read_long(self, rows: Sequence[Row]) -> None:
        """Feed all source tokens of these rows. Their logits are never computed."""
        if self._holder.reads_apart:
            self._read_padded(rows)
            return
        feed = Gathered()
        for row in rows:
            while row.unread:
                feed.source(row, min(portion(row.length), READ_AT_ONCE - len(feed.tokens)))
                if len(feed.tokens) >= READ_AT_ONCE or row.unread:
                    self._holder.read(self._placed(feed), self._source, self._target)
                    feed = Gathered()
        if feed.tokens:
            self._holder.read(self._placed(feed), self._source, self._target)

    def _read_padded(self, rows: Sequence[Row]) -> None:
        while rows:
            rows = sorted(rows, key=lambda row: -len(row.unread))
            held = max(row.length for row in rows)
            length = min(len(rows[0].unread), portion(held))
            most = min(READ_TOKENS, SCORES // max(1, held))
            feed = Gathered()
            some = rows[: max(1, most // length)]
            for row in some:
                feed.source(row, length)
            self.fed_tokens += length * len(some) - len(feed.tokens)
            self._holder.read(padded_rows(self._placed(feed), length), self._source, self._target)
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


def _padded(index: np.ndarray[Any, Any], rows: int, columns: int) -> np.ndarray[Any, Any]:
    slack = (0, rows - index.shape[0]), (0, columns - index.shape[1])
    return np.pad(index, slack, constant_values=UNUSED)
