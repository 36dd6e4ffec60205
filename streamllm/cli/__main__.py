"""``python -m streamllm.cli``: the command ``streamllm``."""

from streamllm.cli.main import main

main()
