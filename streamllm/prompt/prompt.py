"""Turns the two streams of a sentence into tokens: headers, units, footer. Units are tokenised one by one,
in training as in streaming, so that what is read never depends on what has not arrived yet."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from streamllm import check
from streamllm.prompt.chat import SOURCE, TARGET, after_target, around_source, has_template
from streamllm.prompt.vocabulary import WHITE_SPACE, Vocabulary
from streamllm.units import Unit, check_unit

PLACE = "{latency}"


@dataclass(frozen=True)
class Prompt:
    """The text around the units of both streams.

    Args:
        source_header: fed before the first source unit; the tokenizer's BOS token, if it has one, goes first.
        source_footer: fed when the source has ended.
        target_header: fed with the first write.
        leading_space: whether a space stands before the first word of a stream, as one does before all others. It has
            to be True after a header that ends in plain text, such as "English:", to which the word is glued otherwise
            ("English:two"), and False after a line break or a control token, as in chat templates.
        stop: text that ends a sentence besides the end tokens, e.g. a line break for a few-shot prompt.
        chat: take header and footers from the tokenizer's chat template instead, with ``instruction`` before
            the source; the three texts above must then be empty.
        instruction: what the model is told before the source; of a chat template only.
        latency: what stands for ``{latency}`` in ``target_header``, if that has it: how late the model is asked to
            write (EAST, arXiv 2504.09570). A policy may ask for another one.
        wait_token: the control token with which the model says that it wants to read on (``policy=wait_token``). It is
            asked for, and never written.

    Raises: ValueError: a value is of another type, or they do not fit each other.
    """

    source_header: str = ""
    source_footer: str = ""
    target_header: str = ""
    leading_space: bool = False
    stop: str | None = None
    chat: bool = False
    instruction: str = ""
    latency: str = ""
    wait_token: str | None = None

    def __post_init__(self) -> None:
        for name in ("source_header", "source_footer", "target_header", "instruction", "latency"):
            check.text(f"prompt.{name}", getattr(self, name))
        check.text("prompt.stop", self.stop, null="for none")
        check.text("prompt.wait_token", self.wait_token, null="for none")
        for name in ("leading_space", "chat"):
            check.flag(f"prompt.{name}", getattr(self, name))
        if self.chat and (self.source_header or self.source_footer or self.target_header):
            raise ValueError(
                "prompt.chat takes headers and footer from the chat template: leave source_header, "
                "source_footer and target_header empty, or set chat to false"
            )
        if (PLACE in self.target_header) != bool(self.latency):
            raise ValueError(
                f"prompt.latency is {self.latency!r} and prompt.target_header {self.target_header!r}; the former "
                f"stands where the latter has {PLACE}: give both or none"
            )
        if self.stop == "":
            raise ValueError("prompt.stop is empty and would end every sentence at once: set it to null")


def check_latency(name: str, latency: str, trained: Sequence[str]) -> None:
    """Raises: ValueError: ``latency`` is none of the tags that a model was ``trained`` with, if those are known."""
    if not trained or latency in trained:
        return
    near = get_close_matches(latency, trained, n=1)
    with suppress(ValueError):  # tags that are words have no distance
        near = [min(trained, key=lambda tag: abs(float(tag) - float(latency)))]
    hint = f" (the nearest is {near[0]})" if near else ""
    tags = ", ".join(trained)
    raise ValueError(f"{name} is {latency!r}; the tags that the model is trained with are {tags}: give one{hint}")


class PromptTokens:
    """A `Prompt` in the tokens of one tokenizer (an mlx-lm TokenizerWrapper).

    Headers and footer may hold control tokens. Words may not: one that spells a control token is plain text.

    Args:
        latencies: the tags that the model was trained with in the place of ``{latency}``; none where nobody says, and
            then each is taken that has as many tokens as the prompt's own.

    Raises:
        ValueError: the prompt asks for a chat template and the tokenizer has none or an unfit one, the target
            header comes out empty, there is no end token, no token says ``stop``, the wait token is no control token,
            the prompt's latency is not among ``latencies``, or words are to be written and the vocabulary does not say
            where they begin.
    """

    def __init__(
        self,
        prompt: Prompt,
        tokenizer: Any,
        source_unit: Unit = "word",
        target_unit: Unit = "word",
        latencies: Sequence[str] = (),
    ):
        check_unit(source_unit)
        check_unit(target_unit)
        self.source_unit, self.target_unit = source_unit, target_unit
        self._instruction = prompt.instruction
        self.text = _from_chat_template(prompt, tokenizer) if prompt.chat else prompt
        self._tokenizer = tokenizer
        self.latencies = tuple(latencies) if PLACE in self.text.target_header else ()
        check_latency("prompt.latency", self.text.latency, self.latencies)
        self.vocabulary = vocabulary = Vocabulary(tokenizer)
        if vocabulary.spelling == "wordpiece" and target_unit == "word":
            raise ValueError(
                "the tokenizer's pieces do not say where a space stands (WordPiece, or a pre-tokenizer that drops "
                "spaces), so no words can be written: choose another model, or a target written in characters"
            )
        header = vocabulary.encode(self.text.source_header)
        bos: Any = getattr(tokenizer, "bos_token_id", None)
        has_bos = bos is not None and tokenizer.encode("a")[:1] == [bos]
        self._bos = [bos] if has_bos and bos not in header else []
        self.source_header: list[int] = [*self._bos, *header]
        self.source_footer: list[int] = vocabulary.encode(self.text.source_footer)
        self.target_header: list[int] = vocabulary.encode(self._target_header(self.text.latency))
        if not self.target_header:
            raise ValueError(
                "the target header is empty, so nothing predicts the first target token: set prompt.target_header, "
                "e.g. 'German:'"
            )
        self.end_tokens = frozenset(int(token) for token in tokenizer.eos_token_ids) | self._end_of_turn()
        if not self.end_tokens and self.text.stop is None:
            raise ValueError("the tokenizer has no end token: set eos_token_id in config.json, or prompt.stop")
        self.wait_token = self._wait_token()
        # Asked for again and again: of single tokens, and of words (``text_of`` takes a tuple).
        cache = lru_cache(maxsize=65536)
        self._header_of = cache(lambda latency: vocabulary.encode(self._target_header(latency)))
        self._unit_tokens = cache(lambda text: tuple(vocabulary.encode_words(text)))
        self.starts_unit = cache(lambda token: vocabulary.bytes_of(token).startswith(WHITE_SPACE))
        self.ends_unit = cache(lambda token: vocabulary.bytes_of(token).endswith(WHITE_SPACE))
        self.text_before_stop = cache(self._text_before_stop)
        self.text_of = cache(vocabulary.text_of)
        self.says_something = cache(lambda tokens: bool(vocabulary.text_of(tokens).strip()))
        stop = self.text.stop
        if stop is not None and all(self.text_before_stop(token) is None for token in vocabulary.encode(stop)):
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

    @property
    def rendered(self) -> str:
        """The whole prompt as it is fed, with signs for source and target: what a run is compared by."""
        bos = "".join(map(self.vocabulary.shown, self._bos))
        text = self.text
        return f"{bos}{text.source_header}{SOURCE}{text.source_footer}{self._target_header(text.latency)}{TARGET}"

    def header_asking(self, latency: str, name: str = "latency") -> list[int]:
        """The target header that asks for another latency; ``name`` is what an error calls it.

        Raises:
            ValueError: the prompt has no place for it, the model was not trained with it, or it has more or fewer
                tokens than the prompt's own: what windows keep is counted in them.
        """
        if PLACE not in self.text.target_header:
            raise ValueError(
                f"{name} is {latency!r}, which the model cannot be asked for: its prompt.target_header has no "
                f"{PLACE}. Leave it out, or train with it (docs/learned.md)"
            )
        check_latency(name, latency, self.latencies)
        header = self._header_of(latency)
        if len(header) != len(self.target_header):
            raise ValueError(
                f"{name} is {latency!r}, which makes a target header of {len(header)} tokens; that of "
                f"{self.text.latency!r} has {len(self.target_header)}, and all have as many"
            )
        return list(header)

    def _target_header(self, latency: str) -> str:
        return self.text.target_header.replace(PLACE, latency)

    def _wait_token(self) -> int | None:
        if (text := self.text.wait_token) is None:
            return None
        tokens = self.vocabulary.encode(text)
        if len(tokens) != 1 or tokens[0] not in self.vocabulary.control or tokens[0] in self.end_tokens:
            names = ", ".join(sorted(map(self.vocabulary.shown, self.vocabulary.control - self.end_tokens))[:8])
            raise ValueError(f"prompt.wait_token is {text!r}; accepted is a control token that ends nothing: {names}")
        return tokens[0]

    def source_tokens(self, unit: str, first: bool) -> list[int]:
        """Tokens of one source unit; ``first`` says whether it is the first of its stream."""
        return list(self._unit_tokens(self.spaced(unit, first, self.source_unit)))

    def encode(self, text: str) -> list[int]:
        """Tokens of words as they stand; none of them is a control token, whatever they spell."""
        return list(self._unit_tokens(text))

    def spaced(self, text: str, first: bool, unit: Unit) -> str:
        """A unit's text with the space that stands before it in its stream."""
        space = unit == "word" and (self.text.leading_space or not first)
        return " " + text if space else text

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of whole units, without special tokens and without the space before the first."""
        return self.text_of(tuple(tokens)).removeprefix(" ")

    def divides(self, before: Sequence[int], token: int) -> bool:
        """Whether a token is punctuation right after a word, of which ``before`` are the tokens so far: a comma, say.
        Only where units are words."""
        if self.target_unit != "word" or not before or self.starts_unit(token) or self.ends_unit(before[-1]):
            return False
        said = self.text_of((token,)).strip()
        is_punctuation = bool(said) and not any(map(str.isalnum, said))
        return is_punctuation and any(map(str.isalnum, self.text_of(tuple(before))))

    def _text_before_stop(self, token: int) -> str | None:
        """What a token says before ``stop``, None when it does not contain it."""
        stop = self.text.stop
        text = self.vocabulary.shown(token) if stop is not None else ""
        return text.split(stop)[0] if stop is not None and stop in text else None

    def _end_of_turn(self) -> frozenset[int]:
        """The token with which the chat template ends the assistant's turn. Many folders do not count it among the end
        tokens, and what is written after it is lost work."""
        after = (
            self.vocabulary.encode(after_target(self._tokenizer, self._instruction))
            if has_template(self._tokenizer)
            else []
        )
        return frozenset(after[:1]) & self.vocabulary.control


def _from_chat_template(prompt: Prompt, tokenizer: Any) -> Prompt:
    """The headers and the footer that the chat template puts around a source and its translation."""
    if not has_template(tokenizer):
        raise ValueError(
            "prompt.chat is true but the tokenizer has no chat template: set prompt.chat=false and give "
            "prompt.source_header, prompt.source_footer and prompt.target_header (see conf/model); for a model that "
            "streamllm trained, copy its streamllm.json into the folder"
        )
    header, footer, target_header = around_source(tokenizer, prompt.instruction)
    return replace(
        prompt,
        source_header=header,
        source_footer=footer,
        target_header=target_header,
        chat=False,
        instruction="",
    )
