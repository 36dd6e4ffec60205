"""streamllm: LLMs that write while they read.

Import what you need from its modules: `streamllm.models.loading.ModelConfig`, `streamllm.engine.loop.translate`,
`streamllm.runs.load.load_runs`. This import is cheap, and loads a fast BLAS before anything imports mlx.
"""

from streamllm.cpu import blas

BLAS = blas.load()

__version__ = "0.1.0"
