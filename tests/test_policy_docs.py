"""docs/policies.md names every policy with its parameters and a command that composes; its example works as printed."""

import inspect
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate

PAGE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
POLICIES = sorted(path.stem for path in (ROOT / "conf" / "policy").glob("*.yaml"))
ROWS = {line.split("`")[1]: line.split("|") for line in PAGE.splitlines() if line.startswith("| `")}


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def commands(text: str) -> list[list[str]]:
    """The overrides of each ``python run.py`` in a text."""
    return [shlex.split(line) for line in re.findall(r"python run\.py ([^`\n]*)", text)]


def test_the_table_has_all_policies() -> None:
    assert sorted(ROWS) == POLICIES


@pytest.mark.parametrize("name", POLICIES)
def test_row_names_the_parameters_and_a_command_that_composes(name: str) -> None:
    _, _, _, parameters, example, *_ = ROWS[name]
    (overrides,) = commands(example)
    assert overrides[0] == f"policy={name}"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        policy = compose("run", overrides).policy
    named = [parameter.split(".")[0] for parameter in re.findall(r"`([\w.]+)`", parameters)]
    target = get_class(policy["_target_"])
    assert named == ([] if target.__init__ is object.__init__ else list(inspect.signature(target).parameters))


@pytest.mark.parametrize("name", POLICIES)
def test_file_has_a_command_that_composes(name: str) -> None:
    (overrides,) = commands((ROOT / "conf" / "policy" / f"{name}.yaml").read_text("utf-8"))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("run", overrides).policy["_target_"].startswith("streamllm.policies.")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("streamllm.policies.steady")
    monkeypatch.setitem(sys.modules, module.__name__, module)
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
