"""streamllm: LLMs that write while they read.

Import what you need from its modules: `streamllm.model.ModelConfig`, `streamllm.translate.translate`,
`streamllm.runs.load_runs`. This import is cheap, and loads a fast BLAS before anything imports mlx.
"""

from streamllm import blas

BLAS = blas.load()

__version__ = "0.1.0"
