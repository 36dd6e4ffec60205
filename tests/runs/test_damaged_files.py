"""Run folders whose files somebody has edited or cut: they are read, or one line says the file and what to do."""

import json
import logging
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated, read_or_refused
from shouting import EXAMPLES, Recorder, never, run

from streamllm.checked import fit, parse
from streamllm.files import RunError
from streamllm.metrics.summary import summarise
from streamllm.runs.folder import CONFIG, ENVIRONMENT, METRICS, PREDICTIONS, TIMINGS, RunFolder
from streamllm.runs.instances import read_instances
from streamllm.runs.lines import PredictionLine, TimingLine, from_lines, json_line, to_prediction
from streamllm.runs.load import load_delays, load_runs, read_config, target_of
from streamllm.runs.quick import quick_prediction, quick_timing
from streamllm.runs.scores import SCORES, own_of

LINE: dict[str, Any] = {
    "id": "1",
    "source": "ein Hund,",
    "reference": "a dog,",
    "prediction": "a dog,",
    "delays": [1, 2],
    "elapsed": [0, 0],
    "units": ["a", "dog,"],
    "source_units": 2,
    "events": [
        *({"kind": "read", "text": "ein"}, {"kind": "write", "text": "a"}, {"kind": "read", "text": "Hund,"}),
        *({"kind": "write", "text": "dog"}, {"kind": "extend", "text": ","}, {"kind": "stop", "text": "end_token"}),
    ],
    "stats": {"forward_passes": 6},
}
TIMING: dict[str, Any] = {"id": "1", "elapsed": [0.1, 0.2], "events": [0.1] * 6, "stats": {"seconds": 0.3}}


def stored(path: Path, *lines: Any, timings: bytes = b"") -> RunFolder:
    folder = RunFolder(path)
    folder.path.mkdir(exist_ok=True)
    (path / PREDICTIONS).write_bytes(b"".join(line if isinstance(line, bytes) else json_line(line) for line in lines))
    (path / TIMINGS).write_bytes(timings)
    return folder


# --- predictions.jsonl


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ...}, "it has no source"),
        ({"id": ["1"]}, "id is ['1']; it should be text"),
        ({"events": None}, "events is None; it should be a list"),
        ({"events": [None]}, "events[0] is None; it should be an object"),
        ({"events": [{"kind": "guess"}]}, "events[0]: kind is 'guess'; accepted are read, end, write"),
        ({"delays": [-1, 2]}, "delays hold -1 after 0; they rise from 0 to source_units, which is 2"),
        ({"delays": [2, 1]}, "delays hold 1 after 2"),
        ({"delays": [1, 3]}, "delays hold 3 after 1"),
        ({"delays": [1, 1.5]}, "delays[1] is 1.5; it should be a whole number"),
        ({"delays": [1]}, "it has 2 units, 1 delays and 2 times in elapsed"),
        ({"elapsed": [0]}, "it has 2 units, 2 delays and 1 times in elapsed"),
        (
            {"units": ["a", "dog", ","], "delays": [1, 2, 2], "elapsed": [0] * 3},
            "it has 3 units, and 2 events that write one",
        ),
        ({"stats": {"forward_passes": "six"}}, "a value of stats is not a number or null"),
        (
            {"segments": [{"start": 1, "units": 2, "source": "", "reference": ""}]},
            "segments hold one of 2 units from 1",
        ),
    ],
)
def test_a_line_of_the_wrong_shape_is_named_with_what_to_do(tmp_path: Path, changes: Any, message: str) -> None:
    wrong = {key: value for key, value in (LINE | changes).items() if value is not ...}
    folder = stored(tmp_path / "run-1", LINE | {"id": "0"}, wrong)
    with pytest.raises(RunError) as raised:
        folder.traces()
    said = str(raised.value)
    assert said.startswith(f"{tmp_path}/run-1/predictions.jsonl, line 2 is damaged ({message}")
    assert said.endswith(
        "remove that line (and metrics.json, if it is there), and the same command translates it again"
    )


def test_a_line_of_an_older_or_a_later_version_is_read(tmp_path: Path) -> None:
    old = {key: value for key, value in LINE.items() if key != "stats"} | {"later": {"some": "thing"}}
    (trace,) = stored(tmp_path / "run-1", old).traces()
    assert (trace.prediction, trace.stats, trace.segments) == ("a dog,", {}, ())


def test_a_sentence_that_is_there_twice_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    run(tmp_path / "run-1", examples=EXAMPLES[:3])
    (tmp_path / "run-1" / METRICS).unlink()
    path = tmp_path / "run-1" / PREDICTIONS
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(RunError, match=r"predictions\.jsonl, lines 2 and 4 both hold the sentence '1': remove one of"):
        run(tmp_path / "run-1", never)


@settings(max_examples=80)
@given(st.lists(mutated(LINE), min_size=1, max_size=2), mutated(TIMING))
def test_any_line_is_read_as_a_trace_that_can_be_scored_or_refused(lines: list[bytes], timing: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = stored(Path(folder) / "run-1", *(line + b"\n" for line in lines), timings=timing + b"\n")
        logging.disable()
        traces = read_or_refused(found.traces, RunError)
        logging.disable(logging.NOTSET)
        if traces is None:
            return
        again = stored(Path(folder) / "run-1", *map(to_prediction, traces))
        assert [to_prediction(trace) for trace in again.traces()] == [to_prediction(trace) for trace in traces]
        load_delays(again.path)
        if traces:
            summarise(traces, "en", "word")


@settings(max_examples=150, deadline=None)
@given(st.just(json_line(LINE)) | mutated(LINE), st.just(json_line(TIMING)) | mutated(TIMING))
def test_what_is_read_quickly_is_what_is_read_by_value(line: bytes, timing: bytes) -> None:
    prediction = quick_prediction(line)
    if prediction is not None:
        times = quick_timing(timing)
        by_value = fit(parse(line.strip()), PredictionLine)
        assert repr(from_lines(prediction, None)) == repr(from_lines(by_value, None))
        if times is not None:
            assert astuple(fit(parse(timing.strip()), TimingLine)) == (
                times.id,
                times.elapsed,
                times.events,
                times.stats,
            )


def test_lines_as_they_are_written_are_read_quickly() -> None:
    assert quick_prediction(json_line(LINE)) is not None
    assert quick_timing(json_line(TIMING)) is not None


# --- timings.jsonl


@pytest.mark.parametrize(
    "damage",
    [
        b"[]",
        b"{",
        b"\xff",
        json.dumps({**TIMING, "elapsed": ["0.1", 0.2]}).encode(),
        json.dumps({**TIMING, "elapsed": [-0.1, 0.2]}).encode(),
        json.dumps({**TIMING, "events": None}).encode(),
        json.dumps({**TIMING, "id": ["1"]}).encode(),
        json.dumps({**TIMING, "stats": {"seconds": "0.3"}}).encode(),
        b'{"id": "1", "elapsed": [1e999, 1], "events": []}',
    ],
)
def test_damaged_times_cost_times_and_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes) -> None:
    other = json_line({**TIMING, "id": "2"})
    first, second = stored(tmp_path / "run-1", LINE, LINE | {"id": "2"}, timings=damage + b"\n" + other).traces()
    assert (first.elapsed, first.stats) == ((0.0, 0.0), {"forward_passes": 6})
    assert (second.elapsed, second.stats) == ((0.1, 0.2), {"forward_passes": 6, "seconds": 0.3})
    (said,) = caplog.messages
    assert f"{tmp_path}/run-1/timings.jsonl is damaged (line 1: " in said and "times of 1 sentences are lost" in said


# --- env.json, metrics.json, scores.json, contents.json


@pytest.mark.parametrize(
    "content", ["[]", "{", "3", '{"commit": 5}', '{"dirty": "yes"}', "[" * 100_000, '{"command": []}']
)
def test_a_damaged_env_json_costs_one_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    first = run(tmp_path / "run-1", examples=EXAMPLES[:2])
    (tmp_path / "run-1" / ENVIRONMENT).write_text(content)
    (tmp_path / "run-1" / METRICS).unlink()
    caplog.clear()
    tracker = Recorder()
    again = run(tmp_path / "run-1", never, examples=EXAMPLES[:2], tracker=tracker)
    assert again["bleu"] == first["bleu"]
    assert (tracker.told["summary"]["bleu"], tracker.told["summary"]["env"]) == (first["bleu"], {})
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{ENVIRONMENT} is damaged" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "it is []; it should be an object"),
        ("{}", "it holds no metrics"),
        ('{"bleu": "x"}', "bleu is 'x'; it should be a finite number or null"),
        ('{"bleu": true}', "bleu is True"),
        ('{"bleu": NaN}', "NaN is no number of JSON"),
        ('{"bleu": 1e999}', "bleu is inf"),
        (f'{{"forward_passes": 1{"0" * 400}}}', "forward_passes is 1000"),
        ('{"bleu": {"score": 1}}', "bleu is {'score': 1}"),
        ('{"bleu_signature": 5}', "bleu_signature is 5; it should be text"),
    ],
)
def test_metrics_of_the_wrong_shape_are_named_and_leave_other_runs_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, message: str
) -> None:
    for name in ("run-1", "run-2"):
        run(tmp_path / name, examples=EXAMPLES[:1])
    (tmp_path / "run-1" / METRICS).write_text(content)
    with pytest.raises(RunError) as raised:
        RunFolder(tmp_path / "run-1").metrics()
    assert str(raised.value).startswith(f"{tmp_path}/run-1/metrics.json is damaged ({message}")
    assert str(raised.value).endswith("delete that file, and the same command finishes the run again")
    caplog.clear()
    assert list(load_runs(tmp_path)["folder"]) == [str(tmp_path / "run-2")]
    assert caplog.messages == [f"left out: {raised.value}"]


@pytest.mark.parametrize(
    "content",
    ["{}", "5", "[5]", '[{"key": "a"}]', '[{"key": "a", "label": "A", "digits": -1, "higher_is_better": null}]'],
)
def test_damaged_names_of_own_metrics_cost_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / SCORES).write_text(content)
    assert own_of(tmp_path) == []
    (said,) = caplog.messages
    assert f"{tmp_path / SCORES} is damaged (" in said


@pytest.mark.parametrize("content", ["[]", '{"data": []}', '{"data": {"a": 1}}', "[" * 100_000])
def test_a_damaged_record_of_what_a_run_was_made_from_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "contents.json").write_text(content)
    with pytest.raises(RunError, match=r"contents\.json is damaged \(.*rerun=true"):
        RunFolder(tmp_path).contents()


# --- run.yaml

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "it is []; it should be an object"),
        ("policy: waitk", "policy is 'waitk'; it should be an object or null"),
        ("policy: {_target_: 5}", "'_target_' is 5"),
        ("1: 2", "1 is 2; keys are text"),
        ("a: [", "did not find expected node content"),
        (f"a: {'[' * 200}{']' * 200}", "it is nested too deep"),
        ("a: &a [*a]", "nested too deep"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (BOMB, "too many values"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(RunError, match=r"run\.yaml is damaged \(") as raised:
        read_config(tmp_path)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("{_target_: os.getcwd}", "os.getcwd is no class of data sets"),
        ("{_target_: streamllm.corpora.Nothing}", "cannot be made"),
        ("{_target_: streamllm.data.sample.Sample, no_such: 1}", "no_such"),
        ("{target_language: 5}", "dataset.target_language is 5; it is text"),
        ("{target_language: de, target_unit: 5}", "unit is 5"),
        ("{target_language: de, bleu_tokenizer: [1]}", "dataset.bleu_tokenizer is"),
    ],
)
def test_a_data_set_of_a_stored_configuration_is_checked_before_it_is_made(
    tmp_path: Path, dataset: str, message: str
) -> None:
    (tmp_path / CONFIG).write_text(f"dataset: {dataset}")
    with pytest.raises(ValueError, match=r"run\.yaml") as raised:
        target_of(tmp_path)
    assert message in str(raised.value)


# --- instances.log of SimulEval

INSTANCE: dict[str, Any] = {
    "index": 0,
    "prediction": "a dog",
    "delays": [1, 2],
    "elapsed": [0, 0],
    "prediction_length": 2,
    "reference": "a dog",
    "source": ["ein", "Hund"],
    "source_length": 2,
}


@settings(max_examples=30)
@given(mutated(INSTANCE))
def test_any_line_of_simuleval_is_read_or_refused(line: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.log"
        path.write_bytes(line)
        if traces := read_or_refused(lambda: read_instances(path, "word"), RunError):
            summarise(traces, "en", "word")


def test_negative_delays_of_simuleval_are_refused(tmp_path: Path) -> None:
    (tmp_path / "instances.log").write_text(json.dumps(INSTANCE | {"delays": [-1, 2]}))
    with pytest.raises(RunError, match=r"line 1 is not a line of SimulEval's .*at least 0"):
        read_instances(tmp_path, "word")
