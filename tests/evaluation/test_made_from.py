"""A result belongs to what it was made from: a run goes on, or is shown, only while that is the same."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import ROOT

from streamllm import contents
from streamllm.cli.loaded_once import LoadedOnce
from streamllm.data.joined import document
from streamllm.data.text import ParallelText
from streamllm.engine.limits import Limits
from streamllm.evaluation.api import Evaluation, evaluate
from streamllm.evaluation.describe import describe
from streamllm.evaluation.runner import run_experiment
from streamllm.files import RunError
from streamllm.models.loading import ModelConfig
from streamllm.models.settings import SETTINGS
from streamllm.policies import WaitK
from streamllm.policies.oracle import Replay
from streamllm.prompt import Prompt
from streamllm.records import Decide, Example, Trace
from streamllm.runs import made_from
from streamllm.runs.load import load_runs, load_traces
from streamllm.runs.stored import CONTENTS, LOG, METRICS, PREDICTIONS

SOURCES = ["the dog runs", "a cat jumps high", "the end of the house"]
REFERENCES = ["der Hund rennt", "eine Katze springt", "das Ende vom Haus"]
SHORT = Limits(length_ratio=1.0, length_extra=1, tokens_per_unit=3.0)


@dataclass(frozen=True)
class Stops:
    """Wait-1 that fails at a sentence, as a run is stopped."""

    at: str = "val-2"
    fails: bool = True

    def describe(self) -> dict[str, Any]:
        return {"at": self.at}  # so that the run goes on under the same name

    def start(self, example: Example) -> Decide:
        if self.fails and example.id == self.at:
            raise RuntimeError("stopped")
        return WaitK(1).start(example)


@dataclass
class Bench:
    """A model and a data set in a folder, and the run that is made of them."""

    folder: Path
    prompt: Prompt | None = None

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def target(self) -> Path:
        return self.folder / "val.de"

    @property
    def run_folder(self) -> Path:
        (run,) = (path for path in (self.folder / "outputs").iterdir() if ".before-" not in path.name)
        return run

    def run(self, policy: Any = WaitK(1), **options: Any) -> Evaluation:
        data = ParallelText(source=self.folder / "val.en", target=self.target)
        options = {"root": self.folder / "outputs", "name": "test", "limits": SHORT, "batch_size": 1} | options
        return evaluate(ModelConfig(str(self.model)), policy, data, prompt=self.prompt, **options)

    def stopped(self) -> None:
        with pytest.raises(RuntimeError, match="stopped"):
            self.run(Stops())
        assert len(load_traces(self.run_folder)) == 1

    def finished(self) -> None:
        self.run(Stops(fails=False))

    def again(self, **options: Any) -> Evaluation:
        return self.run(Stops(fails=False), **options)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tiny.model_folder(tmp_path / "model")
    (tmp_path / "val.en").write_text("".join(f"{line}\n" for line in SOURCES))
    (tmp_path / "val.de").write_text("".join(f"{line}\n" for line in REFERENCES))
    return Bench(tmp_path)


def other_weights(bench: Bench) -> Path:
    tiny.model_folder(bench.folder / "other", seed=1)
    shutil.copy(bench.folder / "other" / "model.safetensors", bench.model)
    return bench.model / "model.safetensors"


def other_position(bench: Bench) -> Path:
    (bench.model / SETTINGS).write_text(json.dumps({"target_start": 40}))
    return bench.model / SETTINGS


def other_template(bench: Bench) -> Path:
    file = bench.model / "tokenizer_config.json"
    file.write_text(file.read_text().replace("assistant", "somebody"))
    return file


def other_references(bench: Bench) -> Path:
    bench.target.write_text(bench.target.read_text().replace("Hund", "Hase"))
    return bench.target


def other_sources(bench: Bench) -> Path:
    file = bench.folder / "val.en"
    file.write_text(file.read_text().replace("house", "horse"))
    return file


Change = Callable[[Bench], Path]
CHANGES: list[Change] = [other_weights, other_position, other_template, other_references, other_sources]
begun = pytest.mark.parametrize("begin", [Bench.stopped, Bench.finished], ids=["stopped", "finished"])


@begun
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_refused_by_name_and_its_return_goes_on(
    bench: Bench, begin: Callable[[Bench], None], change: Change
) -> None:
    begin(bench)
    before = {file: file.read_bytes() for file in bench.folder.rglob("*") if file.is_file()}
    file = change(bench)
    with pytest.raises(RunError, match=rf"{file.name} of the (model|data) .*rerun=true") as error:
        bench.again()
    assert "\n" not in str(error.value)
    if file in before:
        file.write_bytes(before[file])
    else:
        file.unlink()
    bench.again()
    assert (bench.run_folder / METRICS).exists()


def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped(bench: Bench) -> None:
    bench.stopped()
    bench.again()
    straight = Bench(bench.folder / "straight")
    shutil.copytree(bench.folder, straight.folder, ignore=shutil.ignore_patterns("outputs", "straight"))
    straight.finished()
    assert (bench.run_folder / PREDICTIONS).read_bytes() == (straight.run_folder / PREDICTIONS).read_bytes()


def test_a_run_of_another_time_of_files_is_shown(bench: Bench) -> None:
    bench.finished()
    for file in (bench.model / "model.safetensors", bench.target):
        shutil.copy(file, file.with_suffix(".copy"))
        file.with_suffix(".copy").replace(file)
    bench.again()


def test_files_of_data_may_change_where_the_sentences_stay(bench: Bench) -> None:
    bench.finished()
    bench.target.write_text(bench.target.read_text().replace("\n", "  \n"))
    bench.again()


def test_a_finished_run_is_shown_where_its_model_and_data_are_gone(bench: Bench) -> None:
    """On another machine, say; the numbers are still those of then."""
    bench.finished()
    shutil.rmtree(bench.model)
    bench.target.unlink()
    bench.again()


@begun
def test_a_prompt_that_is_rendered_otherwise_is_refused(bench: Bench, begin: Callable[[Bench], None]) -> None:
    """Whatever makes it so, such as another version of a library. A finished run does not load what renders it."""
    begin(bench)
    file = bench.run_folder / CONTENTS
    made = json.loads(file.read_text())
    made["prompt"]["text"] = "of yesterday"
    file.write_text(json.dumps(made))
    if begin is Bench.finished:
        bench.again()
        (bench.run_folder / METRICS).unlink()
        lines = (bench.run_folder / PREDICTIONS).read_text().splitlines(keepends=True)
        (bench.run_folder / PREDICTIONS).write_text(lines[0])
    with pytest.raises(RunError, match=r"text of the prompt \(changed\)"):
        bench.again()


def test_rerun_keeps_the_old_folder_aside_and_runs_anew(bench: Bench) -> None:
    bench.finished()
    old = (bench.run_folder / PREDICTIONS).read_bytes()
    other_weights(bench)
    for number in (1, 2):
        again = bench.again(rerun=True)
        aside = again.folder.with_name(f"{again.folder.name}.before-{number}")
        assert (aside / METRICS).exists()
        assert not (aside / ".lock").exists()
    assert (again.folder.with_name(f"{again.folder.name}.before-1") / PREDICTIONS).read_bytes() == old
    assert (again.folder / PREDICTIONS).read_bytes() != old
    assert bench.again().metrics == again.metrics
    assert list(load_runs(bench.folder / "outputs")["folder"]) == [str(again.folder)]
    assert len(load_runs(bench.folder / "outputs", set_aside=True)) == 3


def test_rerun_of_what_is_not_there_is_a_run(bench: Bench) -> None:
    assert bench.again(rerun=True).metrics["sentences"] == 3


def test_a_run_from_before_digests_is_shown_and_says_that_it_cannot_be_checked(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.finished()
    (bench.run_folder / CONTENTS).unlink()
    other_weights(bench)
    bench.again()
    assert "nobody can check" in capsys.readouterr().out


def test_a_run_from_before_digests_goes_on_and_its_log_says_that_it_cannot_be_checked(bench: Bench) -> None:
    bench.stopped()
    (bench.run_folder / CONTENTS).unlink()
    bench.again()
    assert "nobody can check" in (bench.run_folder / LOG).read_text()
    assert not (bench.run_folder / CONTENTS).exists()


def test_a_damaged_record_is_refused(bench: Bench) -> None:
    bench.finished()
    (bench.run_folder / CONTENTS).write_text("{")
    with pytest.raises(RunError, match=r"contents\.json is damaged.*rerun=true"):
        bench.again()


# --- code of the user's own

POLICY = """
from dataclasses import dataclass
import rule_of_mine

@dataclass(frozen=True)
class Mine:
    def start(self, example):
        return rule_of_mine.start(example)
"""
RULE = """
import os
from streamllm.policies import WaitK

def start(example):
    if example.id == os.environ.get("STOP_AT"):
        raise RuntimeError("stopped")
    return WaitK({k}).start(example)
"""


def loaded_anew(folder: Path, k: int) -> Any:
    """The user's policy, as a new process would have it."""
    (folder / "policy_of_mine.py").write_text(POLICY)
    (folder / "rule_of_mine.py").write_text(RULE.format(k=k) + f"# {'edited ' * k}\n")
    contents._LOADED.clear()
    for name in ("policy_of_mine", "rule_of_mine"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module("policy_of_mine").Mine()


@pytest.mark.parametrize("stop_at", ["val-2", ""], ids=["stopped", "finished"])
def test_a_policy_whose_code_was_edited_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch, stop_at: str) -> None:
    """Else one run would have two rules, or the scores of another one."""
    monkeypatch.syspath_prepend(str(bench.folder))
    monkeypatch.setenv("STOP_AT", stop_at)
    try:
        bench.run(loaded_anew(bench.folder, k=1))
    except RuntimeError:
        assert stop_at
    monkeypatch.setenv("STOP_AT", "")
    with pytest.raises(RunError, match=r"rule_of_mine\.py of the code of policy policy_of_mine\.Mine \(changed\)"):
        bench.run(loaded_anew(bench.folder, k=2))
    assert bench.run(loaded_anew(bench.folder, k=1)).metrics["sentences"] == 3


METRIC = """
class Mine:
    key, label, digits, higher_is_better = "mine", "Mine", 0, None
    def __call__(self, traces):
        return {value}
"""


def test_a_metric_whose_code_was_edited_is_computed_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(bench.folder))

    def scored(value: int) -> Any:
        (bench.folder / "metric_of_mine.py").write_text(METRIC.format(value=value))
        contents._LOADED.clear()
        sys.modules.pop("metric_of_mine", None)
        importlib.invalidate_caches()
        metric = importlib.import_module("metric_of_mine").Mine()
        return bench.run(Stops(fails=False), metrics=[metric]).metrics["mine"]

    assert [scored(100), scored(2000), scored(100)] == [100, 2000, 100]


@dataclass
class Counted:
    """A metric that counts how often it is computed."""

    factor: int
    calls: int = 0
    key, label, digits, higher_is_better = "counted", "Counted", 0, None

    def __call__(self, traces: Sequence[Trace]) -> float:
        self.calls += 1
        return self.factor * len(traces)


def test_a_metric_that_is_set_otherwise_is_computed_anew(bench: Bench) -> None:
    def scored(factor: int) -> tuple[Any, int]:
        metric = Counted(factor)
        config = {"metrics": {"mine": {"_target_": "any.Counted", "factor": factor}}}
        data = ParallelText(source=bench.folder / "val.en", target=bench.target)
        found = run_experiment(
            config=config,
            name="test",
            model=ModelConfig(str(bench.model)),
            policy=WaitK(1),
            dataset=data,
            root=bench.folder / "outputs",
            limits=SHORT,
            metrics=[metric],
        )
        return found["counted"], metric.calls

    assert [scored(1), scored(1), scored(2)] == [(3, 1), (3, 0), (6, 1)]


# --- what is not a file of the configuration


def test_a_replay_is_refused_when_the_delays_that_it_reads_have_changed(bench: Bench) -> None:
    """The configuration names the run that is replayed, and that may have been made anew."""

    def replayed(delay: int) -> None:
        run_experiment(
            config={"policy": {"run": "outputs/other"}},
            name="test",
            model=ModelConfig(str(bench.model)),
            policy=Replay({f"val-{number}": [delay] * 9 for number in (1, 2, 3)}),
            dataset=ParallelText(source=bench.folder / "val.en", target=bench.target),
            root=bench.folder / "outputs",
            limits=SHORT,
        )

    replayed(2)
    replayed(2)
    with pytest.raises(RunError, match=r"delays of the policy \(changed\)"):
        replayed(3)


def test_a_model_of_the_hub_counts_by_what_was_downloaded_last(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = bench.folder / "hub" / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(bench.folder / "hub"))
    assert ModelConfig("some/model").contents() == {}
    for seed in (0, 1):
        tiny.model_folder(cache / "snapshots" / f"commit{seed}", seed=seed)
        (cache / "refs" / "main").write_text(f"commit{seed}\n")
        there = ModelConfig(str(cache / "snapshots" / f"commit{seed}"))
        assert ModelConfig("some/model").contents() == there.contents() != {}


@pytest.mark.long
def test_the_command_says_in_one_line_what_has_changed_and_runs_anew_when_told(bench: Bench) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        data = [f"dataset.source={bench.folder / 'val.en'}", f"dataset.target={bench.target}"]
        line = [sys.executable, str(ROOT / "run.py"), "k=1", "tracker=none", "dataset=files", *data, "model=folder"]
        line += [f"model.path={bench.model}", "limits.length_ratio=1", "limits.length_extra=1", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(line, cwd=bench.folder, env=environment, capture_output=True, text=True)

    first = command()
    assert first.returncode == 0, first.stderr
    other_weights(bench)
    refused = command()
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "model.safetensors of the model (changed)" in refused.stderr
    again = command("rerun=true")
    assert again.returncode == 0, again.stderr
    assert "rerun" not in (bench.run_folder / "run.yaml").read_text()
    assert len([*(bench.folder / "outputs").glob("*.before-1")]) == 1


# --- one process, many points


def test_a_model_in_memory_is_loaded_anew_when_its_files_change(bench: Bench) -> None:
    config = LoadedOnce(ModelConfig(str(bench.model)))
    first = config.load(None, "word", "word", None)
    assert config.load(None, "word", "word", None) is first
    other_weights(bench)
    assert LoadedOnce(replace(config.model)).load(None, "word", "word", None) is not first


def test_boundaries_of_documents_are_part_of_what_a_run_was_made_from() -> None:
    def contents(*sources: str) -> Any:
        examples = document("x", [(source, "c") for source in sources], "word", "word")
        return made_from.of_sentences([replace(examples, reference="c c c")])["sentences"]

    found = [contents("a b", "c", "d"), contents("a", "b c", "d"), contents("a b", "c d")]
    assert len({one["sources"] for one in found}) == len({one["references"] for one in found}) == 1
    assert len({one["boundaries"] for one in found}) == 3
    assert "boundaries" not in made_from.of_sentences([Example("x", "a b c d", "c c c")])["sentences"]


def test_a_document_is_described_with_its_sentences() -> None:
    documents = [document("x", pairs, "word", "word") for pairs in ([("a b", "c")], [("a", "c"), ("b", "c")])]
    assert describe(documents[0], "it") != describe(replace(documents[1], reference="c"), "it")
    assert describe(documents, "it") != describe(documents[::-1], "it")
    assert describe(Example("x", "a b", "c"), "it") == ["x", "a b", "c"]
