"""A teacher's translations as training data."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from conftest import ROOT

from streamllm.data.sample import Sample
from streamllm.data.table import Table
from streamllm.engine.loop import translate
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import Full
from streamllm.training.distill import distill

CORPUS = Sample(limit=6)


@pytest.fixture(scope="module")
def teacher() -> StreamingModel:
    return ModelConfig("bundled:tiny-en-de").load()


@pytest.mark.parametrize("stream", [False, True])
def test_targets_are_the_teachers_translations_of_whole_sources(
    teacher: StreamingModel, stream: bool, tmp_path: Path
) -> None:
    to = tmp_path / "new" / "distilled.jsonl"
    assert list(distill(teacher, CORPUS, to, {}, batch_size=4, stream=stream)) == [1, 2, 3, 4, 5, 6]
    made = Table(path=to, source_language="en", target_language="de").load()
    expected = [translate(teacher.session(), pair, Full()) for pair in CORPUS.load()]
    assert [(pair.id, pair.source, pair.reference) for pair in made] == [
        (trace.id, trace.source, trace.prediction) for trace in expected
    ]


def test_a_document_is_taught_sentence_by_sentence(teacher: StreamingModel, tmp_path: Path) -> None:
    made = []
    for name, size in (("alone", None), ("documents", 2)):
        path = tmp_path / f"{name}.jsonl"
        list(distill(teacher, Sample(limit=4 if size is None else 2, sentences_per_document=size), path, {}))
        made.append([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    assert [row["de"] for row in made[0]] == [row["de"] for row in made[1]]
    assert [row["id"] for row in made[1]] == ["sample_1_1", "sample_1_2", "sample_2_1", "sample_2_2"]


def test_a_stopped_one_goes_on_where_it_stood(teacher: StreamingModel, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight.jsonl", tmp_path / "stopped.jsonl"
    list(distill(teacher, CORPUS, straight, {"a": 1}, batch_size=2))
    assert list(islice(distill(teacher, CORPUS, stopped, {"a": 1}, batch_size=2), 3)) == [1, 2, 3]
    with stopped.open("a") as file:
        file.write('{"id": "sample')  # as a kill leaves it
    assert list(distill(teacher, CORPUS, stopped, {"a": 1}, batch_size=4)) == [4, 5, 6]
    assert stopped.read_bytes() == straight.read_bytes()
    assert list(distill(teacher, CORPUS, stopped, {"a": 1})) == []
    with pytest.raises(ValueError, match="made with another configuration"):
        next(distill(teacher, CORPUS, stopped, {"a": 2}))


def test_separators_of_lines_inside_a_sentence_end_no_line(teacher: StreamingModel, tmp_path: Path) -> None:
    table, to = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"id": str(i), "en": f"a man{mark}waits", "de": "x"} for i, mark in enumerate("\u2028\x85 ")]
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    corpus = Table(path=table, source_language="en", target_language="de")
    assert list(islice(distill(teacher, corpus, to, {}, batch_size=None), 2)) == [1, 2]
    assert list(distill(teacher, corpus, to, {})) == [3]
    to.write_bytes(b'{"id"\n' + to.read_bytes())
    with pytest.raises(ValueError, match=r"out\.jsonl, line 1 is damaged.*remove that line"):
        next(distill(teacher, corpus, to, {}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "it is []; it should be an object"),
        ("{", "Expecting"),
        ("[" * 100_000, "nested too deep"),
        ('{"contents": 5}', "contents: it is 5; it should be an object"),
    ],
)
def test_a_damaged_note_of_what_a_file_was_made_with_is_named(
    teacher: StreamingModel, tmp_path: Path, content: str, message: str
) -> None:
    to = tmp_path / "out.jsonl"
    next(distill(teacher, CORPUS, to, {}))
    (tmp_path / "out.jsonl.config.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"out\.jsonl\.config\.json is damaged \(.*give another file, or delete"
    ) as raised:
        next(distill(teacher, CORPUS, to, {}))
    assert message in str(raised.value)


def distill_by_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamllm", "distill", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


@pytest.mark.long
def test_the_script(tmp_path: Path) -> None:
    to = tmp_path / "distilled.jsonl"
    done = distill_by_script("dataset.limit=3", f"to={to}")
    assert done.returncode == 0, done.stderr
    assert [set(json.loads(line)) for line in to.read_text().splitlines()] == [{"id", "en", "de"}] * 3
    refused = distill_by_script("k=3", f"to={to}")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: k=3: the teacher reads each source whole, so leave this out (debug=true")
    assert len(refused.stderr.splitlines()) == 1
