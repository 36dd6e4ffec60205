"""A `DualStreamingCache` whose keys and values are quantised, in mlx-lm's scheme (that of its QuantizedKVCache).

Invariant: what is held was quantised once when it was fed, and once more each time it was moved.
"""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.models import cache as mlx_lm_cache

from streamllm.cache.dual import KV, DualStreamingCache, SourceView, TargetView
from streamllm.cache.retention import GROUP_SIZES, check_scheme

Packed = tuple[mx.array, mx.array, mx.array]
"""Quantised rows (B, H_kv, L, D * bits / 32, uint32), their scales and their biases (B, H_kv, L, D / group_size)."""


def quantised(rows: mx.array, bits: int, group_size: int) -> Packed:
    packed, scales, biases = mx.quantize(rows, group_size=group_size, bits=bits)
    return packed, scales, biases


def unpacked(packed: Packed, bits: int, group_size: int) -> mx.array:
    return mx.dequantize(*packed, group_size=group_size, bits=bits)


class QuantisedCache(DualStreamingCache):
    """As `DualStreamingCache`; what it returns is `Packed`, which mlx-lm's models attend to as it is.

    Args:
        bits: 8 or 4, for each number.
        group_size: 32, 64 or 128 numbers share a scale and a bias. D of keys and of values is a multiple of it.

    Raises:
        ValueError: ``bits`` or ``group_size`` is another number.
    """

    def __init__(self, target_start: int = 0, step: int = DualStreamingCache.step, bits: int = 8, group_size: int = 64):
        check_scheme(bits, group_size)
        self.bits, self.group_size = bits, group_size
        super().__init__(target_start, step)

    def _make_views(self) -> None:
        self.source, self.target = _QuantisedSource(self), _QuantisedTarget(self)

    def _check(self, keys: mx.array, values: mx.array) -> None:
        super()._check(keys, values)
        check_widths((keys.shape[-1], values.shape[-1]), self.group_size)

    def _held(self) -> list[tuple[Any, ...]]:
        packed = [(self._arrays[i], self._arrays[i + 1]) for i in range(0, len(self._arrays), 3)]
        return [(*rows.shape[:2], rows.shape[3] * 32 // self.bits, scales.dtype) for rows, scales in packed]

    def _parts(self, keys: mx.array, values: mx.array) -> list[mx.array]:
        return [part for rows in (keys, values) for part in quantised(rows, self.bits, self.group_size)]

    def _slice(self, start: int, end: int) -> KV:
        parts = [part[..., start:end, :] for part in self._arrays]
        return tuple(parts[:3]), tuple(parts[3:])  # type: ignore[return-value]

    def _map_keys(self, start: int, end: int, function: Callable[[mx.array], mx.array]) -> None:
        if start < end:
            keys = self._arrays[:3]
            packed = [part[..., start:end, :] for part in keys]
            mapped = function(unpacked((packed[0], packed[1], packed[2]), self.bits, self.group_size))
            for part, new in zip(keys, quantised(mapped, self.bits, self.group_size), strict=True):
                part[..., start:end, :] = new

    @property
    def state(self) -> Any:
        """As of `DualStreamingCache`, with `Packed` for keys and for values; then bits and group size."""
        return *super().state, self.bits, self.group_size

    @state.setter
    def state(self, state: Any) -> None:
        *rest, bits, group_size = state
        check_scheme(int(bits), int(group_size))
        self.bits, self.group_size = int(bits), int(group_size)
        DualStreamingCache.state.__set__(self, rest)  # type: ignore[attr-defined]

    def _unsliced(self, keys: Any, values: Any) -> list[mx.array]:
        return [] if isinstance(keys, mx.array) else [*keys, *values]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, bits={self.bits}, group_size={self.group_size})"


class _Quantised:
    """Tells mlx-lm's attention that keys and values are quantised."""

    _cache: Any

    @property
    def bits(self) -> int:
        return int(self._cache.bits)

    @property
    def group_size(self) -> int:
        return int(self._cache.group_size)


class _QuantisedSource(_Quantised, SourceView):
    pass


class _QuantisedTarget(_Quantised, TargetView):
    pass


class _Rounded(DualStreamingCache):
    """Holds what a `QuantisedCache` holds, unpacked, for attention as usual: what the other must come to."""

    def __init__(self, bits: int, group_size: int):
        super().__init__()
        self._scheme = bits, group_size

    def _parts(self, keys: mx.array, values: mx.array) -> list[mx.array]:
        return [unpacked(quantised(rows, *self._scheme), *self._scheme) for rows in (keys, values)]


def check_widths(widths: tuple[int, int], group_size: int) -> None:
    """Raises: ValueError: keys and values of these widths D cannot be cut into such groups."""
    if all(width % group_size == 0 for width in widths):
        return
    fitting = [str(size) for size in GROUP_SIZES if all(width % size == 0 for width in widths)]
    advice = f"set kv_group_size to {' or '.join(fitting)}" if fitting else "leave kv_bits at null for this model"
    raise ValueError(
        f"keys and values of this model are {' and '.join(map(str, dict.fromkeys(widths)))} wide, which is no multiple "
        f"of kv_group_size={group_size}, and so cannot be quantised: {advice}"
    )


def check_quantisable(model: Any, bits: int, group_size: int) -> None:
    """Try a few tokens on a model.

    Raises:
        ValueError: its keys and values do not fit the scheme, or its attention does not work on quantised ones.
    """
    check_scheme(bits, group_size)
    layers = range(len(mlx_lm_cache.make_prompt_cache(model)))
    plain = [DualStreamingCache() for _ in layers]
    model(mx.array([[0]]), cache=[cache.source for cache in plain])
    for cache in plain:
        if cache.offset:
            keys, values = cache.buffers
            check_widths((keys.shape[-1], values.shape[-1]), group_size)
    try:
        # With 8 bits, whatever is wanted: the last bits of a float may decide between two steps, and these are small.
        got = _trial(model, [QuantisedCache(group_size=group_size) for _ in layers])
        expected = _trial(model, [_Rounded(8, group_size) for _ in layers])
        difference = float((mx.abs(got - expected).max() / mx.abs(expected).max()).item())  # type: ignore[arg-type]
        reason = f"logits differ by {difference:.1e} of the largest from those of the same keys and values, unpacked"
        tolerance = 0.05
    except Exception as error:  # whatever a model file raises that expects arrays
        difference, tolerance = math.inf, 0.0
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    if not difference <= tolerance:
        raise ValueError(
            f"the attention of this model does not work on quantised keys and values ({reason}): leave kv_bits at null"
        )


def _trial(model: Any, caches: list[DualStreamingCache]) -> mx.array:
    """Logits (2, V) after reads and writes of one and of several tokens."""
    sources, targets = [cache.source for cache in caches], [cache.target for cache in caches]
    logits = []
    for views, tokens in ((sources, [3, 9, 4]), (targets, [7, 8]), (sources, [5]), (targets, [6])):
        logits.append(model(mx.array([tokens]), cache=views)[0, -1])
    return mx.stack([logits[1], logits[3]])


# mlx-lm's load_prompt_cache looks classes up by name in its own module.
mlx_lm_cache.QuantisedCache = QuantisedCache  # type: ignore[attr-defined]
