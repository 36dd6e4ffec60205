"""Translate a data set while reading it: python run.py policy=waitk k=3 (all keys: python run.py --cfg job)."""

import streamllm  # noqa: F401, I001  first: it loads a BLAS, which must come before mlx

from streamllm.cli.run import command

if __name__ == "__main__":
    command()
