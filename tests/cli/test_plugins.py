"""Things from outside: conf/ and modules of the working folder, and installed packages that add their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_command import streamllm

FEW = ("tracker=none", "dataset.limit=2", "batch_size=1")
POLICY = """
from streamllm.policies import WaitK

class Patient(WaitK):
    pass
"""


def study(folder: Path, module: str = "mine") -> Path:
    """A folder with a policy of its own."""
    (folder / "conf" / "policy").mkdir(parents=True)
    (folder / f"{module}.py").write_text(POLICY)
    (folder / "conf" / "policy" / "patient.yaml").write_text(f"_target_: {module}.Patient\nk: 4\ncatchup: 0\n")
    return folder


def installed(folder: Path, name: str, conf: dict[str, str] | None = None, code: str = "") -> str:
    """A plug-in as pip leaves it: a package, and its metadata with an entry point."""
    package = folder / f"{name}_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    for file, text in (conf or {}).items():
        (package / "conf" / file).parent.mkdir(parents=True, exist_ok=True)
        (package / "conf" / file).write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[streamllm]\n{name} = {name}_package\n")
    return str(folder)


# The working folder


def test_a_module_and_a_configuration_of_the_working_folder_are_found(tmp_path: Path) -> None:
    done = streamllm(study(tmp_path / "mein Übungsordner"), "run", "policy=patient", *FEW)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("conf/ of this folder is searched before streamllm's\n")


def test_the_working_folder_wins_over_ours_and_says_so_of_a_whole_program(tmp_path: Path) -> None:
    study(tmp_path)
    (tmp_path / "conf" / "policy" / "full.yaml").write_text("_target_: mine.Patient\nk: 2\ncatchup: 0\n")
    (tmp_path / "conf" / "run.yaml").write_text((ROOT / "conf" / "run.yaml").read_text("utf-8") + "\nown: 1\n")
    done = streamllm(tmp_path, "run", "policy=full", "--cfg", "job")
    assert "_target_: mine.Patient" in done.stdout
    assert "own: 1" in done.stdout
    assert done.stderr == (
        "conf/ of this folder is searched before streamllm's, and its run.yaml taken whole for streamllm's\n"
    )


@pytest.mark.long
def test_launchers_processes_find_the_modules_too(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install -e '.[sweeps]'")
    words = ["run", "-m", "policy=patient", "policy.k=2,3", *FEW, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = streamllm(study(tmp_path), *words)
    assert done.returncode == 0, done.stderr
    assert "sweep: 2 points\n" in done.stdout


def test_an_error_knows_the_configurations_of_the_working_folder(tmp_path: Path) -> None:
    study(tmp_path)
    done = streamllm(tmp_path, "run", "policy=patient", "policy.j=2")
    assert "error: policy=patient has no key 'policy.j'; there are policy.catchup, policy.k" in done.stderr


def test_a_checkout_keeps_its_own_conf_without_a_word(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), *FEW, f"output.root={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0
    assert "is searched" not in done.stderr


def test_another_hydra_program_knows_nothing_of_this(tmp_path: Path) -> None:
    study(tmp_path)
    code = "import hydra\n@hydra.main(version_base='1.3', config_path=None)\ndef main(cfg): print(cfg)\nmain()"
    (tmp_path / "other.py").write_text(code)
    known = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "other.py", "--info", "searchpath"]
    done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "working folder" not in done.stdout


def test_list_shows_what_the_working_folder_has(tmp_path: Path) -> None:
    study(tmp_path)
    (tmp_path / "mine.py").write_text('class Patient:\n    """Waits longer. Than others."""\n')
    lines = streamllm(tmp_path, "list", "policies").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines if line.startswith("patient")] == [["patient", "Waits longer"]]


# Installed packages


def test_an_installed_package_adds_to_each_group(tmp_path: Path) -> None:
    conf = {"policy/patient.yaml": "_target_: one_package.Patient\nk: 4\ncatchup: 0\n"}
    site = installed(tmp_path / "site", "one", conf, POLICY)
    done = streamllm(tmp_path, "run", "policy=patient", *FEW, PYTHONPATH=site)
    assert done.returncode == 0, done.stderr
    refused = streamllm(tmp_path, "run", "policy=foo", PYTHONPATH=site).stderr
    assert refused.startswith("error: policy=foo does not exist; accepted are alignatt, ")
    assert " patient, " in refused


def test_the_working_folder_wins_over_a_plugin(tmp_path: Path) -> None:
    conf = {"policy/patient.yaml": "_target_: one_package.Patient\nk: 4\ncatchup: 0\n"}
    site = installed(tmp_path / "site", "one", conf, POLICY)
    done = streamllm(study(tmp_path / "work"), "run", "policy=patient", "--cfg", "job", PYTHONPATH=site)
    assert "_target_: mine.Patient" in done.stdout


@pytest.mark.parametrize(
    ("code", "conf", "message"),
    [
        ("import no_such_module", {}, "the plug-in 'one' (one) cannot be imported (ModuleNotFoundError: No module "
         "named 'no_such_module'): mend it, or pip uninstall one"),
        ("", {}, "the plug-in 'one' (one) names one_package, which is no package with a folder conf/"),
        ("", {"policy/waitk.yaml": "k: 1\n"}, "streamllm and the plug-in 'one' both have conf/policy/waitk.yaml"),
    ],
)  # fmt: skip
def test_a_plugin_that_is_wrong_is_one_line(tmp_path: Path, code: str, conf: dict[str, str], message: str) -> None:
    done = streamllm(tmp_path, "run", PYTHONPATH=installed(tmp_path / "site", "one", conf, code))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_a_name_that_two_plugins_claim_is_one_line(tmp_path: Path) -> None:
    for name in ("one", "two"):
        site = installed(tmp_path / name, name, {"policy/patient.yaml": "k: 1\n"})
        paths = f"{tmp_path / 'one'}{os.pathsep}{site}"
    done = streamllm(tmp_path, "run", PYTHONPATH=paths)
    message = "error: the plug-in 'one' and the plug-in 'two' both have conf/policy/patient.yaml: rename it in one of"
    assert done.stderr.startswith(message)
