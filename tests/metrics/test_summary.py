"""The summary of a run: one flat JSON object over its traces."""

import dataclasses
import json
from typing import Any

import pytest
from conftest import ROOT
from document_traces import documents
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.engine.limits import Limits
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.behaviour import source_after_last_write
from streamllm.metrics.latency import corpus_latency, latency
from streamllm.metrics.quality import quality
from streamllm.metrics.summary import Summary, summarise
from streamllm.records import Event, Trace

KEYS = [
    "sentences",
    "sentences_without_output",
    "bleu",
    "chrf",
    "length_ratio",
    "al",
    "laal",
    "ap",
    "dal",
    "yaal",
    "atd",
    "cw",
    "cw_max",
    "al_seconds",
    "laal_seconds",
    "al_ca",
    "laal_ca",
    "ne",
    "alternations",
    "seconds_per_sentence",
    "target_tokens_per_second",
    "forward_passes",
    "forward_passes_per_target_token",
    "forced_reads",
    "early_stops",
    "early_ends",
    "sentences_cut_short",
    "source_after_last_write",
    "max_units_stops",
    "max_tokens_stops",
    "bleu_signature",
    "chrf_signature",
    "latency_signature",
]


def trace(prediction: str, delays: tuple[int, ...], reference: str = "a b c d", **changes: object) -> Trace:
    plain = Trace(
        id="0",
        source="s t u v",
        reference=reference,
        units=tuple(prediction.split()),
        delays=delays,
        elapsed=(0.0,) * len(delays),
        events=(),
        source_units=4,
        prediction=prediction,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


FULL = trace("a b c d", (4, 4, 4, 4))
EARLY = trace("a b x", (1, 2, 3))
SILENT = trace("", ())


def test_the_keys_are_those_of_metrics_json() -> None:
    assert list(summarise([FULL], "de", "word")) == KEYS


def test_the_page_on_metrics_tells_every_key() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition("<!-- end of scores -->")[2]
    assert [key for key in KEYS if f"| `{key}` |" not in page] == []


def test_quality_is_over_all_sentences() -> None:
    traces = [FULL, EARLY, SILENT]
    expected = quality([t.prediction for t in traces], [t.reference for t in traces], "de")
    summary = summarise(traces, "de", "word")
    assert {key: summary[key] for key in expected} == expected


def test_latency_is_over_sentences_with_output() -> None:
    summary = summarise([FULL, SILENT, EARLY], "de", "word")
    early = latency(EARLY.delays, 4, EARLY.reference, "word")
    assert summary["al"] == (4 + early["al"]) / 2
    assert summary["ap"] == (1 + early["ap"]) / 2
    assert (summary["sentences"], summary["sentences_without_output"]) == (3, 1)


def test_the_source_length_is_that_of_the_trace() -> None:
    assert summarise([trace("a b", (4, 4), source_units=8)], "de", "word")["ap"] == 8 / (8 * 4)


def test_the_unit_is_that_of_the_target() -> None:
    chinese = trace("你好", (2, 4), reference="你好吗", units=("你", "好"))
    assert summarise([chinese], "zh", "character")["ap"] == 6 / (4 * 3)


def test_cost_is_summed_over_sentences() -> None:
    stats: list[dict[str, Any]] = [
        {"seconds": 1.0, "forward_passes": 9, "source_tokens": 6, "target_tokens": 5},
        {"seconds": 3.0, "forward_passes": 6, "source_tokens": 7, "target_tokens": 5},
    ]
    summary = summarise([dataclasses.replace(FULL, stats=s) for s in stats], "de", "word")
    assert summary["seconds_per_sentence"] == 2.0
    assert summary["target_tokens_per_second"] == 2.5
    assert summary["forward_passes"] == 15
    assert summary["forward_passes_per_target_token"] == 1.5


def test_a_ratio_is_over_the_traces_that_hold_both_parts() -> None:
    stats: list[dict[str, Any]] = [
        {"seconds": 2.0, "target_tokens": 6},
        {"seconds": 4.0},
        {"target_tokens": 100},
        {},
    ]
    summary = summarise([dataclasses.replace(FULL, stats=s) for s in stats], "de", "word")
    assert summary["target_tokens_per_second"] == 3.0
    assert summary["seconds_per_sentence"] == 3.0
    assert summary["forward_passes"] is None


def test_what_was_not_measured_is_none() -> None:
    summary = summarise([FULL], "de", "word")
    cost = KEYS[KEYS.index("seconds_per_sentence") : KEYS.index("forced_reads")]
    assert len(cost) == 4
    assert [summary[key] for key in cost] == [None] * 4


def test_no_target_token_at_all_leaves_the_ratio_undefined() -> None:
    idle = {"seconds": 0.0, "forward_passes": 3, "target_tokens": 0}
    summary = summarise([dataclasses.replace(SILENT, stats=idle)], "de", "word")
    assert summary["forward_passes"] == 3
    assert summary["forward_passes_per_target_token"] is None
    assert summary["target_tokens_per_second"] is None


def test_forced_reads_are_events_and_early_stops_are_sentences() -> None:
    forced = (Event("read"), Event("forced_read"), Event("forced_read"), Event("stop", "end_token"))
    early = (Event("forced_read"), Event("stop", "early_stop"))
    summary = summarise([trace("a", (2,), events=forced), trace("a", (1,), events=early)], "de", "word")
    assert (summary["forced_reads"], summary["early_stops"]) == (3, 1)


def events_of(*kinds: str) -> tuple[Event, ...]:
    return tuple(Event(kind) for kind in kinds)


def test_sentences_that_start_with_the_whole_source_are_not_in_yaal() -> None:
    summary = summarise([FULL, EARLY], "de", "word")
    assert summary["yaal"] == latency(EARLY.delays, 4, EARLY.reference, "word")["yaal"]
    assert summarise([FULL], "de", "word")["yaal"] is None


def test_consecutive_waits_are_means_over_sentences() -> None:
    uneven = trace("a b c", (1, 1, 4))
    summary = summarise([FULL, uneven, SILENT], "de", "word")
    assert (summary["cw"], summary["cw_max"]) == ((4 + 2) / 2, (4 + 3) / 2)


def test_alternations_are_a_mean_over_the_sentences_with_events() -> None:
    twice = trace("a b", (1, 2), events=events_of("read", "write", "read", "write", "end", "stop"))
    never = trace("", (), events=events_of("read", "end", "stop"))
    assert summarise([twice, never, FULL], "de", "word")["alternations"] == 1
    assert summarise([FULL], "de", "word")["alternations"] is None


def test_erasure_is_none_without_drafts() -> None:
    drafted = trace("a b", (1, 1), events=(Event("draft", "a x"), Event("write", "a"), Event("write", "b")))
    assert summarise([drafted], "de", "word")["ne"] == 1 / 2
    assert summarise([FULL], "de", "word")["ne"] is None


def test_early_ends_need_the_length_limit() -> None:
    forced = trace("a", (2,), events=(Event("forced_read"), Event("write", "a"), Event("forced_read")))
    stopped = trace("", (), events=(Event("read"), Event("stop", "early_stop")))
    limits = Limits(length_ratio=0, length_extra=1)
    summary = summarise([forced, stopped], "de", "word", at_limit=limits.reached)
    assert (summary["forced_reads"], summary["early_stops"], summary["early_ends"]) == (2, 1, 2)
    assert summarise([forced], "de", "word")["early_ends"] is None


def test_sentences_cut_at_the_length_limit_are_counted() -> None:
    cut = trace("a", (2,), events=(Event("stop", "max_units"),))
    ended = trace("a", (2,), events=(Event("stop", "end_token"),))
    assert summarise([cut, ended, cut], "de", "word")["max_units_stops"] == 2
    endless = trace("c", (2,), events=(Event("limit", "max_tokens"), Event("end"), Event("stop", "max_tokens")))
    summary = summarise([cut, endless], "de", "word")
    assert (summary["max_units_stops"], summary["max_tokens_stops"]) == (1, 1)


TIMED = ("al_seconds", "laal_seconds", "al_ca", "laal_ca")


def test_latency_in_seconds_is_over_the_given_clock() -> None:
    timed = trace("a", (2,), reference="a", source_units=2, events=events_of("read", "read", "write", "end", "stop"))
    summary = summarise([timed], "de", "word", ArrivalClock(2, seconds_per_read=0.25, seconds_per_write=0.5))
    assert [summary[key] for key in TIMED] == [1, 1, 1.75, 1.75]


def test_without_a_clock_there_is_no_latency_in_seconds() -> None:
    assert [summarise([FULL], "de", "word")[key] for key in TIMED] == [None] * 4


def test_without_recorded_times_only_the_ideal_latency_is_known() -> None:
    untimed = trace("a", (4,), events=events_of(*["read"] * 4, "write"))
    summary = summarise([untimed], "de", "word", ArrivalClock(2))
    assert [summary[key] for key in TIMED] == [2, 2, None, None]


def test_a_run_without_any_output_is_still_json() -> None:
    summary = summarise([SILENT, SILENT], "de", "word")
    assert (summary["al"], summary["dal"], summary["bleu"]) == (None, None, 0)
    json.dumps(summary, allow_nan=False)


def test_no_traces_are_refused() -> None:
    with pytest.raises(ValueError, match="0 traces"):
        summarise([], "de", "word")


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="'syllable'"):
        summarise([FULL], "de", "syllable")


# --- trace by trace

EVENTS = [
    *(Event(kind, "a b", 0.1) for kind in ("read", "write", "forced_read", "draft", "shown", "extend")),
    *(Event("stop", reason) for reason in ("end_token", "early_stop", "max_units", "max_tokens")),
]


@st.composite
def some_traces(draw: st.DrawFn) -> list[Trace]:
    number = st.one_of(st.none(), st.integers(0, 9), st.floats(0, 9))
    found = []
    for name in range(draw(st.integers(1, 6))):
        delays = tuple(sorted(draw(st.lists(st.integers(0, 9), max_size=5))))
        stats = {key: draw(number) for key in ("seconds", "forward_passes", "target_tokens")}
        events = tuple(draw(st.lists(st.sampled_from(EVENTS), max_size=6)))
        text = " ".join("abcd,."[delay % 6] for delay in delays)
        found.append(trace(text, delays, id=str(name), source_units=9, stats=stats, events=events))
    return found


@settings(max_examples=60, deadline=None)
@given(some_traces(), st.randoms(use_true_random=False))
def test_traces_taken_in_as_they_come_give_the_summary_of_all_in_their_order(traces: list[Trace], random: Any) -> None:
    limits = Limits()
    summary = Summary("de", "word", at_limit=limits.reached)
    for one in random.sample(traces, len(traces)):
        summary.add(one)
    found = summary.metrics([one.id for one in traces])
    assert found == summarise(traces, "de", "word", at_limit=limits.reached)
    lags = [latency(one.delays, one.source_units, one.reference, "word")["al"] for one in traces]
    assert found["al"] == corpus_latency({"al": lag} for lag in lags).means["al"] or found["al"] is None
    assert summary.running.get("laal") == pytest.approx(found["laal"])
    assert summary.running["bleu"] == found["bleu"] == quality(*zip(*map(texts, traces), strict=True), "de")["bleu"]
    parts = [source_after_last_write(one) for one in traces]
    assert found["source_after_last_write"] == sum(parts) / len(parts)
    assert json.loads(json.dumps(found)) == found


def test_the_running_score_of_whole_documents_does_not_go_by_the_name_of_their_sentences() -> None:
    summary = Summary("de", "word", documents=True)
    for one in documents(2, noise=0.3):
        summary.add(one)
    assert list(summary.running) == ["document_bleu"]
    assert summary.running["document_bleu"] != summary.metrics()["bleu"]


def texts(one: Trace) -> tuple[str, str]:
    return one.prediction, one.reference
