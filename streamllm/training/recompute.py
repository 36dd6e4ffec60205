"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): a block's activations are forgotten, and computed again
on the way back.

mlx-lm's ``grad_checkpoint`` does not fit: a block leaves keys and values in its cache, to which the target attends
later and which would get no gradient, and dropout would draw other numbers the second time. Here they go in and out
of the checkpointed function, and the random numbers start from a seed.
"""

from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from streamllm.cache.dual import SourceView, TargetView


def recompute_blocks(model: Any) -> None:
    """Let each block of ``model`` do so, in training mode. Names and values of the parameters stay."""
    for block in model.layers:
        base = type(block)
        if not issubclass(base, _Recomputed):
            block.__class__ = type(f"Recomputed{base.__name__}", (_Recomputed, base), {})
    model.recomputes = True  # for `exponentials.lazy`


class _Slot:
    """Stands for an array in a tree of arguments or results."""

    def __init__(self, index: int):
        self.index = index


def _split(tree: Any) -> tuple[Any, list[mx.array]]:
    """A tree with slots for its arrays of floats, and these."""
    arrays: list[mx.array] = []

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, mx.array) or not mx.issubdtype(leaf.dtype, mx.floating):
            return leaf
        arrays.append(leaf)
        return _Slot(len(arrays) - 1)

    return tree_map(take, tree), arrays


def _join(tree: Any, arrays: list[mx.array]) -> Any:
    return tree_map(lambda leaf: arrays[leaf.index] if isinstance(leaf, _Slot) else leaf, tree)


class _Recomputed:
    """Mixin of a block."""

    training: bool
    trainable_parameters: Any
    update: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        called, arrays = _split((args, kwargs))
        views = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, SourceView | TargetView)]
        cache = views[0].owner if views else None
        seed = int(mx.random.randint(0, 2**31 - 1).item())  # type: ignore[arg-type]
        keys, values, *counts = cache.state if cache else (mx.zeros(0), mx.zeros(0))
        result: Any = None
        counts_after: list[int] = []

        def compute(weights: Any, arrays: list[mx.array], keys: mx.array, values: mx.array) -> list[mx.array]:
            nonlocal result, counts_after
            self.update(weights)
            mx.random.seed(seed)
            if cache is not None:
                cache.state = (keys, values, *counts)
            args, kwargs = _join(called, arrays)
            result, out = _split(super(_Recomputed, self).__call__(*args, **kwargs))  # type: ignore[misc]
            if cache is not None:
                keys, values, *counts_after = cache.state
            if len(out) > 1:  # a block that also returns its keys: of a result given twice, MLX learns from one only
                keys, values = keys + 0, values + 0
            return [*out, keys, values]

        *out, keys, values = mx.checkpoint(compute)(self.trainable_parameters(), arrays, keys, values)
        if cache is not None:
            cache.state = (keys, values, *counts_after)
        return _join(result, out)
