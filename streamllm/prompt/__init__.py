"""The two streams of a sentence as tokens: headers, units and footer, and what each token says. Of the ground: may
import ground files alone, and never MLX. Its face is lazy: `from streamllm.prompt import Prompt, PromptTokens`."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.prompt.prompt import Prompt as Prompt
    from streamllm.prompt.prompt import PromptTokens as PromptTokens
    from streamllm.prompt.vocabulary import Vocabulary as Vocabulary

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "Prompt": "streamllm.prompt.prompt",
        "PromptTokens": "streamllm.prompt.prompt",
        "Vocabulary": "streamllm.prompt.vocabulary",
    },
)
