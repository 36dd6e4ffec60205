"""A wait token that is learned: margins by the definition, decisions by hand, and one latency for each stream."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from test_training import PAIRS, fresh

from streamllm.cpu import learner
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens
from streamllm.training.batch import Batch
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.documents import Documents
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.loss import cross_entropy, margins, of_labels, taught
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.objectives.self_distillation import SelfDistillation, from_a_part
from streamllm.training.objectives.wait_token import WaitToken
from streamllm.training.paths import RANDOM

TAGS = ("1", "2", "3")
WAIT = 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingModel:
    return with_a_wait_token(fresh(tmp_path_factory.mktemp("model")))


def with_a_wait_token(model: StreamingModel) -> StreamingModel:
    prompt = Prompt("<|source|>", "<|end|>", "<|target|>{latency}", True, latency="1", wait_token="<|source|>")
    model.prompt = PromptTokens(prompt, model.tokenizer)
    return model


@pytest.fixture(params=["numpy", "mlx"])
def computed_by(request: pytest.FixtureRequest, model: StreamingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "mlx":
        monkeypatch.setattr(learner, "applies", lambda model: False)
    elif not learner.applies(model.model):
        pytest.skip("no MKL here")


def batch_of(model: StreamingModel, k: Any, documents: Documents | None = None) -> Batch:
    config = DataConfig(k=k, latencies=TAGS, documents=documents)
    (batch, _), *_ = TrainingData(PAIRS, model.prompt, config, seed=1).epoch(0)
    return batch


def objective(model: StreamingModel, **values: Any) -> WaitToken:
    return WaitToken(**({"bounds": (0.9, 0.5, 0.1)} | values)).prepared(model.prompt, TAGS)


@pytest.mark.parametrize("lazy", [False, True])
def test_margins_and_their_gradient_by_hand(lazy: bool) -> None:
    """P = (1/2, 1/4, 1/4) of which the first waits: log (1/2 / 1/2) = 0, and the others share evenly. The gradient of
    the margin is what each other has among the others, and -1."""
    logits = mx.log(mx.array([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]])) + 3
    found, shares = margins(logits, WAIT, lazy)
    np.testing.assert_allclose(np.array(found), [0, math.log(4)], atol=1e-6)
    np.testing.assert_allclose(np.array(shares), [[0, 0.5, 0.5], [0, 0.75, 0.25]], atol=1e-6)
    grad = mx.grad(lambda x: (margins(x, WAIT, lazy)[0] * mx.array([1.0, 2.0])).sum())(logits)
    np.testing.assert_allclose(np.array(grad), [[-1, 0.5, 0.5], [-2, 1.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("far", [-200.0, 200.0])
def test_margins_far_from_zero_are_finite(far: float) -> None:
    found, _ = margins(mx.array([[far, 0.0, 0.0]]), WAIT)
    assert found.item() == pytest.approx(math.log(2) - far)


def test_decisions_by_hand() -> None:
    """Distances of 0.5, 0.5 and 0.1 where WRITE is right up to 0.3, 0.6 and 0.3: READ, WRITE, WRITE. The wait token has
    1/2: each costs log 2; where it has 1/4, WRITE costs log 4/3. A row without a label costs nothing."""
    student = mx.log(mx.array([[0.5, 0.5, 0.0001], [0.5, 0.5, 0.0001], [0.25, 0.375, 0.375], [0.9, 0.05, 0.05]]))
    teacher = mx.log(mx.array([[1e-9, 0.5, 0.5], [1e-9, 0.5, 0.5], [1e-9, 0.6, 0.4], [1e-9, 1.0, 1e-9]]))
    made = WaitToken(bounds=(0.3, 0.6))
    object.__setattr__(made, "token", WAIT)
    labels, latency = mx.array([1, 1, 2, -1]), np.array([0, 1, 0, 0])
    cost = made._decisions(student, teacher, labels, latency, False).item()
    assert cost == pytest.approx(2 * math.log(2) + math.log(4 / 3), abs=1e-3)


def test_the_loss_is_that_of_a_softmax_over_the_vocabulary(model: StreamingModel, computed_by: None) -> None:
    """Where WRITE is right, translation and decision together cost -log of the label's probability among all tokens;
    where READ is right, the decision costs -log P(wait)."""
    batch = batch_of(model, 1)
    model.model.train()
    logits, labels = of_labels(model.model, batch, 0, "group")
    partial = np.array(from_a_part(batch, len(labels))) & (np.array(labels) >= 0)
    logp = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True), np.float64)
    right = logp[np.arange(len(logp)), np.maximum(np.array(labels), 0)]
    every = WaitToken(bounds=(1.0,) * 3, weight=0).prepared(model.prompt, TAGS)  # no distance is above 1
    alone = WaitToken(bounds=(1.0,) * 3, weight=0, decision=0).prepared(model.prompt, TAGS)
    with_it, without = (one(model.model, batch, 0, "group", 0.0).item() for one in (every, alone))
    others = np.log1p(-np.exp(logp[:, WAIT]))
    assert with_it - without == pytest.approx(-others[partial].sum(), rel=1e-4)
    whole = ~partial & (np.array(labels) >= 0)
    assert with_it == pytest.approx(-right[partial].sum() - (right - others)[whole].sum(), rel=1e-4)
    reads = WaitToken(bounds=(0.0,) * 3, weight=0).prepared(model.prompt, TAGS)
    teacher = taught(model.model, batch, 0, "group")
    found = reads(model.model, batch, 0, "group", 0.0).item() - without
    apart = 0.5 * np.abs(np.array(margins(logits, WAIT)[1]) - np.array(margins(teacher, WAIT)[1])).sum(-1)
    assert (apart[partial] > 0).all()
    assert found == pytest.approx(-logp[partial, WAIT].sum(), rel=1e-4)


def test_each_stream_is_judged_by_the_bound_of_its_latency(model: StreamingModel) -> None:
    batch = batch_of(model, 1)
    assert set(batch.latency.tolist()) <= {0, 1, 2}
    model.model.train()
    costs = {}
    for bounds in ((1.0, 1.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)):
        costs[bounds] = objective(model, bounds=bounds, weight=0)(model.model, batch, 0, "group", 0.0).item()
    present = Counter(batch.latency.tolist())
    values = list(costs.values())
    for tag in range(3):
        assert (values[tag] != values[tag + 1]) == bool(present[tag])


@pytest.mark.parametrize("documents", [None, Documents([1, 2])])
def test_the_header_asks_for_the_latency(model: StreamingModel, documents: Documents | None) -> None:
    config = DataConfig(k=(3, RANDOM), latencies=TAGS, documents=documents)
    data = TrainingData(PAIRS * 5, model.prompt, config, seed=1)
    seen: Counter[int] = Counter()
    for batch, _ in data.epoch(0):
        for row, latency in zip(batch.target.tolist(), batch.latency.tolist(), strict=True):
            header = model.prompt.header_asking(TAGS[latency])
            assert row[: len(header)] == header
            seen[latency] += 1
    assert set(seen) == {0, 1, 2}
    for batch in data.fixed(3):  # validation asks for the prompt's own
        assert set(batch.latency.tolist()) == {-1}
        assert batch.target[0, :2].tolist() == model.prompt.target_header


def test_without_latencies_the_data_is_as_before(model: StreamingModel) -> None:
    plain, tagged = (
        TrainingData(PAIRS, model.prompt, DataConfig(k=(1, 3, FULL), latencies=tags), seed=1).epoch(0)
        for tags in (None, ["1"])
    )
    assert {row for batch, _ in plain for row in batch.latency.tolist()} == {-1}
    assert {row for batch, _ in tagged for row in batch.latency.tolist()} == {0}


def test_what_is_translated_costs_what_it_costs_without_the_wait_token(
    model: StreamingModel, computed_by: None
) -> None:
    """With no weight of the decision, and a wait token that nothing predicts, it is self-distillation."""
    batch = batch_of(model, (1, 2))
    model.model.train()
    found = objective(model, decision=0.0, weight=0.4)(model.model, batch, 0, "group", 0.1).item()
    plain = SelfDistillation(0.4)(model.model, batch, 0, "group", 0.1).item()
    assert found == pytest.approx(plain, rel=0.02)  # one token of 300 fewer
    model.model.eval()
    logits, labels = of_labels(model.model, batch, 0, "group")
    others = mx.where(mx.arange(logits.shape[-1]) == WAIT, -math.inf, logits)
    validation = objective(model)(model.model, batch, 0, "group", 0.0).item()
    assert validation == pytest.approx(cross_entropy(others, labels, 0.0).item(), rel=1e-6)
    assert validation < CrossEntropy()(model.model, batch, 0, "group", 0.0).item()


@pytest.mark.parametrize("bounds", [[], "0.3", [0.3, 1.5], [None]])
def test_bounds_are_distances(bounds: Any) -> None:
    with pytest.raises(ValueError, match=r"objective\.bounds is "):
        WaitToken(bounds=bounds)


def test_there_is_a_bound_for_each_latency_and_a_token(model: StreamingModel) -> None:
    with pytest.raises(ValueError, match=r"objective\.bounds has 2 numbers and data\.latencies 3 tags"):
        WaitToken(bounds=(0.1, 0.2)).prepared(model.prompt, TAGS)
    assert WaitToken(bounds=(0.1,)).prepared(model.prompt, []).token == WAIT
    plain = PromptTokens(Prompt(target_header="<|target|>"), model.tokenizer)
    with pytest.raises(ValueError, match=r"needs a wait token, and prompt\.wait_token is null"):
        WaitToken().prepared(plain, [])


@pytest.mark.parametrize("latencies", ["123", [], [None], [""], 3])
def test_latencies_are_a_list_of_tags(latencies: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.latencies is "):
        DataConfig(latencies=latencies)


class Stopped(Exception):
    pass


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=2, dropout=0.1, warmup_steps=5, log_every=1, checkpoint_every=1, average=1)

    def learn(folder: Path, stop_at: int | None = None) -> dict[str, mx.array]:
        loaded = with_a_wait_token(fresh(tmp_path / f"model-{folder.name}-{stop_at}"))
        how = DataConfig(k=(1, RANDOM, FULL), batch_tokens=70, documents=Documents([1, 2]), latencies=TAGS)
        data = TrainingData(PAIRS, loaded.prompt, how, 5)
        validation = [*TrainingData(PAIRS[:2], loaded.prompt, DataConfig(), 5).fixed(3)]

        def track(line: dict[str, Any]) -> None:
            if line["step"] == stop_at:
                raise Stopped

        trainer = Trainer(
            loaded.model, data, validation, config, folder, track=track, objective=objective(loaded), target_start=0
        )
        trainer.run()
        return dict(tree_flatten(loaded.model.parameters()))

    whole = learn(tmp_path / "whole")
    with pytest.raises(Stopped):
        learn(tmp_path / "cut", stop_at=4)
    again = learn(tmp_path / "cut")
    for name, value in whole.items():
        np.testing.assert_array_equal(np.array(value), np.array(again[name]), err_msg=name)
