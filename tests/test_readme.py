"""What the README shows works as it stands there."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from tiny_fixtures import FakeSession

from streamllm.records import Example
from streamllm.translate import translate

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def test_it_begins_with_the_two_commands() -> None:
    commands = re.findall(r"^pip install .*$", README, flags=re.MULTILINE)
    assert commands[:2] == ["pip install -e . && python run.py policy=waitk k=3", "pip install -e '.[test]' && pytest"]


def test_the_example_policy_is_short_and_decides_as_it_says() -> None:
    code = block("python", "class Stride")
    assert len(code.splitlines()) < 30
    names: dict = {}
    exec(code, names)
    session = FakeSession(lambda read, written, done: f"w{written}" if written < 5 else None)
    trace = translate(session, Example("1", "a b c d e", ""), names["Stride"](2))
    assert trace.delays == (2, 2, 4, 4, 5)
    with pytest.raises(ValueError, match="s is 0"):
        names["Stride"](0)


def test_the_example_s_yaml_makes_its_key_a_top_level_one(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "policy" / "stride.yaml").write_text(block("yaml", "Stride"), encoding="utf-8")
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        assert compose("run", ["policy=stride", "s=3"]).policy.s == 3
