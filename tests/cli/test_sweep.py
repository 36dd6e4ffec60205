"""One model for all points of a process, and the table at the end of a sweep."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from streamllm.cli import loaded_once
from streamllm.cli.errors import _is_out_of_time
from streamllm.cli.loaded_once import OneModel
from streamllm.cli.sweep import GROUP_LENGTH, Point, group_name, table
from streamllm.runs.load import read_config


@dataclass
class Counting:
    """A model configuration that counts how often it is loaded."""

    path: str
    loads: list[Any] = field(default_factory=list, compare=False)

    def load(self, *how: Any) -> object:
        self.loads.append(how)
        return object()


def test_equal_points_share_one_model() -> None:
    one, first, second = OneModel(), Counting("a"), Counting("a")
    assert one.load(first, "word") is one.load(second, "word")
    assert (len(first.loads), len(second.loads)) == (1, 0)


def test_another_model_or_another_use_of_it_is_loaded_anew() -> None:
    one, model = OneModel(), Counting("a")
    kept = one.load(model, "word")
    assert one.load(model, "character") is not kept
    assert one.load(Counting("b"), "character") is not kept
    assert one.load(model, "word") is not kept, "only the last one stays in memory"


def test_the_table_shows_what_differs_and_names_what_failed() -> None:
    points = [
        Point(
            0,
            "waitk",
            {"policy": "waitk", "k": "1", "seed": "0"},
            "outputs/a",
            {"bleu": 13.6, "laal": 1.25, "al": None},
        ),
        Point(1, "waitk", {"policy": "waitk", "k": "0", "seed": "0"}, error="k is 0"),
    ]
    head, names, first, second = table(points).splitlines()
    assert head == "sweep: 1 point and 1 that failed"
    assert names.split() == ["policy", "k", "BLEU", "LAAL", "AL", "folder"]
    assert first.split() == ["waitk", "1", "13.60", "1.25", "-", "outputs/a"]
    assert second.endswith("failed: k is 0")


def test_the_table_tells_a_reason_once() -> None:
    points = [Point(number, "waitk", {"k": str(number)}, error="no data") for number in range(3)]
    assert [line.split("  ")[-1] for line in table(points).splitlines()[2:]] == [
        "failed: no data",
        *["failed for the same reason"] * 2,
    ]


def test_a_sweep_tells_its_failing_point_once(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "-m", "k=0", "tracker=none", f"output.root={tmp_path}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("k is 0") == 1
    assert done.stderr == "#0 failed\n"


class UncompletedJobError(Exception):
    """As submitit's."""


def test_a_point_that_submitit_has_ended_is_known_wherever_it_was() -> None:
    wrapped = ModuleNotFoundError("Could not import module 'AutoTokenizer'")
    assert not _is_out_of_time(wrapped)
    wrapped.__context__ = UncompletedJobError("Job not requeued because: timed-out too many times.")
    assert _is_out_of_time(wrapped)


def test_the_table_of_an_interrupted_sweep_has_the_points_that_were_on_the_way() -> None:
    points = [
        Point(0, "waitk", {"k": "1"}, "outputs/a", {"bleu": 13.6, "laal": 1.25, "al": 0.5}),
        Point(1, "waitk", {"k": "3"}, "outputs/b", stored=1),
        Point(2, "waitk", {"k": "5"}, "outputs/c", stored=40),
    ]
    head, _, _, second, third = table(points).splitlines()
    assert head == "sweep: 1 point and 2 on the way"
    assert second.endswith("outputs/b (interrupted: 1 sentence stored)")
    assert third.endswith("outputs/c (interrupted: 40 sentences stored)")


# --- the group of a sweep in the tracker


def test_group_is_the_command_line_without_what_trackers_and_folders_are_told() -> None:
    words = ["k=1,3", "tracker.mode=online", "output.root=here", "+policy.depth=2", "outputs=3"]
    assert group_name(words) == "k=1,3 +policy.depth=2 outputs=3"
    assert group_name(["tracker=wandb"]) == "sweep"


def test_group_holds_nothing_that_hydra_would_read_something_into() -> None:
    assert group_name(["name='it\\'s ${k}'"]) == "name=its {k}"


def test_group_is_not_longer_than_w_and_b_takes_and_still_tells_two_apart() -> None:
    one, two = (group_name([f"dataset.data_dir=/{'a' * 200}/{end}"]) for end in "xy")
    assert (len(one), one[:18]) == (GROUP_LENGTH, "dataset.data_dir=/")
    assert one != two


def shouting_sweep(tmp_path: Path, *words: str) -> list[str | None]:
    """The groups of the runs of ``run.py -m``."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "shouting.yaml").write_text("_target_: shouting.ShoutingModel\n")
    command = [sys.executable, str(ROOT / "run.py"), "-m", *words, "tracker.mode=disabled", "model=shouting"]
    command += [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "dataset.limit=1", f"output.root={tmp_path}/outputs"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [read_config(path.parent)["tracker"]["group"] for path in tmp_path.glob("outputs/*/run.yaml")]


@pytest.mark.long
def test_points_of_a_sweep_are_one_group(tmp_path: Path) -> None:
    group = "k=1,3 model=shouting dataset.limit=1"
    assert shouting_sweep(tmp_path, "k=1,3") == [group, group]


@pytest.mark.long
def test_group_that_was_given_stays(tmp_path: Path) -> None:
    assert shouting_sweep(tmp_path, "k=1", "tracker.group=mine") == ["mine"]


def test_run_py_keeps_its_model_loaded() -> None:
    model = Counting("c")
    assert loaded_once.LoadedOnce(model).load("x") is loaded_once.LoadedOnce(model).load("x")
    assert len(model.loads) == 1


FULL_AT = """
import runpy, sys
sys.path.insert(0, {tests!r})
from full_disk import full_disk
sys.argv = sys.argv[1:]
with full_disk({size}):
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.long
def test_a_point_on_a_full_disk_gives_its_folder_back_and_the_rest_of_the_sweep_goes_on(tmp_path: Path) -> None:
    """k=1 alone writes more words than its files may hold, and is finished by the same command where there is room."""
    words = ["-m", "k=1,6", "dataset.limit=4", "tracker=none", f"output.root={tmp_path / 'out'}"]

    def sweep(size: int) -> subprocess.CompletedProcess[str]:
        code = FULL_AT.format(tests=str(ROOT / "tests"), size=size)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-c", code, str(ROOT / "run.py"), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    whole = sweep(10**7)
    assert whole.returncode == 0, whole.stderr
    sizes = sorted(path.stat().st_size for path in tmp_path.glob("out/*/predictions.jsonl"))
    assert sizes[0] + 100 < sizes[1]
    kept = {path: path.read_bytes() for path in tmp_path.glob("out/*/predictions.jsonl")}
    shutil.rmtree(tmp_path / "out")

    full = sweep(sizes[0] + 50)
    assert full.returncode == 1
    assert "sweep: 1 point and 1 that failed" in full.stdout
    assert "predictions.jsonl (File too large): let files be larger" in full.stdout
    assert not [*tmp_path.glob("out/*/.lock")]
    again = sweep(10**7)
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in tmp_path.glob("out/*/predictions.jsonl")} == kept
