"""docs/api.md is what the docstrings say."""

import make_api


def test_the_page_is_not_stale() -> None:
    assert make_api.PAGE.read_text(encoding="utf-8") == make_api.page(), "run: python scripts/make_api.py"
