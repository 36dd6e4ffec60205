"""``python -m streamllm.cli``: the command ``streamllm``."""

from streamllm.cli.main import main

if __name__ == "__main__":
    main()
