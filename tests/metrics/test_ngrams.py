"""N-grams in common, against a count of each sentence alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.metrics import ngrams, quality

texts = st.text("ab\ud800\U0001f600\u4e00", max_size=9)


def counted(ours: str, theirs: str, orders: int) -> list[int]:
    """One sentence, as the definition says."""
    found = []
    for order in range(1, orders + 1):
        a, b = (Counter(side[i : i + order] for i in range(len(side) - order + 1)) for side in (ours, theirs))
        found.append((a & b).total())
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts), max_size=7), st.integers(1, 6))
def test_all_sentences_at_once_have_in_common_what_each_has(pairs: list[tuple[str, str]], orders: int) -> None:
    every = [*(ours for ours, _ in pairs), *(theirs for _, theirs in pairs)]
    lengths = ngrams.lengths_of(every)
    expected = [counted(*pair, orders) for pair in pairs]
    for items in (ngrams.of_characters(every), ngrams.of_items(every)):
        assert ngrams.shared(items, lengths, orders).tolist() == expected


def test_no_number_is_too_large_for_long_ngrams_of_many_kinds() -> None:
    items = np.array([2**40, 5, 2**40, 5, 7, 2**40, 5, 2**40, 5, 8])
    assert ngrams.shared(items, np.array([5, 5]), 4).tolist() == [[4, 3, 2, 1]]


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, references = ["a b c", "", "b b", "d e f g"], ["a b d", "x", "b b b", ""]
    whole = quality.chrf_counts(predictions, references)
    monkeypatch.setattr(quality, "TOGETHER", 3)
    assert (quality.chrf_counts(predictions, references) == whole).all()
    running = quality.RunningQuality("en")
    for pair in zip(predictions, references, strict=True):
        running.add(*pair)
    assert running.scores == quality.quality(predictions, references, "en")
