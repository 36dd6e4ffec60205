"""The page on what can be relied on names tests that there are, one or more for each promise."""

import re

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [re.split(r"\s*\|\s*", line)[1:-1] for line in PAGE.splitlines() if line.startswith("|")]
PROMISES = [row for row in ROWS if row[0] not in {"promise", "---"}]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", PAGE))))
def test_the_test_of_a_promise_exists(name: str) -> None:
    file, test = name.split("::")
    assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0][:40])
def test_a_promise_has_a_test_or_says_that_none_holds_it_yet(row: list[str]) -> None:
    assert len(row) == 3
    assert row[2] == "*not yet*" or re.fullmatch(r"`[\w/]+\.py::\w+`(; `[\w/]+\.py::\w+`)*", row[2])
