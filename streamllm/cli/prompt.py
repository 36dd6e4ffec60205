"""The text that a model reads around the words of a sentence, and its tokens:

    streamllm prompt model=qwen2.5-0.5b prompt=chat --show "a man is riding a bicycle"

Model and prompt are those of `streamllm run`, with the same keys."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamllm.cli.arguments import Parser, checked, made, one_line_errors
from streamllm.cli.main import as_module
from streamllm.prompt import PromptTokens
from streamllm.units import pieces

if TYPE_CHECKING:
    from streamllm.models.model import StreamingModel

EXAMPLE = "a man is riding a bicycle"


def assembled(prompt: PromptTokens, sentence: str) -> list[tuple[str, list[int]]]:
    """The parts of a sentence in the order in which they are fed, each with its tokens. What is written follows the
    target header."""
    units = pieces(sentence, prompt.source_unit)
    read = [(f"unit {number}", prompt.source_tokens(unit, number == 1)) for number, unit in enumerate(units, start=1)]
    return [
        ("source header", prompt.source_header),
        *read,
        ("source footer", prompt.source_footer),
        ("target header", prompt.target_header),
    ]


def shown(model: "StreamingModel", sentence: str) -> str:
    """The whole text, then each part with the text and the number of its tokens."""
    parts = assembled(model.prompt, sentence)
    width = max(len(name) for name, _ in parts)
    lines = [f"{name.ljust(width)}  {_tokens(model, tokens)}" for name, tokens in parts]
    every = [token for _, tokens in parts for token in tokens]
    ends, stop = _tokens(model, sorted(model.prompt.end_tokens)), model.prompt.text.stop
    end = ends if stop is None else f"{ends}, and a token with {stop!r}"
    return "\n".join(
        [
            model.prompt.vocabulary.text_of(every, special=True),
            "",
            *lines,
            "",
            f"{len(every)} tokens; a sentence ends by {end}",
        ]
    )


def _tokens(model: "StreamingModel", tokens: Sequence[int]) -> str:
    """Each token as ``text/number``, with spaces and line breaks made visible."""
    return " ".join(f"{_visible(model, token)}/{token}" for token in tokens) or "(nothing)"


def _visible(model: "StreamingModel", token: int) -> str:
    """The text of a token; as the vocabulary spells it where it holds part of a character."""
    text = model.prompt.vocabulary.shown(token)
    return repr(model.prompt.vocabulary.piece(token) if "\ufffd" in text else text)[1:-1].replace(" ", "␣")


def command() -> None:
    parser = Parser(
        prog="streamllm prompt",
        description="The text that a model reads around the words of a sentence, and every token of it with its "
        "number.",
        epilog="OVERRIDE: keys of streamllm run, such as model=qwen2.5-0.5b prompt=chat dataset.source_language=en.",
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="model=…, prompt=…")
    parser.add_argument("--show", default=EXAMPLE, metavar="SENTENCE", help="the sentence to read (%(default)s)")
    given = parser.parse_intermixed_args()
    with one_line_errors():
        for word in given.overrides:
            if "=" not in word and not word.startswith("~"):
                raise ValueError(f"{word!r} is no override; a sentence is given by --show {shlex.quote(word)}")
        cfg = checked(given.overrides)
        model, prompt, dataset = (made(cfg[key], key) for key in ("model", "prompt", "dataset"))
        print(shown(model.load(prompt, dataset.source_unit, dataset.target_unit), given.show))


if __name__ == "__main__":
    as_module("prompt")
