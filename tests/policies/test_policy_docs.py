"""docs/policies.md names the policies with their parameters and a command that composes; its example works as printed,
and a policy that is added in its three files breaks no test, though the page does not name it."""

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate

from streamllm import policies

PAGE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
CONFIGURATIONS = {path.stem: path.read_text("utf-8") for path in (ROOT / "conf" / "policy").glob("*.yaml")}
EXPORTED = sorted(  # a policy that somebody adds need not be in streamllm/policies/__init__.py
    name for name, text in CONFIGURATIONS.items() if set(re.findall(r"_target_: .*\.(\w+)", text)) & {*policies.__all__}
)
ROWS = {line.split("`")[1]: line.split("|") for line in PAGE.splitlines() if line.startswith("| `")}


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def commands(text: str) -> list[list[str]]:
    """The overrides of each ``streamllm run`` in a text."""
    return [shlex.split(line) for line in re.findall(r"streamllm run ([^`\n]*)", text)]


def test_the_table_has_all_policies_that_the_package_exports() -> None:
    assert set(EXPORTED) <= ROWS.keys()


@pytest.mark.parametrize("name", sorted(ROWS))
def test_row_names_the_parameters_and_a_command_that_composes(name: str) -> None:
    _, _, _, parameters, example, *_ = ROWS[name]
    (overrides,) = commands(example)
    assert overrides[0] == f"policy={name}"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        policy = compose("run", overrides).policy
    named = [parameter.split(".")[0] for parameter in re.findall(r"`([\w.]+)`", parameters)]
    target = get_class(policy["_target_"])
    assert named == ([] if target.__init__ is object.__init__ else list(inspect.signature(target).parameters))


@pytest.mark.parametrize("name", sorted(ROWS))
def test_file_has_a_command_that_composes(name: str) -> None:
    (overrides,) = commands(CONFIGURATIONS[name])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("run", overrides).policy["_target_"].startswith("streamllm.policies.")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("streamllm.policies.steady")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(policies, "steady", module, raising=False)  # where a file of that name may be already
    exec(block("python", "class Steady"), vars(module))
    return module


def test_the_example_is_short() -> None:
    assert len(block("python", "class Steady").splitlines()) < 25


def test_the_example_passes_its_own_test(example: ModuleType) -> None:
    names: dict = {}
    exec(block("python", "def test_steady"), names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test()


def test_the_example_s_yaml_makes_it(example: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "policy" / "steady.yaml").write_text(block("yaml", "Steady"), encoding="utf-8")
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        assert instantiate(compose("run", ["policy=steady", "policy.n=3"]).policy) == example.Steady(3)


@pytest.mark.long
@pytest.mark.slow
def test_the_example_s_three_files_break_no_test(tmp_path: Path) -> None:
    """In a copy of the project: the tests that go through all policies, and those of the example itself."""
    for folder in ("streamllm", "conf", "tests", "docs", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "streamllm" / "policies" / "steady.py").write_text(block("python", "class Steady"), encoding="utf-8")
    (tmp_path / "conf" / "policy" / "steady.yaml").write_text(block("yaml", "Steady"), encoding="utf-8")
    (tmp_path / "tests" / "policies" / "test_steady.py").write_text(
        block("python", "def test_steady"), encoding="utf-8"
    )
    names = (
        "policies/test_steady",
        "policies/test_policy_docs",
        "project/test_study",
        "cli/test_conf",
        "project/test_rooms",
    )
    files = [f"tests/{name}.py" for name in names]
    chosen = "(steady or policy_docs or study_has) and not three_files"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *files, "-k", chosen]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
