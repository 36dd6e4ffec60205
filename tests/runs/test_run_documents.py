"""Runs over documents: compared with each other, and by position."""

import dataclasses
import math
from pathlib import Path

import pytest
from document_traces import alone, documents
from test_compare import CONFIG, make_run

from streamllm.files import RunError
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.longform import LATENCIES, sentence_latency
from streamllm.runs import bootstrap, drift_table, load_runs, paired_test, sentence_table
from streamllm.runs.documents import FEW, cut
from streamllm.runs.folder import RunFolder
from streamllm.runs.scored import AWARE


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return make_run(tmp_path / "good-1", documents(k=2, noise=0.1))


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return make_run(tmp_path / "bad-2", documents(k=4, noise=0.6, seed=1))


def test_values_are_those_of_the_metrics(good: Path):
    found, metrics = bootstrap(good, samples=10), RunFolder(good).metrics()
    assert list(found) == ["bleu", "chrf", *LATENCIES]
    assert {name: one.value for name, one in found.items()} == pytest.approx({name: metrics[name] for name in found})


def test_documents_on_a_clock_have_their_lags_with_compute(tmp_path: Path):
    cost = {"words_per_second": 2.5, "seconds_per_read": 0.1, "seconds_per_write": 0.2}
    config = {**CONFIG, "arrival": {"_target_": "streamllm.metrics.arrival.arrival_clock", **cost}}
    run = make_run(tmp_path / "run-1", documents(k=2, noise=0.1), config, arrival=ArrivalClock(**cost))
    found, metrics = bootstrap(run, samples=10, metrics=[*AWARE]), RunFolder(run).metrics()
    assert {name: one.value for name, one in found.items()} == {name: metrics[name] for name in AWARE}
    assert metrics["ca_long_laal"] > metrics["long_laal"]


def test_latencies_are_columns_of_the_runs_in_a_folder(good: Path):
    runs = load_runs(good.parent)
    assert runs["long_yaal"].tolist() == [RunFolder(good).metrics()["long_yaal"]]
    assert runs["laal"].isna().all()


def test_sentences_stand_in_the_table_with_what_was_written_for_each(good: Path, bad: Path):
    table = sentence_table(good, bad)
    assert list(table["id"][:5]) == ["d0#1", "d0#2", "d0#3", "d0#4", "d1#1"]
    own = [one for document in cut(documents(k=2, noise=0.1), "de", "word") for one in document]
    assert list(table["prediction_a"]) == [one.prediction for one in own]
    assert list(table["long_laal_a"]) == pytest.approx([sentence_latency(one, "word")["long_laal"] for one in own])


def test_few_documents_are_drawn_and_exchanged_by_sentences_and_many_whole(tmp_path: Path, good: Path, bad: Path):
    few = paired_test(good, bad, samples=10, metrics=["bleu"], trials=100)["bleu"]
    assert few.test == "approximate randomisation of their sentences"
    runs = [make_run(tmp_path / f"many-{n}", documents(FEW, 2, noise=n / 2, seed=n)) for n in (0, 1)]
    many = paired_test(*runs, samples=10, metrics=["bleu"], trials=1000)["bleu"]
    assert many.test == "approximate randomisation of documents"
    assert many.difference < 0
    assert many.p_value == 2 / 2**FEW  # all documents speak for the first


def test_latency_of_sentences_is_refused_for_documents(good: Path):
    with pytest.raises(ValueError, match=r"\['laal'\].*good-1, a run over documents, has bleu, chrf, long_yaal"):
        bootstrap(good, metrics=["laal"])


def test_documents_and_sentences_are_not_compared(tmp_path: Path, good: Path):
    single = make_run(tmp_path / "alone-1", alone())
    with pytest.raises(RunError, match=r"good-1 is over documents and .*alone-1 over single sentences"):
        paired_test(single, good)


# --- position


def test_parts_hold_the_sentences_at_that_position(good: Path):
    table = drift_table({"a": good}, groups=2, samples=20)
    assert list(table["position"]) == ["0–50 %", "50–100 %"]
    assert list(table["sentences"]) == [6, 6]
    assert list(table["documents"]) == [3, 3]
    rows = sentence_table(good, good)
    first = rows[rows["id"].str[-1].isin(["1", "2"])]
    assert table["long_laal"][0] == pytest.approx(first["long_laal_a"].mean())
    assert (table["bleu_low"] <= table["bleu"]).all() and (table["bleu"] <= table["bleu_high"]).all()


def test_short_documents_are_grouped_by_sentence_and_longer_ones_in_quarters(tmp_path: Path, good: Path):
    assert list(drift_table({"a": good}, samples=0)["position"]) == ["1", "2", "3", "4"]
    longer = make_run(tmp_path / "longer-1", documents(1, 12))
    assert len(drift_table({"a": longer}, samples=0)) == 4


def test_without_samples_there_is_no_interval(good: Path):
    table = drift_table({"a": good}, samples=0)
    assert table["bleu_low"].isna().all() and table["bleu"].notna().all()


def test_sentences_alone_take_their_places_in_the_documents(tmp_path: Path, good: Path):
    """Even out of order: a run that reads and writes the same has the same scores at each position."""
    single = make_run(tmp_path / "alone-1", alone(k=2)[::-1])
    whole = make_run(tmp_path / "whole-1", documents(k=2))
    table = drift_table({"whole": whole, "alone": single}, samples=0)
    of = {name: rows.reset_index(drop=True) for name, rows in table.groupby("run")}
    assert list(of["alone"]["long_laal"]) == pytest.approx(list(of["whole"]["long_laal"]))
    assert list(of["alone"]["bleu"]) == pytest.approx([100.0] * 4)


def test_run_over_other_sentences_is_refused(tmp_path: Path, good: Path):
    single = make_run(tmp_path / "alone-1", alone(2))
    with pytest.raises(RunError, match="has none for sentence 1 of document 'd2': give runs over the same text"):
        drift_table({"a": good, "b": single})


def test_position_needs_documents(tmp_path: Path):
    single = make_run(tmp_path / "alone-1", alone())
    with pytest.raises(RunError, match=r"no run over documents; position needs one"):
        drift_table({"a": single})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "groups is 0; accepted are a number of parts"),
        ({"latency": "laal"}, "latency is 'laal'; accepted are long_yaal"),
        ({"samples": -1}, "samples is -1; give a number of samples"),
    ],
)
def test_what_cannot_be_meant_is_refused(good: Path, options: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        drift_table({"a": good}, **options)  # type: ignore[arg-type]


def test_document_without_output_has_no_latency_and_counts_for_quality(tmp_path: Path):
    traces = documents(2)
    events = tuple(event for event in traces[0].events if event.kind != "write")
    silent = dataclasses.replace(traces[0], units=(), delays=(), elapsed=(), events=events, prediction="")
    table = drift_table({"a": make_run(tmp_path / "half-1", [silent, traces[1]])}, groups=1, samples=0)
    assert 0 < table["bleu"][0] < 100
    assert math.isfinite(table["long_laal"][0])
