"""Corpora that memory does not hold: read one by one, in blocks, or as tokens from disk."""

import gzip
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_training import PAIRS, fresh

from streamllm.data.dataset import Dataset
from streamllm.data.hub import HubDataset
from streamllm.data.lines import stream_lines
from streamllm.data.sample import Sample
from streamllm.data.table import Table
from streamllm.data.text import ParallelText
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.runs.folder import METRICS, RunFolder
from streamllm.tracking.tracker import NullTracker
from streamllm.training.adapters import AdapterConfig
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.sources import Buffered, TokenFiles, Tokenized, token_files
from streamllm.training.train import ValidationConfig, _check_languages, train

# Streams of every data set


def texts(folder: Path, sources: list[str], references: list[str], packed: bool = False) -> tuple[Path, Path]:
    files = []
    for code, rows in (("en", sources), ("de", references)):
        path = folder / f"pairs.{code}{'.gz' if packed else ''}"
        data = "".join(f"{row}\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if packed else data)
        files.append(path)
    return files[0], files[1]


SOURCES, REFERENCES = [pair.source for pair in PAIRS], [pair.reference for pair in PAIRS]


def table(folder: Path, ending: str) -> Path:
    path = folder / f"rows.{ending}"
    rows = [{"en": pair.source, "de": pair.reference} for pair in PAIRS]
    if ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "parquet":
        import pandas

        pandas.DataFrame({"translation": rows}).to_parquet(path)
    elif ending in ("csv", "tsv"):
        separator = "," if ending == "csv" else "\t"
        quote = '"' if ending == "csv" else ""
        body = [separator.join(f"{quote}{row[code]}{quote}" for code in ("en", "de")) for row in rows]
        path.write_text("\n".join([separator.join(("en", "de")), *body]) + "\n")
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    return path


def corpus(kind: str, folder: Path) -> Dataset:
    codes = {"source_language": "en", "target_language": "de"}
    if kind in ("text", "text.gz"):
        source, target = texts(folder, SOURCES, REFERENCES, kind.endswith("gz"))
        return ParallelText(source=source, target=target)
    if kind == "data_dir":
        texts(folder, SOURCES, REFERENCES)
        return HubDataset(path="any/thing", split="pairs", data_dir=folder, **codes)  # type: ignore[arg-type]
    if kind == "hub":
        table(folder, "jsonl").rename(folder / "train.jsonl")
        return HubDataset(path=str(folder), split="train", **codes)  # type: ignore[arg-type]
    return Sample() if kind == "sample" else Table(path=table(folder, kind), **codes)  # type: ignore[arg-type]


KINDS = ["text", "text.gz", "data_dir", "hub", "sample", "json", "jsonl", "jsonl.gz", "csv", "tsv", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_what_loading_does(kind: str, tmp_path: Path) -> None:
    data = corpus(kind, tmp_path)
    assert [(p.source, p.reference) for p in data.stream()] == [(p.source, p.reference) for p in data.load()]
    assert len({pair.id for pair in data.stream()}) == len(data.load())
    assert data.files() and all(path.is_file() for path in data.files())


def test_a_stream_stops_at_its_limit_and_refuses_to_shuffle(tmp_path: Path) -> None:
    source, target = texts(tmp_path, SOURCES, REFERENCES)
    assert len(list(ParallelText(source=source, target=target, limit=2).stream())) == 2
    with pytest.raises(ValueError, match=r"data\.buffer shuffles"):
        ParallelText(source=source, target=target, shuffle=True).stream()


@pytest.mark.parametrize(
    ("sources", "references", "says"),
    [
        (["a", "b", "c"], ["x", "y"], r"pairs\.de ends before line 3"),
        (["a", "b", ""], ["x", "y", "z"], r"empty source in .*pairs\.en \(pairs-3\)"),
        (["a", "b", "c"], ["x", "y", " "], r"empty reference in .*pairs\.de \(pairs-3\)"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_reached(
    sources: list[str], references: list[str], says: str, tmp_path: Path
) -> None:
    source, target = texts(tmp_path, sources, references)
    stream = ParallelText(source=source, target=target).stream()
    assert [pair.source for pair in islice(stream, 2)] == ["a", "b"]
    with pytest.raises(ValueError, match=says):
        next(stream)
    if "" in sources:
        kept = ParallelText(source=source, target=target, skip_empty=True).stream()
        assert [pair.id for pair in kept] == ["pairs-1", "pairs-2"]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.en").write_bytes(b"good\nsch\xf6n\n")
    with pytest.raises(ValueError, match=r"latin\.en cannot be read after line"):
        list(stream_lines(tmp_path / "latin.en"))
    source, target = texts(tmp_path, SOURCES, REFERENCES, packed=True)
    source.write_bytes(source.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"pairs\.en\.gz cannot be read after line"):
        list(ParallelText(source=source, target=target).stream())
    (tmp_path / "rows.jsonl").write_text('{"en": "a", "de": "b"}\n{"en": \n')
    with pytest.raises(ValueError, match=r"line 2 of .*rows\.jsonl is not JSON"):
        list(Table(path=tmp_path / "rows.jsonl", source_language="en", target_language="de").stream())
    with pytest.raises(ValueError, match=r"no column for 'fr'.*en, de"):
        next(Table(path=tmp_path / "rows.jsonl", source_language="en", target_language="fr").stream())


# Blocks


class Counted:
    """A stream of numbered pairs that counts what is taken of it."""

    def __init__(self, size: int):
        self.size = size
        self.taken = 0

    def __call__(self) -> Iterator[Example]:
        for i in range(self.size):
            self.taken += 1
            yield Example(str(i), f"source {i}", f"target {i}")


def ids(blocks: Iterator[Any]) -> list[list[str]]:
    return [[pair.id for pair in block] for block in blocks]


def test_a_block_is_all_that_is_held() -> None:
    pairs = Counted(100)
    blocks = Buffered(pairs, 7, seed=1).blocks(0, 0)
    next(blocks)
    assert pairs.taken == 7
    next(blocks)
    assert pairs.taken == 14


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_epoch_of_a_stream_has_each_pair_once_and_can_begin_at_any_block(epoch: int) -> None:
    stream = Buffered(Counted(40), 7, seed=1)
    whole = ids(stream.blocks(epoch, 0))
    assert [id for block in whole for id in block] == [str(i) for i in range(40)]
    assert max(map(len, whole)) == 7
    for start in range(len(whole) + 2):
        assert ids(stream.blocks(epoch, start)) == whole[start:]


def test_other_pairs_meet_in_other_epochs() -> None:
    stream = Buffered(Counted(40), 7, seed=1)
    assert len({tuple(map(len, ids(stream.blocks(epoch, 0)))) for epoch in range(5)}) > 2


# Tokens on disk


@pytest.fixture
def model(tmp_path: Path) -> StreamingModel:
    return fresh(tmp_path / "model")


def token_source(
    model: StreamingModel, root: Path, buffer: int | None, key: str = "a", pairs: list[Example] = PAIRS
) -> TokenFiles:
    tokenize = TrainingData([], model.prompt, DataConfig(), 5).tokenize
    return TokenFiles(token_files(root, {"key": key}, lambda: pairs, tokenize), buffer, 5)


def rows(data: TrainingData, epoch: int, start: int = 0) -> list[list[list[int]]]:
    return [[row.tolist() for batch, _ in block for row in (*batch.source, *batch.target, batch.k)]
            for block in data.blocks(epoch, start)]  # fmt: skip


def test_tokens_from_disk_give_the_batches_of_memory(model: StreamingModel, tmp_path: Path) -> None:
    config = DataConfig(k=(1, 3, FULL), batch_tokens=60)
    memory, disk = (
        TrainingData(source, model.prompt, config, 5) for source in (PAIRS, token_source(model, tmp_path, None))
    )
    for epoch in range(2):
        assert rows(disk, epoch) == rows(memory, epoch)


def test_blocks_of_tokens_are_drawn_from_all_and_can_begin_anywhere(model: StreamingModel, tmp_path: Path) -> None:
    pairs = [Example(str(i), f"source {i}", f"target {i}") for i in range(20)]
    source = token_source(model, tmp_path, 6, pairs=pairs)
    assert source.count == 4
    decoded = [
        [model.prompt.decode([t for unit in pair.source for t in unit]).strip() for pair in block]
        for block in source.blocks(0, 0)
    ]
    assert sorted(text for block in decoded for text in block) == sorted(pair.source for pair in pairs)
    assert decoded[0] != [pair.source for pair in pairs[:6]]
    assert list(source.blocks(0, 2)) == list(source.blocks(0, 0))[2:]
    assert list(source.blocks(1, 0)) != list(source.blocks(0, 0))


def test_tokens_are_made_once_and_only_whole(model: StreamingModel, tmp_path: Path) -> None:
    def broken() -> Iterator[Example]:
        yield PAIRS[0]
        raise KeyboardInterrupt

    tokenize = TrainingData([], model.prompt, DataConfig(), 5).tokenize
    with pytest.raises(KeyboardInterrupt):
        token_files(tmp_path, {"key": "a"}, broken, tokenize)
    assert len(token_source(model, tmp_path, None)) == len(PAIRS)
    folder = token_files(tmp_path, {"key": "a"}, broken, tokenize)  # nothing is read
    assert token_files(tmp_path, {"key": "b"}, lambda: PAIRS, tokenize) != folder


@pytest.mark.parametrize("name", ["tokens", "lengths", "pairs"])
def test_half_a_file_of_tokens_is_not_trained_on(model: StreamingModel, tmp_path: Path, name: str) -> None:
    token_source(model, tmp_path, None)
    (path,) = tmp_path.glob(f"*/{name}.bin")
    whole = path.read_bytes()
    message = rf"the tokens in .* are damaged \({name}\.bin\): delete that folder"
    for damaged in (whole[: len(whole) // 64 * 32], b"", bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            token_source(model, tmp_path, None)
    path.unlink()
    with pytest.raises(ValueError, match=message):
        token_source(model, tmp_path, None)
    path.write_bytes(whole)
    assert len(token_source(model, tmp_path, None)) == len(PAIRS)


def test_tokens_that_nobody_can_know_to_be_whole_are_not_trained_on(model: StreamingModel, tmp_path: Path) -> None:
    token_source(model, tmp_path, None)
    (path,) = tmp_path.glob("*/digests.json")
    path.unlink()
    with pytest.raises(ValueError, match=r"are damaged \(tokens\.bin, lengths\.bin, pairs\.bin\)"):
        token_source(model, tmp_path, None)


# In a training


def test_a_stream_needs_to_know_when_to_end(model: StreamingModel, tmp_path: Path) -> None:
    data = TrainingData(Buffered(lambda: iter(PAIRS), 4, 5), model.prompt, DataConfig(), 5)
    with pytest.raises(ValueError, match=r"give training\.steps, or data\.cache"):
        Trainer(model.model, data, [], TrainingConfig(), tmp_path)


def test_a_rate_falls_from_block_to_block(model: StreamingModel, tmp_path: Path) -> None:
    pairs = [Example(str(i), "a small dog", f"ein {i}") for i in range(12)]
    data = TrainingData(token_source(model, tmp_path, 4, pairs=pairs), model.prompt, DataConfig(batch_tokens=60), 5)
    config = TrainingConfig(epochs=2, warmup_steps=1, dropout=0.0, log_every=1, average=1, schedule="linear")
    Trainer(model.model, data, [*data.fixed(3)], config, tmp_path / "run").run()
    logged = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in logged if "loss" in line]
    assert len(rates) >= 6
    assert all(later < earlier for earlier, later in pairwise(rates))
    epochs = [line["epoch"] for line in logged if "loss" in line]
    assert epochs[-1] == 2
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("data", [{"buffer": 4}, {"buffer": 4, "cache": "tokens"}, {"cache": "tokens"},
                                  {"buffer": 4, "cache": "tokens", "source_mask": 0.1}])  # fmt: skip
def test_train_reads_as_its_data_says(data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = tiny.model_folder(tmp_path / "base")
    source, target = texts(tmp_path, SOURCES, REFERENCES)
    pairs = ParallelText(source=source, target=target)
    scores = train(
        {"data": data}, "test", ModelConfig(str(base)), pairs, pairs,
        DataConfig(**data), TrainingConfig(steps=4, dropout=0.0, average=1), ValidationConfig(sentences=0),
        NullTracker(), adapter=AdapterConfig(rank=2),
    )  # fmt: skip
    assert scores["steps"] == 4
    kept = list(tmp_path.glob("tokens/*/tokens.bin"))
    assert len(kept) == ("cache" in data and "source_mask" not in data)


class Recorder(NullTracker):
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.end: dict[str, Any] = {}

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self.lines.append(dict(values))
        self.steps.append(step)

    def summary(self, values: Mapping[str, Any]) -> None:
        self.end |= values

    def finish(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code


def test_a_tracker_gets_every_line_of_the_file_and_the_scores(tmp_path: Path) -> None:
    base, pairs = tiny.model_folder(tmp_path / "base"), Sample(limit=6)
    tracker = Recorder()
    scores = train(
        {}, "test", ModelConfig(str(base)), pairs, pairs, DataConfig(),
        TrainingConfig(steps=4, validate_every=2, log_every=1, dropout=0.0, average=1, score_every=1),
        ValidationConfig(k=[1, "full"], sentences=2), tracker, root=tmp_path,
    )  # fmt: skip
    (file,) = tmp_path.glob("test-*/train.jsonl")
    assert tracker.lines == [json.loads(line) for line in file.read_text().splitlines()]
    assert tracker.steps == [line["step"] for line in tracker.lines]
    assert tracker.exit_code == 0
    assert tracker.end == scores == json.loads((file.parent / "metrics.json").read_text())
    trained, validated = ([line for line in tracker.lines if key in line] for key in ("loss", "bleu"))
    assert {"tokens_per_second", "peak_memory_gb", "padding", "learning_rate"} <= trained[0].keys()
    assert {"validation_loss", "bleu_k1", "al_k1", "bleu_full", "al_full"} <= validated[0].keys()
    assert (len(trained), len(validated)) == (4, 2)


@pytest.mark.parametrize(("error", "exit_code"), [(KeyboardInterrupt(), 130), (ValueError("no"), 1)])
def test_a_tracker_hears_of_a_training_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, exit_code: int
) -> None:
    def stop(trainer: Trainer) -> dict[str, float]:
        raise error

    base, pairs = tiny.model_folder(tmp_path / "base"), Sample(limit=6)
    tracker = Recorder()
    monkeypatch.setattr(Trainer, "run", stop)
    with pytest.raises(type(error)):
        train(
            {}, "test", ModelConfig(str(base)), pairs, pairs, DataConfig(), TrainingConfig(steps=4, dropout=0.0),
            ValidationConfig(sentences=0), tracker, root=tmp_path,
        )  # fmt: skip
    assert tracker.exit_code == exit_code


def test_two_processes_that_need_the_same_tokens_make_them_once(tmp_path: Path) -> None:
    made: list[str] = []
    started = threading.Barrier(2)

    def pairs() -> Iterator[Example]:
        for pair in PAIRS:
            time.sleep(0.02)
            made.append(pair.id)
            yield pair

    def work() -> int:
        started.wait()
        return len(TokenFiles(token_files(tmp_path, {"a": 1}, pairs, lambda _: Tokenized([[1]], [[2]])), None, 0))

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(work) for _ in range(2)]
    assert [one.result() for one in both] == [len(PAIRS)] * 2
    assert made == [pair.id for pair in PAIRS]


def test_the_digest_of_tokens_is_of_what_they_are(tmp_path: Path) -> None:
    def digest(name: str, pairs: list[Example], token: int = 1) -> str:
        folder = token_files(tmp_path, {"a": name}, lambda: iter(pairs), lambda _: Tokenized([[token]], [[2]]))
        return TokenFiles(folder, None, 0).digest

    assert digest("a", PAIRS) == digest("b", PAIRS)
    assert len({digest("a", PAIRS), digest("c", PAIRS[1:]), digest("d", PAIRS, token=3)}) == 3


def test_data_and_validation_of_different_languages_are_refused(tmp_path: Path) -> None:
    base = tiny.model_folder(tmp_path / "base")
    with pytest.raises(ValueError, match=r"dataset is en to de, and validation is de to en: .*target_language=de"):
        train(
            {}, "test", ModelConfig(str(base)), Sample(), Sample(source_language="de", target_language="en"),
            DataConfig(), TrainingConfig(), ValidationConfig(), NullTracker(), root=tmp_path,
        )  # fmt: skip


def test_variants_of_a_language_are_the_same() -> None:
    corpora = [ParallelText(source="a", target="b", source_language="en", target_language=to) for to in ("pt", "pt-br")]
    _check_languages(*corpora)


def test_early_stopping_without_scores_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training\.patience is 2, which counts scores.*give score\.sentences"):
        train(
            {}, "test", ModelConfig("nowhere"), Sample(), Sample(), DataConfig(), TrainingConfig(patience=2),
            ValidationConfig(sentences=0), NullTracker(), root=tmp_path,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_tokens_that_are_there_are_taken_from_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    def make() -> Path:
        return token_files(tmp_path / "tokens", {"a": 1}, lambda: iter(PAIRS), lambda _: Tokenized([[1]], [[2]]))

    folder = make()
    (lock,) = (tmp_path / "tokens").glob("*.lock")
    lock.unlink()
    assert make() == folder
    assert not lock.exists()


def test_what_is_trained_from_a_folder_that_cannot_be_written_can_be(tmp_path: Path) -> None:
    base, pairs = tiny.model_folder(tmp_path / "base"), Sample(limit=4)
    for file in base.iterdir():
        file.chmod(0o444)
    train(
        {}, "test", ModelConfig(str(base)), pairs, pairs, DataConfig(), TrainingConfig(steps=1, average=1, dropout=0.0),
        ValidationConfig(sentences=0), NullTracker(), root=tmp_path,
    )  # fmt: skip
    (model,) = tmp_path.glob("test-*/model")
    assert all(file.stat().st_mode & 0o200 for file in model.iterdir())


def test_metrics_are_written_last_and_so_tell_whether_a_training_has_finished(tmp_path: Path) -> None:
    def work() -> None:
        base, pairs = ModelConfig(str(tmp_path / "base")), Sample(limit=4)
        train(
            {}, "test", base, pairs, pairs, DataConfig(), TrainingConfig(steps=1, average=1, dropout=0.0),
            ValidationConfig(sentences=0), NullTracker(), root=tmp_path,
        )  # fmt: skip

    tiny.model_folder(tmp_path / "base")
    blocked = RunFolder.of({}, "test", tmp_path).path / "model"
    blocked.parent.mkdir()
    blocked.touch()
    with pytest.raises(FileExistsError):
        work()
    assert not (blocked.parent / METRICS).exists()
    blocked.unlink()
    work()
    assert (blocked / "model.safetensors").exists() and (blocked.parent / METRICS).exists()


def test_another_tokenizer_gets_tokens_of_its_own(tmp_path: Path) -> None:
    source, target = texts(tmp_path, SOURCES, REFERENCES)
    pairs = ParallelText(source=source, target=target)
    for pieces in (tiny.PIECES, (" the ", " a")):
        base = tiny.model_folder(tmp_path / f"base-{len(pieces)}")
        if pieces != tiny.PIECES:
            tiny.byte_level_tokenizer(base, pieces, chat_template=tiny.CHAT)
        train(
            {"pieces": len(pieces)}, "test", ModelConfig(str(base)), pairs, pairs,
            DataConfig(cache=str(tmp_path / "tokens")), TrainingConfig(steps=1, dropout=0.0, average=1),
            ValidationConfig(sentences=0), NullTracker(), root=tmp_path, adapter=AdapterConfig(rank=2),
        )  # fmt: skip
    sizes = [np.fromfile(path, np.int32).size for path in tmp_path.glob("tokens/*/tokens.bin")]
    assert len(set(sizes)) == 2


def test_edited_data_gets_tokens_of_its_own(tmp_path: Path) -> None:
    base = tiny.model_folder(tmp_path / "base")
    for references in (REFERENCES, [line.upper() for line in REFERENCES]):
        source, target = texts(tmp_path, SOURCES, references)
        pairs = ParallelText(source=source, target=target)
        train(
            {"first": references[0]}, "test", ModelConfig(str(base)), pairs, pairs,
            DataConfig(cache=str(tmp_path / "tokens")), TrainingConfig(steps=1, dropout=0.0, average=1),
            ValidationConfig(sentences=0), NullTracker(), root=tmp_path, adapter=AdapterConfig(rank=2),
        )  # fmt: skip
    assert len({path.read_bytes() for path in tmp_path.glob("tokens/*/tokens.bin")}) == 2


def test_a_wrong_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.buffer is 0"):
        DataConfig(buffer=0)
