"""``python -m streamllm``: the command ``streamllm``."""

from streamllm.cli.main import main

main()
