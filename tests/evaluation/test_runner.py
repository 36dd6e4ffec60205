"""The runner: what it makes of traces, and that a run killed anywhere ends with the same bytes."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from document_traces import documents
from full_disk import full_disk
from shouting import CONFIG, EXAMPLES, Recorder, Sentences, Shouting, ShoutingModel, never, run, shout
from test_compare import make_run

from streamllm.engine.loop import translate
from streamllm.evaluation import progress, runner
from streamllm.evaluation.progress import logging_to
from streamllm.evaluation.runner import Translate, run_experiment
from streamllm.evaluation.tables import conclude
from streamllm.metrics.summary import summarise
from streamllm.policies import Full, WaitK
from streamllm.records import Emission, Example, Trace
from streamllm.runs.folder import ENVIRONMENT, METRICS, PREDICTIONS, RunFolder, RunInUse
from streamllm.runs.load import load_traces
from streamllm.tracking.tracker import Guarded

# --- what a run makes


def test_run_returns_and_stores_the_metrics_of_its_traces(tmp_path: Path):
    metrics = run(tmp_path / "run-1")
    assert metrics == json.loads((tmp_path / "run-1" / METRICS).read_text())
    assert metrics["bleu"] == pytest.approx(100)
    assert metrics["al"] == pytest.approx(2)
    assert metrics["sentences"] == len(EXAMPLES)
    assert [trace.prediction for trace in load_traces(tmp_path / "run-1")] == [e.reference for e in EXAMPLES]


def test_run_shows_its_results_and_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(tmp_path / "run-1")
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'run-1'}: 6 sentences" in printed
    assert "BLEU 100.00" in printed
    assert "AL 2.00" in printed


def test_tracker_is_told_steps_table_and_summary(tmp_path: Path):
    tracker = Recorder()
    metrics = run(tmp_path / "run-1", tracker=tracker)
    assert tracker.steps == [1, 2, 3, 4, 5, 6]
    assert tracker.told["id"] == "1"
    assert {key: tracker.told["summary"][key] for key in metrics} == metrics
    assert tracker.told["summary"]["folder"] == str(tmp_path / "run-1")
    assert tracker.told["summary"]["env"]["device"] in ("cpu", "gpu")
    assert tracker.told["exit_code"] == 0
    first = tracker.told["sentence_table"][0]
    assert (first["id"], first["prediction"], first["delays"]) == ("0", "ZERO ONE TWO", "2 3 3")
    assert (first["actions"], first["bleu"], first["al"]) == ("RRWRWW", pytest.approx(100), pytest.approx(2))


def test_path_of_a_sentence_is_drawn_when_a_tracker_asks_for_it(tmp_path: Path):
    tracker = Recorder()
    run(tmp_path / "run-1", tracker=tracker)
    assert tracker.told["sentence_table"][0]["path"].draw().startswith(b"\x89PNG")


def test_tracker_is_told_of_documents_their_sentences_and_their_drift(tmp_path: Path):
    folder, tracker = make_run(tmp_path / "run-1", documents(2)), Recorder()
    metrics = RunFolder(folder).metrics()
    conclude(Guarded(tracker), RunFolder(folder), load_traces(folder), metrics, "de", "word")
    assert [(row["id"], row["sentences"]) for row in tracker.told["document_table"]] == [("d0", 4), ("d1", 4)]
    assert tracker.told["document_table"][0]["path"].draw().startswith(b"\x89PNG")
    pieces = tracker.told["sentence_table"]
    assert [(row["document"], row["sentence"]) for row in pieces[3:5]] == [("d0", 4), ("d1", 1)]
    assert sum(row["long_laal"] for row in pieces) / 8 == pytest.approx(metrics["long_laal"])
    drifts = tracker.told["drift_table"]
    assert [row["position"] for row in drifts] == ["1", "2", "3", "4"]
    assert drifts[0]["figure"].draw().startswith(b"\x89PNG") and drifts[1]["figure"] is None


def test_matplotlib_is_not_imported_unless_something_is_drawn(tmp_path: Path):
    code = "import sys; from pathlib import Path; from shouting import Recorder, run\n"
    code += "run(Path(sys.argv[1]), tracker=Recorder()); sys.exit('matplotlib' in sys.modules)"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", code, str(tmp_path / "run-1")]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True).returncode == 0


def test_tracker_that_fails_changes_no_result(tmp_path: Path):
    class Failing(Recorder):
        def start(self, run: Any) -> None:
            raise OSError("no network")

    run(tmp_path / "plain-1")
    run(tmp_path / "failing-1", tracker=Failing())
    assert (tmp_path / "failing-1" / METRICS).exists()
    plain, failing = ((tmp_path / name / PREDICTIONS).read_bytes() for name in ("plain-1", "failing-1"))
    assert plain == failing


def test_log_of_the_run_is_in_its_folder(tmp_path: Path):
    run(tmp_path / "run-1")
    assert "finished" in (tmp_path / "run-1" / "run.log").read_text()


def test_references_that_look_tokenised_are_told_in_one_line_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def said(folder: str, examples: Sequence[Example]) -> list[str]:
        caplog.clear()
        run(tmp_path / folder, examples=examples)
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    assert said("plain-1", EXAMPLES) == []
    tokenised = [replace(example, reference=f"{example.reference} .") for example in EXAMPLES]
    (line,) = said("tokenised-2", tokenised)
    assert line.startswith("100% of the references and 0% of the predictions look tokenised")
    assert line in (tmp_path / "tokenised-2" / "run.log").read_text()


def test_sentences_without_output_do_not_break_the_running_scores(tmp_path: Path):
    class Silent(Shouting):
        def write(self) -> Emission:
            return Emission(None)

    def silent(examples: Sequence[Example]) -> Iterator[Trace]:
        return (translate(Silent(), example, WaitK(2)) for example in examples)

    metrics = run(tmp_path / "run-1", lambda: silent)
    assert metrics["sentences_without_output"] == len(EXAMPLES)
    assert metrics["al"] is None


def test_running_lagging_leaves_out_sentences_without_output(tmp_path: Path):
    class Mute(Shouting):
        def write(self) -> Emission:
            return Emission(None)

    def first_is_mute(examples: Sequence[Example]) -> Iterator[Trace]:
        for number, example in enumerate(examples):
            yield translate(Mute() if number == 0 else Shouting(), example, WaitK(2))

    tracker = Recorder()
    metrics = run(tmp_path / "run-1", lambda: first_is_mute, tracker=tracker)
    assert tracker.told["running"]["running/laal"] == pytest.approx(metrics["laal"])
    assert tracker.told["running"]["running/bleu"] == pytest.approx(metrics["bleu"])


def test_traces_may_come_in_any_order(tmp_path: Path):
    def backwards(examples: Sequence[Example]) -> Iterator[Trace]:
        return shout(list(reversed(examples)))

    run(tmp_path / "run-1")
    run(tmp_path / "run-2", lambda: backwards)
    one, two = ((tmp_path / name / PREDICTIONS).read_bytes() for name in ("run-1", "run-2"))
    assert one == two


@pytest.mark.parametrize("stopped_after", [None, 2])
def test_traces_in_any_order_are_kept_and_shown_in_that_of_the_data(tmp_path: Path, stopped_after: int | None):
    """As those of a batch come: long sentences first. Also where the run was stopped in between."""

    def backwards(examples: Sequence[Example]) -> Iterator[Trace]:
        for number, trace in enumerate(shout(list(reversed(examples)))):
            if number == stopped_after and len(examples) == len(EXAMPLES):
                raise KeyboardInterrupt
            yield trace

    if stopped_after is not None:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run-1", lambda: backwards)
        assert [trace.id for trace in load_traces(tmp_path / "run-1")] == ["5", "4"]
    tracker = Recorder()
    run(tmp_path / "run-1", lambda: backwards, tracker=tracker)
    ids = [example.id for example in EXAMPLES]
    assert [trace.id for trace in load_traces(tmp_path / "run-1")] == ids
    assert [row["id"] for row in tracker.told["sentence_table"]] == ids
    rows = [json.loads(line) for line in (tmp_path / "run-1" / "instances.log").read_text().splitlines()]
    assert [(row["index"], row["source"]) for row in rows] == [(i, e.source) for i, e in enumerate(EXAMPLES)]


# --- stopping and going on


def test_finished_run_shows_its_results_without_data_or_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options: Any = {"config": CONFIG, "name": "test", "policy": WaitK(2), "root": tmp_path}
    first = run_experiment(model=ShoutingModel(), dataset=Sentences(), **options)
    model = ShoutingModel()
    assert run_experiment(model=model, dataset=Sentences([]), **options) == first
    assert not model.loaded
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "finished before; to run it again, add rerun=true"),
        ({"dirty": True}, "finished before with other code (aaaaaaaaaa; now it is aaaaaaaaaa with changes); to run"),
        ({"commit": "b" * 40}, "finished before with other code (aaaaaaaaaa; now it is bbbbbbbbbb); to run it again"),
        ({"commit": None, "dirty": None}, "finished before; to run it again"),
    ],
)
def test_finished_run_says_that_it_was_made_by_other_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    said: str,
):
    options: Any = {"config": CONFIG, "name": "test", "policy": WaitK(2), "root": tmp_path, "dataset": Sentences()}
    then = {"commit": "a" * 40, "dirty": False}
    monkeypatch.setattr("streamllm.evaluation.runner.environment", lambda: then)
    monkeypatch.setattr("streamllm.evaluation.tables.code", lambda: then | change)
    for _ in range(2):
        run_experiment(model=ShoutingModel(), **options)
    assert said in capsys.readouterr().out


def test_damaged_env_json_costs_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options: Any = {"config": CONFIG, "name": "test", "policy": WaitK(2), "root": tmp_path, "dataset": Sentences()}
    first = run_experiment(model=ShoutingModel(), **options)
    (file,) = tmp_path.glob(f"*/{ENVIRONMENT}")
    file.write_text("{")
    assert run_experiment(model=ShoutingModel(), **options) == first
    assert "finished before; to run it again" in capsys.readouterr().out


@pytest.mark.parametrize("again", [False, True])
def test_finished_run_is_tracked_again_only_where_that_is_wanted(tmp_path: Path, again: bool):
    options: Any = {"config": CONFIG, "name": "test", "policy": WaitK(2), "root": tmp_path, "dataset": Sentences()}
    first, second = Recorder(), Recorder()
    second.again = again
    run_experiment(model=ShoutingModel(), tracker=first, **options)
    run_experiment(model=never, tracker=second, **options)
    told, told_again = ({**tracker.told, "sentence_table": None} for tracker in (first, second))
    told.pop("running")
    assert told_again == (told if again else {"sentence_table": None})
    if again:
        rows = [[row["prediction"] for row in tracker.told["sentence_table"]] for tracker in (first, second)]
        assert rows[0] == rows[1]


def stopping_after(count: int, error: BaseException) -> Callable[[], Translate]:
    def stopping(examples: Sequence[Example]) -> Iterator[Trace]:
        for done, trace in enumerate(shout(examples)):
            if done == count:
                raise error
            yield trace

    return lambda: stopping


def test_interrupted_run_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tracker = Recorder()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run-1", stopping_after(2, KeyboardInterrupt()), tracker=tracker)
    log = (tmp_path / "run-1" / "run.log").read_text()
    assert "interrupted: 2 of 6 sentences are stored" in log
    assert "the same command goes on" in log
    assert tracker.told["exit_code"] == 130
    assert not (tmp_path / "run-1" / METRICS).exists()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_interrupted_run_goes_on_where_it_stood(tmp_path: Path, count: int):
    asked: list[str] = []

    def noting(examples: Sequence[Example]) -> Iterator[Trace]:
        asked.extend(example.id for example in examples)
        return shout(examples)

    run(tmp_path / "straight-1")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run-1", stopping_after(count, KeyboardInterrupt()))
    run(tmp_path / "run-1", lambda: noting)
    assert asked == [example.id for example in EXAMPLES[count:]]
    straight, resumed = ((tmp_path / name / PREDICTIONS).read_bytes() for name in ("straight-1", "run-1"))
    assert straight == resumed


def test_what_was_stored_is_scored_little_by_little_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    straight = run(tmp_path / "straight-1")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run-1", stopping_after(4, KeyboardInterrupt()))
    monkeypatch.setattr(progress, "AT_ONCE", 0)
    monkeypatch.setattr(progress, "CATCH_UP", 2)
    tracker = Recorder()
    resumed = run(tmp_path / "run-1", tracker=tracker)
    for timed in ("seconds_per_sentence", "target_tokens_per_second"):
        straight[timed] = resumed[timed]
    assert resumed == straight == summarise(load_traces(tmp_path / "run-1"), "en", "word")
    assert tracker.steps == [6]  # two of four wait at the fifth: half a BLEU is no score of the run
    assert tracker.told["running"]["running/bleu"] == straight["bleu"]
    for file in (PREDICTIONS, "instances.log"):
        assert (tmp_path / "run-1" / file).read_bytes() == (tmp_path / "straight-1" / file).read_bytes()


def test_a_long_run_says_a_word_before_its_scores_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    run(tmp_path / "short-1")
    assert "writing the scores" not in caplog.text
    monkeypatch.setattr(runner, "MANY", 6)
    run(tmp_path / "long-1")
    assert f"{tmp_path}/long-1: writing the scores of 6 sentences" in caplog.text


def test_run_with_all_traces_and_no_metrics_needs_no_model(tmp_path: Path):
    metrics = run(tmp_path / "run-1")
    (tmp_path / "run-1" / METRICS).unlink()
    assert run(tmp_path / "run-1", never) == metrics


def test_error_in_the_middle_is_in_the_log_with_its_stack(tmp_path: Path):
    with pytest.raises(ArithmeticError):
        run(tmp_path / "run-1", stopping_after(1, ArithmeticError("lost")))
    assert "Traceback" in (tmp_path / "run-1" / "run.log").read_text()
    assert len(load_traces(tmp_path / "run-1")) == 1


def test_run_is_not_begun_when_the_model_cannot_be_loaded(tmp_path: Path):
    def missing() -> Translate:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        run(tmp_path / "run-1", missing)
    assert not (tmp_path / "run-1").exists()


def test_folder_in_use_is_refused_before_the_model_is_loaded(tmp_path: Path):
    with RunFolder(tmp_path / "run-1"), pytest.raises(RunInUse):
        run(tmp_path / "run-1", never)


def test_run_begun_on_other_data_is_refused(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run-1", stopping_after(2, KeyboardInterrupt()))
    changed = [Example("0", "another sentence", "now"), *EXAMPLES[1:]]
    with pytest.raises(ValueError, match=r"begun on other data.*'another sentence'"):
        run(tmp_path / "run-1", never, examples=changed)


def test_run_begun_on_other_references_is_refused(tmp_path: Path):
    """The scores would be of two reference texts at once."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run-1", stopping_after(2, KeyboardInterrupt()))
    changed = [Example("0", EXAMPLES[0].source, "another reference"), *EXAMPLES[1:]]
    with pytest.raises(ValueError, match=r"begun on other data: .* 'ZERO ONE TWO' .* 'another reference'"):
        run(tmp_path / "run-1", never, examples=changed)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import streamllm.runs.folder as runs
from shouting import run, make_shout

calls = 0
write = runs.json_line
def killing(values):
    # Each trace is two lines: its times, then its prediction. Die half-way through line number {line}.
    global calls
    calls += 1
    content = write(values)
    if calls == {line}:
        path = Path(sys.argv[1]) / (runs.PREDICTIONS if "source" in values else runs.TIMINGS)
        with path.open("ab") as file:
            file.write(content[: {written}])
        os.kill(os.getpid(), signal.{signal})
    return content
runs.json_line = killing
run(Path(sys.argv[1]), make_shout)
"""


@pytest.mark.parametrize(
    ("line", "written", "name"),
    [
        (4, 30, "SIGKILL"),  # inside a prediction
        (5, 30, "SIGKILL"),  # inside the times of the next
        (3, 0, "SIGKILL"),  # between two sentences
        (6, 0, "SIGINT"),
    ],
)
def test_killed_process_leaves_a_run_that_ends_with_the_same_bytes(tmp_path: Path, line: int, written: int, name: str):
    code = KILLED.format(tests=str(ROOT / "tests"), line=line, written=written, signal=name)
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run-1")], cwd=ROOT, capture_output=True, text=True
    )
    assert killed.returncode == -getattr(signal, name), killed.stderr
    assert 1 <= len(load_traces(tmp_path / "run-1")) < len(EXAMPLES)
    run(tmp_path / "run-1")
    run(tmp_path / "straight-1")
    for file in (PREDICTIONS, "instances.log", "run.yaml"):
        assert (tmp_path / "run-1" / file).read_bytes() == (tmp_path / "straight-1" / file).read_bytes()
    ids = [json.loads(line)["id"] for line in (tmp_path / "run-1" / "timings.jsonl").read_text().splitlines()]
    assert ids == [example.id for example in EXAMPLES]


def test_interrupt_inside_a_store_keeps_whole_lines_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    folder = RunFolder(tmp_path / "run-1")
    (tmp_path / "run-1").mkdir()
    for name in ("run.yaml", "env.json"):
        (tmp_path / "run-1" / name).write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run-1")
    assert [trace.id for trace in folder.traces()] == ["0"]
    assert "interrupted: 1 of 6 sentences are stored" in (tmp_path / "run-1" / "run.log").read_text()


# --- what cannot be written


def test_a_log_that_cannot_be_written_costs_one_line_and_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Such as by a quota of its own; where the disk is full for all, the first prediction ends the run."""
    logger = logging.getLogger("streamllm")
    before = [*logger.handlers], logger.level
    with logging_to(tmp_path / "run.log"), full_disk(0):
        for number in range(3):
            logger.info("line %d", number)
    said = capsys.readouterr().err
    assert said.count(f"cannot write {tmp_path / 'run.log'} (File too large)") == 1
    assert "line 2" in said or logging.getLogger().handlers
    assert ([*logger.handlers], logger.level) == before


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", [PREDICTIONS, "timings.jsonl", "run.log"])
def test_a_file_that_cannot_be_opened_gives_the_folder_back_and_finishes_the_tracker(
    tmp_path: Path, name: str, make: Callable[[Path], None]
):
    (tmp_path / "run-1").mkdir()
    make(tmp_path / "run-1" / name)
    tracker = Recorder()
    with pytest.raises(OSError, match=rf"{name} .*(FIFO|directory|folder)"):
        run(tmp_path / "run-1", tracker=tracker)
    assert tracker.told.get("exit_code", 1) == 1
    (tmp_path / "run-1" / name).rmdir() if make is os.mkdir else (tmp_path / "run-1" / name).unlink()
    assert run(tmp_path / "run-1")["sentences"] == len(EXAMPLES)


# --- what is refused


def test_data_is_loaded_before_the_model(tmp_path: Path):
    class Missing(Sentences):
        def load(self) -> list[Example]:
            raise FileNotFoundError("train.en is not there")

    model = ShoutingModel()
    with pytest.raises(FileNotFoundError, match=r"train\.en"):
        run_experiment(
            config=CONFIG, name="test", model=model, dataset=Missing(), policy=Full(), root=tmp_path / "outputs"
        )
    assert not model.loaded
    assert not (tmp_path / "outputs").exists()


def test_empty_data_set_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no sentence pairs are left"):
        run(tmp_path / "run-1", never, examples=[])


def test_two_examples_with_one_id_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="two examples with the id '0'"):
        run(tmp_path / "run-1", never, examples=[EXAMPLES[0], EXAMPLES[0]])


def test_a_batch_of_no_sentences_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="batch_size is 0"):
        run_experiment(
            config=CONFIG,
            name="test",
            root=tmp_path,
            batch_size=0,
            model=ShoutingModel(),
            dataset=Sentences(),
            policy=Full(),
        )
