"""What studies share, and that each point of the study of policies can be run."""

from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from test_policy_docs import EXPORTED

from experiments.mismatch.run import DECODED, LOOKS, PANELS, read_table
from experiments.policies.run import POINTS, sweep
from experiments.study import launch_all, write_between

SCRIPT = """
import pathlib, sys, time
folder, name, code = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print(name, "begins", flush=True)
(folder / f"{name}.running").touch()
(folder / f"{name}.beside").write_text(str(len(list(folder.glob("*.running")))))
time.sleep(0.2)
(folder / f"{name}.running").unlink()
print(name, "ends")
sys.exit(code)
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return str(path)


def beside(folder: Path) -> dict[str, int]:
    """How many commands ran when each began, itself included."""
    return {path.stem: int(path.read_text()) for path in folder.glob("*.beside")}


def test_one_process_runs_one_command_after_the_other(script: str, tmp_path: Path) -> None:
    launch_all(script, [[str(tmp_path), name, "0"] for name in "abc"], 1)
    assert beside(tmp_path) == {"a": 1, "b": 1, "c": 1}


def test_output_of_a_command_stands_together(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch_all(script, [[str(tmp_path), name, "0"] for name in "abcd"], 2)
    output = capsys.readouterr().out
    assert max(beside(tmp_path).values()) <= 2
    for name in "abcd":
        assert f"{name} begins\n{name} ends\n" in output


def test_a_command_that_fails_costs_no_other(script: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        launch_all(script, [[str(tmp_path), "a", "3"], [str(tmp_path), "b", "0"]], 1)
    assert ended.value.code == 1
    assert set(beside(tmp_path)) == {"a", "b"}


def test_a_table_replaces_what_stood_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n", encoding="utf-8")
    write_between(page, "table", "new")
    assert page.read_text() == "before\n<!-- table -->\nnew\n<!-- /table -->\nafter\n"
    with pytest.raises(ValueError, match="has no <!-- plot -->"):
        write_between(page, "plot", "new")


# The study of policies


@pytest.mark.parametrize("name", POINTS)
def test_each_point_of_the_study_composes(name: str) -> None:
    flag, *overrides = sweep(name)
    assert flag == "-m"
    first = [override.split(",")[0] for override in overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("run", first).study == name


def test_the_study_has_every_policy_that_the_package_exports_at_three_points_or_more() -> None:
    """A bounded policy is another line of the same; what replays given delays has no points, the bundled model has no
    head that a learned one would ask and no token to wait by, and a front is none that a stream can have."""
    assert {name.partition("+")[0] for name in POINTS} >= set(EXPORTED) - {
        "oracle",
        "replay",
        "learned",
        "frontier",
        "wait_token",
    }
    for name, overrides in POINTS.items():
        points = max([1, *(len(override.split(",")) for override in overrides)])
        assert points >= 3 or name in ("full", "alignatt+max_lag")


def test_plot_of_mismatches_finds_each_decoding_in_the_table() -> None:
    table = read_table(ROOT / "experiments/mismatch/README.md")
    assert list(table["study"].unique()) == list(DECODED)
    assert set(table.groupby("study")["k"].apply(tuple)) == {(1, 3, 5, 7)}
    assert (table["bleu_low"] < table["bleu"]).all()
    assert (table["bleu"] < table["bleu_high"]).all()


def test_each_mismatch_has_a_colour_of_its_own_and_is_drawn() -> None:
    assert set(LOOKS) == set(DECODED) == {name for names in PANELS.values() for name in names}
    assert len({look.color for look in LOOKS.values()}) == len(LOOKS)
