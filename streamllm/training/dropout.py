"""Dropout for mlx-lm's models, whose layers have none."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from streamllm.check import number


def add_dropout(model: nn.Module, p: float) -> None:
    """Drop out the embeddings and what each attention and each MLP adds to the residual stream, with
    probability ``p``, while the model is in training mode. Names and values of the parameters stay.

    Raises:
        ValueError: p is outside [0, 1), or the model's layers are not ``self_attn`` and ``mlp``.
    """
    number("training.dropout", p, least=0, below=1)
    if p == 0:
        return
    places = [getattr(layer, name, None) for layer in model.layers for name in ("self_attn", "mlp")]
    embedding = getattr(getattr(model, "model", None), "embed_tokens", None)
    if embedding is None or None in places:
        raise ValueError(f"dropout is not known for {type(model).__module__}: set training.dropout=0")
    for module in (embedding, *places):
        base = type(module)
        module.__class__ = type(f"{base.__name__}WithDropout", (_Dropout, base), {"dropout_p": p})


class _Dropout:
    """Mixin: drops out the result of the module it is mixed into (a subclass keeps the parameters' names)."""

    dropout_p: float
    training: bool

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        out: mx.array = super().__call__(*args, **kwargs)  # type: ignore[misc]
        if not self.training:
            return out
        keep = 1 - self.dropout_p
        dropped: mx.array = out * (mx.random.bernoulli(keep, out.shape) * mx.array(1 / keep, out.dtype))
        return dropped
