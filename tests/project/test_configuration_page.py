"""docs/configuration.md is what conf/ and the docstrings say, and leaves no key without a word."""

import re

import make_configuration
import pytest


def test_the_page_is_not_stale() -> None:
    said = "run: python scripts/make_configuration.py"
    assert make_configuration.PAGE.read_text(encoding="utf-8") == make_configuration.page(), said


def test_every_key_of_every_file_and_command_has_a_word() -> None:
    assert make_configuration.without_a_word() == []


def test_a_key_without_a_word_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamllm.policies import WaitK

    monkeypatch.setattr(WaitK, "__doc__", (WaitK.__doc__ or "").replace("catchup: target", "catch-up: target"))
    make_configuration.explained.cache_clear()
    assert make_configuration.without_a_word() == ["streamllm.policies.waitk.WaitK.catchup"]
    make_configuration.explained.cache_clear()


def test_words_of_several_arguments_and_lines_are_those_of_each() -> None:
    class Below:
        """Says something.

        Args:
            one: of below.
        """

    class Above(Below):
        """Says more.

        Args:
            two, three: both, in words
                of two lines.

        Raises:
            four: is no argument.
        """

    both = "both, in words of two lines"
    assert make_configuration.words(Above) == {"one": "of below", "two": both, "three": both}


def test_words_that_refer_to_another_class_are_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """Says something.

        Args:
            one: its words.
        """

    class Refers:
        """Says less.

        Args:
            one, two: as for `Other`.
            three: as for `streamllm.policies.waitk.WaitK`, in part.
        """

    monkeypatch.setitem(globals(), "Other", Other)
    assert make_configuration.words(Refers) == {
        "one": "its words",
        "three": "as for `streamllm.policies.waitk.WaitK`, in part",
    }


def test_no_words_lead_nowhere() -> None:
    """A reader of the page has no class at hand, and rows stand by themselves."""
    lost = re.compile(r"\| (?:as (?:for|well)|the same)\b|as for `|\bsee `|\(see above\)|\(`\w+(?:\.\w+)*`\)")
    rows = [line for line in make_configuration.page().splitlines() if line.startswith("| `")]
    assert [row for row in rows if lost.search(row)] == []
