"""Whether a model takes source and target tokens in one forward, each at a position of its own: it is tried, once."""

import weakref
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from streamllm.engine.forward import forward

if TYPE_CHECKING:  # the cache needs mlx-lm, which is slow to import: runs that load no model do not wait for it
    from streamllm.cache.dual import DualStreamingCache

_tried: dict[int, tuple[Any, bool]] = {}  # by the id of a model: what refers to it, and what was found


def takes_both(model: Any, caches: "list[DualStreamingCache]") -> bool:
    """Whether one forward may feed both streams to ``caches``, which are of this model."""
    from streamllm.cache.dual import DualStreamingCache

    if any(type(cache) is not DualStreamingCache for cache in caches):
        return False  # quantised rows have no batch of positions
    refers, found = _tried.get(id(model), (lambda: None, False))
    if refers() is not model:
        found = _agrees(model)
        _tried[id(model)] = weakref.ref(model), found
    return found


def _agrees(model: Any) -> bool:
    """Whether logits are those of a forward for each stream."""
    try:
        apart, both = _trial(model, False), _trial(model, True)
    except Exception:  # whatever a model file raises that expects one position for all rows
        return False
    largest = float(mx.abs(apart).max().item())  # type: ignore[arg-type]
    difference = float(np.abs(np.array((both - apart).astype(mx.float32))).max())
    return difference <= (1e-3 if apart.dtype == mx.float32 else 0.05) * largest


def _trial(model: Any, at_once: bool) -> mx.array:
    """Logits (2, V) of tokens that follow a read and another target token."""
    from streamllm.cache.dual import make_caches
    from streamllm.cache.together import together

    caches = make_caches(model, 3)
    sources, targets = [cache.source for cache in caches], [cache.target for cache in caches]

    def feed(tokens: list[int], views: list[Any]) -> mx.array:
        return forward(model, mx.array([tokens]), views)[0][0, -1]

    feed([3, 9, 4], sources)
    feed([7, 8], targets)
    if at_once:
        tokens = mx.array([[5], [2], [6], [1]])
        logits = forward(model, tokens, together(caches, 2, 2), (slice(-1, None), 0))[0][0]
    else:
        feed([5, 2], sources)
        logits = feed([6, 1], targets)
    return mx.stack([logits, feed([11], targets)])
