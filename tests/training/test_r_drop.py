"""R-Drop: its divergence and gradient by the definition, and what it is without dropout."""

import mlx.core as mx
import numpy as np
import pytest
from test_training import PAIRS, fresh

from streamllm.models.model import StreamingModel
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.dropout import add_dropout
from streamllm.training.loss import divergence
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.objectives.r_drop import RDrop


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingModel:
    loaded = fresh(tmp_path_factory.mktemp("model"))
    add_dropout(loaded.model, 0.3)
    return loaded


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("ruled_out", [False, True])
def test_the_divergence_is_that_of_the_definition(lazy: bool, ruled_out: bool) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 70, 9)).astype(np.float32)
    if ruled_out:
        logits[:, :, 4] = -np.inf
    labels = np.where(rng.random(70) < 0.3, -1, 2).astype(np.int32)
    p, q = (np.exp(one - one.max(-1, keepdims=True)) for one in logits.astype(np.float64))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.nansum((p - q) * (np.log(p) - np.log(q)), axis=-1)[labels >= 0].sum()
    assert divergence(mx.array(logits), mx.array(labels), lazy).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_gradient_of_the_divergence_is_that_of_small_steps(lazy: bool) -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 3, 4)).astype(np.float32)
    labels = mx.array([1, -1, 0])
    found = np.array(mx.grad(lambda x: 1.5 * divergence(x, labels, lazy))(mx.array(logits)))
    assert not found[:, 1].any()  # no label there
    for index in np.ndindex(2, 3, 4):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[index] += sign * 1e-2
            ends.append(float(divergence(mx.array(moved), labels, lazy).item()))
        assert found[index] == pytest.approx(1.5 * (ends[0] - ends[1]) / 2e-2, abs=2e-3)


def test_without_dropout_it_is_the_cross_entropy(model: StreamingModel) -> None:
    (batch, _), *_ = TrainingData(PAIRS, model.prompt, DataConfig(k=2), seed=1).epoch(0)
    model.model.eval()
    plain = CrossEntropy()(model.model, batch, 0, "group", 0.0).item()
    assert RDrop()(model.model, batch, 0, "group", 0.0).item() == plain


def test_with_dropout_disagreement_costs(model: StreamingModel) -> None:
    (batch, _), *_ = TrainingData(PAIRS, model.prompt, DataConfig(k=2), seed=1).epoch(0)
    model.model.train()

    def value(weight: float) -> float:
        mx.random.seed(3)
        return float(RDrop(weight)(model.model, batch, 0, "group", 0.1).item())

    assert value(0) < value(2) < value(8)
    assert value(8) - value(0) == pytest.approx(4 * (value(2) - value(0)), rel=1e-3)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective\.weight is -1"):
        RDrop(-1)
