"""The page on known reports names tests that there are."""

import promises
import pytest

PAGE = promises.page("known-reports.md")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("|")]
REPORTS = [row for row in ROWS if row[0] not in {"report", "---"}]


@pytest.mark.parametrize("name", promises.tests_named(PAGE))
def test_the_test_of_a_row_exists(name: str) -> None:
    assert promises.is_there(name)


@pytest.mark.parametrize("row", REPORTS, ids=lambda row: row[0][:40])
def test_a_row_has_a_test_or_says_that_nothing_is_done(row: list[str]) -> None:
    assert len(row) == 4
    assert row[3].startswith("`") != row[2].startswith("not yet")
