"""A run folder may be a stranger's: scoring it calls nothing that it names but what is known here."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_damaged_files import LINE, stored

from streamllm.cli.score import score_run

CONFIG: dict[str, Any] = {
    "dataset": {
        "_target_": "streamllm.data.text.ParallelText",
        "source": "a.en",
        "target": "a.de",
        "source_language": "en",
        "target_language": "de",
    },
    "limits": {"_target_": "streamllm.engine.limits.Limits"},
    "metrics": {"ter": {"_target_": "streamllm.metrics.ter.TER", "language": "de"}},
}


def run(folder: Path, **changes: Any) -> Path:
    stored(folder, LINE)
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    (folder / "metrics.json").write_text(json.dumps({"bleu": 0.0}))
    return folder


def test_a_run_of_ours_is_scored_with_the_metrics_that_it_was_started_with(tmp_path: Path) -> None:
    _, found = score_run(run(tmp_path))
    assert (found["ter"], found["sentences"]) == (0.0, 1)


@pytest.mark.parametrize(
    ("part", "target"),
    [
        ("limits", "pathlib.Path"),
        ("limits", "streamllm.files.write_atomically"),
        ("arrival", "pathlib.Path"),
        ("metrics", "pathlib.Path"),
    ],
)
def test_what_a_strangers_run_names_is_not_called(tmp_path: Path, part: str, target: Any) -> None:
    node: Any = {"_target_": target, "path": str(tmp_path / "written"), "content": "x"}
    with pytest.raises(ValueError, match=rf"run\.yaml: {part} names .*, so it is not called"):
        score_run(run(tmp_path, **{part: {"mine": node} if part == "metrics" else node}))
    assert not (tmp_path / "written").exists()


def test_nor_is_what_it_names_within_a_part(tmp_path: Path) -> None:
    inner = {"_target_": "streamllm.engine.limits.Limits", "length_ratio": {"_target_": "pathlib.Path"}}
    with pytest.raises(ValueError, match=r"limits names 'pathlib\.Path'"):
        score_run(run(tmp_path, limits=inner))
