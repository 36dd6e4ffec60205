"""What a wheel carries, tried as a newcomer would: a new environment, an empty folder, a command. Left out of a plain
pytest, for it builds and installs: pytest -n 0 -m wheel tests/cli/test_wheel.py"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = [pytest.mark.wheel, pytest.mark.slow]

FEW = ("tracker=none", "dataset.limit=4")
PLUGIN = ROOT / "tests" / "plugin_package"


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *words], check=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of streamllm and of the plug-in."""
    folder = tmp_path_factory.mktemp("wheels")
    pip("wheel", "--no-deps", "-w", str(folder), str(ROOT), str(PLUGIN))
    return folder


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the two, which takes the libraries under them from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", *map(str, wheels.glob("*.whl")))
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel") / "mein Übungsordner"
    folder.mkdir()
    return folder


def streamllm(environment: Path, folder: Path, *words: str) -> str:
    """The command's output; whatever it says of an error fails the test."""
    known = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(environment / "bin" / "streamllm"), *words]
    done = subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_carries_the_configurations_and_no_study(wheels: Path) -> None:
    (wheel,) = wheels.glob("streamllm_mlx-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {f"streamllm/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert {name for name in names if name.startswith("streamllm/conf/")} == ours
    assert not [name for name in names if not name.startswith(("streamllm/", "streamllm_mlx-"))]
    assert not [name for name in names if "mismatch" in name]
    assert "streamllm/cli/example/README.md" in names
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "streamllm" / "live" / "page").iterdir()}
    assert len(page) > 5
    assert page <= names


def test_a_run_and_a_sweep_in_an_empty_folder(environment: Path, empty: Path) -> None:
    shown = streamllm(environment, empty, "run", "policy=waitk", "k=3", *FEW)
    assert "BLEU" in shown
    assert "sweep: 2 points, 1 of them finished before\n" in streamllm(environment, empty, "run", "-m", "k=1,3", *FEW)
    assert [path.name for path in empty.iterdir()] == ["outputs"]
    folders = sorted(empty.glob("outputs/sample-waitk-*"))
    assert len(folders) == 2
    first = json.loads((folders[0] / "env.json").read_text())
    assert (first["commit"], first["versions"]["streamllm"]) == (None, "0.2.0")
    assert first["blas"] is not None or sys.platform != "linux", "MKL is found in an environment of another"


def test_the_example_of_init_runs_as_written(environment: Path, empty: Path) -> None:
    streamllm(environment, empty, "init", "my-study")
    study = empty / "my-study"
    lines = (study / "README.md").read_text("utf-8").splitlines()
    commands = [line.partition(" #")[0].split()[1:] for line in lines if line.startswith("    streamllm ")]
    single, sweep, _ = (streamllm(environment, study, *words) for words in commands)
    assert "written early [%]" in single
    assert "sweep: 3 points, 1 of them finished before\n" in sweep


def test_an_installed_plugin_adds_a_policy_a_metric_a_data_set_and_a_tracker(environment: Path, empty: Path) -> None:
    own = ["policy=read_share", "metric=source_length", "dataset=greetings", "tracker=file"]
    shown = streamllm(environment, empty, "run", *own)
    assert "source units" in shown
    (metrics,) = empty.glob("outputs/greetings-read_share-*/metrics.json")
    assert json.loads(metrics.read_text())["source_length"] == 4
    assert json.loads((empty / "tracked.json").read_text())["bleu"] == json.loads(metrics.read_text())["bleu"]


def test_an_editable_install_reads_conf_where_it_lies(tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip("install", "--no-deps", "--target", str(target), "-e", str(ROOT))
    assert not list(target.rglob("*.yaml"))
    assert [path.name for path in target.glob("*.pth")] == ["_streamllm_mlx.pth"]
