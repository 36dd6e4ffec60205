"""An alias of before 0.2, for one release: these names live in `streamllm.engine` now."""

from streamllm.faces import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "Limits": "streamllm.engine.limits",
        "stream": "streamllm.engine.loop",
        "translate": "streamllm.engine.loop",
    },
)
