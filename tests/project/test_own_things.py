"""The examples in the pages about own things and about sessions work as printed, in a folder of one's own."""

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT
from hydra.utils import instantiate
from omegaconf import OmegaConf

from streamllm.data.dataset import Dataset
from streamllm.evaluation.runner import run_experiment
from streamllm.metrics.own import own_scores
from streamllm.models.loading import ModelConfig
from streamllm.policies import WaitK
from streamllm.records import Trace

FILE = re.compile(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
"""A code block with its file's name before it."""


def written(page: str, folder: Path) -> None:
    """Write each file that a page prints into a folder."""
    for name, text in FILE.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which somebody works: its modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if isinstance(module := sys.modules[name], ModuleType) and str(tmp_path) in str(
            getattr(module, "__file__", "")
        ):
            del sys.modules[name]


def made(group: str, name: str, **keys: Any) -> Any:
    """What the YAML of a page makes, with some keys set."""
    configuration = OmegaConf.load(Path("conf", group, f"{name}.yaml"))
    return instantiate(OmegaConf.merge(configuration, keys), _convert_="all")


def subtitles(**keys: Any) -> Dataset:
    dataset = made("dataset", "subtitles", source="film.en.srt", target="film.de.srt", **keys)
    assert isinstance(dataset, Dataset)
    return dataset


def test_the_data_set_pairs_blocks_by_their_numbers(own: Path) -> None:
    written("own_data_set.md", own)
    first, second = subtitles().load()
    assert (first.id, first.source) == ("subtitles-1", "A man is riding a bicycle.")
    assert (second.id, second.reference) == ("subtitles-2", "Zwei Hunde spielen.")


def test_the_data_set_keeps_ids_where_it_is_cut_shuffled_or_streamed(own: Path) -> None:
    written("own_data_set.md", own)
    every = subtitles().load()
    assert subtitles(limit=1).load() == every[:1]
    assert sorted(subtitles(shuffle=True, seed=1).load(), key=lambda example: example.id) == every
    assert list(subtitles().stream()) == every


@pytest.mark.parametrize(
    ("text", "said"), [("no subtitles", "a block is a number"), ("1\n0 --> 1\n \n\n2\n1 --> 2\nx", "film.en.srt")]
)
def test_the_data_set_refuses_what_it_cannot_read(own: Path, text: str, said: str) -> None:
    written("own_data_set.md", own)
    (own / "film.en.srt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        subtitles().load()


def test_the_tracker_gets_a_line_for_each_finished_run(own: Path) -> None:
    written("own_data_set.md", own)
    written("own_tracker.md", own)
    for k in (2, 1, 2):  # the third has finished before
        run_experiment(
            config={"k": k},
            name="film",
            model=ModelConfig("bundled:tiny-en-de"),
            policy=WaitK(k),
            dataset=subtitles(),
            tracker=made("tracker", "ledger"),
        )
    with (own / "ledger.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [OmegaConf.load(own / "outputs" / row["run"] / "run.yaml").k for row in rows] == [2, 1]
    assert all(float(row["laal"]) > 0 for row in rows)


def test_the_tracker_has_no_line_of_a_run_that_failed(own: Path) -> None:
    written("own_tracker.md", own)
    tracker = made("tracker", "ledger")
    tracker.start(None)
    tracker.finish(exit_code=1)
    assert not (own / "ledger.csv").exists()


def test_the_page_about_sessions_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "session.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, names)
    assert capsys.readouterr().out.split()[:7] == ["Ein", "Mann", "fährt", "Fahrrad.", "9", "5", "16"]


def test_the_metric_counts_what_is_said_twice(own: Path) -> None:
    written("own_metric.md", own)
    metric = made("metric", "stutter")
    traces = [trace("ein ein Hund"), trace("zwei Hunde"), trace("")]
    assert metric(traces) == pytest.approx(100 / 3)
    assert metric([trace("")]) is None
    (score,) = own_scores([metric])
    assert score.meaning == "The share of target units, in percent, that repeat the unit before them"


def trace(prediction: str) -> Trace:
    units = tuple(prediction.split())
    delays, times = tuple(range(1, len(units) + 1)), (0.0,) * len(units)
    return Trace("1", "a b c", "a b c", units, delays, times, (), 3, prediction)
