"""Self-distillation: its divergence and gradient by the definition, who the teacher is, and what is learned from it."""

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from test_training import PAIRS, fresh

from streamllm.cpu import learner
from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training.batch import Batch, pad
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.documents import Documents
from streamllm.training.dropout import add_dropout
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.loss import cross_entropy, of_labels, relative_entropy, taught
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.objectives.self_distillation import SelfDistillation, from_a_part
from streamllm.training.paths import RANDOM


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingModel:
    loaded = fresh(tmp_path_factory.mktemp("model"))
    add_dropout(loaded.model, 0.3)
    return loaded


@pytest.fixture(params=["numpy", "mlx"])
def computed_by(request: pytest.FixtureRequest, model: StreamingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "mlx":
        monkeypatch.setattr(learner, "applies", lambda model: False)
    elif not learner.applies(model.model):
        pytest.skip("no MKL here")


def batch_of(model: StreamingModel, k: Any, documents: Documents | None = None) -> Batch:
    (batch, _), *_ = TrainingData(PAIRS, model.prompt, DataConfig(k=k, documents=documents), seed=1).epoch(0)
    return batch


# The divergence


@pytest.mark.parametrize("lazy", [False, True])
def test_the_divergence_of_two_tokens_by_hand(lazy: bool) -> None:
    teacher, student = mx.log(mx.array([[0.75, 0.25]])), mx.log(mx.array([[0.5, 0.5]]))

    def value(logits: mx.array) -> mx.array:
        return relative_entropy(teacher, logits, mx.array([0]), lazy)

    found, grad = mx.value_and_grad(value)(student)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    np.testing.assert_allclose(np.array(grad), [[-0.25, 0.25]], atol=1e-6)  # student - teacher


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
        expected = np.nansum(p * (np.log(p) - np.log(q)), axis=-1)[labels >= 0].sum()
    teacher, student = mx.array(logits[0]), mx.array(logits[1])
    assert relative_entropy(teacher, student, mx.array(labels), lazy).item() == pytest.approx(expected, rel=1e-5)
    grad = np.array(mx.grad(lambda x: 1.5 * relative_entropy(teacher, x, mx.array(labels), lazy))(student))
    np.testing.assert_allclose(grad, np.where(labels[:, None] >= 0, 1.5 * (q - p), 0), atol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_teacher_of_a_divergence_gets_no_gradient(lazy: bool) -> None:
    both = mx.array([[[0.1, 0.9]], [[0.4, -0.2]]])
    grad = mx.grad(lambda x: relative_entropy(x[0], x[1], mx.array([0]), lazy))(both)
    assert not np.array(grad[0]).any()
    assert np.array(grad[1]).any()


# The teacher


@pytest.mark.parametrize("documents", [None, Documents([2], held=1.0)])
def test_the_teacher_reads_the_whole_source_sentence_without_dropout(
    model: StreamingModel, computed_by: None, documents: Documents | None
) -> None:
    part, whole = (batch_of(model, k, documents) for k in (1, FULL))
    for one, other in ((part.source, whole.source), (part.labels, whole.labels)):
        np.testing.assert_array_equal(one, other)
    model.model.train()
    mx.random.seed(3)
    found = taught(model.model, part, 0, "group")
    number = mx.random.uniform().item()
    assert model.model.training
    mx.random.seed(3)
    assert number == mx.random.uniform().item()  # it drew none
    model.model.eval()
    expected, labels = of_labels(model.model, whole, 0, "group")
    learned = np.array(labels) >= 0
    np.testing.assert_allclose(np.array(found)[learned], np.array(expected)[learned], atol=1e-5)


@pytest.mark.parametrize("paradigm", ["group", "interleaved"])
def test_nothing_is_learned_through_the_teacher(model: StreamingModel, computed_by: None, paradigm: str) -> None:
    batch = batch_of(model, 1)
    model.model.train()
    teacher = taught(model.model, batch, 0, paradigm)

    def by_definition(inside: nn.Module) -> mx.array:
        logits, labels = of_labels(inside, batch, 0, paradigm)
        partial = mx.array(from_a_part(batch, len(labels)))
        of_part, of_whole = mx.where(partial, labels, -1), mx.where(partial, -1, labels)
        from_references = 0.6 * cross_entropy(logits, of_part, 0.1) + cross_entropy(logits, of_whole, 0.1)
        return from_references + 0.4 * relative_entropy(teacher, logits, of_part)

    def objective(inside: nn.Module) -> mx.array:
        return SelfDistillation(0.4)(inside, batch, 0, paradigm, 0.1)

    found = []
    for function in (by_definition, objective):
        mx.random.seed(3)
        value, grads = nn.value_and_grad(model.model, function)(model.model)
        found.append((value.item(), dict(tree_flatten(grads))))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, grad in found[0][1].items():
        np.testing.assert_allclose(np.array(found[1][1][name]), np.array(grad), atol=1e-5, err_msg=name)


# What is learned


@pytest.mark.parametrize("documents", [None, Documents([2, 3], held=0.5)])
def test_what_is_predicted_from_the_whole_source_has_no_teacher(
    model: StreamingModel, computed_by: None, documents: Documents | None
) -> None:
    model.model.train()
    for k, alike in ((FULL, True), (1, False)):
        batch = batch_of(model, k, documents)
        values = []
        for objective in (CrossEntropy(), SelfDistillation(0.9)):
            mx.random.seed(3)
            values.append(objective(model.model, batch, 0, "group", 0.1).item())
        assert (values[0] == pytest.approx(values[1], rel=1e-6)) == alike


def test_which_rows_are_from_a_part(model: StreamingModel) -> None:
    one = TrainingData([], model.prompt, DataConfig(), seed=0).encode(
        Example("1", "a small dog", "ein kleiner Hund"), 2
    )
    batch = pad([one])
    found = from_a_part(batch, sum(label >= 0 for label in one.labels))
    words = [unit for unit, label in zip(one.target_units, one.labels, strict=True) if label >= 0]
    assert found.tolist() == [word < 2 for word in words]  # "Hund" sees three words and the footer, as the end does
    assert from_a_part(batch, batch.labels.size).tolist()[-len(found) :] == found.tolist()


def test_in_validation_and_without_weight_it_is_the_cross_entropy(model: StreamingModel) -> None:
    batch = batch_of(model, 2)
    model.model.eval()
    plain = CrossEntropy()(model.model, batch, 0, "group", 0.0).item()
    assert SelfDistillation(0.5)(model.model, batch, 0, "group", 0.0).item() == plain
    model.model.train()
    values = []
    for objective in (CrossEntropy(), SelfDistillation(0)):
        mx.random.seed(3)
        values.append(objective(model.model, batch, 0, "group", 0.1).item())
    assert values[0] == values[1]


@pytest.mark.parametrize("weight", [-0.1, 1.5, math.nan, "half"])
def test_a_weight_that_is_no_share_is_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"objective\.weight is "):
        SelfDistillation(weight)


class Stopped(Exception):
    pass


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, dropout=0.1, warmup_steps=5, log_every=1, checkpoint_every=1, average=1)

    def learn(folder: Path, stop_at: int | None = None) -> dict[str, mx.array]:
        loaded = fresh(tmp_path / f"model-{folder.name}-{stop_at}")
        how = DataConfig(k=(1, RANDOM, FULL), batch_tokens=70, documents=Documents([1, 2]))
        data = TrainingData(PAIRS, loaded.prompt, how, 5)
        validation = [*TrainingData(PAIRS[:2], loaded.prompt, DataConfig(), 5).fixed(3)]

        def track(line: dict[str, Any]) -> None:
            if line["step"] == stop_at:
                raise Stopped

        Trainer(loaded.model, data, validation, config, folder, track=track, objective=SelfDistillation(0.5)).run()
        return dict(tree_flatten(loaded.model.parameters()))

    straight = learn(tmp_path / "straight")
    with pytest.raises(Stopped):
        learn(tmp_path / "stopped", stop_at=4)
    again = learn(tmp_path / "stopped")
    assert all(mx.array_equal(straight[name], weights).item() for name, weights in again.items())
