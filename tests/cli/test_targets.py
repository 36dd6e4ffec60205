"""What is said of a policy of one's own that cannot work, in a wheel and in a checkout: one line that names the
mistake."""

from pathlib import Path

import pytest
from conftest import ROOT
from test_command import streamllm

FEW = ("tracker=none", "dataset.limit=2", "batch_size=1")
POLICIES = """
class Says:
    def start(self, example):
        return lambda state: "write"


class TakesNothing:
    def start(self):
        return lambda state: None


class NoStart:
    pass
"""


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    """The path of the package as pip leaves it: below ``site-packages``, where no file is the user's."""
    site = tmp_path / "site-packages"
    site.mkdir()
    for name in ("streamllm", "conf"):
        (site / name).symlink_to(ROOT / name)
    return str(site)


def said_of(folder: Path, settings: str, **environment: str) -> str:
    """The last line about a policy that ``settings`` configure."""
    (folder / "own" / "conf" / "policy").mkdir(parents=True)
    (folder / "own" / "mine.py").write_text(POLICIES)
    (folder / "own" / "broken.py").write_text("x = 1\nclass Broken(:\n    pass\n")
    (folder / "own" / "unfit.py").write_text("x = 1\nabsent()\n")
    (folder / "own" / "conf" / "policy" / "own.yaml").write_text(settings)
    done = streamllm(folder / "own", "run", "policy=own", *FEW, **environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1].removesuffix(" (debug=true shows the stack)")


def test_a_wrong_decision_is_told_in_our_words_alone(tmp_path: Path, wheel: str) -> None:
    said = said_of(tmp_path, "_target_: mine.Says", PYTHONPATH=wheel)
    assert said == (
        "error: a policy decided 'write'; accepted are the objects records.READ and records.WRITE, and "
        "records.Write(tokens), which writes those tokens"
    )


def test_a_mistake_without_a_line_of_the_user_is_told_by_the_last_line(tmp_path: Path, wheel: str) -> None:
    said = said_of(tmp_path, "_target_: mine.TakesNothing", PYTHONPATH=wheel)
    assert said.startswith("error: TypeError: TakesNothing.start() takes 1 positional argument but 2 were given (in ")
    assert "site-packages" in said


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("_target_: mine.NoStart", "policy is a NoStart, without start(example); give a policy object such as"),
        ("k: 4", "policy is {'k': 4}, which names no class: its YAML needs a line _target_: MODULE.CLASS"),
        ("_target_: mine.NoStop", "_target_ is mine.NoStop, and mine.py has NoStart, Says, TakesNothing, no NoStop"),
        ("_target_: random.Own", "_target_ is random.Own, and random is a module of Python's own: give random.py an"),
        ("_target_: nowhere.Own", "_target_ is nowhere.Own, and there is no module nowhere: put nowhere.py here, or"),
        ("_target_: broken.Broken", "broken.py cannot be read: invalid syntax (line 2)"),
        ("_target_: unfit.Unfit", "unfit cannot be imported: NameError: name 'absent' is not defined (line 2 of "),
    ],
)
def test_a_policy_that_cannot_be_made_is_one_line(tmp_path: Path, settings: str, message: str) -> None:
    assert message in said_of(tmp_path, settings)
