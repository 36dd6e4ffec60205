"""Texts with separated punctuation are told from plain ones, since they move every score."""

import pytest

from streamllm.metrics.latency import latency
from streamllm.metrics.tokenised import looks_tokenised, tokenised_warning
from streamllm.records import Trace


def trace(reference: str, prediction: str = "ein Hund.") -> Trace:
    return Trace("1", "a dog", reference, ("ein", "Hund."), (1, 2), (0.0, 0.0), (), 2, prediction)


@pytest.mark.parametrize(
    "text",
    ["ein Hund .", "ein Hund , der läuft.", "a well @-@ known dog", "l&apos;homme", "他 喜欢 狗 。", "er sagte : ja ."],
)
def test_tokenised_texts(text: str) -> None:
    assert looks_tokenised(text)


@pytest.mark.parametrize(
    "text",
    [
        *("ein Hund.", "Quoi ? Non !", "Il dit : oui", "er kam ... und ging", ". ein", "यह घर है ।", ""),
        *("mail@example.de", "AT&T", "3,5 und .5"),
    ],
)
def test_plain_texts(text: str) -> None:
    assert not looks_tokenised(text)


def test_separated_punctuation_moves_a_lag() -> None:
    """The reference is longer, so each word is expected earlier."""
    plain, tokenised = (latency((2, 3, 4), 4, text, "word")["al"] for text in ("ein Hund läuft.", "ein Hund läuft ."))
    assert tokenised > plain


def test_the_line_has_both_shares_and_an_example() -> None:
    traces = [trace("ein Hund ."), trace("ein Hund."), trace("ein Hund."), trace("ein Hund.", "ein Mann , ja")]
    said = tokenised_warning(traces)
    assert said is not None
    assert said.startswith("25% of the references and 25% of the predictions look tokenised, such as 'ein Hund .': ")
    assert "\n" not in said


def test_predictions_alone_are_named_too() -> None:
    assert "0% of the references and 100% of the predictions" in str(tokenised_warning([trace("ein Hund.", "Hund .")]))


def test_a_stray_space_is_no_reason_to_warn() -> None:
    assert tokenised_warning([trace("ein Hund .")] + [trace("ein Hund.")] * 30) is None
    assert tokenised_warning([]) is None
