"""What the README shows works as it stands there."""

import re

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_begins_with_the_two_commands() -> None:
    commands = re.findall(r"^pip install .*$", README, flags=re.MULTILINE)
    assert commands[:2] == ["pip install -e . && python run.py policy=waitk k=3", "pip install -e '.[test]' && pytest"]


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
