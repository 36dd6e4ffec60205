"""Logits of some positions only: what an unmodified mlx-lm model hands to its head is cut to them on its way there.
Invariant: outside `logits_at`, nothing is changed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from streamllm.standins import replaced

EMBEDDINGS = (nn.Embedding, nn.QuantizedEmbedding)
"""Whose transposes are the heads of models with tied weights."""

HEADS = ("lm_head", "embed_out", "output")
"""The usual name, that of GPT-NeoX, and that of InternLM 2 and Llama 4."""


class UnreadableStates(ValueError):
    """What the output layer of a model is given cannot be read."""


class Cut:
    """To positions (P, 1, …) of what a forward of S rows of N tokens gives, (S, N, …)."""

    def __init__(self, rows: Any, columns: Any):
        self._at = rows, columns
        self._done = False
        self.states: mx.array | None = None  # (P, E), what the head was given; None where it was not found

    def before(self, hidden: mx.array) -> mx.array:
        """Of the hidden states; the first who asks is the head."""
        if self._done:
            return hidden
        self._done = True
        cut = hidden[self._at][:, None]
        self.states = cut[:, 0]
        return cut

    def after(self, logits: mx.array) -> mx.array:
        """Logits (P, V), also of a model whose head was not found."""
        return logits[:, 0] if self._done else logits[self._at]


@contextmanager
def logits_at(model: Any, rows: Any, columns: Any) -> Iterator[Cut]:
    """In the forward inside, logits are computed for positions (``rows``, ``columns``) only; hand them to `Cut.after`.

    Args:
        rows, columns: what picks them, P indices, a slice, or one for all.
    """
    cut = Cut(rows, columns)
    head = _head(model)

    def through_head(call: Any) -> Any:
        return lambda self, x: call(self, cut.before(x) if self is head else x)

    def tied(as_linear: Any) -> Any:
        return lambda self, x: as_linear(self, cut.before(x))

    with ExitStack() as stack:
        if head is not None:
            stack.enter_context(replaced(type(head), "__call__", through_head))
        for embedding in EMBEDDINGS:
            stack.enter_context(replaced(embedding, "as_linear", tied))
        yield cut


def _head(model: Any) -> Any:
    """The head that is no transposed embedding; None where there is none by its usual name."""
    inside = model
    while inside is not None:
        for name in HEADS:
            if isinstance(head := getattr(inside, name, None), nn.Module):
                return head
        inside = getattr(inside, "language_model", None) or getattr(inside, "model", None)
    return None
