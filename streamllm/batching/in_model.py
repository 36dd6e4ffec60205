"""A pool's keys and values in MLX, and its forwards by mlx-lm's model.

Each layer has one buffer (rows, H_kv, columns, D). In a step, each token is a batch row of length 1 with its own
position and mask. So no product is padded, and one forward reads and writes. Only attention takes the tokens of a
sentence together (`packing`).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import cache as mlx_lm_cache

from streamllm.batching.holder import Answer, Asked, Columns, Fed, Index, judge
from streamllm.batching.layer import UNUSED, Feed, Layer, Sight
from streamllm.batching.packing import Packing, packed
from streamllm.engine.attention import Call, RecordedAttention
from streamllm.engine.finite import Likeliest
from streamllm.engine.forward import forward
from streamllm.engine.paradigms.forgetting import Forgetting
from streamllm.engine.prefix import Prefix
from streamllm.engine.write_head import WriteHead

NUMPY_TOKENS = 16
"""From so many tokens a forward on, numpy takes the exponentials on a CPU: it is faster, but MLX has to stop for it."""


class InModel:
    """A `Holder`.

    Args:
        packs: False where the model computes attention by itself: each token then has a copy of its sentence's keys.
        forgetting: how rows forget the oldest tokens of their streams; None holds all.
        prefix: what rows begin with.
        write_head: what rows may ask.
    """

    reads_apart = True

    def __init__(
        self,
        model: Any,
        packs: bool,
        forgetting: Forgetting | None,
        prefix: Prefix | None,
        write_head: WriteHead | None = None,
    ):
        self._write_head = write_head
        self._model, self._packs, self._forgetting = model, packs, forgetting
        self._prefix = [cache.get_source() for cache in prefix.caches] if prefix else []
        self._layers = [Layer() for _ in mlx_lm_cache.make_prompt_cache(model)]

    @property
    def _buffers(self) -> list[mx.array]:
        return [buffer for layer in self._layers for buffer in layer.buffers]

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers)

    def begin(self, slot: int, shape: tuple[int, ...]) -> None:
        for layer, (keys, values) in zip(self._layers, self._prefix, strict=True):
            if keys is not None and values is not None:
                layer.begin_with(slot, keys, values, shape)

    def forget(self, slot: int, columns: np.ndarray[Any, Any], moved: np.ndarray[Any, Any], by: int) -> None:
        assert self._forgetting is not None
        for layer, rotate in zip(self._layers, self._forgetting.moves, strict=True):
            layer.forget(slot, mx.array(columns), mx.array(moved), rotate, by)

    def keep(self, slots: list[int]) -> None:
        for layer in self._layers:
            layer.keep(slots)

    def close(self, slot: int) -> None:
        """Its memory serves the next sentence."""

    def read(self, fed: Fed, source: Index, target: Index) -> None:
        self._forward(fed, source, target)

    def step(
        self,
        fed: Fed,
        source: Index,
        target: Index,
        asked: Asked,
        paths: Mapping[int, Columns],
    ) -> Sequence[Answer]:
        at = (mx.array(asked.tokens), 0)
        column = Fed(*(each[:, None] for each in fed))
        states: list[mx.array] | None = [] if any(asked.judges) else None
        logits, calls, cells = self._forward(column, source, target, at, paths, any(asked.attends), states)
        likeliest = Likeliest.of(logits)
        # Cut here, not in each row: policies that look at logits would evaluate each cut on its own.
        parts: Sequence[mx.array] = mx.split(logits, asked.ends[:-1])  # type: ignore[assignment]
        cut = [part if some else part.reshape(-1) for some, part in zip(asked.several, parts, strict=True)]
        wide = [state.astype(mx.float32) for state in states or ()]
        mx.eval(likeliest.arrays, cut, wide, self._buffers)
        judged = judge(self._write_head, np.array(wide[0]), asked) if wide else [None] * len(asked.ends)
        found, highest = (each.tolist() for each in likeliest.found())
        answers = []
        each_row = zip([0, *asked.ends], asked.ends, asked.attends, cut, judged, strict=False)
        for start, end, attends, own, judgement in each_row:
            attention = None
            if attends:
                last = asked.tokens[end - 1]
                one_row, place = (int(cell[last]) for cell in cells)
                one, there = slice(one_row, one_row + 1), slice(place, place + 1)
                of_it = [(queries[one, :, there], keys[one], scale) for queries, keys, scale in calls]
                attention = RecordedAttention(
                    of_it, np.flatnonzero(source[fed.slot[last]] < fed.source_end[last]).tolist()
                )
            answers.append(Answer(own, found[start:end], highest[start:end], attention, judgement))
        return answers

    def _forward(
        self,
        fed: Fed,
        source: Index,
        target: Index,
        at: tuple[mx.array, int] | None = None,
        paths: Mapping[int, Columns] = MappingProxyType({}),
        attends: bool = False,
        states: list[mx.array] | None = None,
    ) -> tuple[mx.array, list[Call], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Feed tokens (S, N), where each of the S rows is of one sentence.

        Args:
            at: the positions whose logits are wanted, as for `forward`.
            paths: of those of the S rows that are hypotheses of a beam.
            attends: whether it is noted what each layer attends with.
            states: takes what the output layer is given, as of `forward`.

        Returns: logits (S, N, V) or those ``at``; what was noted; and the row and the place in it that each of the S
            has there.
        """
        tokens, slots, columns, positions, source_ends, target_ends = fed
        own, ends = slots[:, 0], columns[:, -1] + 1
        for i, path in paths.items():
            ends[i] = max(path) + 1
        used = int(ends.max())
        seen_source, seen_target = source[own, :used], target[own, :used]  # copies, and so each hypothesis's own
        for i, path in paths.items():
            held = target_ends[i, 0] - len(path)
            seen_target[i, seen_target[i] >= held] = UNUSED  # what was trimmed, in columns that no hypothesis has used
            seen_target[i, path] = range(held, target_ends[i, 0])
        packing = Packing(own, ends, split=not attends) if self._packs and tokens.shape[1] == 1 else None
        shared = Feed(
            shape=source.shape,
            slots=mx.array(own),
            columns=mx.array(columns),
            used=used,
            start=mx.array(positions[:, 0]),
            sight=Sight(seen_source, seen_target, source_ends, target_ends, packing),
            rows=packing.rows if packing else mx.array(own),
        )
        for layer in self._layers:
            layer.begin(shared)
        logits, calls = forward(
            self._model,
            mx.array(tokens),
            self._layers,
            at,
            least=0 if tokens.size >= NUMPY_TOKENS else None,
            attends=attends,
            attention=packed(packing) if packing else None,
            states=states,
        )
        return logits, calls, packing.cells if packing else (np.arange(len(own)), np.zeros_like(own))
