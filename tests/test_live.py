"""Words are read when they arrive, and shown when they are written."""

import io
from collections.abc import Callable, Iterator

import pytest

from streamllm.live import Sentences, translate_live
from streamllm.model import ModelConfig
from streamllm.policies import WaitK


def arriving(*chunks: bytes) -> Callable[[], bytes]:
    rest = iter(chunks)
    return lambda: next(rest, b"")


def cut(*chunks: bytes, unit: str = "word") -> list[list[str]]:
    return [list(sentence) for sentence in Sentences(arriving(*chunks), unit)]  # type: ignore[arg-type]


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


def test_characters_are_units_where_asked_for() -> None:
    assert cut("你好 吗\n".encode(), unit="character") == [["你", "好", "吗"]]


def test_a_word_is_given_before_the_next_one_arrives() -> None:
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for i, chunk in enumerate([b"one ", b"two ", b"\n"]):
            asked.append(i)
            yield chunk

    source = chunks()
    words = next(iter(Sentences(lambda: next(source, b""))))
    assert next(words) == "one"
    assert asked == [0]


def test_what_is_left_of_a_sentence_is_skipped() -> None:
    sentences = iter(Sentences(arriving(b"a b c\nd\n")))
    assert next(next(sentences)) == "a"
    assert list(next(sentences)) == ["d"]


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
