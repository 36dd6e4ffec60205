"""Points of a sweep that are evaluated together: the bytes, errors and ends of points alone."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import ROOT
from omegaconf import OmegaConf

from streamllm.cli.together import MOST, Points, kind, translator
from streamllm.data.sample import Sample
from streamllm.evaluation.runner import run_experiment
from streamllm.models.model import StreamingModel
from streamllm.policies import Full, WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Decide, Example, Policy, State
from streamllm.runs.folder import LOG, METRICS, PREDICTIONS, RunFolder

DATA = Sample(limit=5)
POLICIES: dict[str, Policy] = {"1": WaitK(1), "3": WaitK(3), "full": Full()}


class Loaded:
    """A model configuration of a model that is there."""

    def __init__(self, model: StreamingModel):
        self._model = model

    def load(self, *how: Any) -> StreamingModel:
        return self._model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("model")
    tiny.byte_level_tokenizer(folder)
    tokenizer = tiny.load(folder)
    biased = tiny.Biased(tiny.random_model(2, len(tokenizer)), tiny.sentence_bias(tokenizer, 4.0))
    return Loaded(
        StreamingModel(biased, PromptTokens(Prompt(source_footer=" =>", target_header="German:"), tokenizer), tokenizer)
    )


class Failing:
    """Waits for three units, and raises in the decisions of one sentence."""

    def __init__(self, error: BaseException, number: int = 2):
        self._error, self._id = error, DATA.load()[number].id

    def start(self, example: Example) -> Decide:
        decide = WaitK(3).start(example)

        def failing(state: State) -> Any:
            if example.id == self._id and state.written == 1:
                raise self._error
            return decide(state)

        return failing


def work(root: Path, model: Loaded, name: str, policy: Policy, failed: list[str] | None = None) -> Callable[[], None]:
    """What a point does, as run.py does it."""

    def run() -> None:
        try:
            run_experiment(
                config={"policy": name},
                name="run",
                model=model,  # type: ignore[arg-type]
                policy=policy,
                dataset=DATA,
                root=root,
                batch_size=4,
                translator=translator(),
            )
        except ValueError:
            assert failed is not None
            failed.append(name)
        except KeyboardInterrupt:
            sys.exit(130)

    return run


def folder(root: Path, name: str) -> Path:
    return RunFolder.of({"policy": name}, "run", root).path


def predictions(root: Path) -> dict[str, bytes]:
    return {name: (folder(root, name) / PREDICTIONS).read_bytes() for name in POLICIES}


def finished(root: Path) -> list[str]:
    return [name for name in POLICIES if (folder(root, name) / METRICS).exists()]


@pytest.fixture(scope="module")
def alone(model: Loaded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("alone")
    for name, policy in POLICIES.items():
        work(root, model, name, policy)()
    return predictions(root)


def together(
    root: Path, model: Loaded, policies: dict[str, Policy] = POLICIES, failed: list[str] | None = None
) -> None:
    points = Points()
    for name, policy in policies.items():
        points.begin(("one kind",), work(root, model, name, policy, failed))
    points.end()


def test_points_together_leave_the_bytes_of_points_alone(
    tmp_path: Path, model: Loaded, alone: dict[str, bytes]
) -> None:
    together(tmp_path, model)
    assert predictions(tmp_path) == alone


def test_a_point_that_fails_leaves_the_others_alone_and_goes_on_from_what_it_has_stored(
    tmp_path: Path, model: Loaded, alone: dict[str, bytes]
) -> None:
    failed: list[str] = []
    together(tmp_path, model, POLICIES | {"3": Failing(ValueError("no"))}, failed)
    assert failed == ["3"]
    assert finished(tmp_path) == ["1", "full"]
    together(tmp_path, model)
    assert predictions(tmp_path) == alone


def test_an_interrupt_lets_every_point_say_what_it_has_stored_and_all_go_on(
    tmp_path: Path, model: Loaded, alone: dict[str, bytes]
) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        together(tmp_path, model, POLICIES | {"3": Failing(KeyboardInterrupt())})
    assert not {"3", "full"} & {*finished(tmp_path)}
    for name in ("3", "full"):
        log = (folder(tmp_path, name) / LOG).read_text()
        assert re.search(r"translations that were under way, and begin anew: [1-4]\n.*interrupted: ", log)
    together(tmp_path, model)
    assert predictions(tmp_path) == alone


def test_points_of_another_kind_wait_until_those_before_have_ended(tmp_path: Path, model: Loaded) -> None:
    points, seen = Points(), []
    points.begin(("a",), work(tmp_path, model, "1", WaitK(1)))
    assert (points.waiting, finished(tmp_path)) == (1, [])
    for other in (("b",), None):
        points.begin(other, lambda: seen.append((finished(tmp_path), translator() is None)))
    assert seen == [(["1"], False), (["1"], True)]


def test_no_more_points_than_that_are_open_at_a_time(tmp_path: Path, model: Loaded) -> None:
    points, most = Points(), 0
    for k in range(1, MOST + 3):
        points.begin((), work(tmp_path, model, str(k), WaitK(k)))
        most = max(most, points.waiting)
    points.end()
    assert most == MOST
    assert len(list(tmp_path.glob(f"*/{METRICS}"))) == MOST + 2


def test_each_log_holds_what_its_own_run_said(tmp_path: Path, model: Loaded) -> None:
    class Telling(WaitK):
        def start(self, example: Example) -> Decide:
            logging.getLogger("streamllm").info("to all")
            return super().start(example)

    together(tmp_path, model, {"1": WaitK(1), "3": Telling(3)})
    logs = {name: (folder(tmp_path, name) / LOG).read_text() for name in ("1", "3")}
    assert logs["3"].count("to all") == 5
    assert 0 < logs["1"].count("to all") < 5  # of those until it had ended: nobody knows whose a sentence's words are
    assert logs["1"].count("finished: ") == logs["3"].count("finished: ") == 1
    assert logging.getLogger("streamllm").handlers == []


# --- which points


def config(**changes: Any) -> Any:
    tracker = {"_target_": "streamllm.tracking.tracker.NullTracker"}
    job = {"job": {"env_set": {}, "chdir": False}}
    return OmegaConf.create(
        {"batch_size": None, "tracker": tracker, "sweep": {"together": None}, "hydra": job} | changes
    )


def test_points_that_differ_in_their_policies_alone_are_of_one_kind() -> None:
    one, other = ["k=1", "dataset.limit=5"], ["policy=full", "dataset.limit=5"]
    assert kind(config(), one) == kind(config(), other) == ("dataset.limit=5",)
    assert kind(config(), one) != kind(config(), ["k=1", "dataset.limit=6"])


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 1},
        {"sweep": {"together": False}},
        {"tracker": {"_target_": "mine.Tracker"}},
        {"tracker": {"_target_": "streamllm.tracking.wandb_tracker.WandbTracker", "mode": "online"}},
        {"hydra": {"job": {"env_set": {"A": "1"}, "chdir": False}}},
    ],
)
def test_points_that_may_disturb_each_other_are_evaluated_alone(changes: dict[str, Any]) -> None:
    assert kind(config(**changes), ["k=1"]) is None


def test_a_tracker_of_ones_own_is_taken_where_that_is_asked_for() -> None:
    assert kind(config(tracker={"_target_": "mine.Tracker"}, sweep={"together": True}), ["k=1"]) is not None


@pytest.mark.long
def test_a_sweep_leaves_the_same_runs_together_and_one_after_the_other(tmp_path: Path) -> None:
    found = []
    for how in ("true", "false"):
        command = [sys.executable, str(ROOT / "run.py"), "-m", "k=1,2,0", "dataset.limit=3", "tracker=none"]
        command += [f"sweep.together={how}", f"output.root={tmp_path / how}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert "sweep: 2 points and 1 that failed" in done.stdout
        runs = (tmp_path / how).glob(f"*/{PREDICTIONS}")
        found.append({path.parent.name: path.read_bytes() for path in runs})
    assert found[0] == found[1]
    assert len(found[0]) == 2
