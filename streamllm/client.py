"""A client of `streamllm serve` (docs/serve.md)."""

from streamllm.faces import face

__getattr__, __dir__, __all__ = face(__name__, {"Client": "streamllm.live.client"})
