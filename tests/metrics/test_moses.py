"""Moses' tokens of one word: by rule here, and equal to Moses itself in test_longform_tools.py."""

import pytest

from streamllm.metrics.moses import moses_language, tokenise


@pytest.mark.parametrize(
    ("word", "language", "tokens"),
    [
        ("hund,", "de", "hund ,"),
        ("hund.", "de", "hund ."),
        ("(ein)", "de", "( ein )"),
        ("e-mail", "de", "e @-@ mail"),
        ("-mail", "de", "-mail"),
        ("3,5", "de", "3,5"),
        ("a,b", "de", "a , b"),
        ("bzw.", "de", "bzw."),
        ("bzw.", "en", "bzw ."),
        ("z.b.", "de", "z.b."),
        ("wait...", "en", "wait ..."),
        ("don't", "en", "don 't"),
        ("1990's", "en", "1990 's"),
        ("l'eau", "fr", "l' eau"),
        ("don't", "de", "don ' t"),
        ("¿qué?", "es", "¿ qué ?"),
        ("a`b", "de", "a`b"),
    ],
)
def test_a_word_is_cut_by_the_rules_of_its_language(word: str, language: str, tokens: str) -> None:
    assert tokenise(word, language) == tuple(tokens.split())


def test_a_language_without_abbreviations_has_those_of_english() -> None:
    assert tokenise("e.g.", "xx") == tokenise("e.g.", "en") == ("e.g.",)
    assert tokenise("vs.", "xx") == ("vs.",)


def test_a_word_of_control_characters_has_no_token() -> None:
    assert tokenise("\x01", "de") == ()


@pytest.mark.parametrize(
    ("tag", "language"),
    [("de", "de"), ("de-CH", "de"), ("deu_Latn", "de"), ("cmn_Hans", "zh"), ("JPN", "ja"), ("th", "th")],
)
def test_a_language_tag_is_told_to_omnisteval_in_two_letters(tag: str, language: str) -> None:
    assert moses_language(tag) == language
