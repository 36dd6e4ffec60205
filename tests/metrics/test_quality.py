"""BLEU and chrF: sacrebleu's own values, with the tokenizer of the target language and no noise."""

import importlib
import importlib.util
import json
import logging
import math
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.metrics.quality import RunningBLEU, RunningQuality, quality, sentence_bleu, tokenizer

PREDICTIONS = ["the cat sat on the mat .", "two dogs run", "a man"]
REFERENCES = ["the cat sat on a mat .", "two dogs are running", "a man sings"]


@pytest.mark.parametrize("spelling", ["upstream", "stripped"])
def test_bleu_equals_the_recorded_values(shared: Path, spelling: str) -> None:
    cases = json.loads((shared / "goldens" / "metrics.json").read_text())["bleu"]
    assert cases
    ours = [quality(case[f"hypotheses_{spelling}"], case["references"], "fr")["bleu"] for case in cases]
    assert ours == pytest.approx([case[f"bleu_{spelling}"] for case in cases], abs=1e-9)


def test_chrf_of_a_worked_example() -> None:
    # one character order at a time: 1 of 2 characters right, no bigram; effective order 2, beta 2
    assert quality(["ab"], ["ac"], "en")["chrf"] == pytest.approx(25)


def test_a_copy_of_the_reference_scores_100() -> None:
    scores = quality(REFERENCES, REFERENCES, "en")
    assert scores["bleu"] == pytest.approx(100)
    assert (scores["chrf"], scores["length_ratio"]) == (100, 1)


def test_signatures_tell_the_settings_and_the_version() -> None:
    import sacrebleu

    scores = quality(PREDICTIONS, REFERENCES, "de")
    version = f"version:{sacrebleu.__version__}"
    assert scores["bleu_signature"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    assert scores["chrf_signature"] == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"


def test_length_ratio_counts_the_tokens_of_bleu() -> None:
    assert quality(["a b, c"], ["a b"], "en")["length_ratio"] == 2  # "a b , c"


def test_length_ratio_over_empty_references_is_nan() -> None:
    assert math.isnan(float(quality(["a"], [""], "en")["length_ratio"]))


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("de", "13a"),
        ("en_XX", "13a"),
        ("", "13a"),
        ("zh", "zh"),
        ("zh-CN", "zh"),
        ("zho_Hans", "zh"),
        ("JA", "ja-mecab"),
        ("jpn_Jpan", "ja-mecab"),
        ("ko", "ko-mecab"),
        *((language, "char") for language in ("th", "km_KH", "lo", "my", "bo")),
        ("yue", "zh"),
    ],
)
def test_the_target_language_chooses_the_tokenizer(language: str, name: str) -> None:
    assert tokenizer(language) == name


def test_chinese_is_scored_by_characters() -> None:
    scores = quality(["我喜欢你们的猫"], ["我喜欢他们的猫"], "zh")
    assert scores["length_ratio"] == 1
    assert float(scores["bleu"]) > 40
    assert "|tok:zh|" in str(scores["bleu_signature"])


def test_the_spaces_between_latin_words_are_scored() -> None:
    texts = ["我爱 New York", "他住在 San Francisco 的家"]
    assert quality(texts, texts, "zh")["bleu"] == pytest.approx(100)
    assert float(quality([text.replace(" ", "") for text in texts], texts, "zh")["bleu"]) < 90


def test_thai_is_scored_by_characters() -> None:
    scores = quality(["ฉันชอบแมวของคุณ"], ["ฉันชอบแมวของเขา"], "th")
    assert float(scores["bleu"]) > 40
    assert "|tok:char|" in str(scores["bleu_signature"])


@pytest.mark.parametrize(
    ("language", "module", "text"), [("ja", "MeCab", "私は猫です"), ("ko", "mecab_ko", "나는 고양이다")]
)
def test_japanese_and_korean_are_scored_by_morphemes(language: str, module: str, text: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"the package {module} is not installed")
    assert quality([text], [text], language)["length_ratio"] == 1
    assert f"tok:{language}-mecab" in str(quality([text], [text], language)["bleu_signature"])


@pytest.mark.parametrize("language", ["ja", "ko"])
def test_a_missing_tokenizer_is_named_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    module = importlib.import_module(f"sacrebleu.tokenizers.tokenizer_{language}_mecab")
    monkeypatch.setattr(module, "MeCab", None)  # what sacrebleu sets when the package is absent
    with pytest.raises(ImportError, match=rf"'{language}-mecab'.*pip install 'sacrebleu\[{language}\]'"):
        quality(["a"], ["a"], language)


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions but 1 references"):
        quality(["a", "b"], ["a"], "en")


def test_no_sentences_are_refused() -> None:
    with pytest.raises(ValueError, match="0 predictions"):
        quality([], [], "en")


def test_empty_predictions_score_0() -> None:
    scores = quality(["", ""], ["a b", "c"], "en")
    assert (scores["bleu"], scores["chrf"], scores["length_ratio"]) == (0, 0, 0)
    assert sentence_bleu("", "a b", "en") == 0


def test_nothing_is_warned_of(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    predictions, references = ["it looks tokenized ."] * 120 + [""], ["It is not."] * 121
    running = RunningBLEU("en")
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        quality(predictions, references, "en")
        for prediction, reference in zip(predictions, references, strict=True):
            running.add(prediction, reference)
            sentence_bleu(prediction, reference, "en")
    assert running.score == quality(predictions, references, "en")["bleu"]
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_sentence_bleu_takes_the_orders_that_a_short_sentence_has() -> None:
    assert sentence_bleu("two dogs", "two dogs", "en") == pytest.approx(100)


def test_running_bleu_is_0_before_the_first_sentence() -> None:
    assert RunningBLEU("en").score == 0


def test_reading_the_running_score_does_not_change_it() -> None:
    running = RunningBLEU("en")
    running.add(PREDICTIONS[0], REFERENCES[0])
    assert running.score == running.score == quality(PREDICTIONS[:1], REFERENCES[:1], "en")["bleu"]


words = st.lists(st.sampled_from(["a", "b", "c", "d.", ",", "É"]), max_size=9).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=6), st.sampled_from(["en", "zh"]))
def test_running_bleu_is_corpus_bleu_after_every_sentence(pairs: list[tuple[str, str]], language: str) -> None:
    running = RunningBLEU(language)
    for seen, (prediction, reference) in enumerate(pairs, 1):
        running.add(prediction, reference)
        predictions, references = zip(*pairs[:seen], strict=True)
        assert running.score == quality(predictions, references, language)["bleu"]


any_text = st.one_of(words, st.text(max_size=12), st.text("ab5 .,&-<\n\t\xa0\"'%/", max_size=20))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(any_text, any_text), min_size=1, max_size=6), st.sampled_from(["en", "zh"]))
def test_scores_of_sums_are_those_of_sacrebleu_to_the_last_digit(pairs: list[tuple[str, str]], language: str) -> None:
    running = RunningQuality(language)
    for prediction, reference in pairs:
        running.add(prediction, reference)
    predictions, references = zip(*pairs, strict=True)
    assert repr(running.scores) == repr(quality(predictions, references, language))  # so that nan equals nan
