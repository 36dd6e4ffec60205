"""In which dtype weights are kept. Invariant: no finite weight becomes infinite without an error or a word."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from streamllm.machine import in_words, room


def fitted(weights: Mapping[str, mx.array], dtype: mx.Dtype) -> dict[str, mx.array]:
    """Weights by name, those of floats in ``dtype``. Only float16 is looked at: the others hold all numbers of any.

    Raises:
        ValueError: some are not finite in it.
    """
    fitted = {name: value.astype(dtype) if _floats(value) else value for name, value in weights.items()}
    narrowed = [name for name, value in weights.items() if _floats(value) and value.dtype != dtype == mx.float16]
    finite = mx.stack([mx.isfinite(fitted[name]).all() for name in narrowed]).tolist() if narrowed else []
    for name, holds in zip(narrowed, finite, strict=True):  # type: ignore[arg-type]
        if not holds:
            largest = mx.abs(weights[name].astype(mx.float32)).max().item()
            kind = str(dtype).removeprefix("mlx.core.")
            raise ValueError(
                f"the weights {name!r} are not finite in {kind} (the largest is {largest:g}; {kind} holds up to "
                f"{mx.finfo(dtype).max:g}): choose bfloat16 or float32, or a model whose weights are whole"
            )
    return fitted


def refuse_too_large(weights: Mapping[str, mx.array], path: str, dtype: str | None) -> None:
    """Raises: ValueError: the weights, which nobody has evaluated yet, take more in ``dtype`` (None is float32) than
    all of this machine's memory. On a GPU nothing is refused."""
    there = room() if mx.default_device() == mx.Device(mx.cpu) else None  # type: ignore[arg-type]
    if there is None:
        return

    def taken(kind: mx.Dtype) -> int:
        return sum(value.size * (kind.size if _floats(value) else value.itemsize) for value in weights.values())

    needs, half = taken(getattr(mx, dtype or "float32")), taken(mx.bfloat16)
    if needs > there.whole:
        narrower = f"model.dtype=bfloat16, which takes {in_words(half)}, or " if half <= there.whole else ""
        raise ValueError(
            f"the weights of {path} take {in_words(needs)} of memory in {dtype or 'float32'}, and this machine has "
            f"{in_words(there.whole)}: give {narrower}a smaller model"
        )


def dtype_of(folder: Path) -> mx.Dtype:
    """The dtype of most floats of a model folder; packed weights have scales in it. Reads no weights."""
    sizes: dict[mx.Dtype, int] = {}
    for file in folder.glob("*.safetensors"):
        arrays: Any = mx.load(str(file))
        for value in arrays.values():
            if _floats(value):
                sizes[value.dtype] = sizes.get(value.dtype, 0) + value.size
    return max(sizes, key=lambda dtype: sizes[dtype]) if sizes else mx.float32


def _floats(value: mx.array) -> bool:
    return mx.issubdtype(value.dtype, mx.floating)
