"""Documents cut at their reference sentences: the soft alignment equals its definition, ties included."""

from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.metrics import resegment
from streamllm.metrics.resegment import (
    similarity,
    soft_alignment,
    soft_segmentation,
    tokens,
    word_error_segmentation,
)
from streamllm.units import Unit

TOKENS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "abc", "cd", ".", ",", "-", "。", "ー"]), max_size=12)
needs_mweralign = pytest.mark.skipif(find_spec("mweralign") is None, reason="pip install -e '.[longform]'")


def by_definition(reference: list[str], hypothesis: list[str], unit: Unit) -> list[tuple[int, int]]:
    """Over all pairs: the best sum of each pair of beginnings, and the first of match, delete, insert that has it."""
    best = [[0.0] * (len(hypothesis) + 1) for _ in range(len(reference) + 1)]
    step = {}
    for i in range(1, len(reference) + 1):
        for j in range(1, len(hypothesis) + 1):
            match = best[i - 1][j - 1] + similarity(reference[i - 1], hypothesis[j - 1], unit)
            choices = {"match": match, "delete": best[i - 1][j], "insert": best[i][j - 1]}
            best[i][j] = max(choices.values())
            step[i, j] = next(name for name, value in choices.items() if value == best[i][j])
    pairs = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        move = step[i, j] if i and j else "delete" if i else "insert"
        i -= move != "insert"
        j -= move != "delete"
        pairs.append((i if move != "insert" else -1, j if move != "delete" else -1))
    return pairs[::-1]


@given(TOKENS, TOKENS, st.sampled_from(["word", "character"]))
def test_the_soft_alignment_is_that_of_its_definition(reference: list[str], hypothesis: list[str], unit: Unit) -> None:
    assert soft_alignment(reference, hypothesis, unit) == by_definition(reference, hypothesis, unit)


@settings(max_examples=50)
@given(TOKENS, TOKENS, st.integers(1, 40))
def test_an_alignment_in_blocks_of_rows_is_the_whole_one(
    reference: list[str], hypothesis: list[str], cells: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resegment, "_STEPS", cells)
        assert soft_alignment(reference, hypothesis, "word") == by_definition(reference, hypothesis, "word")


def test_tokens_are_alike_by_their_sets_of_characters() -> None:
    assert similarity("abba", "abc", "word") == 2 / 3
    assert similarity("ab", "ba", "word") == 1
    assert similarity("ab", "ba", "character") == 0


def test_a_mark_is_like_marks_only() -> None:
    assert similarity(".", "。", "word") == 0
    assert similarity(".", "a.", "word") == -float("inf")


def test_units_are_compared_in_nfkc_and_lower_case() -> None:
    assert tokens(["ﬁN."], "de").texts == ("fin", ".")
    assert tokens(["ﬁN."], "zh").texts == tokens(["ﬁN."], None).texts == ("fin.",)


def test_the_first_token_of_a_word_speaks_for_it() -> None:
    assert tokens(["(ja)", "nein"], "de").units == (0, 0, 0, 1)
    assert soft_segmentation(["Ja.", "Nein."], ["ja.nein", "nein."], "word", "de") == [0, 1]


def test_words_that_match_nothing_go_to_the_sentence_they_are_like() -> None:
    assert soft_segmentation(["aa bb", "cc dd"], ["aa", "bb", "cd", "cc", "dd"], "word", None) == [0, 0, 1, 1, 1]
    assert soft_segmentation(["aa bb", "cc dd"], ["aa", "bb", "ba", "cc", "dd"], "word", None) == [0, 0, 0, 1, 1]


def test_a_run_goes_on_with_the_next_sentence_once_a_word_of_it_did() -> None:
    references = ["aa bb", "cc dd"]
    assert soft_segmentation(references, ["aa", "bb", "bx", "cx", "cc", "dd"], "word", None) == [0, 0, 0, 1, 1, 1]
    assert soft_segmentation(references, ["aa", "bb", "cx", "bx", "cc", "dd"], "word", None) == [0, 0, 1, 1, 1, 1]


def test_a_dash_before_the_first_word_is_dropped_as_omnisteval_does() -> None:
    assert soft_segmentation(["Ja."], ["-", "ja."], "word", "de") == [None, 0]


def test_characters_are_aligned_one_by_one_without_the_spaces_of_the_reference() -> None:
    assert soft_segmentation(["你 好", "再见"], list("你好再见"), "character", "zh") == [0, 0, 1, 1]


def test_a_document_without_output_has_nothing_to_cut() -> None:
    assert soft_segmentation(["Ja."], [], "word", "de") == []


def test_references_without_a_word_are_refused() -> None:
    with pytest.raises(ValueError, match="1 units but no reference sentence with a word; give references"):
        soft_segmentation([" "], ["ja"], "word", "de")


def test_without_mweralign_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(resegment, "find_spec", lambda name: None)
    monkeypatch.setattr(resegment, "version", absent)
    with pytest.raises(ImportError, match=r"mweralign.* is not installed: pip install .*\[longform\]'"):
        word_error_segmentation([(["a"], ["a"])], "word")
    with pytest.raises(ImportError, match=r"pip install .*\[longform\]'"):
        resegment.mweralign_version()


@needs_mweralign
@pytest.mark.parametrize(
    ("references", "units", "sentences"),
    [
        (["a b", "c d"], "a b c d", [0, 0, 1, 1]),
        (["a b", "", "c d"], "a b c d", [0, 0, 2, 2]),
        (["a b", "c d", ""], "a b c d", [0, 0, 1, 1]),  # mweralign loses a last line that is blank
        (["a b", "c ### d"], "a b c ### d", [0, 0, 1, 1, 1]),
        (["a b", "c d"], "", []),
    ],
)
def test_words_are_cut_by_minimum_word_error(references: list[str], units: str, sentences: list[int]) -> None:
    assert word_error_segmentation([(references, units.split())], "word") == [sentences]


@needs_mweralign
def test_runs_of_latin_letters_are_one_word_to_minimum_word_error() -> None:
    documents = [(["你好 ok", "再见"], list("你好ok再见")), (["再"], ["再"])]
    assert word_error_segmentation(documents, "character") == [[0, 0, 0, 0, 1, 1], [0]]
