"""The one place that calls a model at inference: for a session, a beam and a batch alike. Only this file and training's
loss know the room `cpu`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import mlx.core as mx

from streamllm.cpu.exponentials import numpy_exponentials
from streamllm.cpu.fewer_operations import fewer_operations
from streamllm.engine.attention import Call, recorded
from streamllm.engine.head import UnreadableStates, logits_at
from streamllm.engine.quantised_products import in_float32


def forward(
    model: Any,
    tokens: mx.array,
    views: Sequence[Any],
    at: tuple[Any, Any] | None = None,
    least: int | None = None,
    attends: bool = False,
    attention: AbstractContextManager[None] | None = None,
    states: list[mx.array] | None = None,
) -> tuple[mx.array, list[Call]]:
    """Feed tokens (S, N) to a model.

    Args:
        views: for each layer, what the model sees in place of mlx-lm's cache.
        at: rows and columns of the positions whose logits are wanted, as for `logits_at`; None is all.
        least: exponentials of a layer from which on numpy takes them, on a CPU; None leaves them to MLX.
        attends: whether it is noted what each layer attends with.
        attention: what replaces MLX's attention meanwhile.
        states: takes what the output layer is given at the positions ``at``, one array (P, E).

    Returns: logits (S, N, V), or (P, V) of the positions ``at``; and what was noted.

    Raises:
        UnreadableStates: the output layer of this model is not found, and ``states`` are wanted.
    """
    with ExitStack() as stack:
        stack.enter_context(fewer_operations())
        stack.enter_context(in_float32(model))
        if least is not None:
            stack.enter_context(numpy_exponentials(model, least))
        # After numpy's stand-in, so that what goes to numpy is noted, too.
        calls = stack.enter_context(recorded(model)) if attends else []
        if attention is not None:
            stack.enter_context(attention)
        cut = stack.enter_context(logits_at(model, *at)) if at is not None else None
        logits: mx.array = model(tokens, cache=views)
        logits = logits if cut is None else cut.after(logits)
    if states is not None:
        if cut is None or cut.states is None:
            raise UnreadableStates(
                f"the output layer of this model (model_type {getattr(model, 'model_type', 'unknown')!r}) is not "
                "found, so its hidden states cannot be read: choose a policy other than learned"
            )
        states.append(cut.states)
    return logits, calls
