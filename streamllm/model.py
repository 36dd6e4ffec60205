"""An alias of before 0.2, for one release: these names live in `streamllm.models` now."""

from streamllm.faces import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "ModelConfig": "streamllm.models.loading",
        "ModelError": "streamllm.models.loading",
        "SETTINGS": "streamllm.models.settings",
        "StreamingModel": "streamllm.models.model",
        "find_model": "streamllm.models.loading",
    },
)
