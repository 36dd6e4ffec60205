"""The notebooks are committed without outputs, and name the runs that they need (.ci/run makes and executes them)."""

import json
import re
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_notebooks() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_no_outputs(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert code
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert [cell["execution_count"] for cell in code] == [None] * len(code)


def test_figure_of_runs_from_wandb_takes_runs_over_one_data_set() -> None:
    """Also where two data sets have the same number of sentences."""
    drawn: list[Any] = []
    rows = [("sample", 1), ("sample", 3), ("multi30k", 1), ("multi30k", 3), ("multi30k", 5)]
    runs = pandas.DataFrame([{"dataset.name": name, "sentences": 180, "k": k} for name, k in rows])
    code = "".join(cells(ROOT / "notebooks/04_wandb.ipynb")[-1]["source"])
    exec(code, {"runs": runs, "quality_latency": lambda same, points: drawn.append(same)})
    assert list(drawn[0]["dataset.name"]) == ["multi30k"] * 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_that_a_notebook_asks_for_can_be_made(path: Path) -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    commands = re.findall(r"^python run\.py (.+)$", text, flags=re.MULTILINE)
    assert commands
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for command in commands:
            first = [word.split(",")[0] for word in command.split() if word != "-m"]  # of each key's values
            compose("run", overrides=first)


@pytest.mark.parametrize("name", ["02_quality_latency", "03_reading_and_writing"])
@pytest.mark.parametrize(("limit", "kept"), [(40, [1, 2]), (None, [3])])
def test_runs_over_other_sentences_are_left_out_with_a_word(
    name: str, limit: int | None, kept: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("sample", 40, 1), ("sample", 40, 2), ("sample", None, 3), ("sample", 60, 4), ("multi30k", 40, 5)]
    found = pandas.DataFrame(rows, columns=["dataset.name", "dataset.limit", "folder"])
    found = found.assign(laal=0.0, bleu=0.0, chrf=0.0, al=0.0, forward_passes_per_target_token=0.0)
    found["policy._target_"] = "waitk"
    code = next("".join(cell["source"]) for cell in cells(ROOT / f"notebooks/{name}.ipynb") if cell.get("id") == "2")
    known: dict[str, Any] = {
        "OUTPUTS": "outputs",
        "DATASET": "sample",
        "LIMIT": limit,
        "load_runs": lambda folder: found,
        "load_traces": lambda folder: [],
        "policy_name": str,
        "operating_points": lambda runs: runs["folder"].map(str),
    }
    exec(code, known)
    assert list(known["runs"]["folder"]) == kept
    said = f"{5 - len(kept)} of 5 runs are left out: not over {limit or 'all'} sentences of sample"
    assert said in capsys.readouterr().out
