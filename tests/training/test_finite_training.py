"""Training with numbers that are not finite, or too small for their dtype: it stops where the first arises, weights in
half precision learn all the same, and the score is that of the folder that was written."""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten
from test_adapters import Corpus
from test_train_entry import train as train_by_command
from test_training import PAIRS, fresh

from streamllm.batching.scheduler import translate_many
from streamllm.cpu import exponentials
from streamllm.engine.finite import NotFinite
from streamllm.engine.positions import PositionError
from streamllm.metrics.summary import summarise
from streamllm.models.loading import ModelConfig
from streamllm.policies import WaitK
from streamllm.tracking.tracker import NullTracker
from streamllm.training.adapters import AdapterConfig
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.fresh import FreshModel
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.loss import cross_entropy
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.train import ValidationConfig, train

Change = Callable[[mx.array], mx.array]


class Broken:
    """Cross-entropy, changed from the call ``at`` on: of training, or of validation."""

    def __init__(self, at: int, change: Change, validation: bool = False):
        self.calls, self.at, self.change, self.validation = 0, at, change, validation

    def __call__(self, model: Any, batch: Any, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        total = CrossEntropy()(model, batch, target_start, paradigm, label_smoothing)
        if model.training == self.validation:
            return total
        self.calls += 1
        return self.change(total) if self.calls >= self.at else total


def no_gradient(total: mx.array) -> mx.array:
    """The same loss, with a gradient of infinity times 0."""
    return total + mx.sqrt(total - total)


def trainer_of(model: Any, folder: Path, objective: Any = CrossEntropy(), **options: Any) -> Trainer:
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(3,), batch_tokens=60), seed=5)
    held_out = list(TrainingData(PAIRS[:2], model.prompt, DataConfig(), 5).fixed(3))
    track = options.pop("track", None)
    usual = {"steps": 6, "dropout": 0.0, "log_every": 1, "checkpoint_every": 2, "warmup_steps": 0, "average": 1}
    config = TrainingConfig(**usual | options)
    return Trainer(model.model, data, held_out, config, folder, objective=objective, track=track)


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {name: np.array(value.astype(mx.float32)) for name, value in tree_flatten(model.model.parameters())}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


# It stops


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda total: total * math.nan, "the loss is nan at step 4"),
        (lambda total: total + math.inf, "the loss is inf at step 4"),
        (no_gradient, "the norm of the gradient is nan at step 4"),
    ],
)
def test_training_stops_at_the_first_number_that_is_not_finite(change: Change, says: str, tmp_path: Path) -> None:
    model = fresh(tmp_path / "model")
    trainer = trainer_of(model, tmp_path / "run", Broken(4, change), steps=9)
    with pytest.raises(NotFinite, match=f"^{says}.*last checkpoint stays in .*last.safetensors.*learning_rate"):
        trainer.run()
    assert [line["step"] for line in lines(tmp_path / "run") if "loss" in line] == [1, 2, 3]
    assert all(np.isfinite(value).all() for value in weights_of(model).values())
    (counters,) = [json.loads(mx.load(str(tmp_path / "run" / "last.safetensors"), return_metadata=True)[1]["counters"])]
    assert counters["step"] == 2


def test_a_validation_loss_that_is_not_finite_ends_it_before_weights_are_kept(tmp_path: Path) -> None:
    broken = Broken(1, lambda total: total * math.nan, validation=True)
    trainer = trainer_of(fresh(tmp_path / "model"), tmp_path / "run", broken, validate_every=2)
    with pytest.raises(NotFinite, match=r"^the validation loss is nan at step"):
        trainer.run()
    assert not list((tmp_path / "run").glob("step-*"))
    assert not any("validation_loss" in line for line in lines(tmp_path / "run"))


def test_the_command_fails_and_leaves_no_model(tmp_path: Path) -> None:
    for code, side in (("en", "source"), ("de", "reference")):
        (tmp_path / f"pairs.{code}").write_text("".join(f"{getattr(pair, side)}\n" for pair in PAIRS), encoding="utf-8")
    done = train_by_command(tmp_path, "training.learning_rate=1e30", "training.warmup_steps=0")
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "is nan at step" in said
    (run,) = (tmp_path / "outputs").glob("small-*")
    assert not (run / "metrics.json").exists()
    assert not (run / "model").exists()


# Weights in half precision


def half(folder: Path) -> Any:
    model = fresh(folder)
    model.model.set_dtype(mx.bfloat16)
    return model


def test_most_weights_of_bfloat16_move(tmp_path: Path) -> None:
    """Without float32 copies, 37 % of those of a model moved in 100 steps."""
    model = half(tmp_path / "model")
    before = weights_of(model)
    trainer_of(model, tmp_path / "run", steps=40, learning_rate=1e-4, schedule="constant").run()
    after = weights_of(model)
    moved = sum(int((after[name] != before[name]).sum()) for name in before)
    assert moved > 0.9 * sum(value.size for value in before.values())
    assert {value.dtype for _, value in tree_flatten(model.model.parameters())} == {mx.bfloat16}


def test_what_a_step_is_too_small_for_is_not_lost(tmp_path: Path) -> None:
    """At 1e-5 a step is seldom as large as half the distance to the next bfloat16; the copies move all the same."""
    model = half(tmp_path / "model")
    trainer = trainer_of(model, tmp_path / "run", steps=4, learning_rate=1e-5, schedule="constant")
    before = dict(tree_flatten(trainer.masters.weights))
    trainer.run()
    after = dict(tree_flatten(trainer.masters.weights))
    moved = sum(int((after[name] != before[name]).sum().item()) for name in before)
    assert moved > 0.95 * sum(value.size for value in before.values())
    assert {value.dtype for value in after.values()} == {mx.float32}
    for name, value in tree_flatten(model.model.parameters()):
        assert mx.array_equal(value, after[name].astype(mx.bfloat16)).item(), name


class Stop(Exception):
    pass


def test_a_training_in_bfloat16_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 5:
            raise Stop

    def trained(name: str, **options: Any) -> dict[str, Any]:
        trainer = trainer_of(half(tmp_path / "model"), tmp_path / name, steps=7, learning_rate=1e-4, **options)
        trainer.run()
        return dict(tree_flatten(trainer.masters.weights))

    straight = trained("straight")
    with pytest.raises(Stop):
        trained("stopped", track=stop)
    stopped = trained("stopped")
    assert all(mx.array_equal(stopped[name], straight[name]).item() for name in straight)
    losses = [[line["loss"] for line in lines(tmp_path / name) if "loss" in line] for name in ("straight", "stopped")]
    assert losses[0] == losses[1]


def test_the_norm_of_a_gradient_in_bfloat16_is_that_of_its_numbers_in_float32(tmp_path: Path) -> None:
    half_model, whole = half(tmp_path / "half"), half(tmp_path / "whole")
    whole.model.set_dtype(mx.float32)  # the same weights
    norms = []
    for name, model in (("half-run", half_model), ("whole-run", whole)):
        trainer_of(model, tmp_path / name, steps=1).run()
        norms.append(lines(tmp_path / name)[0]["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_adapters_are_trained_as_they_are(tmp_path: Path) -> None:
    model = half(tmp_path / "model")
    AdapterConfig(rank=2).apply(model.model, seed=1)
    trainer = trainer_of(model, tmp_path / "run")
    own = dict(tree_flatten(model.model.trainable_parameters()))
    assert {value.dtype for value in own.values()} == {mx.float32}
    assert all(value is own[name] for name, value in tree_flatten(trainer.masters.weights))


# Cross-entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_logit_of_minus_infinity_is_as_if_its_token_were_not_there(smoothing: float, lazy: bool) -> None:
    logits = mx.random.normal((4, 9), key=mx.random.key(3))
    labels = mx.array([2, 0, -1, 7])
    ruled_out = mx.array(np.insert(np.array(logits), 9, -math.inf, axis=1))
    total, gradient = mx.value_and_grad(lambda x: cross_entropy(x, labels, smoothing, lazy))(ruled_out)
    expected, its = mx.value_and_grad(lambda x: cross_entropy(x, labels, smoothing, lazy))(logits)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(np.array(gradient[:, :9]), np.array(its), atol=1e-6)
    assert not np.array(gradient[:, 9]).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("value", "sum_is"), [(-math.inf, "inf"), (math.nan, "nan"), (math.inf, "nan")])
def test_a_label_that_is_ruled_out_and_nan_are_not_hidden(
    smoothing: float, lazy: bool, value: float, sum_is: str
) -> None:
    logits = mx.random.normal((4, 9), key=mx.random.key(3))
    logits[1, 5] = value
    assert str(cross_entropy(logits, mx.array([2, 5, -1, 7]), smoothing, lazy).item()) == sum_is


def test_cross_entropy_of_numpy_and_of_mlx_are_one_where_tokens_are_ruled_out() -> None:
    logits = np.random.default_rng(0).normal(size=(70, 30)).astype(np.float32)
    logits[::3, 4], logits[:, 9] = -math.inf, -math.inf
    labels = np.full(70, 11, np.int32)
    total, gradient = exponentials.cross_entropy(logits, labels, 0.2)
    theirs, grad = mx.value_and_grad(lambda x: cross_entropy(x, mx.array(labels), 0.2, lazy=True))(mx.array(logits))
    assert total == pytest.approx(theirs.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, np.array(grad), atol=1e-6)


# What is written


@dataclass
class Same(Corpus):
    """The training pairs are the validation's."""


def finetune(base: Path | FreshModel, root: Path, adapter: AdapterConfig | None = None, **model: Any) -> Path:
    train(
        {"base": str(base), "adapter": str(adapter)},
        "test",
        base if isinstance(base, FreshModel) else ModelConfig(str(base), **model),
        Same(),
        Same(),
        DataConfig(k=(1, 3)),
        TrainingConfig(epochs=2, learning_rate=1e-2, warmup_steps=0, dropout=0.0, average=1),
        ValidationConfig(k=3, sentences=4),
        NullTracker(),
        root=root,
        adapter=adapter,
    )
    (run,) = root.glob("test-*")
    return run


def rewritten(folder: Path, change: Callable[[str, mx.array], mx.array]) -> Path:
    weights = tiny.read_weights(folder / "model.safetensors")
    weights = {name: change(name, value) for name, value in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def scores_of(config: ModelConfig) -> dict[str, Any]:
    model = config.load()
    found = {trace.id: trace for trace in translate_many(model, PAIRS[:4], WaitK(3), batch_size=32)}
    summary = summarise([found[pair.id] for pair in PAIRS[:4]], "de", "word")
    return {name: summary[name] for name in ("bleu", "al")}


def stored(run: Path) -> dict[str, Any]:
    scores = json.loads((run / "metrics.json").read_text())
    return {name: scores[name] for name in ("bleu", "al")}


@pytest.mark.long
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_a_model_is_written_in_the_dtype_that_it_began_with_and_the_score_is_its_own(
    dtype: mx.Dtype, tmp_path: Path
) -> None:
    base = rewritten(tiny.model_folder(tmp_path / "base"), lambda _, value: value.astype(dtype))
    run = finetune(base, tmp_path / "outputs")
    kind = str(dtype).removeprefix("mlx.core.")
    assert {value.dtype for value in tiny.read_weights(run / "model" / "model.safetensors").values()} == {dtype}
    assert json.loads((run / "model" / "config.json").read_text())["torch_dtype"] == kind
    assert stored(run) == scores_of(ModelConfig(str(run / "model")))


@pytest.mark.long
def test_weights_that_float16_cannot_hold_are_written_as_float32_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(name: str, value: mx.array) -> mx.array:
        if name != "model.norm.weight":
            return value.astype(mx.float16)
        value[0] = 1e5
        return value

    base = rewritten(tiny.model_folder(tmp_path / "base"), change)
    caplog.set_level(logging.WARNING)
    run = finetune(base, tmp_path / "outputs")
    written = tiny.read_weights(run / "model" / "model.safetensors")
    assert {value.dtype for value in written.values()} == {mx.float32}
    assert "the model is written as float32: the weights 'model.norm.weight' are not finite in float16" in caplog.text
    assert stored(run) == scores_of(ModelConfig(str(run / "model")))


def test_the_score_of_an_adapter_is_that_of_the_adapter_that_was_written(tmp_path: Path) -> None:
    base = tiny.model_folder(tmp_path / "base")
    run = finetune(base, tmp_path / "outputs", AdapterConfig(rank=2))
    written = ModelConfig(str(base), adapter_path=str(run / "adapter"))
    assert stored(run) == scores_of(written)


# Positions


def test_data_longer_than_a_learned_table_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    architecture = {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 1, "n_ctx": 64, "n_positions": 64}
    architecture |= {"layer_norm_epsilon": 1e-5, "num_key_value_heads": 4}
    new = FreshModel(architecture, vocab_size=300)
    with pytest.raises(PositionError, match=r"data.max_tokens is 256.*has 64: set data.max_tokens=64"):
        finetune(new, tmp_path / "outputs")
    assert not list(tmp_path.glob("outputs/*/last.safetensors"))
