"""Moving keys to other positions: what a model's rotary positions (RoPE) make possible, found and proven here."""

from typing import Any, Protocol

import mlx.core as mx

from streamllm.cache.dual import DualStreamingCache, make_caches


class Rotation(Protocol):
    """Moves keys (1, H, L, D) on by some positions."""

    def __call__(self, keys: mx.array, by: int) -> mx.array: ...


def rotations(model: Any) -> list[Rotation] | None:
    """For each layer, what moves its keys (1, H, L, D) on by some positions; None where nothing does.

    Proven on one token alone: it attends to itself only, so its keys differ by nothing but the position.
    """
    ropes = [
        [module for name, module in layer.named_modules() if name.rpartition(".")[2] in ("rope", "rotary_emb")]
        for layer in model.layers
    ]
    found = [_rotation(modules[0]) for modules in ropes if len(modules) == 1]
    here, there = (make_caches(model, start) for start in (0, 7))
    for caches in (here, there):
        model(mx.array([[0]]), cache=[cache.target for cache in caches])
    layers = list(zip(found, here, there, strict=False))
    if len(found) == len(here) and all(_moves(rotate, first, second, by=7) for rotate, first, second in layers):
        return found
    return None


def _moves(rotate: Rotation, here: DualStreamingCache, there: DualStreamingCache, by: int) -> bool:
    """Whether ``rotate`` makes the target's keys of the second cache out of those of the first."""
    keys, moved = here.get_target()[0], there.get_target()[0]
    if keys is None or moved is None:
        return False
    try:
        error = mx.abs(rotate(keys, by=by) - moved).max()
    except ValueError:  # made for keys of another width (latent attention)
        return False
    tolerance = 1e-3 if moved.dtype == mx.float32 else 0.02
    return bool(error.item() <= tolerance * mx.abs(moved).max().item())  # type: ignore[operator]


def _rotation(rope: Any) -> Rotation:
    def rotate(keys: mx.array, by: int) -> mx.array:
        batch, heads, length, width = keys.shape
        # Each token in a row of its own: RoPE would add 0, 1, 2, … along a row.
        rows = keys.transpose(0, 2, 1, 3).reshape(batch * length, heads, 1, width)
        turned = rope(rows, offset=by).reshape(batch, length, heads, width)
        return mx.contiguous(turned.transpose(0, 2, 1, 3))

    return rotate
