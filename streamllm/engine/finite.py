"""Logits that are not finite are an error where they arise. The check rides on the search for the likeliest token: NaN
and +inf show in the highest logit, and -inf does where there is nothing else. A single -inf (a token that is ruled out)
is no fault."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

Logits = mx.array | np.ndarray[Any, Any]
"""Of MLX, or of numpy where that computes (`streamllm.batching.in_numpy`)."""


class SentenceError(ValueError):
    """What ends the translation of one sentence, since going on would give a wrong result. `streamllm.engine.loop`
    names the sentence."""


class NotFinite(SentenceError):
    """A number that a result would be computed from is NaN or infinite."""


@dataclass(frozen=True)
class Likeliest:
    """The likeliest token by logits (V,), or by each row of logits (N, V); the first of equal ones.

    ``arrays`` are what must be evaluated for that: whoever evaluates more hands them to the same ``mx.eval``.
    """

    arrays: tuple[mx.array, ...]

    @staticmethod
    def of(logits: Logits) -> "Likeliest":
        if isinstance(logits, np.ndarray):
            return Likeliest((mx.array(logits),))
        if logits.dtype == mx.float32 and mx.default_device() == mx.Device(mx.cpu):  # type: ignore[arg-type]
            return Likeliest((logits,))  # numpy finds it where it lies, 7 to 30 times faster than MLX does
        return Likeliest((mx.argmax(logits, axis=-1), mx.max(logits, axis=-1).astype(mx.float32)))

    def found(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Tokens, () or (N,), and their logits, NaN where any of a row is."""
        if len(self.arrays) == 2:
            tokens, highest = (np.array(array) for array in self.arrays)
            return tokens, highest
        logits = np.asarray(self.arrays[0])
        tokens = logits.argmax(axis=-1)  # of NaN and numbers NaN
        return tokens, logits[tokens] if logits.ndim == 1 else logits[np.arange(len(tokens)), tokens]


def without(logits: Logits, token: int | None) -> Logits:
    """Logits (…, V), of which a token, if one is given, is ruled out; in a copy of their own."""
    if token is None:
        return logits
    if isinstance(logits, np.ndarray):
        copied = logits.copy()
        copied[..., token] = -np.inf
        return copied
    return mx.where(mx.arange(logits.shape[-1]) == token, mx.array(-math.inf, logits.dtype), logits)


def check_logits(highest: Iterable[float], source_tokens: int, target_tokens: int) -> None:
    """Check the highest of each row of logits, those of the next token after so many tokens.

    Raises:
        NotFinite: some are not finite.
    """
    for value in highest:
        if not math.isfinite(value):
            where = f" after {source_tokens} source and {target_tokens} target tokens"
            raise NotFinite(not_finite_logits(value, where))


def not_finite_logits(value: float, where: str = "") -> str:
    what = "all -inf" if value == -math.inf else f"{value:g}"
    return (
        f"the model's logits are {what}{where}: its weights are damaged, or its dtype is too small for its numbers. "
        "Try model.dtype=float32; if that fails too, get the weights anew"
    )
