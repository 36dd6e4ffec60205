"""Words are read when they arrive, and shown when they are written."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import pytest
import tiny

from streamllm.engine.limits import Limits
from streamllm.engine.paradigms.documents import Sentences
from streamllm.engine.paradigms.group import Group
from streamllm.live.terminal import Lines, translate_live
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.prompt import Prompt, PromptTokens


def arriving(*chunks: bytes) -> Callable[[], bytes]:
    rest = iter(chunks)
    return lambda: next(rest, b"")


def cut(*chunks: bytes, unit: str = "word") -> list[list[str]]:
    return [list(sentence) for sentence in Lines(arriving(*chunks), unit)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chunks", "sentences"),
    [
        ([b"a man\n"], [["a", "man"]]),
        ([b"a", b" m", b"an", b"\nhe runs"], [["a", "man"], ["he", "runs"]]),
        ([b"\n\na\r\n  b  c \n"], [["a"], ["b", "c"]]),
        (["größe".encode()[:3], "größe".encode()[3:]], [["größe"]]),
        ([], []),
    ],
)
def test_lines_are_sentences_of_words(chunks: list[bytes], sentences: list[list[str]]) -> None:
    assert cut(*chunks) == sentences


def test_characters_are_units_where_asked_for_and_carry_the_space_before_them() -> None:
    assert cut("你好 吗\n".encode(), unit="character") == [["你", "好", " 吗"]]


def test_a_word_is_given_before_the_next_one_arrives() -> None:
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for i, chunk in enumerate([b"one ", b"two ", b"\n"]):
            asked.append(i)
            yield chunk

    source = chunks()
    words = next(iter(Lines(lambda: next(source, b""))))
    assert next(words) == "one"
    assert asked == [0]


def test_what_is_left_of_a_sentence_is_skipped() -> None:
    sentences = iter(Lines(arriving(b"a b c\nd\n")))
    assert next(next(sentences)) == "a"
    assert list(next(sentences)) == ["d"]


def test_without_lines_a_line_end_is_white_space() -> None:
    assert [list(line) for line in Lines(arriving(b"a\nb\n\n", b"c"), endless=True)] == [["a", "b", "c"]]


def live(text: bytes, **options: Any) -> str:
    out = io.StringIO()
    model = ModelConfig("bundled:tiny-en-de").load(paradigm=options.pop("paradigm", Sentences(context=0, asks=False)))
    translate_live(model, WaitK(3), arriving(text), out, **options)
    return out.getvalue()


def test_a_stream_without_line_ends_goes_on_after_each_sentence() -> None:
    text = b"A man is sleeping. A dog runs."
    assert live(text) == "Ein Mann schläft.\nEin Hund rennt.\n"
    assert live(text.replace(b"is ", b"is\n")) == live(text)


def test_lines_are_sentences_where_asked_for_and_where_nothing_lives_on() -> None:
    text = b"A man is sleeping.\nA dog runs.\n"
    assert live(text, lines=True) == live(text, paradigm=Group()) == live(text)


def test_the_target_is_written_while_the_source_arrives() -> None:
    """With wait-2, something stands in the output before the third word is asked for."""
    out = io.StringIO()
    shown: list[str] = []

    def read_some() -> bytes:
        shown.append(out.getvalue())
        return next(chunks, b"")

    chunks = iter([b"a ", b"man ", b"is ", b"sleeping.\n"])
    translate_live(ModelConfig("bundled:tiny-en-de").load(), WaitK(2), read_some, out)
    assert shown[:3] == ["", "", "Ein"]
    assert out.getvalue().startswith("Ein Mann")
    assert out.getvalue().endswith("\n")


def test_an_endless_word_does_not_keep_a_live_stream_from_reading_on(tokenizer: Any) -> None:
    """At the limit of tokens the next words are read as they come; the next line is a sentence of its own."""
    letters = mx.array([0.0 if text.isalpha() else -1e9 for text in tiny.token_bytes(tokenizer)])
    model = tiny.Biased(tiny.random_model(4, len(tokenizer)), letters)
    streaming = StreamingModel(model, PromptTokens(Prompt(target_header="<mark>"), tokenizer), tokenizer)
    out, shown = io.StringIO(), []

    def read_some() -> bytes:
        shown.append(len(out.getvalue()))
        return next(chunks, b"")

    chunks = iter([b"the ", b"dog ", b"runs\n", b"a\n"])
    translate_live(streaming, WaitK(1), read_some, out, Limits(length_ratio=0, length_extra=10, tokens_per_unit=10))
    first, second = out.getvalue().splitlines()
    assert shown[1] < shown[2] == shown[3] - 1 == len(first)  # the limit is reached: then the end of the line
    assert len(second) > 100
