"""The command ``streamllm``: finds the subcommand, and leaves it the rest of the line. A subcommand is a module of
this room with a function ``command`` that reads ``sys.argv[1:]``; it is imported when it is called."""

import difflib
import sys
from importlib import import_module

import streamllm
from streamllm.cli.ending import status
from streamllm.cli.namesake import note_the_namesake

COMMANDS = {
    "run": "translate a data set while reading it: streamllm run policy=waitk k=3; -m k=1,3,5 sweeps",
    "train": "train a model to stream, or adapt one: streamllm train experiment=tiny_en_de",
    "train-head": "train a head that says when to write, for policy=learned",
    "report": "a page about finished runs",
    "live": "translate words from standard input as they arrive",
    "serve": "serve a model and a policy over HTTP",
    "compare": "whether two runs differ by more than chance",
    "score": "metrics of finished runs, or of SimulEval's logs, anew",
    "distill": "make training data of a teacher's translations",
    "calibrate": "find the attention heads for policy=alignatt",
    "prompt": "the text of a model's prompt, and its tokens",
    "list": "policies, metrics, models, data sets, prompts, paradigms and more",
    "init": "write a small study of one's own, which works: streamllm init my-study",
}
COMPOSES_BY_ITSELF = ("prompt", "list", "score")
"""Commands that are no Hydra programs and yet read configurations. The programs prepare in `errors.launch`."""


def main() -> None:
    """Run the subcommand that ``sys.argv`` names."""
    word, *rest = sys.argv[1:] or ["--help"]
    if word in ("--help", "-h", "help"):
        print(_usage())
    elif word in ("--version", "-V"):
        note_the_namesake()
        print(f"streamllm {streamllm.__version__}")
    elif word not in COMMANDS:
        sys.exit(_unknown(word))
    else:
        sys.argv = [f"streamllm {word}", *rest]  # what env.json keeps, and Hydra's own help shows
        try:
            _prepare(word)
            import_module(f"streamllm.cli.{word.replace('-', '_')}").command()
        except KeyboardInterrupt:
            sys.exit(status())


def as_module(word: str) -> None:
    """``python -m streamllm.cli.WORD``: another name of ``streamllm WORD``."""
    sys.argv = ["streamllm", word, *sys.argv[1:]]
    main()


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: streamllm COMMAND [key=value ...]; streamllm COMMAND --help says more", *lines])


def _unknown(word: str) -> str:
    if "=" in word or word.startswith("-"):
        return f"error: a command comes before {word}, as in streamllm run {word}; streamllm --help lists them"
    close = difflib.get_close_matches(word, COMMANDS, cutoff=0.5)
    accepted = f"did you mean {' or '.join(close)}?" if close else f"accepted are {', '.join(COMMANDS)}"
    return f"error: there is no command {word!r}; {accepted}"


def _prepare(word: str) -> None:
    note_the_namesake()
    if word in COMPOSES_BY_ITSELF:
        from streamllm.cli.plugins import prepare  # takes Hydra, which not all commands need

        try:
            prepare()
        except ValueError as error:
            sys.exit(f"error: {error}")
