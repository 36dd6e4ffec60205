"""What the README shows works as it stands there, and the links of all pages lead somewhere."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("experiments/*/README.md"))]


def test_it_begins_with_the_two_commands() -> None:
    commands = re.findall(r"^pip install .*$", README, flags=re.MULTILINE)
    assert commands[:2] == ["pip install -e . && python run.py policy=waitk k=3", "pip install -e '.[test]' && pytest"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link
