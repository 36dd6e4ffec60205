"""Turns the two streams of a sentence into tokens: headers, units, footer. Units are tokenised one by one,
in training as in streaming, so that what is read never depends on what has not arrived yet."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from streamllm.units import Unit, check_unit

# White space as vocabularies spell it. A byte-level "č" is a carriage return, elsewhere it is a letter.
BYTE_LEVEL_SPACES = "ĠĊčĉ \n\r\t"  # the plain ones stand in added tokens
SENTENCEPIECE_SPACES = "▁ \n\r\t"
SPACE_BYTES = {"<0x20>", "<0x0A>", "<0x0D>", "<0x09>"}
_SOURCE = "⟦source⟧"


@dataclass(frozen=True)
class Prompt:
    """The text around the units of both streams.

    Args:
        source_header: fed before the first source unit; the tokenizer's BOS token, if it has one, goes first.
        source_footer: fed when the source has ended.
        target_header: fed with the first write.
        leading_space: whether a space stands before the first unit of a stream.
        stop: text that ends a sentence besides the end tokens, e.g. a line break for a few-shot prompt.
        chat: take header and footers from the tokenizer's chat template instead, with ``instruction`` before
            the source; the three texts above must then be empty.
    """

    source_header: str = ""
    source_footer: str = ""
    target_header: str = ""
    leading_space: bool = False
    stop: str | None = None
    chat: bool = False
    instruction: str = ""

    def __post_init__(self) -> None:
        if self.chat and (self.source_header or self.source_footer or self.target_header):
            raise ValueError(
                "prompt.chat takes headers and footer from the chat template: leave source_header, "
                "source_footer and target_header empty, or set chat to false"
            )
        if self.stop == "":
            raise ValueError("prompt.stop is empty and would end every sentence at once: set it to null")


class PromptTokens:
    """A `Prompt` in the tokens of one tokenizer (an mlx-lm TokenizerWrapper).

    Raises:
        ValueError: the prompt asks for a chat template and the tokenizer has none or an unfit one, the target
            header comes out empty, there is no end token, or no token says ``stop``.
    """

    def __init__(self, prompt: Prompt, tokenizer: Any, source_unit: Unit = "word", target_unit: Unit = "word"):
        check_unit(source_unit)
        check_unit(target_unit)
        self.source_unit, self.target_unit = source_unit, target_unit
        self.text = _from_chat_template(prompt, tokenizer) if prompt.chat else prompt
        self._tokenizer, self._lock = tokenizer, threading.Lock()
        # SentencePiece tokenizers may put a space before any text by themselves.
        self._adds_space = False
        if not self._encode("a"):
            raise ValueError("the tokenizer knows no letters: its vocabulary is missing (tokenizer.json)")
        self._adds_space = self._piece(self._encode("a")[0]).startswith("▁")
        byte_level = self._piece(self._encode(" a")[0]).startswith("Ġ")
        spaces = BYTE_LEVEL_SPACES if byte_level else SENTENCEPIECE_SPACES
        header = self._encode(self.text.source_header)
        bos: Any = getattr(tokenizer, "bos_token_id", None)
        has_bos = bos is not None and tokenizer.encode("a")[:1] == [bos]
        self.source_header: list[int] = [bos, *header] if has_bos and header[:1] != [bos] else header
        self.source_footer: list[int] = self._encode(self.text.source_footer)
        self.target_header: list[int] = self._encode(self.text.target_header)
        if not self.target_header:
            raise ValueError(
                "the target header is empty, so nothing predicts the first target token: set prompt.target_header, "
                "e.g. 'German:'"
            )
        self.end_tokens = frozenset(int(token) for token in tokenizer.eos_token_ids)
        if not self.end_tokens and self.text.stop is None:
            raise ValueError("the tokenizer has no end token: set eos_token_id in config.json, or prompt.stop")
        # Not all_special_ids alone: it leaves out the markers of many chat templates.
        added = getattr(tokenizer, "added_tokens_decoder", {}).items()
        self._special = frozenset(tokenizer.all_special_ids) | {token for token, entry in added if entry.special}
        # Facts about single tokens are asked for again and again.
        cache = lru_cache(maxsize=65536)
        self._unit_tokens = cache(lambda text: tuple(self._encode(text)))
        self.starts_unit = cache(lambda token: self._piece(token).startswith((*spaces, *SPACE_BYTES)))
        self.ends_unit = cache(lambda token: self._piece(token).endswith((*spaces, *SPACE_BYTES)))
        self.text_before_stop = cache(self._text_before_stop)
        stop = self.text.stop
        if stop is not None and all(self.text_before_stop(token) is None for token in self._encode(stop)):
            raise ValueError(
                f"prompt.stop is {stop!r}, which the tokenizer cuts into several tokens; it is looked for inside one "
                "token: choose one token, e.g. a line break"
            )

    @property
    def end_token(self) -> int:
        """The end token that training teaches."""
        eos = self._tokenizer.eos_token_id
        if not self.end_tokens:
            raise ValueError("the tokenizer has no end token to teach: set eos_token_id in config.json")
        return int(eos) if eos in self.end_tokens else min(self.end_tokens)

    def source_tokens(self, unit: str, first: bool) -> list[int]:
        """Tokens of one source unit; ``first`` says whether it is the first of its stream."""
        return list(self._unit_tokens(self.spaced(unit, first, self.source_unit)))

    def encode(self, text: str) -> list[int]:
        """Tokens of a piece of text as it stands."""
        return list(self._unit_tokens(text))

    def spaced(self, text: str, first: bool, unit: Unit) -> str:
        """A unit's text with the space that stands before it in its stream."""
        space = unit == "word" and (self.text.leading_space or not first)
        return " " + text if space else text

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of whole units, without special tokens."""
        detokenizer = self._tokenizer.detokenizer
        for token in tokens:
            if token not in self._special and self._piece(token):  # none beyond the vocabulary: padded embeddings
                detokenizer.add_token(token)
        detokenizer.finalize()
        return str(detokenizer.text)

    def _text_before_stop(self, token: int) -> str | None:
        """What a token says before ``stop``, None when it does not contain it."""
        stop = self.text.stop
        text = self._tokenizer.decode([token]) if stop is not None else ""
        return text.split(stop)[0] if stop is not None and stop in text else None

    def _encode(self, text: str) -> list[int]:
        text = text.removeprefix(" ") if self._adds_space else text
        if not text:
            return []
        with self._lock:  # tokenizers of transformers change settings while they encode
            return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _piece(self, token: int) -> str:
        """A token as the vocabulary spells it; "" for one beyond it (padded embeddings)."""
        return self._tokenizer.convert_ids_to_tokens([token])[0] or ""


def _from_chat_template(prompt: Prompt, tokenizer: Any) -> Prompt:
    """The headers and the footer that the chat template puts around a source and its translation."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            "prompt.chat is true but the tokenizer has no chat template: set prompt.chat=false and give "
            "prompt.source_header, prompt.source_footer and prompt.target_header (see conf/model); for a model that "
            "streamllm trained, copy its streamllm.json into the folder"
        )
    user = {"role": "user", "content": prompt.instruction + _SOURCE}

    def render(add_generation_prompt: bool) -> str:
        # No thoughts before the translation, and no date of today: without date_string, Llama 3's template
        # writes it, and this is the one it falls back on.
        return str(
            tokenizer.apply_chat_template(
                [user],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
                date_string="26 Jul 2024",
            )
        )

    try:
        text, with_end = render(True), render(False)
    except Exception as error:  # jinja's, and whatever a template raises
        raise ValueError(f"the chat template refuses a user's turn ({error}): give the headers by hand") from error
    if text.count(_SOURCE) != 1:
        raise ValueError("the chat template does not show the user's text exactly once: give the headers by hand")
    header, rest = text.split(_SOURCE)
    footer = with_end.partition(_SOURCE)[2]
    if not rest.startswith(footer):
        raise ValueError(
            "the chat template's generation prompt does not follow the user's turn: give the headers by hand"
        )
    return Prompt(
        source_header=header,
        source_footer=footer,
        target_header=rest[len(footer) :],
        leading_space=prompt.leading_space,
        stop=prompt.stop,
    )
