"""The command: its subcommands, its errors, sweeps and plug-ins. The only room that imports Hydra; it may import
all others."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.cli.main import main as main

# Also for the script of the other streamllm on PyPI, which calls this name: so that ours can say what is wrong.
__getattr__, __dir__, __all__ = face(__name__, {"main": "streamllm.cli.main"})
