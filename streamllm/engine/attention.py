"""Where a model looks, read out of an unmodified mlx-lm model: its queries and keys are noted on their way into
MLX's attention. Invariant: outside `recorded`, nothing is changed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from streamllm.standins import replaced


class UnreadableAttention(ValueError):
    """The attention of this model does not go through MLX's, so it cannot be noted."""


Call = tuple[mx.array, mx.array, float]
"""Queries (1, H, N, D), keys (1, H_kv, L, D) and the scale of one layer."""


class Attention(Protocol):
    """How much the last token of a forward attends to each source token.

    Weights are the softmax over the source tokens alone; what a model adds to the logits of attention (a cap, sinks)
    is left out, as are the target and a sliding window that is shorter than the source.
    """

    @property
    def heads(self) -> list[tuple[int, int]]:
        """All pairs of layer and head."""
        ...

    def weights(self, heads: Sequence[Sequence[int]]) -> mx.array | np.ndarray[Any, Any]:
        """(heads, source tokens), float32.

        Raises:
            ValueError: there is no such head.
        """
        ...


def check_heads(heads: Sequence[Sequence[int]], layers: int, of_each: int) -> None:
    """Raises: ValueError: there are none, or some are none of a model with so many layers and heads."""
    wrong = [head for head in heads if len(head) != 2 or not (0 <= head[0] < layers and 0 <= head[1] < of_each)]
    if wrong or not heads:
        raise ValueError(
            f"attention heads are {[list(head) for head in heads]}; accepted are pairs of layer (below {layers}) and "
            f"head (below {of_each}), at least one"
        )


@contextmanager
def recorded(model: Any) -> Iterator[list[Call]]:
    """What each layer attends with, in the forwards inside; layers come in order.

    Raises:
        UnreadableAttention: on leaving, when not every layer of ``model`` went through MLX's attention.
    """
    calls: list[Call] = []

    def noting(attention: Any) -> Any:
        def note(queries: mx.array, keys: mx.array, *args: Any, **kwargs: Any) -> Any:
            mask = kwargs.get("mask")
            # What is added is a part of the scores: latent attention computes that of the positions by itself.
            if not isinstance(mask, mx.array) or mask.dtype == mx.bool_:
                calls.append((queries, keys, kwargs["scale"]))
            return attention(queries, keys, *args, **kwargs)

        return note

    with replaced(mx.fast, "scaled_dot_product_attention", noting):
        yield calls
    if len(calls) != len(model.layers):
        raise UnreadableAttention(
            f"the attention of this model (model_type {getattr(model, 'model_type', 'unknown')!r}) cannot be read out: "
            f"{len(calls)} of its {len(model.layers)} layers leave all of it to MLX's attention. Choose a policy other "
            "than alignatt, dst, drfrattn and doa; where model.kv_bits is set, leave it at null"
        )


@dataclass(frozen=True)
class RecordedAttention:
    """An `Attention`.

    Args:
        calls: of `recorded`.
        columns: where the source tokens lie in the keys.
    """

    calls: list[Call] = field(repr=False)
    columns: list[int] = field(repr=False)

    @property
    def heads(self) -> list[tuple[int, int]]:
        return [(layer, head) for layer, call in enumerate(self.calls) for head in range(call[0].shape[1])]

    def weights(self, heads: Sequence[Sequence[int]]) -> mx.array:
        check_heads(heads, len(self.calls), self.calls[0][0].shape[1])
        columns = mx.array(self.columns, mx.int32)  # none of them, if all units read are without tokens
        rows = []
        for layer, some in groupby(heads, key=lambda head: head[0]):
            queries, keys, scale = self.calls[layer]
            group = queries.shape[1] // keys.shape[1]  # heads that share their keys
            of_layer = [head for _, head in some]
            seen = keys[0, mx.array([head // group for head in of_layer])][:, columns].astype(mx.float32)
            scores = seen @ queries[0, mx.array(of_layer), -1, :, None].astype(mx.float32)  # (heads, source tokens, 1)
            rows.append(mx.softmax(scores[..., 0] * scale, axis=-1))
        return mx.concatenate(rows)
