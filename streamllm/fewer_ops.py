"""Rotary positions (RoPE) in fewer operations, on a CPU.

There MLX rotates by some twenty small operations, for the queries and the keys of every layer anew, although the sines
are the same for all of them; and starting an operation is most of what a token of a small model costs.
Invariant: the numbers are MLX's own, bit for bit.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


@contextmanager
def shared_sines() -> Iterator[None]:
    """For one forward pass, of any unmodified model of mlx-lm. On a GPU, where one kernel does it all, this does
    nothing."""
    if mx.default_device() != mx.Device(mx.cpu):  # type: ignore[arg-type]
        yield
        return
    rope = mx.fast.rope
    mx.fast.rope = _Rope(rope)  # type: ignore[assignment]
    try:
        yield
    finally:
        mx.fast.rope = rope


class _Rope:
    """Stands for ``mx.fast.rope``, which it leaves all cases to that are not the usual one."""

    def __init__(self, rope: Any):
        self._rope = rope
        # With what they are known by, lest another array takes the id of one that is gone.
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
