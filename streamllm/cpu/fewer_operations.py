"""Rotary positions (RoPE) and RMS norms in fewer operations, on a CPU.

There MLX makes each of them of many small operations: 410 of the 680 of a token of the bundled model. To start one
costs more than to compute it. Invariant: the numbers are MLX's own, bit for bit.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx

from streamllm.cpu.enabled import enabled
from streamllm.standins import replaced


@contextmanager
def fewer_operations() -> Iterator[None]:
    """For one forward pass of an unmodified model. On a GPU, which has a kernel for each, this does nothing."""
    if not enabled() or mx.default_device() != mx.Device(mx.cpu):  # type: ignore[arg-type]
        yield
        return
    with replaced(mx.fast, "rope", _Rope), replaced(mx.fast, "rms_norm", lambda norm: partial(_norm, norm)):
        yield


class _Rope:
    """Stands for ``mx.fast.rope``, which it leaves unusual cases to. The sines of a forward are the same for queries
    and keys of all layers: they are computed once."""

    def __init__(self, rope: Any):
        self._rope = rope
        # Last, what the key holds ids of: kept alive, so that no other array gets the same id.
        self._sines: dict[tuple[Any, ...], tuple[mx.array, mx.array, Any]] = {}

    def __call__(
        self,
        x: mx.array,
        dims: int,
        *,
        traditional: bool,
        base: float | None,
        scale: float,
        offset: Any,
        freqs: mx.array | None = None,
        **options: Any,
    ) -> mx.array:
        if traditional or options or dims != x.shape[-1] or x.dtype != mx.float32:
            settings: Any = {"traditional": traditional, "base": base, "scale": scale, "offset": offset, "freqs": freqs}
            rotated: mx.array = self._rope(x, dims, **settings, **options)
            return rotated
        start = offset if isinstance(offset, int) else id(offset)
        key = (x.shape[-2], dims, base, scale, type(offset), start, id(freqs))
        if key not in self._sines:
            self._sines[key] = (*_sines(x.shape[-2], dims, base, scale, offset, freqs), (offset, freqs))
        cosines, sines, _ = self._sines[key]
        rotate = _compiled_rotation if _is_one_token(x.shape[:-3] + x.shape[-2:-1]) else _rotation
        return rotate(x, cosines, sines)


def _rotation(x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
    first, second = mx.split(x, 2, axis=-1)
    return x * cosines + mx.concatenate([second, first], axis=-1) * sines


def _sines(
    length: int, dims: int, base: float | None, scale: float, offset: Any, freqs: mx.array | None
) -> tuple[mx.array, mx.array]:
    """What to multiply (…, L, D) by, and what to multiply its swapped halves by: (L, D) each, or (B, 1, L, D) for an
    ``offset`` (B,)."""
    if isinstance(offset, mx.array) and offset.size > 1:
        offset = offset[:, None, None]
    positions = (mx.arange(length, dtype=mx.float32) + offset) * scale
    if freqs is not None:
        frequencies = mx.reciprocal(freqs)
    else:
        assert base is not None
        frequencies = mx.exp(mx.arange(0, -(dims // 2), -1, dtype=mx.float32) * (math.log(base) / (dims // 2)))
    angles = positions[..., None] * frequencies
    cosines, sines = mx.cos(angles), mx.sin(angles)
    return mx.concatenate([cosines, cosines], axis=-1), mx.concatenate([-sines, sines], axis=-1)


def _norm(norm: Any, x: mx.array, weight: mx.array | None, eps: float, **options: Any) -> mx.array:
    """Stands for ``mx.fast.rms_norm``."""
    if weight is None or options or not _is_one_token(x.shape[:2]) or not x.dtype == weight.dtype == mx.float32:
        normed: mx.array = norm(x, weight, eps, **options)
        return normed
    return _compiled_norm(x, weight, eps)


# What is compiled is compiled for one shape; so it is for the commonest only, one token of one sentence.


def _is_one_token(shape: tuple[int, ...]) -> bool:
    """Of a batch of tokens (B, N)."""
    return shape == (1, 1)


_compiled_rotation = mx.compile(_rotation)


@mx.compile
def _compiled_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    return x * mx.rsqrt(mx.mean(mx.square(x), axis=-1, keepdims=True) + eps) * weight
