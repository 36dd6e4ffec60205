"""The same sweep under every launcher: what fails fails alone, what is there is skipped, and the table says both."""

import ctypes
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from shouting import ShoutingModel

from streamllm.runs.folder import PREDICTIONS
from streamllm.runs.load import load_runs

LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": [],
    "ray": ["+hydra.launcher.ray.init.include_dashboard=false", "+hydra.launcher.ray.init.num_cpus=2"],
}
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher.joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
    "ray": "ray",
}


@dataclass
class WitnessedModel(ShoutingModel):
    """Notes at every load who loads it, and with how many threads products are computed."""

    def load(self, *how: Any) -> Any:
        threads = getattr(ctypes.CDLL(None), "MKL_Get_Max_Threads", None)  # None: another BLAS
        note = {"process": os.getpid(), "threads": threads() if threads else 1, **dict(os.environ)}
        with Path(os.environ["LOADS"]).open("a") as file:  # a short line is appended whole
            file.write(
                json.dumps(
                    {key: note.get(key) for key in ("process", "threads", "MKL_NUM_THREADS", "STREAMLLM_THREADS")}
                )
                + "\n"
            )
        return super().load(*how)


def run(
    folder: Path, *arguments: str, stop_after: int | None = None, stop_by: str = "SIGINT"
) -> subprocess.CompletedProcess[str]:
    """run.py as people call it, in ``folder``, with a model that needs no weights."""
    (folder / "conf" / "model").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "model" / "witnessed.yaml").write_text("_target_: test_launchers.WitnessedModel\n")
    command = [sys.executable, str(ROOT / "run.py"), *arguments, "tracker=none", "dataset.limit=3", "batch_size=1"]
    command.append("model=witnessed")  # of conf/ there
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", ROOT / "tests" / "cli"]))}
    environment |= {"LOADS": str(folder / "loads"), "RAY_USAGE_STATS_ENABLED": "0"}
    if stop_after is not None:
        environment |= {"STOP_AFTER": str(stop_after), "STOP_BY": stop_by}
    for name in ("STREAMLLM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "MKL_THREADING_LAYER"):
        environment.pop(name, None)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.parametrize(
    "launcher", [pytest.param(name, marks=pytest.mark.slow if name == "ray" else ()) for name in LAUNCHERS]
)
def test_sweep_skips_what_is_there_and_outlives_a_point_that_fails(tmp_path: Path, launcher: str) -> None:
    if launcher in PLUGINS:
        pytest.importorskip(PLUGINS[launcher], reason="pip install -e '.[sweeps,ray]'")
    assert run(tmp_path, "k=1").returncode == 0
    (tmp_path / "loads").unlink()
    options = [f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]
    sweep = run(tmp_path, "-m", "k=1,0,3,5", *options)
    assert sweep.returncode == 1
    assert "Traceback" not in sweep.stderr
    shown = sweep.stdout[sweep.stdout.index("sweep: ") :].splitlines()
    assert shown[0] == "sweep: 3 points, 1 of them finished before and 1 that failed"
    rows = {line.split()[1]: line for line in shown[2:-1]}
    assert list(rows) == ["1", "0", "3", "5"]
    assert rows["1"].endswith(" (finished before)")
    assert "failed: k is 0" in rows["0"]
    for k in ("3", "5"):
        assert re.search(r" outputs/sample-waitk-\w+$", rows[k])
    assert shown[-1] == "the same command runs what is missing, and skips what is there"
    runs = load_runs(tmp_path / "outputs")
    assert sorted(runs["k"]) == [1, 3, 5]
    assert not list((tmp_path / "outputs" / ".sweep").glob("points-*"))
    for folder in runs.loc[runs["k"] > 1, "folder"]:
        typed = shlex.split(json.loads((Path(folder) / "env.json").read_text())["command"])
        assert typed[:3] == ["run.py", "-m", "k=1,0,3,5"]
    loads = [json.loads(line) for line in (tmp_path / "loads").read_text().splitlines()]
    assert len(loads) == 1 if launcher == "basic" else 1 <= len(loads) <= 2
    assert len({load["process"] for load in loads}) == len(loads), "a process loads its model once"
    assert {load["threads"] for load in loads} == {1}
    # Where points run side by side, each has one thread for its batches, too.
    assert {load["STREAMLLM_THREADS"] for load in loads} == {None if launcher == "basic" else "1"}


@pytest.mark.long
@pytest.mark.parametrize(("by", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_sweep_goes_on_with_the_same_command(tmp_path: Path, by: str, status: int) -> None:
    # Three sentences of the first point, one of the second.
    stopped = run(tmp_path, "-m", "k=1,2", stop_after=4, stop_by=by)
    assert stopped.returncode == status
    assert "Traceback" not in stopped.stderr
    assert "sweep: 1 point and 1 on the way\n" in stopped.stdout
    assert "(interrupted: 1 sentence stored)" in stopped.stdout
    again = run(tmp_path, "-m", "k=1,2")
    assert again.returncode == 0, again.stderr
    first, second = again.stdout[again.stdout.index("sweep: 2 points, 1 of them finished before") :].splitlines()[2:]
    assert first.endswith(" (finished before)")
    assert f"{second.split()[-1]}: 1 of 3 sentences are there already" in again.stderr
    assert run(tmp_path, "k=2", "output.root=straight").returncode == 0
    (straight,) = (tmp_path / "straight").glob(f"*/{PREDICTIONS}")
    assert (tmp_path / second.split()[-1] / PREDICTIONS).read_bytes() == straight.read_bytes()


@pytest.mark.long
def test_tuning_keeps_the_budget_and_tries_nothing_twice(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install -e '.[sweeps]'")
    command = [sys.executable, str(ROOT / "run.py"), "-m", "experiment=tune_threshold", "hydra.sweeper.n_trials=5"]
    command += ["tuning.laal_budget=6", "dataset.limit=4", "tracker=none"]
    first, again = (subprocess.run(command, cwd=tmp_path, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "sweep: 5 points\n" in first.stdout
    assert "sweep: 5 points, 5 of them finished before\n" in again.stdout
    runs = load_runs(tmp_path / "outputs")
    assert len(runs) == 5
    kept = runs[runs["laal"] <= 6]
    assert 0 < len(kept) < len(runs), "the test needs both sides of the budget"
    best = yaml.safe_load((tmp_path / "outputs" / ".sweep" / "optimization_results.yaml").read_text())
    assert best["best_value"] == kept["bleu"].max()
    assert best["best_params"]["policy.threshold"] in set(kept["policy.threshold"])
