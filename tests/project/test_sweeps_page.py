"""docs/sweeps.md holds: each of its commands runs as it stands, and each of its claims about plug-ins, in environments
of their own that are made here (pytest -m simuleval; STREAMLLM_SWEEPS_ENVIRONMENTS=FOLDER keeps them)."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from test_documented import commands, desk, reason, shortened  # noqa: F401

PAGE = ROOT / "docs" / "sweeps.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXTRAS = "the extras of docs/sweeps.md"
SMALL = "dataset.limit=2 tracker=none"
MINUTES = 2  # submitit interrupts 30 seconds before they have passed; starting must take less

SLOW_MODEL = """
import time
from dataclasses import dataclass
from shouting import ShoutingModel

@dataclass
class SlowModel(ShoutingModel):
    seconds: float

    def session(self, seed, name):
        if self.opened:  # of a process, the second sentence never ends
            time.sleep(self.seconds)
        return super().session(seed, name)
"""

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.simuleval, pytest.mark.timeout(3600)]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The Python of an environment with an extra, installed as the page says."""
    kept = os.environ.get("STREAMLLM_SWEEPS_ENVIRONMENTS")
    if "simuleval" not in request.config.option.markexpr and kept is None:
        pytest.skip("installs packages: pytest -m simuleval")
    root = Path(kept) if kept else tmp_path_factory.mktemp("environments")

    def python_of(extra: str) -> Path:
        python = root / extra / "bin" / "python"
        if not (root / extra / "whole").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(root / extra)], check=True)
            pip = [str(python), "-m", "pip", "install", "-q", "-e", f"{ROOT}[{extra}]"]
            subprocess.run(pip, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
            (root / extra / "whole").touch()
        return python

    return python_of


@pytest.fixture
def here(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A folder with a short sample corpus, and a model whose second sentence of a process never ends."""
    monkeypatch.setenv("DOCUMENTED_LIMIT", os.environ.get("DOCUMENTED_LIMIT", "8"))
    shortened(desk)
    (desk / "conf" / "model").mkdir(parents=True, exist_ok=True)
    (desk / "conf" / "model" / "slow.yaml").write_text("_target_: slow_model.SlowModel\nseconds: 3600\n")
    (desk / "slow_model.py").write_text(SLOW_MODEL)
    return desk


def call(command: str, folder: Path, python: Path) -> subprocess.CompletedProcess[str]:
    """A command with `streamllm` and the other programs of an environment."""
    inside = {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests"])),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | inside | {"RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    print(f"$ {command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}", flush=True)
    return done


def extra_of(command: str) -> str:
    return "ray" if re.search(r"launcher=ray|^ray ", command) else "sweeps"


def shown() -> list[str]:
    """Commands of blocks of text, which show what they print, without those that are there to be interrupted."""
    found = re.findall(r"(?m)^\$ (streamllm .+?)(?: +#.*)?$", TEXT)
    return sorted({command for command in found if "k=1,2,3" not in command})


@pytest.mark.parametrize("command", shown())
def test_a_command_with_a_bad_point_ends_with_its_table(command: str, here: Path, environment: Callable[[str], Path]):
    done = call(command, here, environment(extra_of(command)))
    assert done.returncode == 1
    assert "sweep: 2 points and 1 that failed" in done.stdout


@pytest.mark.parametrize("launcher", re.findall(r"(?m)^\| .+ \| `(hydra/launcher=.+?)` \|", TEXT))
def test_each_launcher_runs_as_its_row_says(launcher: str, here: Path, environment: Callable[[str], Path]):
    done = call(f"streamllm run -m k=1,2 {SMALL} {launcher}", here, environment(extra_of(launcher)))
    assert done.returncode == 0 and "sweep: 2 points" in done.stdout


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for Ray. What works in it is ended; `ray stop` would end other clusters of the machine, too."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets may have 107 bytes
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in process.read_bytes():
                os.kill(int(process.parent.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def test_commands_that_want_a_plug_in_run(here: Path, environment: Callable[[str], Path], cluster: Path):
    """In the order of the page: `ray start` before the sweep on its cluster."""
    wanting = [command for command in commands(PAGE) if reason(command) == EXTRAS]
    assert len(wanting) == 3
    for command in wanting:
        assert call(command, here, environment(extra_of(command))).returncode == 0, command


def test_a_search_goes_on_up_to_the_number_asked_for(here: Path, environment: Callable[[str], Path]):
    python = environment("sweeps")
    for trials, finished in ((2, 0), (4, 2)):
        done = call(f"streamllm run -m experiment=tune_threshold hydra.sweeper.n_trials={trials} {SMALL}", here, python)
        assert done.returncode == 0
        assert f"sweep: {trials} points" + f", {finished} of them finished before" * bool(finished) in done.stdout
        assert len(list(here.glob("outputs/*/metrics.json"))) == trials
    best = yaml.safe_load((here / "outputs" / ".sweep" / "optimization_results.yaml").read_text())
    assert set(best["best_params"]) == {"policy.threshold", "min_lag"}


def test_another_space_null_and_two_at_a_time(here: Path, environment: Callable[[str], Path]):
    python = environment("sweeps")
    space = re.findall(r"`(policy=entropy [^`]+)`", TEXT)[0]
    search = f"streamllm run -m experiment=tune_threshold hydra.sweeper.n_trials=2 {SMALL}"
    assert call(f"{search} {space}", here, python).returncode == 0
    assert call(f"{search} max_lag=4,6,null", here, python).returncode == 0
    two = " ".join(re.findall(r"`(hydra.sweeper.n_jobs=2\s+hydra/launcher=joblib)`", TEXT)[0].split())
    assert call(f"{search} {two}", here, python).returncode == 0
    refused = call(f"{search} 'max_lag=choice(4,6,null)'", here, python)
    assert refused.returncode == 1 and "choice() takes no null; write max_lag=4,6,null" in refused.stderr


def test_a_storage_and_an_objective_that_is_not_there_are_refused(here: Path, environment: Callable[[str], Path]):
    python = environment("sweeps")
    search = f"streamllm run -m experiment=tune_threshold hydra.sweeper.n_trials=2 {SMALL}"
    storage = call(f"{search} hydra.sweeper.storage=sqlite:///here.db", here, python)
    assert storage.returncode == 1 and "hydra.sweeper.storage" in storage.stderr
    assert not list(here.glob("here.db"))
    missing = call(f"{search} tuning.metric=long_yaal", here, python)
    assert missing.returncode == 1 and "sweep: 0 points and 1 that failed\n" in missing.stdout
    assert "failed: tuning.metric is 'long_yaal'" in missing.stdout
    on = call(f"{search} tuning.metric=long_yaal hydra.sweeper.max_failure_rate=1", here, python)
    assert "sweep: 0 points and 2 that failed\n" in on.stdout


def test_submitit_begins_a_point_again_after_its_minutes(here: Path, environment: Callable[[str], Path]):
    """Three sentences in three processes, the first two of which are interrupted in the one that never ends."""
    python = environment("sweeps")
    printed = call("streamllm run hydra/launcher=submitit_local --cfg hydra -p hydra.launcher", here, python)
    assert "timeout_min: 60" in printed.stdout
    words = "model=slow dataset.limit=3 batch_size=1 tracker=none"
    launcher = f"hydra/launcher=submitit_local hydra.launcher.timeout_min={MINUTES}"
    done = call(f"streamllm run -m k=1 {words} {launcher}", here, python)
    assert done.returncode == 0 and "sweep: 1 point\n" in done.stdout
    logs = "".join(file.read_text() for file in here.glob("outputs/.sweep/.submitit/*/*.out"))
    assert logs.count("Requeued job") == 2
    assert call(f"streamllm run k=1 {words} model.seconds=0 output.root=straight", here, python).returncode == 0
    (cut,), (straight,) = (list(here.glob(f"{root}/*/predictions.jsonl")) for root in ("outputs", "straight"))
    assert cut.read_bytes() == straight.read_bytes()


def test_joblib_and_ray_want_different_cloudpickles(here: Path, environment: Callable[[str], Path]):
    """What pip makes of both extras in one environment: an older joblib, or none."""
    python = environment("ray")
    found = call("python -m pip list", here, python).stdout
    (version,) = re.findall(r"(?m)^cloudpickle +(\d+)", found)
    assert int(version) < 3, "of hydra-ray-launcher"
    latest = call("python -m pip install --dry-run 'joblib>=1.6' 'hydra-ray-launcher>=1.2.2'", here, python)
    assert latest.returncode != 0 and "cloudpickle" in latest.stdout + latest.stderr
