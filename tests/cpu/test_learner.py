"""Training by numpy and MKL: the loss and all gradients are those of mlx-lm's model."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from streamllm.cpu import learner
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training.adapters import AdapterConfig
from streamllm.training.batch import Batch
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.documents import Documents
from streamllm.training.dropout import add_dropout
from streamllm.training.fresh import FreshModel
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.objectives.r_drop import RDrop
from streamllm.training.objectives.self_distillation import SelfDistillation

PAIRS = [
    Example("1", "a small dog runs over the green grass", "ein kleiner Hund rennt über die grüne Wiese"),
    Example("2", "two children are playing", "zwei Kinder spielen"),
    Example("3", "a man waits", "ein Mann wartet an der Straße auf den Bus"),
    Example("4", "birds", "Vögel"),
]
SHARED = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "max_position_embeddings": 512,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {"tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": True, "head_dim": 12},
}


def model_of(family: str, folder: Path, dropout: float) -> StreamingModel:
    texts = [text for pair in PAIRS for text in (pair.source, pair.reference)]
    FreshModel({"model_type": family} | SHARED | FAMILIES[family], vocab_size=300, seed=3).create(folder, texts)
    model = ModelConfig(str(folder)).load()
    add_dropout(model.model, dropout)
    model.model.train()
    return model


def batch_of(model: StreamingModel) -> Batch:
    config = DataConfig(k=[1, 3, "random", "full"], documents=Documents(sentences=[1, 2]))
    (batch, _), *_ = TrainingData(PAIRS, model.prompt, config, seed=1).epoch(0)
    assert batch.padding
    return batch


def loss_and_gradients(model: StreamingModel, batch: Batch, objective: Any, *rest: Any) -> tuple[float, dict[str, Any]]:
    mx.random.seed(5)
    loss, grads = nn.value_and_grad(model.model, objective)(model.model, batch, *rest, 0.1)
    return loss.item(), {name: np.array(grad) for name, grad in tree_flatten(grads)}


@pytest.mark.parametrize("objective", [CrossEntropy(), RDrop(), SelfDistillation()])
@pytest.mark.parametrize(("target_start", "paradigm"), [(5, "group"), (0, "interleaved")])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_mlx(
    family: str, target_start: int, paradigm: str, objective: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family, tmp_path, dropout=0.3)
    if not learner.applies(model.model):
        pytest.skip("no MKL here")
    batch = batch_of(model)
    loss, grads = loss_and_gradients(model, batch, objective, target_start, paradigm)
    next_number = mx.random.uniform().item()
    monkeypatch.setattr(learner, "applies", lambda model: False)
    expected, by_mlx = loss_and_gradients(model, batch, objective, target_start, paradigm)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert next_number == mx.random.uniform().item()  # as many were drawn
    assert grads.keys() == by_mlx.keys()
    for name, grad in by_mlx.items():
        assert np.linalg.norm(grads[name] - grad) <= 1e-4 * np.linalg.norm(grad), name


def test_what_lay_in_memory_before_is_never_computed_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen2", tmp_path, dropout=0.3)
    if not learner.applies(model.model):
        pytest.skip("no MKL here")
    empty = np.empty

    def old_memory(*args: Any, **kwargs: Any) -> np.ndarray:
        made = empty(*args, **kwargs)
        if made.dtype == np.float32:
            made.reshape(-1).view(np.uint32)[:] = 0x7FA00000  # not a number, and numpy says so at the first use
        return made

    monkeypatch.setattr(learner, "_free", [])
    monkeypatch.setattr(np, "empty", old_memory)
    loss_and_gradients(model, batch_of(model), RDrop(), 0, "group")


def test_two_forwards_before_a_backward_do_not_disturb_each_other(tmp_path: Path) -> None:
    model = model_of("qwen2", tmp_path, dropout=0.0)
    if not learner.applies(model.model):
        pytest.skip("no MKL here")
    batch = batch_of(model)

    def twice(*args: Any) -> mx.array:
        return CrossEntropy()(*args) + 2 * CrossEntropy()(*args)

    _, once = loss_and_gradients(model, batch, CrossEntropy(), 0, "group")
    _, found = loss_and_gradients(model, batch, twice, 0, "group")
    for name, grad in once.items():
        np.testing.assert_allclose(found[name], 3 * grad, rtol=1e-3, atol=1e-3)


def test_a_model_with_an_adapter_is_left_to_mlx(tmp_path: Path) -> None:
    model = model_of("qwen2", tmp_path, dropout=0.0)
    AdapterConfig(rank=2).apply(model.model, seed=0)
    assert not learner.applies(model.model)
