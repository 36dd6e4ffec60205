"""Forwards from scratch: every token is a row of its own, with the position that it is told and the tokens that it
is told to see. Knows nothing of streams or caches, and nothing of streamllm."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np


class _Rows:
    """What a model sees in place of a cache: the position of each row, and all rows' keys to choose from."""

    def __init__(self, positions: Sequence[int], sees: np.ndarray):
        self.offset = mx.array(list(positions))
        self._mask = mx.array(sees)[:, None, None, :]  # (L, 1, 1, L)

    def make_mask(self, N: int, **_: Any) -> mx.array:
        return self._mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """(L, H, 1, D) -> (L, H, L, D)."""

        def everyone(rows: mx.array) -> mx.array:
            return mx.broadcast_to(rows.transpose(2, 1, 0, 3), (rows.shape[0], rows.shape[1], *rows.shape[::3]))

        return everyone(keys), everyone(values)


def logits(model: Any, tokens: Sequence[int], positions: Sequence[int], sees: np.ndarray) -> np.ndarray:
    """Logits (L, V) of ``tokens``; ``sees`` (L, L): whether a row's token attends to a column's."""
    caches = [_Rows(positions, sees)] * len(model.layers)
    return np.array(model(mx.array(list(tokens))[:, None], cache=caches)[:, 0].astype(mx.float32))


def streams(
    model: Any, source: Sequence[int], target: Sequence[int], seen: Sequence[int], target_start: int = 0
) -> np.ndarray:
    """Logits (V,) of the last of ``target``: group positions, target token i sees the first ``seen[i]`` of the
    source, and no source token sees the target."""
    S, T = len(source), len(target)
    sees = np.tri(S + T, dtype=bool)
    for row, width in enumerate(seen):
        sees[S + row, :S] = np.arange(S) < width
    positions = [*range(S), *range(target_start, target_start + T)]
    return logits(model, [*source, *target], positions, sees)[-1]


def sequence(model: Any, tokens: Sequence[int]) -> np.ndarray:
    """Logits (V,) of the last of ``tokens`` as mlx-lm itself computes them: one causal forward without a cache."""
    return np.array(model(mx.array([list(tokens)]))[0, -1].astype(mx.float32))


def logprobs(row: np.ndarray) -> np.ndarray:
    """Log-probabilities (V,), float64."""
    row = row.astype(np.float64)
    normalised: np.ndarray = row - np.logaddexp.reduce(row)
    return normalised
