"""Latency metrics: equal to the values recorded from SimulEval 1.1.4, OmniSTEval 0.1.10 and pysimt, and the
relations between them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamllm.metrics.latency import (
    METRICS,
    average_lagging,
    average_proportion,
    average_token_delay,
    consecutive_waits,
    corpus_latency,
    differentiable_average_lagging,
    latency,
    length_adaptive_average_lagging,
    max_consecutive_wait,
    mean_consecutive_wait,
    reference_length,
    yet_another_average_lagging,
)

UNITS = {"word": "word", "char": "character"}  # SimulEval's name -> ours
SIMULEVAL = ("al", "laal", "ap", "dal")  # its scorers that know nothing of the kind of input


@pytest.fixture(scope="module")
def goldens(shared: Path) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads((shared / "goldens" / "simuleval_latency.json").read_text())
    return recording


def recorded(cases: list[dict[str, Any]], field: str) -> dict[str, float]:
    return {f"{case['id']} {name}": case[field][name.upper()] for case in cases for name in SIMULEVAL}


def computed(cases: list[dict[str, Any]], times: str = "delays", use_reference: bool = True) -> dict[str, float]:
    return {
        f"{case['id']} {name}": value
        for case in cases
        for name, value in latency(
            case[times],
            case["source_length"],
            case["reference"] if use_reference else None,
            UNITS[case["unit"]],
            {name: METRICS[name] for name in SIMULEVAL},
        ).items()
    }


def test_scores_of_text_and_speech_equal_simuleval(goldens: dict[str, Any]) -> None:
    cases = goldens["cases"]
    assert {(case["mode"], case["unit"]) for case in cases} >= {("text", "word"), ("text", "char")}
    assert computed(cases) == pytest.approx(recorded(cases, "scores"), rel=0, abs=1e-9)


def test_scores_with_the_hypothesis_length_equal_simuleval(goldens: dict[str, Any]) -> None:
    cases = goldens["cases"]
    expected = pytest.approx(recorded(cases, "scores_no_ref_len"), rel=0, abs=1e-9)
    assert computed(cases, use_reference=False) == expected


def test_times_in_place_of_delays_give_the_computation_aware_scores(goldens: dict[str, Any]) -> None:
    speech = [case for case in goldens["cases"] if "elapsed" in case]
    assert speech
    expected = pytest.approx(recorded(speech, "scores_computation_aware"), rel=0, abs=1e-9)
    assert computed(speech, times="elapsed") == expected


def test_average_token_delay_of_text_equals_simuleval(goldens: dict[str, Any]) -> None:
    text = [case for case in goldens["cases"] if case["mode"] == "text"]
    text += goldens["errors"]  # an empty source is none to this metric
    expected = {case["id"]: case["scores"]["ATD"] for case in text}
    assert {case["id"]: average_token_delay(case["delays"]) for case in text} == pytest.approx(
        expected, rel=0, abs=1e-9
    )
    assert any(case["scores_from_log"]["ATD"] != case["scores"]["ATD"] for case in text if "scores_from_log" in case)


@pytest.mark.parametrize(("times", "field"), [("delays", "YAAL"), ("elapsed", "YAAL_CA")])
def test_yet_another_average_lagging_equals_omnisteval(goldens: dict[str, Any], times: str, field: str) -> None:
    cases = [case for case in goldens["cases"] if field in case["omnisteval"]]
    assert any(case["omnisteval"][field] is None for case in cases)
    skipped = {case["id"]: case["omnisteval"][field] for case in cases}
    expected = {name: math.nan if value is None else value for name, value in skipped.items()}
    yaal = {
        case["id"]: yet_another_average_lagging(case[times], case["source_length"], case["reference_length"])
        for case in cases
    }
    assert yaal == pytest.approx(expected, rel=0, abs=1e-9, nan_ok=True)


def test_consecutive_waits_equal_pysimt(goldens: dict[str, Any]) -> None:
    cases = [case for case in goldens["cases"] if case.get("pysimt")]
    assert cases
    for case in cases:
        assert mean_consecutive_wait(case["delays"]) == pytest.approx(case["pysimt"]["CW_mean"], rel=0, abs=1e-9)
        assert max_consecutive_wait(case["delays"]) == case["pysimt"]["CW_max"]


def test_reference_length_is_counted_as_simuleval_does(goldens: dict[str, Any]) -> None:
    counted = {c["id"]: reference_length(c["reference"], UNITS[c["unit"]]) for c in goldens["cases"]}
    assert counted == {case["id"]: case["reference_length"] for case in goldens["cases"]}


def test_where_simuleval_raises_the_value_is_nan(goldens: dict[str, Any]) -> None:
    errors = [
        {**case, "scores": {k: math.nan if isinstance(v, dict) else v for k, v in case["scores"].items()}}
        for case in goldens["errors"]
    ]
    assert errors
    expected = pytest.approx(recorded(errors, "scores"), rel=0, abs=1e-9, nan_ok=True)
    assert computed(errors) == expected


def test_average_lagging_equals_that_of_group_position_encoding(shared: Path) -> None:
    cases = json.loads((shared / "goldens" / "metrics.json").read_text())["latency"]
    arguments = [(case["delays"], case["source_length"], case["target_length"]) for case in cases]
    assert [average_lagging(*a) for a in arguments] == pytest.approx([case["AL"] for case in cases], abs=1e-9)
    assert [length_adaptive_average_lagging(*a) for a in arguments] == pytest.approx(
        [case["LAAL"] for case in cases], abs=1e-9
    )


@pytest.mark.parametrize(
    ("text", "unit", "length"),
    [
        ("a b c", "word", 3),
        ("a  b", "word", 3),
        ("a b ", "word", 3),
        ("a\tb", "word", 1),
        ("", "word", 1),
        ("ab cd", "character", 5),
        (" 你好 ", "character", 2),
        ("", "character", 0),
    ],
)
def test_reference_length(text: str, unit: str, length: int) -> None:
    assert reference_length(text, unit) == length


def test_unknown_unit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'char'; accepted are 'word' and 'character'"):
        reference_length("a", "char")


def test_a_first_delay_past_the_source_is_the_lagging() -> None:
    scores = latency([5, 5, 5], 4, "a b c", "word")
    assert (scores["al"], scores["laal"]) == (5, 5)


def test_a_first_delay_past_an_empty_source_is_the_lagging() -> None:
    assert average_lagging([2, 2], 0, 3) == 2


def test_a_first_delay_at_the_source_end_ends_the_sum() -> None:
    assert average_lagging([4, 9, 9], 4, 3) == 4


def test_average_lagging_sums_to_the_first_delay_that_reaches_the_source() -> None:
    assert average_lagging([1, 2, 4, 4], 4, 4) == pytest.approx((1 + (2 - 1) + (4 - 2)) / 3)


@pytest.mark.parametrize(
    ("delays", "source_length", "target_length", "by_hand"),
    [
        ([2, 4, 6], 4, 2, 2),  # tau = 2, the first at 4; ((2 - 0) + (4 - 1 * 4/2)) / 2 = (2 + 2) / 2
        ([4, 4], 4, 2, 4),  # tau = 1; (4 - 0) / 1
        ([5, 5], 4, 0, 5),  # past the source, so that no share |x|/|y| is asked for
        ([4, 4], 4, 0, math.nan),  # not past it, and 4/0 is no share
        ([0, 0], 0, 2, math.nan),  # nor is there one of an empty source
    ],
)
def test_only_a_first_delay_past_the_source_needs_no_share_of_the_source(
    delays: list[int], source_length: int, target_length: int, by_hand: float
) -> None:
    assert average_lagging(delays, source_length, target_length) == pytest.approx(by_hand, nan_ok=True)


def test_only_length_adaptive_lagging_knows_the_hypothesis_length() -> None:
    delays = [1, 1, 2, 2, 3, 3]
    assert average_lagging(delays, 4, 2) == pytest.approx((1 - 1 - 2 - 4 - 5 - 7) / 6)
    assert length_adaptive_average_lagging(delays, 4, 2) == average_lagging(delays, 4, 6)


def test_an_empty_character_reference_leaves_what_needs_no_reference() -> None:
    scores = latency([1, 2], 2, "", "character")
    assert math.isnan(scores["al"]) and math.isnan(scores["ap"])
    assert (scores["laal"], scores["dal"]) == (1, 1)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_negative_length_is_refused(metric: Any) -> None:
    with pytest.raises(ValueError, match="source_length is -1"):
        metric([1], -1, 1)
    with pytest.raises(ValueError, match="target_length is -2"):
        metric([1], 1, -2)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_sentence_without_output_has_no_latency(metric: Any) -> None:
    assert math.isnan(metric([], 3, 3))


def test_the_lagging_of_simultaneous_units_leaves_out_the_first_that_saw_the_whole_source() -> None:
    assert yet_another_average_lagging([1, 2, 4, 4], 4, 4) == (1 + (2 - 1)) / 2


def test_the_lagging_of_simultaneous_units_knows_the_hypothesis_length() -> None:
    assert yet_another_average_lagging([1, 1, 2, 2, 3, 3], 4, 2) == yet_another_average_lagging(
        [1, 1, 2, 2, 3, 3], 4, 6
    )
    assert yet_another_average_lagging([1, 1], 4, 8) == (1 + 1 - 4 / 8) / 2


@pytest.mark.parametrize("delays", [[4, 4], [5, 6]], ids=["at the end", "past it"])
def test_a_sentence_that_starts_with_the_whole_source_has_no_lagging_of_simultaneous_units(delays: list[int]) -> None:
    assert math.isnan(yet_another_average_lagging(delays, 4, 2))


@pytest.mark.parametrize(
    ("delays", "recorded"),  # from SimulEval 1.1.4 with instances of TextToTextInstance
    [
        ([0, 0, 1, 1, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 6, 6], 5.4375),
        ([1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 6, 8, 9], 4.785714285714286),
        ([0, 0, 0, 0, 1, 2, 3, 3, 3, 4, 4, 4], 4.5),
        ([0, 0], 1.5),
    ],
)
def test_average_token_delay_of_long_chunks_equals_simuleval(delays: list[int], recorded: float) -> None:
    assert average_token_delay(delays) == pytest.approx(recorded, rel=0, abs=1e-9)


def test_average_token_delay_counts_how_late_the_translation_ends() -> None:
    assert average_token_delay([4, 4, 4, 4]) == 4
    assert average_token_delay([4] * 8) == (4 * 4 + 5 + 6 + 7 + 8) / 8
    assert average_lagging([4] * 8, 4, 8) == average_lagging([4] * 4, 4, 4)


def test_a_wait_is_what_was_read_before_a_unit_since_the_one_before() -> None:
    assert consecutive_waits([2, 3, 3, 7, 7, 8]) == [2, 1, 4, 1]
    assert mean_consecutive_wait([2, 3, 3, 7, 7, 8]) == 2
    assert max_consecutive_wait([2, 3, 3, 7, 7, 8]) == 4


def test_a_sentence_written_before_anything_was_read_has_no_wait() -> None:
    assert math.isnan(mean_consecutive_wait([0, 0])) and math.isnan(max_consecutive_wait([0, 0]))


def test_a_further_metric_is_one_more_function() -> None:
    def start_offset(delays: Sequence[float], source_length: float, target_length: float) -> float:
        return delays[0]

    scores = latency([2, 3], 3, "a b", "word", {**METRICS, "start_offset": start_offset})
    assert scores["start_offset"] == 2
    assert scores["al"] == latency([2, 3], 3, "a b", "word")["al"]


def test_corpus_latency_is_the_mean_over_sentences_with_output() -> None:
    sentences = [latency(delays, 4, "a b", "word") for delays in ([4, 4], [], [2, 4])]
    corpus = corpus_latency(sentences)
    assert corpus.means["al"] == (4 + (2 + (4 - 2)) / 2) / 2
    assert corpus.means["ap"] == (8 / 8 + 6 / 8) / 2
    assert corpus.counted == dict.fromkeys(METRICS, 2) | {"yaal": 1}  # the first starts with the whole source
    assert corpus.means["yaal"] == 2


def test_corpus_latency_counts_each_metric_by_itself() -> None:
    corpus = corpus_latency([latency([1, 2], 2, "", "character"), latency([2], 2, "x", "character")])
    assert {name: corpus.counted[name] for name in SIMULEVAL} == {"al": 1, "laal": 2, "ap": 1, "dal": 2}
    assert corpus.means["al"] == 2


@pytest.mark.parametrize("sentences", [[], [latency([], 4, "a", "word")]], ids=["none", "no output"])
def test_corpus_latency_over_nothing_is_nan_with_count_0(sentences: list[dict[str, float]]) -> None:
    corpus = corpus_latency(sentences)
    assert list(corpus.means) == list(METRICS)
    assert all(math.isnan(mean) for mean in corpus.means.values())
    assert corpus.counted == dict.fromkeys(METRICS, 0)


lengths = st.integers(1, 12)
# a sentence: delays that never fall and stay within the source, the source length, the reference length
sentences = lengths.flatmap(
    lambda source: st.tuples(
        st.lists(st.integers(0, source), min_size=1, max_size=12).map(sorted), st.just(source), lengths
    )
)


@given(st.integers(1, 20), st.integers(1, 20))
def test_wait_k_on_equal_lengths_lags_by_k(k: int, length: int) -> None:
    delays = [min(k + t, length) for t in range(length)]
    lag = pytest.approx(min(k, length))
    for metric in (average_lagging, length_adaptive_average_lagging, differentiable_average_lagging):
        assert metric(delays, length, length) == lag


@given(lengths, lengths, lengths)
def test_the_whole_source_first_lags_by_its_length(source: int, hypothesis: int, reference: int) -> None:
    for metric in (average_lagging, length_adaptive_average_lagging, differentiable_average_lagging):
        assert metric([source] * hypothesis, source, reference) == pytest.approx(source)


@given(lengths, lengths)
def test_the_whole_source_first_has_proportion_1(source: int, hypothesis: int) -> None:
    assert average_proportion([source] * hypothesis, source, hypothesis) == pytest.approx(1)


@given(sentences)
def test_length_adaptive_lagging_is_never_below_average_lagging(sentence: Any) -> None:
    delays, _, reference = sentence
    al, laal = average_lagging(*sentence), length_adaptive_average_lagging(*sentence)
    assert laal >= al - 1e-9
    if len(delays) <= reference:
        assert laal == al


@given(sentences)
def test_differentiable_lagging_bounds_average_lagging_of_the_hypothesis_length(sentence: Any) -> None:
    delays, source, _ = sentence
    bound = differentiable_average_lagging(*sentence)
    assert bound >= average_lagging(delays, source, len(delays)) - 1e-9
    assert bound >= delays[0] - 1e-9


def test_differentiable_lagging_does_not_bound_it_for_a_longer_reference() -> None:
    delays = [3, 4, 5, 6, 6, 6]
    assert differentiable_average_lagging(delays, 6, 8) < average_lagging(delays, 6, 8)


@given(sentences, st.integers(2, 300))
def test_laggings_scale_with_the_measure_of_the_source_and_proportion_does_not(sentence: Any, scale: int) -> None:
    delays, source, reference = sentence
    scaled = ([delay * scale for delay in delays], source * scale, reference)
    for name, metric in METRICS.items():
        if name == "atd":  # in units only
            continue
        factor = 1 if name == "ap" else scale
        assert metric(*scaled) == pytest.approx(factor * metric(*sentence), abs=1e-6, nan_ok=True)


@given(sentences)
def test_the_lagging_of_simultaneous_units_is_the_length_adaptive_one_without_its_last_unit(sentence: Any) -> None:
    delays, source, _ = sentence
    counted = [t for t, delay in enumerate(delays, 1) if delay < source]
    if len(counted) == len(delays):
        assert yet_another_average_lagging(*sentence) == pytest.approx(length_adaptive_average_lagging(*sentence))
    elif counted:
        tau = len(counted) + 1
        last = source - counted[-1] * source / max(len(delays), sentence[2])
        total = yet_another_average_lagging(*sentence) * (tau - 1) + last
        assert total / tau == pytest.approx(length_adaptive_average_lagging(*sentence))


@given(st.integers(1, 20), st.integers(1, 20))
def test_wait_k_on_equal_lengths_has_a_token_delay_of_k(k: int, length: int) -> None:
    assert average_token_delay([min(k + t, length) for t in range(length)]) == min(k, length)


@given(sentences)
def test_waits_sum_to_the_last_delay(sentence: Any) -> None:
    waits = consecutive_waits(sentence[0])
    assert sum(waits) == sentence[0][-1]
    assert all(wait > 0 for wait in waits)
