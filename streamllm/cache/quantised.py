"""Quantised keys and values, in mlx-lm's scheme (that of its QuantizedKVCache): as rows, and as a `DualStreamingCache`.

Invariant: what is held was quantised once when it was fed, and once more each time it was moved.
"""

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models import cache as mlx_lm_cache

from streamllm.cache.dual import DualStreamingCache, SourceView, TargetView
from streamllm.cache.retention import GROUP_SIZES, check_scheme
from streamllm.cache.rows import KV, STEP, Rows

Packed = tuple[mx.array, mx.array, mx.array]
"""Quantised rows (B, H_kv, L, D * bits / 32, uint32), their scales and their biases (B, H_kv, L, D / group_size)."""


def quantised(rows: mx.array, bits: int, group_size: int) -> Packed:
    packed, scales, biases = mx.quantize(rows, group_size=group_size, bits=bits)
    return packed, scales, biases


def unpacked(packed: Packed, bits: int, group_size: int) -> mx.array:
    return mx.dequantize(*packed, group_size=group_size, bits=bits)


class QuantisedRows(Rows):
    """Rows that are `Packed`: three arrays for the keys, three for the values."""

    def __init__(self, step: int, bits: int, group_size: int):
        super().__init__(step)
        self.bits, self.group_size = bits, group_size

    def pack(self, numbers: mx.array) -> Packed:
        return quantised(numbers, self.bits, self.group_size)

    def unpack(self, arrays: Sequence[mx.array]) -> mx.array:
        packed, scales, biases = arrays
        return unpacked((packed, scales, biases), self.bits, self.group_size)

    def held(self) -> list[tuple[Any, ...]]:
        packed = [(self.arrays[i], self.arrays[i + 1]) for i in range(0, len(self.arrays), 3)]
        return [(*rows.shape[:2], rows.shape[3] * 32 // self.bits, scales.dtype) for rows, scales in packed]

    def check(self, keys: mx.array, values: mx.array) -> None:
        super().check(keys, values)
        check_widths((keys.shape[-1], values.shape[-1]), self.group_size)

    def slice(self, start: int, end: int) -> KV:
        parts = [array[..., start:end, :] for array in self.arrays]
        return tuple(parts[:3]), tuple(parts[3:])  # type: ignore[return-value]


class QuantisedCache(DualStreamingCache):
    """As `DualStreamingCache`; what it returns is `Packed`, which mlx-lm's models attend to as it is.

    Args:
        bits: 8 or 4, for each number.
        group_size: 32, 64 or 128 numbers share a scale and a bias. D of keys and of values is a multiple of it.

    Raises:
        ValueError: ``bits`` or ``group_size`` is another number.
    """

    rows: QuantisedRows

    def __init__(self, target_start: int = 0, step: int = STEP, bits: int = 8, group_size: int = 64):
        check_scheme(bits, group_size)
        super().__init__(target_start, step)
        self.rows = QuantisedRows(step, bits, group_size)
        self.source, self.target = _QuantisedSource(self), _QuantisedTarget(self)

    @property
    def bits(self) -> int:
        return self.rows.bits

    @property
    def group_size(self) -> int:
        return self.rows.group_size

    @property
    def state(self) -> Any:
        """As of `DualStreamingCache`, with `Packed` for keys and for values; then bits and group size."""
        return *super().state, self.bits, self.group_size

    @state.setter
    def state(self, state: Any) -> None:
        *rest, bits, group_size = state
        check_scheme(int(bits), int(group_size))
        self.rows.bits, self.rows.group_size = int(bits), int(group_size)
        DualStreamingCache.state.__set__(self, rest)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, bits={self.bits}, group_size={self.group_size})"


class _Quantised:
    """Tells mlx-lm's attention that keys and values are quantised."""

    cache: Any

    @property
    def bits(self) -> int:
        return int(self.cache.bits)

    @property
    def group_size(self) -> int:
        return int(self.cache.group_size)


class _QuantisedSource(_Quantised, SourceView):
    pass


class _QuantisedTarget(_Quantised, TargetView):
    pass


class _RoundedRows(Rows):
    """Hold the numbers that `QuantisedRows` of 8 bits hold, as they are: what attention to the others must come to."""

    def __init__(self, group_size: int):
        super().__init__()
        self._scheme = 8, group_size

    def pack(self, numbers: mx.array) -> Sequence[mx.array]:
        return (unpacked(quantised(numbers, *self._scheme), *self._scheme),)


def _rounded(group_size: int) -> DualStreamingCache:
    cache = DualStreamingCache()
    cache.rows = _RoundedRows(group_size)
    return cache


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
        expected = _trial(model, [_rounded(group_size) for _ in layers])
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
