"""Data that lies in memory as bytes: the folder of a run over lists."""

import json
from pathlib import Path

import pytest

from streamllm.data import text
from streamllm.data.sample import Sample
from streamllm.data.text import ParallelText
from streamllm.engine.limits import Limits
from streamllm.evaluation import portions
from streamllm.evaluation.portions import in_portions
from streamllm.evaluation.runner import run_experiment
from streamllm.files import RunError
from streamllm.models.loading import ModelConfig
from streamllm.policies import WaitK
from streamllm.records import Example
from streamllm.runs.folder import CONTENTS, INSTANCES, METRICS, PREDICTIONS, RunFolder

MODEL = ModelConfig("bundled:tiny-en-de")


@pytest.fixture
def data(tmp_path: Path) -> ParallelText:
    pairs = Sample(limit=7).load()
    for language, lines in (("en", [p.source for p in pairs]), ("de", [p.reference for p in pairs])):
        (tmp_path / f"few.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return ParallelText(source=tmp_path / "few.en", target=tmp_path / "few.de")


def run(data: ParallelText, root: Path, stop_after: int | None = None) -> Path:
    config = {"policy": "wait-3"}
    policy = WaitK(3)
    if stop_after is not None:
        start, left = policy.start, iter(range(stop_after))

        def stopping(example: Example):  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                raise KeyboardInterrupt
            return start(example)

        object.__setattr__(policy, "start", stopping)
    run_experiment(config=config, name="run", model=MODEL, policy=policy, dataset=data, root=root, batch_size=2)
    return RunFolder.of(config, "run", root).path


def files(folder: Path) -> list[object]:
    lines = sorted((folder / PREDICTIONS).read_text().splitlines())
    instances = [json.loads(line) for line in (folder / INSTANCES).read_text().splitlines()]
    sentences = [{key: value for key, value in one.items() if key != "elapsed"} for one in instances]
    contents = json.loads((folder / CONTENTS).read_text())
    return [lines, sentences, contents["sentences"], json.loads((folder / METRICS).read_text())["bleu"]]


@pytest.fixture
def in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MANY", 0)
    monkeypatch.setattr(portions, "PORTION", 3)


def test_a_run_over_bytes_is_a_run_over_lists_and_goes_on_where_it_was_stopped(
    data: ParallelText, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = files(run(data, tmp_path / "lists"))
    request.getfixturevalue("in_bytes")
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "bytes", stop_after=5)
    stopped = json.loads((RunFolder.of({"policy": "wait-3"}, "run", tmp_path / "bytes").path / CONTENTS).read_text())
    assert "sentences" not in stopped, "that takes all of them"
    assert files(run(data, tmp_path / "bytes")) == whole


@pytest.mark.usefixtures("in_bytes")
def test_a_run_over_bytes_refuses_to_go_on_with_other_sentences(data: ParallelText, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, stop_after=3)
    Path(data.target).write_text(Path(data.target).read_text(encoding="utf-8").upper(), encoding="utf-8")
    with pytest.raises(RunError, match=r"few\.de of the data \(changed\)"):
        run(data, tmp_path)


@pytest.mark.usefixtures("in_bytes")
def test_a_portion_is_asked_for_when_the_one_before_has_ended(data: ParallelText) -> None:
    asked: list[int] = []

    def translate(model, examples, *how):  # type: ignore[no-untyped-def]
        asked.append(len(examples))
        yield from examples

    found = in_portions(translate)(None, data.load_lazily(), WaitK(3), Limits(), None, 0)
    next(found)
    assert asked == [3]
    assert (len([*found]), asked) == (6, [3, 3, 1])
    assert len([*in_portions(translate)(None, data.load(), WaitK(3), Limits(), None, 0)]) == asked[-1] == 7
