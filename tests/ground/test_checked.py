"""JSON that is read and checked: what comes out has the shape, or one line says where it has not."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamllm.checked import fit, parse, plain, read_json, read_json_lines
from streamllm.files import RunError, read_bytes


@dataclass(frozen=True)
class Inner:
    name: str


@dataclass(frozen=True)
class Outer:
    id: str
    counts: tuple[int, ...] = ()
    inner: list[Inner] | None = None
    stats: dict[str, int | float] | None = None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it has no id"),
        ([], "it is []; it should be an object"),
        ({"id": ["a"]}, "id is ['a']; it should be text"),
        ({"id": "a", "counts": [1, 1.0]}, "counts[1] is 1.0; it should be a whole number"),
        ({"id": "a", "counts": [True]}, "counts[0] is True; it should be a whole number"),
        ({"id": "a", "inner": [{"name": "b"}, None]}, "inner[1] is None; it should be an object"),
        ({"id": "a", "inner": [{}]}, "inner[0] has no name"),
        ({"id": "a", "stats": {"b": "c"}}, "a value of stats is not a number"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place_and_its_value(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        fit(content, Outer)


def test_keys_that_a_shape_does_not_have_are_left_out() -> None:
    assert fit({"id": "a", "later": 1}, Outer) == Outer("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 200 + b"]" * 200, "nested too deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested too deep"),
        (b"[NaN]", "NaN is no number of JSON"),
        (b"[-Infinity]", "-Infinity is no number of JSON"),
        (rb'["\ud800"]', r"'\\ud800' is half a character"),
        (b'["\xff"]', "can't decode byte 0xff"),
        (b"{", "Expecting"),
        (b"", "Expecting"),
        (b"1" * 5000, "limit"),
    ],
)
def test_what_is_no_json_is_a_value_error(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_whole_characters_of_two_halves_are_read() -> None:
    assert parse(rb'["\ud83d\ude00"]') == ["😀"]


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


def test_what_refers_to_itself_or_repeats_itself_is_not_followed_for_ever() -> None:
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(ValueError, match="nested too deep"):
        plain(itself)
    many: Any = 1
    for _ in range(40):
        many = [many] * 10
    with pytest.raises(ValueError, match="too many values"):
        plain(many, most=1000)


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"id": 1}')
    with pytest.raises(RunError, match=r"a\.json is damaged \(id is 1; it should be text\): mend it"):
        read_json(path, Outer, "mend it")


def test_damaged_lines_are_told_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a"}\n\n{"id": 2}\n{"id": "b"}\n{"id": "unfinished"}')
    wrong: list[int] = []
    found = list(read_json_lines(path, Outer, lambda number, error: wrong.append(number)))
    assert found == [(1, 0, Outer("a")), (4, 23, Outer("b"))]
    assert wrong == [2, 3]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="FIFO"):
        read_bytes(tmp_path / "pipe")
