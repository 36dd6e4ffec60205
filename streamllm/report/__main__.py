"""`python -m streamllm.report`: another name of `streamllm report`. A program, so it may import the command's room."""

from streamllm.cli.report import main

if __name__ == "__main__":
    main(prog="python -m streamllm.report")
