"""Scores of documents: equal to the values recorded from OmniSTEval 0.1.10, and what the formulas mean."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import long_documents
import pytest

from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.latency import corpus_latency, reference_length
from streamllm.metrics.longform import (
    LATENCIES,
    Document,
    Sentence,
    degeneracy,
    document,
    long_yaal,
    longform,
    own_computation,
    resegment,
    sentence_latency,
    sentence_stream_laal,
)
from streamllm.metrics.scores import notes
from streamllm.metrics.summary import summarise
from streamllm.records import Event, Segment, Trace

UNITS = {"word": "word", "char": "character"}


def recorded_sentences(rows: list[dict[str, Any]]) -> list[Sentence]:
    return [
        Sentence(
            document="recording",
            index=row["index"],
            segment=Segment(row["offset"], row["source_length"], "", row["reference"]),
            reference=row["reference"],
            prediction=row["prediction"],
            units=tuple(row["prediction"].split()),
            places=(),
            delays=tuple(row["emission_cu"]),
            elapsed=tuple(row["emission_ca"]),
            to_end=row["time_to_recording_end"],
        )
        for row in rows
    ]


def test_latencies_of_a_recording_equal_omnisteval_and_simulstream(shared: Path) -> None:
    recorded = json.loads((shared / "goldens" / "longform.json").read_text())["longform"]
    sentences = recorded_sentences(recorded["segments"])
    ours = {
        prefix + name: value
        for prefix, aware in (("", False), ("ca_", True))
        for name, value in corpus_latency(sentence_latency(one, "word", aware) for one in sentences).means.items()
    }
    assert ours == pytest.approx(recorded["scores"], abs=1e-9)
    for one, values in zip(sentences, recorded["per_segment"], strict=True):
        assert sentence_latency(one, "word")["long_yaal"] == pytest.approx(values["LongYAAL"] or math.nan, nan_ok=True)
    laal = [sentence_stream_laal(one, "word") for one in sentences]
    assert sum(laal) / 3 == pytest.approx(recorded["scores"]["long_laal"], abs=1e-9)


def test_diagnostics_and_yaal_without_an_end_equal_omnisteval(shared: Path) -> None:
    cases = json.loads((shared / "goldens" / "simuleval_latency.json").read_text())["cases"]
    for case in cases:
        target = reference_length(case["reference"], UNITS[case["unit"]])
        said = case["omnisteval"]
        ours = long_yaal(case["delays"], case["source_length"], target, math.inf)
        theirs = said["LongYAAL_no_recording_end"]
        assert ours == pytest.approx(math.nan if theirs is None else theirs, abs=1e-9, nan_ok=True), case["id"]
        found = degeneracy([(case["delays"], case["source_length"], target)])
        wanted = {name: math.nan if said[name] is None else said[name] for name in found}
        assert found == pytest.approx(wanted, abs=1e-9, nan_ok=True), case["id"]


def two_sentences(delays: list[int], units: str = "aa bb cc dd", elapsed: list[float] | None = None) -> Document:
    segments = [Segment(0, 2007, "", "aa bb"), Segment(2007, 4, "", "cc dd")]
    return Document("talk", units.split(), delays, segments, elapsed)


def test_what_is_written_after_a_sentence_counts_until_the_document_ends() -> None:
    """2011 words: as milliseconds, the end would lie a rounding error beside the delay that is compared with it."""
    (first, second) = resegment([two_sentences([2008, 2010, 2010, 2011])], "de", "word")
    assert first.delays == (2008, 2010)
    assert sentence_latency(first, "word")["long_yaal"] == (2008 + 2010 - 2007 / 2) / 2
    assert second.delays == (3, 4)
    assert sentence_latency(second, "word")["long_yaal"] == 3


def test_a_sentence_written_ahead_of_its_source_has_delays_below_zero() -> None:
    (_, second) = resegment([two_sentences([1, 2, 3, 4])], "de", "word")
    assert second.delays == (-2004, -2003)
    assert second.places == (2, 3)


def test_computation_is_measured_in_source_units() -> None:
    (first, _) = resegment([two_sentences([1, 2, 3, 4], elapsed=[1, 2, 3, 4])], "de", "word", units_per_second=2.5)
    assert first.elapsed == (2.5, 5)


def test_sentences_without_output_count_for_quality_only() -> None:
    scores = longform([two_sentences([5, 6], "aa bb")], "de", "word", word_error=False)
    assert scores.metrics["sentences_without_output"] == 1
    assert [one.prediction for one in scores.sentences] == ["aa bb", ""]
    assert scores.metrics["long_al"] == sentence_latency(scores.sentences[0], "word")["long_al"]
    assert scores.metrics["chrf"] != 100


def talk(written: int, name: str = "talk") -> Trace:
    """Four sentences of eight words, of which the first so many are written, each two words after its source."""
    texts = [" ".join(one + other for other in "efghijkl") for one in "abcd"]
    units = tuple(" ".join(texts).split()[:written])
    delays = tuple(min(2 + place, 32) for place in range(written))
    segments = tuple(Segment(8 * number, 8, text, text) for number, text in enumerate(texts))
    whole = " ".join(texts)
    return Trace(name, whole, whole, units, delays, (0.0,) * written, (), 32, " ".join(units), segments=segments)


def test_a_document_that_is_cut_short_has_no_latency_and_counts_for_quality() -> None:
    whole, short = document(talk(32), "word"), document(talk(10, "short"), "word")
    assert (whole.cut_short, short.cut_short) == (False, True)
    alone, both = (longform(some, "de", "word", word_error=False).metrics for some in ([whole], [whole, short]))
    of_short = longform([short], "de", "word", word_error=False).metrics
    for name in (*LATENCIES, "stream_laal", "swf", "efsw", "dsptv", "degenerate_policy"):
        assert of_short[name] is None, name
        assert both[name] == alone[name], name
    assert (
        of_short["bleu"] == longform([replace(short, cut_short=False)], "de", "word", word_error=False).metrics["bleu"]
    )
    assert both["bleu"] != alone["bleu"]
    of_run = summarise([talk(10)], "de", "word")
    assert (of_run["long_yaal"], of_run["sentences_cut_short"]) == (None, 1)
    assert notes(of_run)[0] == "documents cut short, which have no latency: 1 of 1"
    assert notes(summarise([talk(32)], "de", "word")) == []


def test_what_it_wrote_would_be_ahead_of_its_sentences() -> None:
    """Words for the last sentence that were written before it began, as a model does that ends early."""
    one = talk(32)
    early = replace(one, units=one.units[24:], delays=(2, 3, 4, 5, 6, 7, 8, 9), prediction=" ".join(one.units[24:]))
    said = longform([replace(document(early, "word"), cut_short=False)], "de", "word", word_error=False).metrics
    assert said["long_yaal"] == 2 - 24
    assert longform([document(early, "word")], "de", "word", word_error=False).metrics["long_yaal"] is None


def test_what_the_alignment_drops_is_counted() -> None:
    scores = longform([two_sentences([1, 2, 3, 4, 5], "- aa bb cc dd")], "de", "word", word_error=False)
    assert scores.metrics["units_dropped"] == 1


def test_undefined_and_unmeasured_scores_are_none() -> None:
    metrics = longform([two_sentences([], "")], "de", "word", word_error=False).metrics
    missing = {
        "long_yaal",
        "long_dal",
        "ca_long_yaal",
        "swf",
        "stream_laal",
        "bleu_word_error",
        "stream_laal_signature",
    }
    assert {name for name in missing if metrics[name] is None} == missing
    json.dumps(metrics, allow_nan=False)


def test_the_language_and_the_version_are_in_the_signature() -> None:
    metrics = longform([two_sentences([1, 2, 3, 4])], "deu_Latn", "word", word_error=False).metrics
    assert metrics["longform_signature"] == "unit:word|segmenter:soft|lang:de|formulas:omnisteval.0.1.10"


def test_characters_are_scored_without_spaces() -> None:
    spoken = Document("talk", list("你好"), [1, 2], [Segment(0, 2, "", "你 好")])
    (sentence,) = resegment([spoken], "zh", "character")
    assert sentence.prediction == sentence.reference == "你好"


def test_a_policy_that_writes_a_little_early_and_the_rest_at_the_end_is_degenerate() -> None:
    said = degeneracy([([1, 10, 10, 10, 10, 10, 10, 10, 10, 10], 10, 10)])
    assert said == {"swf": 10, "efsw": 90, "dsptv": 80, "degenerate_policy": 1}


def test_own_computation_forgets_the_computation_before() -> None:
    assert own_computation([10, 20, 20, 30], [12, 25, 26, 31]) == [12, 23, 23, 25]
    assert own_computation([], []) == []


def test_a_trace_is_a_document_and_its_units_have_no_white_space() -> None:
    events = (Event("read", "a", 1), Event("read", "b", 2), Event("write", "10\u00a0km", 3))
    trace = Trace(
        "1", "a b", "x", ("10\u00a0km",), (2,), (3.0,), events, 2, "10\u00a0km", segments=(Segment(0, 2, "a b", "x"),)
    )
    one = document(trace, "word", ArrivalClock(1, 0.0, 0.5))
    assert (one.units, one.delays, one.elapsed) == (["10", "km"], [2, 2], [2.5, 2.5])
    assert document(trace, "word").elapsed is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"delays": [1]}, "document 'talk' has 2 units but 1 delays; give one for each unit"),
        ({"elapsed": [1.0]}, "has 2 units but 1 elapsed"),
        ({"segments": []}, "document 'talk' has no sentences"),
        ({"segments": [Segment(0, 2, "", "x"), Segment(2, 0, "", "y")]}, "sentence 1 .* source of 0 units.*merge it"),
        ({"segments": [Segment(0, 2, "", " ")]}, "blank references only"),
    ],
)
def test_a_document_that_cannot_be_scored_is_refused(changed: dict[str, Any], message: str) -> None:
    parts = {"id": "talk", "units": ["a", "b"], "delays": [1, 2], "segments": [Segment(0, 2, "", "x")]}
    with pytest.raises(ValueError, match=message):
        Document(**(parts | changed))


def test_scores_of_no_document_are_refused() -> None:
    with pytest.raises(ValueError, match="0 documents; scores need at least one"):
        longform([], "de", "word")


def test_each_unit_is_in_one_sentence_at_most_and_keeps_its_order() -> None:
    for seed in range(20):
        one = long_documents.made_up(seed)
        places = [place for sentence in resegment([one], "de", "word") for place in sentence.places]
        assert len(places) == len(set(places))
        assert all(list(s.places) == sorted(s.places) for s in resegment([one], "de", "word"))
