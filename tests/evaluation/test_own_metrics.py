"""A metric of the user's on its way through a run: nothing is translated for it, and nothing is lost by it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from shouting import CONFIG, EXAMPLES, Recorder, Sentences, ShoutingModel, never, run

from streamllm.evaluation.rescore import rescore
from streamllm.evaluation.runner import run_experiment
from streamllm.metrics.latency import METRICS as LATENCIES
from streamllm.metrics.own import MetricError
from streamllm.plots.style import score_of
from streamllm.policies import WaitK
from streamllm.records import Trace
from streamllm.runs.folder import METRICS, PREDICTIONS, RunFolder
from streamllm.runs.load import load_runs
from streamllm.runs.scores import SCORES, own_of

OPTIONS: Any = {"config": CONFIG, "name": "test", "policy": WaitK(2), "dataset": Sentences()}


class Units:
    """How many units were written."""

    key, label, digits, higher_is_better = "units", "Units", 0, True
    times = 1

    def __call__(self, traces: Sequence[Trace]) -> float:
        return self.times * sum(len(trace.units) for trace in traces)


class Broken(Units):
    def __call__(self, traces: Sequence[Trace]) -> float:
        raise KeyError("nothing")


WRITTEN = sum(len(example.reference.split()) for example in EXAMPLES)


def test_own_metric_is_on_the_screen_in_the_file_and_with_the_tracker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tracker = Recorder()
    metrics = run(tmp_path / "run-1", metrics=[Units()], tracker=tracker)
    assert f"  own      Units {WRITTEN}\n" in capsys.readouterr().out
    assert metrics["units"] == json.loads((tmp_path / "run-1" / METRICS).read_text())["units"] == WRITTEN
    assert tracker.told["summary"]["units"] == WRITTEN


def test_own_metric_is_a_column_of_runs_and_an_axis_under_its_label(tmp_path: Path):
    run(tmp_path / "run-1", metrics=[Units()])
    runs = load_runs(tmp_path)
    assert runs["units"].tolist() == [WRITTEN]
    assert score_of("units", runs).axis == "Units"
    assert score_of("units").axis == "units", "nothing tells"


def test_run_without_own_metrics_has_no_file_about_them(tmp_path: Path):
    run(tmp_path / "run-1")
    assert not (tmp_path / "run-1" / SCORES).exists()


def test_metrics_are_not_part_of_what_names_a_run():
    assert RunFolder.of({**CONFIG, "metrics": {"units": {}}}, "a").path == RunFolder.of(CONFIG, "a").path


def test_finished_run_computes_what_it_lacks_without_translating(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = run_experiment(model=ShoutingModel(), root=tmp_path, **OPTIONS)
    tracker = Recorder()
    after = run_experiment(model=never, root=tmp_path, metrics=[Units()], tracker=tracker, **OPTIONS)
    assert after == before | {"units": WRITTEN}
    (file,) = tmp_path.glob(f"*/{METRICS}")
    assert json.loads(file.read_text()) == after
    assert [score.label for score in own_of(file.parent)] == ["Units"]
    assert "Units: computed now" in capsys.readouterr().out
    assert tracker.told["summary"]["units"] == WRITTEN, "what is new is told"


def test_finished_run_computes_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run_experiment(model=ShoutingModel(), root=tmp_path, metrics=[Units()], **OPTIONS)
    assert run_experiment(model=never, root=tmp_path, metrics=[Broken()], **OPTIONS)["units"] == WRITTEN
    assert "computed now" not in capsys.readouterr().out


def test_metric_that_fails_costs_no_translation_and_the_same_command_goes_on(tmp_path: Path):
    folder = tmp_path / "run-1"
    with pytest.raises(MetricError, match="Broken"):
        run(folder, metrics=[Broken()])
    assert not (folder / METRICS).exists()
    stored = (folder / PREDICTIONS).read_bytes()
    assert stored.count(b"\n") == len(EXAMPLES)
    assert run(folder, never, metrics=[Units()])["units"] == WRITTEN
    assert (folder / PREDICTIONS).read_bytes() == stored


def test_metric_that_fails_on_a_finished_run_leaves_it_as_it_is(tmp_path: Path):
    run_experiment(model=ShoutingModel(), root=tmp_path, **OPTIONS)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*/*")}
    with pytest.raises(MetricError):
        run_experiment(model=never, root=tmp_path, metrics=[Broken()], **OPTIONS)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*/*")} == before


def test_metric_that_cannot_be_used_is_refused_before_anything_is_translated(tmp_path: Path):
    class Taken(Units):
        key = "bleu"

    with pytest.raises(MetricError, match="bleu"):
        run(tmp_path / "run-1", never, metrics=[Taken()])
    assert not (tmp_path / "run-1").exists()


def test_latency_that_is_new_is_on_the_screen_and_in_the_table_of_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(LATENCIES, "first", lambda delays, x, y: float(delays[0]))
    tracker = Recorder()
    run(tmp_path / "run-1", tracker=tracker)
    assert "   FIRST 2.00\n" in capsys.readouterr().out
    assert tracker.told["sentence_table"][0]["first"] == 2


# --- scoring again


CONFIG_WITH_LANGUAGE = {**CONFIG, "dataset": {"target_language": "en"}}


def test_scoring_again_gives_the_same_and_changes_no_other_file(tmp_path: Path):
    run_experiment(model=ShoutingModel(), root=tmp_path, **{**OPTIONS, "config": CONFIG_WITH_LANGUAGE})
    (file,) = tmp_path.glob(f"*/{METRICS}")
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    metrics = json.loads(file.read_text())
    assert rescore(file.parent) == {**metrics, "early_ends": None}, "the limit was not given"
    after = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {METRICS}


def test_scoring_again_computes_own_metrics_anew_and_keeps_others(tmp_path: Path):
    config = {**OPTIONS, "config": CONFIG_WITH_LANGUAGE}
    run_experiment(model=ShoutingModel(), root=tmp_path, metrics=[Units()], **config)
    (file,) = tmp_path.glob(f"*/{METRICS}")
    changed = Units()
    changed.times = 2
    assert rescore(file.parent)["units"] == WRITTEN
    assert rescore(file.parent, [changed])["units"] == 2 * WRITTEN
    assert json.loads(file.read_text())["units"] == 2 * WRITTEN
