"""Streams of several sentences in training: what each target unit may see, and what is learned of each."""

import random
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from test_training import PAIRS, fresh

from streamllm.data.given import Given
from streamllm.data.joined import sentence_pairs
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.records import Example, Segment
from streamllm.runs.naming import digest
from streamllm.tracking.tracker import NullTracker
from streamllm.training.adapters import AdapterConfig
from streamllm.training.batch import pad
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.documents import Documents, seen
from streamllm.training.loop import TrainingConfig
from streamllm.training.loss import forward
from streamllm.training.masks import visible
from streamllm.training.sources import Buffered, TokenFiles, Tokenized, begins_document, token_files
from streamllm.training.train import ValidationConfig, train

numbers_of_units = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingModel:
    return fresh(tmp_path_factory.mktemp("model"))


def test_wait_k_counts_from_the_beginning_of_each_sentence() -> None:
    assert seen([4, 3], [2, 5], 2, held=False) == [[2, 3, 4], [6, 7, 8, 8, 8, 8, 8]]
    assert seen([3, 4], [4, 3], 2, held=False) == [[2, 3, 4, 5, 6], [6, 6, 7, 8, 8]]  # nothing is unseen again


def test_a_held_stream_sees_nothing_behind_its_sentence_and_its_footer() -> None:
    assert seen([4, 3], [5, 1], 3, held=True) == [[3, 4, 5, 5, 5, 5], [8, 9, 9]]


def test_the_whole_source_of_a_stream_is_that_of_the_sentence_and_the_footer_after_the_last() -> None:
    assert seen([2, 3], [1, 1], None, held=False) == [[2, 2], [6, 6, 6]]
    assert seen([2, 3], [1, 1], None, held=True) == [[3, 3], [7, 7, 7]]


@given(numbers_of_units, st.none() | st.integers(1, 8), st.booleans())
def test_a_stream_sees_more_and_more_and_one_label_for_each_unit_and_end(
    units: list[tuple[int, int]], k: int | None, held: bool
) -> None:
    sources, targets = ([pair[i] for pair in units] for i in (0, 1))
    found = seen(sources, targets, k, held)
    assert [len(one) for one in found] == [n + 1 + (i == len(units)) for i, n in enumerate(targets, 1)]
    start = 0
    for source, one in zip(sources, found, strict=True):
        assert start < one[0] <= one[-1] <= sum(sources) + (len(sources) if held else 1)
        assert not held or one[-1] <= start + source + 1
        start += source + held
    flat = [unit for one in found for unit in one]
    assert flat == sorted(flat)


def test_a_stream_of_one_sentence_sees_what_the_sentence_alone_sees(model: StreamingModel) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    for k in (1, 3, FULL):
        alone, stream = data.encode(PAIRS[0], k), data.encode_stream(PAIRS[:1], k, held=False)
        assert stream.labels == [*alone.labels, model.prompt.end_token]  # nothing is left
        sees = [
            np.array(visible(mx.array(b.source_units), mx.array(b.target_units), mx.array(b.k)))
            for b in (pad([alone]), pad([stream]))
        ]
        np.testing.assert_array_equal(sees[0], sees[1][:, :-1])


def test_what_a_stream_is_predicted_from_does_not_depend_on_what_it_may_not_see(model: StreamingModel) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    other = replace(PAIRS[1], source="two cats are running")
    streams = [data.encode_stream([PAIRS[0], second], 2, held=True) for second in (PAIRS[1], other)]
    assert streams[0].labels == streams[1].labels
    both = forward(model.model, pad(streams))
    units = streams[0].target_units  # of both, which words of the second sentence each position sees
    first = [i for i, unit in enumerate(units) if unit <= len(PAIRS[0].source.split()) + 2]
    assert mx.allclose(both[0, first], both[1, first], atol=1e-5)
    later = [i for i in range(len(units)) if i not in first]
    assert float(mx.abs(both[0, later] - both[1, later]).min(axis=-1).max()) > 0


def test_an_epoch_has_every_pair_once_whatever_the_streams(model: StreamingModel) -> None:
    config = DataConfig(k=2, documents=Documents([1, 2, 3]))
    for epoch in range(3):
        ends = 0
        batches = TrainingData(PAIRS, model.prompt, config, seed=1).epoch(epoch)
        for batch, labels in batches:
            assert labels == int((batch.labels >= 0).sum())
            ends += int((batch.labels == model.prompt.end_token).sum())
        streams = sum(len(batch.k) for batch, _ in batches)
        assert ends == len(PAIRS) + streams  # each sentence has one, and each stream one more
        assert streams < len(PAIRS)


def test_streams_that_are_too_long_are_counted_in_pairs(
    model: StreamingModel, caplog: pytest.LogCaptureFixture
) -> None:
    config = DataConfig(k=2, documents=Documents([2], order="kept"), max_tokens=48)
    with caplog.at_level("INFO", "streamllm"):
        batches = TrainingData(PAIRS, model.prompt, config, seed=1).epoch(0)
    left = 2 * sum(len(batch.k) for batch, _ in batches)
    assert 0 < left < len(PAIRS)
    assert caplog.messages[0].startswith(f"{len(PAIRS) - left} of the first {len(PAIRS)} pairs are left out")


def test_pairs_keep_their_order_when_asked_to() -> None:
    pairs = [Example(str(i), "a", "b") for i in range(20)]
    kept = [one for stream in Documents([1, 3], "kept").join(pairs, random.Random(0)) for one in stream]
    assert kept == pairs
    shuffled = [one for stream in Documents([1, 3]).join(pairs, random.Random(0)) for one in stream]
    assert sorted(shuffled, key=lambda e: int(e.id)) == pairs != shuffled


DOCUMENTS = Given(examples=tuple(PAIRS), sentences_per_document=4, source_language="en", target_language="de").load()


@given(
    begins=st.lists(st.booleans()), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 9)
)
def test_no_stream_has_sentences_of_two_documents(begins: list[bool], sizes: list[int], seed: int) -> None:
    numbers = list(range(len(begins)))
    streams = list(Documents(sizes, "kept").join(numbers, random.Random(seed), begins.__getitem__))
    assert [number for stream in streams for number in stream] == numbers
    assert all(stream and len(stream) <= max(sizes) for stream in streams)
    assert not any(begins[number] for stream in streams for number in stream[1:])


def test_streams_of_shuffled_pairs_do_not_depend_on_documents() -> None:
    kinds = [lambda _: False, lambda number: number % 3 == 0]
    plain, marked = (list(Documents().join(range(20), random.Random(1), begins)) for begins in kinds)
    assert plain == marked


def test_documents_are_trained_on_as_their_sentence_pairs(model: StreamingModel) -> None:
    data = TrainingData(DOCUMENTS, model.prompt, DataConfig(k=2), seed=1)
    alone = TrainingData(PAIRS, model.prompt, DataConfig(k=2), seed=1)
    assert [data.encode_all(block, random.Random(0)) for block in data.source.blocks(0, 0)] == [
        alone.encode_all(PAIRS, random.Random(0))
    ]


@pytest.mark.parametrize("kind", ["memory", "stream", "tokens", "tokens in blocks"])
def test_streams_end_where_a_document_does(model: StreamingModel, tmp_path: Path, kind: str) -> None:
    config = DataConfig(k=2, documents=Documents([3], order="kept"))
    source: Any = DOCUMENTS
    if kind == "stream":
        source = Buffered(lambda: sentence_pairs(DOCUMENTS), 6, 0)
    elif kind.startswith("tokens"):
        tokenize = TrainingData([], model.prompt, config, 0).tokenize
        folder = token_files(tmp_path / "tokens", {}, lambda: sentence_pairs(DOCUMENTS), tokenize)
        source = TokenFiles(folder, 6 if kind.endswith("blocks") else None, 0, kept=True)
    data = TrainingData(source, model.prompt, config, seed=1)
    blocks = [data.encode_all(pairs, random.Random(0)) for pairs in data.source.blocks(0, 0)]
    sentences = [[stream.sentences for stream in block] for block in blocks]
    assert sentences in ([[3, 1, 2]], [[2, 3, 1]])  # documents of four sentences and of two
    assert (sentences == [[3, 1, 2]]) or kind == "tokens in blocks"


def test_tokens_on_disk_are_drawn_by_documents_where_their_order_is_kept(tmp_path: Path) -> None:
    pairs = [Example(str(i), "a", "b", (Segment(i % 5, 1, "a", "b"),)) for i in range(40)]
    folder = token_files(
        tmp_path, {}, lambda: pairs, lambda pair: Tokenized([[int(pair.id)]], [[0]], begins_document(pair))
    )
    source = TokenFiles(folder, 15, 0, kept=True)
    numbers = [[pair.source[0][0] for pair in block] for block in source.blocks(0, 0)]
    assert [len(block) for block in numbers] == [15, 15, 10]
    assert sorted(flat := [n for block in numbers for n in block]) == list(range(40)) != flat
    assert all(later % 5 == 0 or later == earlier + 1 for block in numbers for earlier, later in pairwise(block))
    unmarked = token_files(tmp_path, {"b": 1}, lambda: pairs, lambda pair: Tokenized([[int(pair.id)]], [[0]]))
    assert TokenFiles(unmarked, None, 0).digest != TokenFiles(folder, None, 0).digest


@pytest.mark.long
def test_a_training_on_documents_is_told_of_in_sentence_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = Given(examples=tuple(DOCUMENTS), source_language="en", target_language="de")
    with caplog.at_level("INFO", "streamllm"):
        train(
            {}, "test", ModelConfig(str(tiny.model_folder(tmp_path / "base"))), corpus, corpus,
            DataConfig(documents=Documents([2], order="kept")), TrainingConfig(steps=1, dropout=0.0, average=1),
            ValidationConfig(k=1, sentences=3), NullTracker(), root=tmp_path, adapter=AdapterConfig(rank=2),
        )  # fmt: skip
    assert any(message.startswith("6 sentence pairs, 6 for validation;") for message in caplog.messages)


def test_documents_change_no_digest_where_there_are_none() -> None:
    assert digest({"data": {"k": 3, "documents": None}}) == digest({"data": {"k": 3}})
    assert digest({"data": {"k": 3, "documents": {"held": 0.5}}}) != digest({"data": {"k": 3}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sentences": []}, "data.documents.sentences is []"),
        ({"sentences": [0]}, "data.documents.sentences is [0]"),
        ({"sentences": 3}, "data.documents.sentences is 3"),
        ({"order": "random"}, "data.documents.order is 'random'"),
        ({"held": 2}, "data.documents.held is 2"),
    ],
)
def test_wrong_values_of_documents_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Documents(**options)  # type: ignore[arg-type]
