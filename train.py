"""Train a model to stream: python train.py experiment=tiny_en_de (all keys: python train.py --cfg job)."""

import streamllm  # noqa: F401, I001  first: it loads a BLAS, which must come before mlx

from streamllm.cli.train import command

if __name__ == "__main__":
    command()
