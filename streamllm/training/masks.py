"""Which source tokens each target position sees while training, and the order in which tokens would have arrived."""

import mlx.core as mx
import numpy as np

from streamllm.training.batch import PADDING, Batch


def visible(source_units: mx.array, target_units: mx.array, k: mx.array) -> mx.array:
    """Which source tokens each target position sees under wait-k, bool (B, T, S).

    The position that predicts a token of target unit i sees the header (unit -1), source unit u if
    u < k + i, and the footer (unit |x|) only if k + i > |x|: what g(i + 1) = min(k + i, |x|) of Ma et al.
    2019 (arXiv 1810.08398) says of words, for all tokens.

    Args:
        source_units: (B, S), target_units: (B, T), as in `batch.Encoded`; k: (B,).
    """
    sees: mx.array = source_units[:, None, :] < (k[:, None] + target_units)[:, :, None]
    return sees


def arrival_order(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The two streams as one, in the order in which wait-k feeds them.

    A target token comes after all source that may be seen by the unit it arrives with, and before all other source.

    Returns: for each place of the one sequence (B, S + T), the column of source followed by target that stands
        there, padding last; and the place of each target token (B, T).
    """
    real = np.cumsum((batch.labels >= 0)[:, ::-1], axis=1)[:, ::-1] > 0  # up to the last label
    sees = batch.k[:, None] + batch.arrival_units
    target = np.where(real, 2 * sees.astype(np.int64) - 1, 4 * np.int64(PADDING))
    keys = np.concatenate([2 * batch.source_units.astype(np.int64), target], axis=1)
    order = np.argsort(keys, axis=1, kind="stable")
    places = np.argsort(order, axis=1, kind="stable")[:, batch.source.shape[1] :]
    return order, places
