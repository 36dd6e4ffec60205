"""The keys and values of two streams: the dual cache and its views, the rows below it, quantised rows, moved keys.
May import the ground alone. Its face is lazy, since the cache loads mlx-lm."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.cache.dual import DualStreamingCache as DualStreamingCache
    from streamllm.cache.dual import make_caches as make_caches
    from streamllm.cache.quantised import QuantisedCache as QuantisedCache
    from streamllm.cache.retention import Retention as Retention

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "DualStreamingCache": "streamllm.cache.dual",
        "QuantisedCache": "streamllm.cache.quantised",
        "Retention": "streamllm.cache.retention",
        "make_caches": "streamllm.cache.dual",
    },
)
