"""The command ``streamllm``: its subcommands, what it says of a wrong line, and the study that `init` writes."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from full_disk import full_disk

from streamllm.cli.init import EXAMPLE, write_example
from streamllm.cli.main import COMMANDS
from streamllm.extras import install


def streamllm(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m streamllm``, which is the command, in ``folder``."""
    command = [sys.executable, "-m", "streamllm", *words]
    paths = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(ROOT)]))
    known = os.environ | environment | {"PYTHONPATH": paths}
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, encoding="utf-8")


def test_help_has_a_line_for_each_command_and_version_is_that_of_the_package(tmp_path: Path) -> None:
    shown = streamllm(tmp_path, "--help").stdout.splitlines()
    assert [line.split()[0] for line in shown[1:]] == list(COMMANDS)
    assert streamllm(tmp_path, "--version").stdout == "streamllm 0.2.0\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_module(name: str) -> None:
    assert find_spec(f"streamllm.cli.{name.replace('-', '_')}") is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "error: there is no command 'trian'; did you mean train"),
        (["xyzzy"], "error: there is no command 'xyzzy'; accepted are run, train, train-head, report"),
        (["k=3"], "error: a command comes before k=3, as in streamllm run k=3"),
    ],
)
def test_an_unknown_command_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    done = streamllm(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_a_run_keeps_what_was_typed_and_hydra_knows_the_command(tmp_path: Path) -> None:
    typed = ["run", "policy=waitk", "k=2", "tracker=none", "dataset.limit=1"]
    assert streamllm(tmp_path, *typed).returncode == 0
    (environment,) = (tmp_path / "outputs").glob("*/env.json")
    assert json.loads(environment.read_text())["command"] == " ".join(["streamllm", *typed])
    assert "policy: alignatt, confidence" in streamllm(tmp_path, "run", "--help").stdout


# Grammar


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.path=runs/epoch=3", "cannot read model.path=runs/epoch=3 (mismatched input '=' expecting <EOF>): if "
         """the value is a text, quote it: 'model.path="runs/epoch=3"'"""),
        ("model.path=a#b", """cannot read model.path=a#b: if the value is a text, quote it: 'model.path="a#b"'"""),
        ("k=1,3", "k=1,3 is several values: add -m to run one after the other, as in streamllm run -m k=1,3; one text "
         """is 'k="1,3"'"""),
        ("k=range(1,3)", "k=range(1,3) is several values: add -m to run one after the other, as in streamllm run -m "
         "'k=range(1,3)';"),
        ("waitk", "cannot read waitk: did you mean policy=waitk?"),
    ],
)  # fmt: skip
def test_a_word_that_hydra_cannot_read_says_what_to_quote(tmp_path: Path, word: str, message: str) -> None:
    done = streamllm(tmp_path, "run", word)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_what_is_said_to_be_quoted_is_read_as_it_stands(tmp_path: Path) -> None:
    done = streamllm(tmp_path, "run", 'model.path="runs/epoch=3"')
    assert done.stderr.startswith("error: ")
    assert "'runs/epoch=3'" in done.stderr


def test_signs_without_a_meaning_need_no_quotes(tmp_path: Path) -> None:
    done = streamllm(tmp_path, "run", "model.path=runs/50%/me@home")
    assert done.stderr.startswith("error: ")
    assert "'runs/50%/me@home'" in done.stderr


def test_a_wrong_environment_is_one_line(tmp_path: Path) -> None:
    done = streamllm(tmp_path, "run", STREAMLLM_THREADS="x")
    assert done.stderr == "error: STREAMLLM_THREADS is 'x'; it is a number of threads, at least 1\n"


# The other streamllm


def test_another_package_of_this_name_is_named_in_one_line(tmp_path: Path) -> None:
    info = tmp_path / "site" / "streamllm-0.1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: streamllm\nVersion: 0.1.2\n")
    (info / "RECORD").write_text("streamllm/__init__.py,,\nstreamllm/cli.py,,\n")
    done = streamllm(tmp_path, "--version", PYTHONPATH=str(tmp_path / "site"))
    assert done.stdout == "streamllm 0.2.0\n"
    assert done.stderr.startswith(
        "warning: streamllm 0.1.2, another project, is installed over this one: pip uninstall"
    )
    assert len(done.stderr.splitlines()) == 1


def test_its_script_reaches_us_where_its_package_has_replaced_ours() -> None:
    """Its script says ``from streamllm.cli import main``, and calls that."""
    code = "import streamllm; del streamllm.BLAS\nfrom streamllm.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: streamllm")


def test_an_extra_is_installed_into_the_checkout_or_the_package(tmp_path: Path) -> None:
    assert install("sweeps", ROOT) == "pip install -e '.[sweeps]'"
    assert install("sweeps", tmp_path) == "pip install 'streamllm-mlx[sweeps]'"


# init


@pytest.mark.long
def test_the_study_that_init_writes_runs_as_its_readme_says(tmp_path: Path) -> None:
    made = streamllm(tmp_path, "init", "my study")
    said = made.stdout.splitlines()
    assert said[-5] == "next: cd 'my study', then one after the other:"
    folder = tmp_path / "my study"
    lines = (folder / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 14
    commands = [line.partition(" #")[0].split()[1:] for line in lines if line.startswith("    streamllm ")]
    assert said[-4:] == [f"  streamllm {' '.join(words)}" for words in commands] + ["  python curve.py"]
    single, sweep, others = (streamllm(folder, *words) for words in commands)
    assert single.returncode == sweep.returncode == others.returncode == 0, single.stderr + sweep.stderr + others.stderr
    assert single.stderr.startswith("conf/ of this folder is searched before streamllm's\n")
    assert "written early [%]" in single.stdout
    assert "sweep: 3 points, 1 of them finished before\n" in sweep.stdout
    assert all("early" in json.loads(path.read_text()) for path in (folder / "outputs").glob("*/metrics.json"))
    known = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    subprocess.run([sys.executable, "-W", "error", "curve.py"], cwd=folder, env=known, check=True)
    assert (folder / "curve.png").exists()


def test_init_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write_example(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        write_example(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_init_says_in_one_line_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert streamllm(tmp_path, "init", ".").stderr.startswith("error: . is not empty")
    assert streamllm(tmp_path, "init").stderr == "error: give one folder, as in streamllm init my-study\n"


def test_the_example_is_a_file_of_each_kind() -> None:
    assert sorted(path.parent.name for path in EXAMPLE.glob("conf/*/*.yaml")) == [
        "dataset",
        "experiment",
        "metric",
        "policy",
    ]


def test_an_example_that_cannot_be_written_leaves_an_empty_folder(tmp_path: Path) -> None:
    """Half of one would be in the way of the next try."""
    with full_disk(100), pytest.raises(OSError, match=r"cannot write .* the same command goes on"):
        write_example(tmp_path / "study")
    assert write_example(tmp_path / "study")
