"""Cutting text into units: what is a unit, what is only the space before one, and that nothing of a text is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamllm.units import join, pieces, split, unit_of

TEXTS = st.text(alphabet=st.sampled_from("我爱 New\tYorkไทย ຂ\u3000 é!"), max_size=30)


@pytest.mark.parametrize("language", ["zh", "yue", "zh-TW", "ja", "th", "tha", "km", "lo_LA", "my", "bo", "dz"])
def test_languages_that_write_without_spaces_have_character_units(language: str) -> None:
    assert unit_of(language) == "character"


@pytest.mark.parametrize("language", ["en", "de", "ko", "vi", "tr", "kmr", "mya-unknown"[:2] + "k"])
def test_other_languages_have_words(language: str) -> None:
    assert unit_of(language) == "word"


def test_the_space_between_latin_words_goes_with_the_character_after_it() -> None:
    assert pieces("我爱 New York", "character") == ["我", "爱", " N", "e", "w", " Y", "o", "r", "k"]
    assert pieces("New York", "word") == ["New", "York"]


def test_white_space_that_begins_or_ends_a_text_belongs_to_no_unit() -> None:
    assert pieces("  我 ", "character") == ["我"]
    assert pieces(" 爱", "character", before="我") == [" 爱"]
    assert pieces("爱", "character", before="我 ") == [" 爱"]
    assert pieces("爱", "character", before="  ") == ["爱"]


@given(TEXTS)
def test_pieces_are_the_units_and_together_the_text(text: str) -> None:
    found = pieces(text, "character")
    assert [piece.lstrip() for piece in found] == split(text, "character")
    assert join(found, "character") == " ".join(text.split())


@given(TEXTS, TEXTS)
def test_a_text_may_come_in_parts(first: str, second: str) -> None:
    whole = pieces(first + second, "character")
    assert pieces(first, "character") + pieces(second, "character", before=first) == whole
