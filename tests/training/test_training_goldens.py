"""The training mask and loss against the reference implementation's recorded ones (EIT-NLP/StreamingLLM).

Named differences: the reference also learns to predict the target header and the "\\n" after the end token,
ours learns target words and the end token; the header's tokens but its last see k - 1 words there, and k here,
as they do when they are streamed. Everything else coincides.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt
from streamllm.records import Example
from streamllm.training.batch import Encoded, pad
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.loss import forward, loss
from streamllm.training.masks import visible

CASES = ["stream_k1", "stream_k3", "stream_k5", "stream_k9_single_word", "stream_k3_phi16"]


@pytest.fixture(scope="module")
def goldens(shared: Path) -> Path:
    return shared / "goldens"


@pytest.fixture(scope="module")
def recorded(goldens: Path) -> dict[str, Any]:
    return json.loads((goldens / "training_tiny-trained.json").read_text())


@pytest.fixture(scope="module")
def arrays(goldens: Path) -> dict[str, mx.array]:
    return mx.load(str(goldens / "training_tiny-trained.safetensors"))


@pytest.fixture(scope="module")
def model(goldens: Path, recorded: dict[str, Any]) -> StreamingModel:
    pieces = recorded["instruct"]
    prompt = Prompt(
        source_header=pieces["Instruct"] + pieces["user_Instruct"],
        source_footer=pieces["end_Instruct"],
        target_header=pieces["assistant_Instruct"],
    )
    return ModelConfig(str(goldens / "tiny-trained"), target_start=0).load(prompt)


def encoded(model: StreamingModel, case: dict[str, Any]) -> list[Encoded]:
    data = TrainingData([], model.prompt, DataConfig(), seed=0)
    pairs = [Example(str(i), e["source_text"], e["target_text"]) for i, e in enumerate(case["examples"])]
    return [data.encode(pair, case["wait_k"]) for pair in pairs]


def case_of(recorded: dict[str, Any], name: str) -> dict[str, Any]:
    return next(case for case in recorded["cases"] if case["id"] == name)


def learned_rows(one: Encoded) -> list[int]:
    """Rows of the target that predict a word's token or the end token."""
    return [row for row, label in enumerate(one.labels) if label >= 0]


def as_the_reference_shows_headers(one: Encoded) -> Encoded:
    header = one.labels.count(-1)  # all but its last token
    return replace(one, target_units=[-1] * header + one.target_units[header:])


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_the_recorded_ones(
    name: str, model: StreamingModel, recorded: dict[str, Any], arrays: dict[str, mx.array]
) -> None:
    ids = np.array(arrays[f"{name}.input_ids"])
    for row, one in zip(ids, encoded(model, case_of(recorded, name)), strict=True):
        whole = [*one.source, *one.target, one.labels[-1]]
        assert row[: len(whole)].tolist() == whole


@pytest.mark.parametrize("name", CASES)
def test_every_learned_row_of_the_mask_is_the_recorded_one(
    name: str, model: StreamingModel, recorded: dict[str, Any], arrays: dict[str, mx.array]
) -> None:
    allowed = np.array(arrays[f"{name}.allowed"]).astype(bool)
    pairs = encoded(model, case_of(recorded, name))
    batch = pad(pairs)
    sees = np.array(visible(mx.array(batch.source_units), mx.array(batch.target_units), mx.array(batch.k)))
    for i, one in enumerate(pairs):
        source = len(one.source)
        assert one.target_units[: one.labels.count(-1)] == [0] * one.labels.count(-1)  # headers see k words
        for row in learned_rows(one):
            expected = allowed[i, source + row]
            assert sees[i, row, :source].tolist() == expected[:source].tolist(), (name, i, row)
            own = [column <= row for column in range(len(one.target))]
            assert expected[source : source + len(one.target)].tolist() == own


@pytest.mark.parametrize("name", CASES)
def test_losses_are_the_recorded_ones(
    name: str, model: StreamingModel, recorded: dict[str, Any], arrays: dict[str, mx.array]
) -> None:
    case = case_of(recorded, name)
    pairs = encoded(model, case)
    batch = pad([as_the_reference_shows_headers(one) for one in pairs])
    logits = forward(model.model, batch, target_start=case["phi"])
    log_probabilities = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    total = 0.0
    for i, one in enumerate(pairs):
        rows = learned_rows(one)
        nll = [-log_probabilities[i, row, one.labels[row]] for row in rows]
        # The reference's first entries are for the header, the one after the end token for "\n".
        first = len(model.prompt.target_header)
        np.testing.assert_allclose(nll, case["nll"][i][first : first + len(rows)], atol=1e-4)
        total += sum(nll)
    assert loss(model.model, batch, 0.0, case["phi"]).item() == pytest.approx(total, rel=1e-5, abs=1e-4)
