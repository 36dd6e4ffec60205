"""Latency in characters and subwords: worked out by hand, and equal to plain latency where the units are those."""

import dataclasses
import hashlib
import io
import math
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamllm.evaluation.subwords import InSubwords
from streamllm.metrics.latency import METRICS, average_lagging, latency
from streamllm.metrics.longform import LAGGINGS, document, resegment, sentence_latency
from streamllm.metrics.other_units import InCharacters, latencies_of_document, latency_in
from streamllm.metrics.own import MetricError, own_values, signatures
from streamllm.models.loading import ASSETS
from streamllm.records import Segment, Trace
from streamllm.runs.made_from import of_metrics
from streamllm.runs.stored import computed_otherwise


def trace(source: str, prediction: str, delays: tuple[int, ...], reference: str = "", unit: str = "word") -> Trace:
    split = str.split if unit == "word" else (lambda text: [c for c in text if not c.isspace()])
    units = tuple(split(prediction))
    return Trace(
        *("0", source, reference or prediction, units, delays, (0.0,) * len(delays), ()),
        source_units=len(split(source)),
        prediction=prediction,
    )


def words(text: str) -> list[int]:
    """A tokenizer whose subwords are the words."""
    return [place for place in range(1, len(text) + 1) if place == len(text) or text[place].isspace()]


def test_characters_are_counted_by_hand():
    """Source "ab cde" (2 + 3), output "xy z" by wait-1: x and y with 2 characters read, z with 5; |y| is 3.

    AL: lags 2 - 0, 2 - 5/3, 5 - 10/3 over the first unit with the whole source, which is the third."""
    one = trace("ab cde", "xy z", (1, 2))
    assert latency_in(InCharacters("al").ends, one, average_lagging) == pytest.approx((2 + 1 / 3 + 5 / 3) / 3)
    assert InCharacters("al")([one]) == pytest.approx(4 / 3)


def test_a_subword_of_the_output_has_the_delay_of_the_unit_that_it_ends_in():
    """Halves of "abcd" and "efgh" as subwords, and one that spans two units belongs to the second."""
    ends = {"abcd efgh": [2, 4, 7, 9], "uv wx": [4, 5], "r": [1]}
    one = trace("abcd efgh", "uv wx", (1, 2), "r")
    # No subword ends in "uv"; two end in "wx", with all 4 subwords read, of |y| = 1.
    assert latency_in(ends.__getitem__, one, average_lagging) == 4
    one = trace("abcd efgh", "uv wx", (1, 1), "r")
    assert latency_in(ends.__getitem__, one, lambda delays, x, y: sum(delays)) == 4


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_words_as_subwords_have_the_latency_of_words(x: int, y: int, data: Any):
    delays = tuple(sorted(data.draw(st.lists(st.integers(0, x), min_size=y, max_size=y))))
    one = trace(" ".join(["ab"] * x), " ".join(["c"] * y), delays, "d e f")
    for name, metric in METRICS.items():
        found, usual = latency_in(words, one, metric), latency(delays, x, "d e f", "word")[name]
        assert found == pytest.approx(usual, nan_ok=True)


def a_document(source: str, prediction: str, delays: tuple[int, ...], *segments: Segment) -> Trace:
    return dataclasses.replace(trace(source, prediction, delays), segments=segments)


def test_characters_of_a_document_are_counted_by_hand():
    """ "ab cde" and "fg h" (5 and 3 characters), of which "xy z" and "vw" were written with 2 and 5, and with 3 more.

    LAAL of the first: 2 - 0, 2 - 5/3, 5 - 10/3; of the second: 3 - 0, after which nothing counts."""
    first, second = Segment(0, 2, "ab cde", "xy z"), Segment(2, 2, "fg h", "vw")
    one = a_document("ab cde fg h", "xy z vw", (1, 2, 4), first, second)
    assert InCharacters("laal", "de")([one]) == pytest.approx(((2 + 1 / 3 + 5 / 3) / 3 + 3) / 2)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_words_as_subwords_have_the_latency_of_the_words_of_documents(lengths: list[int], data: Any):
    """Also where what belongs to a sentence was written before it began, or long after it."""
    names = iter("abcdefghijklmnopqrstuvwxyz")
    segments, starts = [], [0, *accumulate(lengths)]
    for start, length in zip(starts, lengths, strict=False):
        text = " ".join(next(names) * 2 for _ in range(length))
        segments.append(Segment(start, length, text, text))
    text = " ".join(segment.source for segment in segments)
    written = [word for word in text.split() if data.draw(st.integers(0, 4))]
    delays = data.draw(st.lists(st.integers(0, starts[-1]), min_size=len(written), max_size=len(written)))
    one = a_document(text, " ".join(written), tuple(sorted(delays)), *segments)
    usual = [sentence_latency(each, "word") for each in resegment([document(one, "word")], "de", "word")]
    for name, metric in LAGGINGS.items():
        found = latencies_of_document(words, one, "de", "word", metric)
        assert found == pytest.approx([each[name] for each in usual], nan_ok=True)


def test_documents_need_a_language_and_a_latency_that_they_have():
    one = a_document("ab cd", "x y", (1, 2), Segment(0, 2, "ab cd", "x y"))
    with pytest.raises(MetricError, match="laal_characters of documents needs the target language"):
        InCharacters("laal")([one])
    with pytest.raises(MetricError, match="latency is 'cw', which documents have not; accepted are al, laal, ap, dal"):
        InCharacters("cw", "de")([one])


def test_characters_of_chinese_are_its_units():
    one = trace("一只狗 跑", "ab cd", (2, 4), "x y")
    one = dataclasses.replace(one, source_units=4)  # by character
    assert InCharacters("laal")([one]) is not None
    same = trace("一只狗跑", "狗跑了", (2, 3, 4), "狗跑", unit="character")
    usual = latency((2, 3, 4), 4, "狗跑", "character")
    for name in ("al", "laal", "dal"):
        assert InCharacters(name)([same]) == pytest.approx(usual[name])


def test_the_model_s_tokenizer_counts_its_tokens():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(ASSETS / "tiny-en-de" / "tokenizer.json"))
    source, prediction = "a man is riding a bicycle 你", "Ein Mann fährt Fahrrad"
    counts = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in (source, prediction)]
    seen = []

    def keep(delays: Any, x: float, y: float) -> float:
        seen.append((list(delays), x, y))
        return 0.0

    one = trace(source, prediction, (1, 2, 5, 7))
    latency_in(InSubwords("al", "bundled:tiny-en-de").ends, one, keep)
    ((delays, x, y),) = seen
    assert (x, len(delays), y) == (counts[0], counts[1], counts[1])
    assert delays == sorted(delays) and delays[-1] == x
    of_first = len(tokenizer.encode("a", add_special_tokens=False).ids)
    assert delays[0] == of_first


def test_a_sentencepiece_file_counts_its_pieces(tmp_path: Path):
    import sentencepiece

    text = ["ein Mann fährt Fahrrad", "a man is riding a bicycle", "eine Frau läuft"] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=40, minloglevel=2, hard_vocab_limit=False
    )
    file = tmp_path / "spm.model"
    file.write_bytes(model.getvalue())
    metric = InSubwords("laal", str(file))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    for line in ("ein Mann fährt", "eine  ältere Frau"):
        ends = metric.ends(line)
        assert len(ends) == len(processor.encode(line)) and ends[-1] == len(line)
    assert metric([trace("a man is", "ein Mann läuft", (1, 2, 3))]) > 0
    before = of_metrics([metric], {})
    file.write_bytes(model.getvalue() + b"\n")
    assert of_metrics([InSubwords("laal", str(file))], {}) != before


def test_the_signature_names_the_unit_and_the_tokenizer(tmp_path: Path):
    one, formulas = trace("ab cd", "x y", (1, 2)), "len:ref|formulas:simuleval.1.1.4"
    assert said([InCharacters("laal")], one) == f"unit:character|space:no|{formulas}"
    bundled = ASSETS / "tiny-en-de" / "tokenizer.json"
    digest = hashlib.sha256(bundled.read_bytes()).hexdigest()[:8]
    of_model = said([InSubwords("al", "bundled:tiny-en-de")], one)
    assert of_model == f"unit:subword|tokenizer:bundled:tiny-en-de@{digest}|{formulas}"
    (tmp_path / "mine.json").write_bytes(bundled.read_bytes())
    of_file = said([InSubwords("al", str(tmp_path / "mine.json"))], one)
    assert of_file == f"unit:subword|tokenizer:mine.json@{digest}|{formulas}"
    metrics = [{"al_subwords_signature": text} for text in (of_model, of_file)]
    assert computed_otherwise(metrics, "al_subwords") == [], "one tokenizer under two names"
    metrics[1] = {"al_subwords_signature": of_file.replace(digest, "0" * 8)}
    assert len(computed_otherwise(metrics, "al_subwords")) == 2
    of_documents = said([InCharacters("laal", "de")], a_document("ab cd", "x y", (1, 2), Segment(0, 2, "ab cd", "x y")))
    assert of_documents == ("unit:character|space:no|len:ref|segmenter:soft|lang:de|formulas:omnisteval.0.1.10")


def said(metrics: list[Any], one: Trace) -> str:
    """The signature once the metric has been computed."""
    own_values(metrics, [one])
    return signatures(metrics)[f"{metrics[0].key}_signature"]


def test_a_sentence_without_output_has_none():
    assert InCharacters()([trace("ab", "", ())]) is None
    one = trace("ab cd", "x y", (1, 2))
    assert not math.isnan(InCharacters()([one, trace("ab", "", ())]) or math.nan)


def test_what_has_no_such_units_is_refused(tmp_path: Path):
    one = dataclasses.replace(trace("ab cd", "x y", (1, 2)), source_units=3)
    with pytest.raises(ValueError, match="sentence '0' has 3 source units, but 2 words and 4 characters"):
        InCharacters()([one])
    with pytest.raises(ValueError, match="latency is 'comet'; accepted are al, laal"):
        InCharacters("comet")
    with pytest.raises(ValueError, match="needs a tokenizer"):
        InSubwords("al", None)
    with pytest.raises(FileNotFoundError, match="no such file"):
        InSubwords("al", str(tmp_path / "spm.model")).ends("a")
    (tmp_path / "bad.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="no tokenizer that can be read"):
        InSubwords("al", str(tmp_path / "bad.model")).ends("a")
