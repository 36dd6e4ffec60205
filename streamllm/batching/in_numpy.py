"""A pool's keys and values in numpy, each row in a block of its own, and its forwards by `streamllm.cpu.decoder`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamllm.batching.holder import Answer, Asked, Columns, Fed, Index, judge
from streamllm.batching.layer import UNUSED
from streamllm.cpu.decoder import Decoder, Scratch, Spans
from streamllm.cpu.mkl import Floats
from streamllm.engine.attention import check_heads
from streamllm.engine.prefix import Prefix
from streamllm.engine.write_head import WriteHead


@dataclass(frozen=True)
class HeldAttention:
    """An `Attention` that is computed when it is asked for, which is of few heads.

    Args:
        queries: of the token, (heads, width) in each layer.
        keys: of the row, (heads, columns, width) in each layer, where they lie.
        source: which columns hold source tokens: all but those that are `UNUSED`.
    """

    queries: list[Floats]
    keys: Callable[[int], Floats]
    source: Index
    scale: float

    @property
    def heads(self) -> list[tuple[int, int]]:
        return [(layer, head) for layer, queries in enumerate(self.queries) for head in range(len(queries))]

    def weights(self, heads: Sequence[Sequence[int]]) -> Floats:
        of_each = len(self.queries[0])
        check_heads(heads, len(self.queries), of_each)
        columns = np.flatnonzero(self.source != UNUSED)
        if not len(columns):
            return np.empty((len(heads), 0), np.float32)
        scores = np.empty((len(heads), len(columns)), np.float32)
        for row, (layer, head) in zip(scores, heads, strict=True):
            keys = self.keys(layer)
            seen = keys[head * len(keys) // of_each, : columns[-1] + 1] @ self.queries[layer][head]
            row[:] = seen[columns]
        scores *= self.scale
        scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= np.add.reduce(scores, axis=-1, keepdims=True)
        return scores


class InNumpy:
    """A `Holder` of up to ``rows`` rows, which begin with ``prefix``; ``write_head`` is what they may ask."""

    reads_apart = False

    def __init__(self, decoder: Decoder, rows: int, prefix: Prefix | None, write_head: WriteHead | None = None):
        self._write_head = write_head
        self._decoder, self._blocks, self._scratch = decoder, decoder.blocks(rows), Scratch()
        for cache in prefix.caches if prefix else ():
            keys, values = cache.get_source()
            self._blocks.prefix.append((np.array(keys)[0], np.array(values)[0]))

    @property
    def nbytes(self) -> int:
        return self._blocks.nbytes

    def begin(self, slot: int, shape: tuple[int, ...]) -> None:
        self._blocks.begin(slot)

    def forget(self, slot: int, columns: np.ndarray[Any, Any], moved: np.ndarray[Any, Any], by: int) -> None:
        begun = self._blocks.begun[slot]  # which stay
        columns, moved = columns[begun:] - begun, moved[begun:]
        for i, (keys, values) in enumerate(zip(self._blocks.keys, self._blocks.values, strict=True)):
            held, moves = self._blocks.held(keys, slot), columns[moved]
            held[:, moves] = self._decoder.moved(i, held[:, moves], by)
            for part in (held, self._blocks.held(values, slot)):
                part[:, : len(columns)] = part[:, columns]

    def keep(self, slots: list[int]) -> None:
        self._blocks.keep(slots)

    def close(self, slot: int) -> None:
        self._blocks.free(slot)

    def read(self, fed: Fed, source: Index, target: Index) -> None:
        self._forward(fed, source, target, [], {}, None)

    def step(
        self,
        fed: Fed,
        source: Index,
        target: Index,
        asked: Asked,
        paths: Mapping[int, Columns],
    ) -> Sequence[Answer]:
        noted: list[Any] | None = [] if any(asked.attends) else None
        states: list[Floats] | None = [] if any(asked.judges) else None
        logits = self._forward(fed, source, target, asked.tokens, paths, noted, states)
        judged = judge(self._write_head, states[0], asked) if states else [None] * len(asked.ends)
        at = logits.argmax(axis=-1)  # of NaN and numbers NaN
        found, highest = at.tolist(), logits[np.arange(len(at)), at].tolist()
        answers, start = [], 0
        for end, several, attends, judgement in zip(asked.ends, asked.several, asked.attends, judged, strict=True):
            attention = None
            if attends:
                assert noted is not None
                last = asked.tokens[end - 1]
                slot = int(fed.slot[last])
                seen = np.where(source[slot] < fed.source_end[last], source[slot], UNUSED)
                queries = [each[end - 1] for each in noted]
                attention = HeldAttention(queries, self._blocks.keys_of(slot), seen, self._decoder.scale)
            own = logits[start:end] if several else logits[start]
            answers.append(Answer(own, found[start:end], highest[start:end], attention, judgement))
            start = end
        return answers

    def _forward(
        self,
        fed: Fed,
        source: Index,
        target: Index,
        asked: list[int],
        paths: Mapping[int, Columns],
        noted: list[Any] | None,
        states: list[Floats] | None = None,
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        tokens, slots, columns, positions, source_ends, target_ends = fed
        ends = columns + 1
        bases = target_ends
        if paths:  # of the target, they see their own path and what the row has written
            bases = target_ends.copy()
            for i, path in paths.items():
                ends[i], bases[i] = max(path) + 1, target_ends[i] - len(path)
        firsts = np.flatnonzero(np.diff(slots, prepend=-1))
        counts = np.diff(firsts, append=len(slots))
        rows, lengths = slots[firsts], np.maximum.reduceat(ends, firsts)
        self._blocks.fit(rows, lengths)
        # Rows stand in the order of their lengths, so that rows beside each other are alike.
        order = np.argsort(lengths, kind="stable")
        place = np.arange(len(slots)) - np.repeat(np.cumsum(counts[order]) - counts[order], counts[order])
        by_length = np.repeat(firsts[order], counts[order]) + place
        used = int(lengths[order[-1]])
        back = np.empty_like(by_length)
        back[by_length] = np.arange(len(slots))
        owners = slots[by_length]
        sees = (
            (source[owners, :used], source_ends[by_length, None], source_ends[by_length, None]),
            (target[owners, :used], bases[by_length, None], target_ends[by_length, None]),
        )
        masks = {}
        for window in self._decoder.windows:
            within = [index < end for index, end, _ in sees]
            if window is not None:
                within = [w & (index >= last - window) for w, (index, _, last) in zip(within, sees, strict=True)]
            masks[window] = within[0] | within[1]
            for i, path in paths.items():
                masks[window][back[i], path if window is None else path[-window:]] = True
        spans = Spans(rows[order], counts[order], lengths[order], masks)
        wanted = back[asked]
        rising = np.argsort(wanted, kind="stable")
        chosen = wanted[rising]
        of_asked = spans
        if 0 < len(chosen) < len(slots):
            which = np.bincount(np.repeat(np.arange(len(rows)), counts[order])[chosen], minlength=len(rows))
            some = which > 0
            of_them = {window: mask[chosen] for window, mask in masks.items()}
            of_asked = Spans(spans.rows[some], which[some], spans.lengths[some], of_them)
        queries: list[Any] | None = None if noted is None else []
        logits = self._decoder.forward(
            self._blocks,
            tokens[by_length],
            positions[by_length],
            columns[by_length],
            spans,
            chosen,
            of_asked,
            self._scratch,
            queries,
            states,
        )
        again = np.empty_like(rising)
        again[rising] = np.arange(len(rising))
        if noted is not None and queries is not None:
            noted += [each[again] for each in queries]
        if states:
            states[0] = states[0][again]
        return logits[again] if len(again) and (np.diff(again) != 1).any() else logits
