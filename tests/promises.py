"""Pages of the documentation that name a test for each row of their tables: what tests of such pages share."""

import re

from conftest import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def tests_named(text: str) -> list[str]:
    return sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", text)))


def is_there(name: str) -> bool:
    """Whether a file of tests has a function of this name."""
    file, test = name.split("::")
    return re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE) is not None
