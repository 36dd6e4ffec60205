"""The words that an agent of a W&B sweep gives to a command, in Hydra's grammar: the agent writes values as Python
does, and Hydra takes None and {'a': 1} for texts or for nothing."""

import ast
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SWEEP = "WANDB_SWEEP_ID"
"""What an agent sets in the environment of what it starts."""

PYTHON = re.compile(r"None|True|False|[+-]?[0-9]+\.0|[\[{].*[\]}]", re.DOTALL)
"""Values that are to be read as Python's: the others are the same in both."""


def words_of_agent(words: Sequence[str]) -> list[str]:
    """The words of a command line, as they are where no agent gave them.

    Raises: ValueError: a value that looks like one of Python's is none.
    """
    if not os.environ.get(SWEEP):
        return list(words)
    return [new for word in words for new in _in_hydras_grammar(word)]


def _in_hydras_grammar(word: str) -> Iterator[str]:
    key, equals, text = word.partition("=")
    if not equals or word.startswith("-") or not PYTHON.fullmatch(text):
        yield word
        return
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        yield word  # Hydra's own list or dict, of the line `command:` of the sweep
        return
    yield from _settings(key, value)


def _settings(key: str, value: Any) -> Iterator[str]:
    """A setting for each value: a nested parameter of the sweep is a key with dots."""
    if isinstance(value, Mapping):
        for inner, one in value.items():
            yield from _settings(f"{key}.{inner}", one)
    else:
        yield f"{key}={_text(value)}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # W&B makes 3.0 of 3, where other values of the key have a point
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(one)}" for key, one in value.items()) + "}"
    quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
