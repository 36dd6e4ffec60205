"""The page on what can be relied on names tests that there are, one or more for each promise."""

import re

import promises
import pytest

PAGE = promises.page("reliability.md")
ROWS = [re.split(r"\s*\|\s*", line)[1:-1] for line in PAGE.splitlines() if line.startswith("|")]
PROMISES = [row for row in ROWS if row[0] not in {"promise", "---"}]


@pytest.mark.parametrize("name", promises.tests_named(PAGE))
def test_the_test_of_a_promise_exists(name: str) -> None:
    assert promises.is_there(name)


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0][:40])
def test_a_promise_has_a_test_or_says_that_none_holds_it_yet(row: list[str]) -> None:
    assert len(row) == 3
    assert row[2] == "*not yet*" or re.fullmatch(r"`[\w/]+\.py::\w+`(; `[\w/]+\.py::\w+`)*", row[2])
