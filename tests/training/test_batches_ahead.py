"""Batches are cut from lengths alone, and laid out when they are asked for."""

import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from test_training import PAIRS, fresh

from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training.batch import Batch, Encoded, pad
from streamllm.training.bpe import BPEDropout
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.documents import Documents
from streamllm.training.sources import Tokenized


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> StreamingModel:
    return fresh(folder)


class Counted(TrainingData):
    laid_out = 0

    def encode(
        self, pair: Example | Tokenized, k: int | str, rng: random.Random | None = None, latency: int = -1
    ) -> Encoded:
        self.laid_out += 1
        return super().encode(pair, k, rng, latency)


def rows(batch: Batch) -> list[np.ndarray]:
    return [*vars(batch).values()]


@pytest.mark.parametrize("joined", [None, Documents(held=0.5), Documents([3], order="kept")])
def test_the_lengths_of_a_stream_are_known_before_it_is_laid_out(
    model: StreamingModel, joined: Documents | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spaced, unit, tokens in product((True, False), ("word", "character"), (True, False)):
        prompt = model.prompt
        with monkeypatch.context() as patched:
            patched.setattr(prompt, "target_unit", unit)
            patched.setattr(prompt, "text", replace(prompt.text, leading_space=spaced))
            data = TrainingData(PAIRS, prompt, DataConfig(k=(2, FULL, "random"), documents=joined), seed=1)
            pairs = [data.tokenize(pair) for pair in PAIRS] if tokens else PAIRS
            for planned in data.plan(pairs, random.Random(0)):
                made = planned.encoded()
                assert (planned.source, planned.target) == (len(made.source), len(made.target))
                assert planned.sentences == made.sentences


def test_a_batch_is_laid_out_when_it_is_asked_for(model: StreamingModel) -> None:
    data = Counted(PAIRS * 10, model.prompt, DataConfig(batch_tokens=100), seed=1)
    (batches,) = data.blocks(0)
    assert data.laid_out == 0
    first, labels = batches[0]
    assert data.laid_out == len(first.k) < 60
    assert labels == (first.labels >= 0).sum()
    assert sum(len(batch.k) for batch, _ in batches[:]) == 60


def test_a_process_lays_out_its_own_rows_only(model: StreamingModel) -> None:
    data = Counted(PAIRS * 10, model.prompt, DataConfig(batch_tokens=100), seed=1)
    (batches,) = data.blocks(0, rank=1, world=2)
    batch, _ = batches[0]
    assert data.laid_out == len(batch.k)


def test_a_batch_that_is_asked_for_twice_is_the_same(model: StreamingModel) -> None:
    (batches,) = TrainingData(PAIRS, model.prompt, DataConfig(k=(1, 5, FULL, "random")), seed=1).blocks(0)
    for once, again in zip(rows(batches[0][0]), rows(batches[0][0]), strict=True):
        np.testing.assert_array_equal(once, again)


def test_batches_are_those_of_an_epoch_that_is_laid_out_first(model: StreamingModel) -> None:
    """As `TrainingData` did before lengths were known: encode all, sort with a jitter, cut, shuffle, pad."""
    config = DataConfig(k=(1, 3, FULL), batch_tokens=120, max_tokens=30)
    data = TrainingData(PAIRS * 20, model.prompt, config, seed=4)
    rng = random.Random("4/1")
    encoded = [data.encode(pair, rng.choice(config.ks), rng) for pair in PAIRS * 20]
    kept = [one for one in encoded if max(len(one.source), len(one.target)) <= config.max_tokens]
    kept.sort(key=lambda one: ((len(one.source) + rng.randrange(3)) // 3, len(one.target) + rng.random()))
    groups = list(data.cut(kept, len))
    rng.shuffle(groups)
    assert 0 < len(kept) < len(encoded)
    found = data.epoch(1)
    assert len(found) == len(groups)
    for (batch, labels), group in zip(found, groups, strict=True):
        assert labels == sum(label >= 0 for one in group for label in one.labels)
        for one, other in zip(rows(batch), rows(pad(group)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_tokens_that_are_drawn_are_drawn_in_the_order_of_the_data(model: StreamingModel, folder: Path) -> None:
    dropout = BPEDropout(folder / "tokenizer.json", 0.5, 0)
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=2, bpe_dropout=0.5, source_mask=0.5), 1, dropout)
    rng = random.Random(7)
    inturn = [data.encode(pair, rng.choice([2]), rng) for pair in PAIRS]
    assert data.encode_all(PAIRS, random.Random(7)) == inturn
