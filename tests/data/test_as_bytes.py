"""Pairs that are held as bytes are those of the lists, and what is wrong with them has the same words."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamllm.data import as_bytes, text
from streamllm.data.as_bytes import PairsAsBytes
from streamllm.data.text import ParallelText, read_parallel
from streamllm.records import Example

# White space and letters of one to four bytes; U+2028 ends no line, and U+00A0 may be a line's only letter.
LETTERS = "a \tß\u00a0\u2028\u3000語🙂\x1c\r"
LINES = st.lists(st.tuples(st.text(LETTERS, max_size=8), st.text(LETTERS, max_size=8)), min_size=1, max_size=9)


@pytest.fixture(autouse=True)
def _few_lines_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MANY", 0)
    monkeypatch.setattr(as_bytes, "BLOCK", 2)


def written(folder: Path, sources: str, references: str, ending: str = "") -> ParallelText:
    for name, content in (("a.en", sources), ("a.de", references)):
        data = content.encode()
        (folder / (name + ending)).write_bytes(gzip.compress(data) if ending else data)
    return ParallelText(source=folder / f"a.en{ending}", target=folder / f"a.de{ending}")


def loaded(load: Callable[[], Sequence[Example]]) -> Sequence[Example] | str:
    try:
        return load()
    except ValueError as error:
        return str(error)


@given(pairs=LINES, last=st.sampled_from(["", "\n"]), first=st.sampled_from(["", "\ufeff"]))
def test_pairs_are_those_of_the_lists_or_none_where_a_side_is_blank(
    pairs: list[tuple[str, str]], last: str, first: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = written(tmp_path_factory.mktemp("d"), *("\n".join(side) + last for side in zip(*pairs, strict=True)))
    Path(data.source).write_bytes((first + "\n".join(source for source, _ in pairs) + last).encode())
    whole = loaded(data.load)
    if isinstance(whole, str):
        assert loaded(data.load_lazily) == whole, "the same error"
        return
    found = data.load_lazily()
    assert isinstance(found, PairsAsBytes)
    assert (list(found), [found[i] for i in range(-len(whole), 0)], found[1:3]) == (whole, whole, whole[1:3])
    assert found.longest_word >= max(len(word.encode()) for one in whole for word in one.source.split())


def test_files_may_be_packed(tmp_path: Path) -> None:
    data = written(tmp_path, "one\ntwo two\n", "eins\nzwei\n", ".gz")
    assert [*data.load_lazily()] == [Example("a-1", "one", "eins"), Example("a-2", "two two", "zwei")]


@pytest.mark.parametrize(
    ("sources", "message"),
    [(b"one\n", "1 lines and .* has 2"), (b"one\n\xff\n", "line 2 has the byte 0xff"), (b"one\n\n", "1 empty source")],
)
def test_what_is_wrong_has_the_words_of_the_lists(sources: bytes, message: str, tmp_path: Path) -> None:
    data = written(tmp_path, "", "eins\nzwei\n")
    Path(data.source).write_bytes(sources)
    with pytest.raises(ValueError, match=message):
        data.load_lazily()


def test_blank_pairs_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    written(tmp_path, "one\n \n", "eins\nzwei\n")
    data = ParallelText(source=tmp_path / "a.en", target=tmp_path / "a.de", skip_empty=True)
    assert data.load_lazily() == data.load() == read_parallel(data.source, data.target, skip_empty=True)


def test_a_limit_and_an_order_of_ones_own_take_lists(tmp_path: Path) -> None:
    written(tmp_path, "one\ntwo\n", "eins\nzwei\n")
    for choice in ({"limit": 1}, {"shuffle": True}, {"sentences_per_document": 2}):
        data = ParallelText(source=tmp_path / "a.en", target=tmp_path / "a.de", **choice)  # type: ignore[arg-type]
        assert data.load_lazily() == data.load()
