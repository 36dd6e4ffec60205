"""Steps of learning: optimizers, schedules, accumulated and recomputed gradients, what is logged and scored."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from conftest import ROOT
from families import FAMILIES, Family
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from mlx.utils import tree_flatten, tree_map
from reference import build
from test_adapters import Corpus, lesson
from test_training import PAIRS, fresh, loss_curve

from streamllm.cpu import learner
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.training.adapters import AdapterConfig
from streamllm.training.batch import pad
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.dropout import add_dropout
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.loss import loss
from streamllm.training.optimizers import Muon
from streamllm.training.recompute import recompute_blocks
from streamllm.training.schedules import SCHEDULES, factor
from streamllm.training.scores import of_wait_k
from streamllm.training.train import ValidationConfig

HANDFUL = ("qwen2", "gpt2", "gemma2", "gemma3n", "hunyuan", "deepseek_v3", "qwen3_moe")


@pytest.fixture
def model(tmp_path: Path) -> StreamingModel:
    return fresh(tmp_path / "model")


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}


def trainer_of(model: StreamingModel, folder: Path, **options: Any) -> Trainer:
    settings = {"epochs": 3, "dropout": 0.1, "warmup_steps": 2, "checkpoint_every": 1, "log_every": 1, "average": 1}
    trainer_options = {key: options.pop(key) for key in ("optimizer", "score", "track") if key in options}
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(1, 3, FULL), batch_tokens=60), 5)
    held_out = list(TrainingData(PAIRS[:2], model.prompt, DataConfig(), 5).fixed(3))
    return Trainer(model.model, data, held_out, TrainingConfig(**settings | options), folder, **trainer_options)


# Gradients


@pytest.mark.parametrize("batches", [2, 3])
def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path: Path, batches: int) -> None:
    results = []
    for parts in (1, batches):
        model = fresh(tmp_path / "model")
        trainer = trainer_of(model, tmp_path, dropout=0.0, optimizer=optim.SGD(0.5), clip=1e9)
        pairs = [trainer.data.encode(example, 2) for example in PAIRS]
        cut = [pad(pairs[i::parts]) for i in range(parts)]
        mean, norm = trainer.train_step([(batch, int((batch.labels >= 0).sum())) for batch in cut])
        results.append((mean, norm, weights(model.model)))
    (mean, norm, one), (same_mean, same_norm, several) = results
    assert same_mean == pytest.approx(mean, rel=1e-5)
    assert same_norm == pytest.approx(norm, rel=1e-4)
    for name, value in one.items():
        np.testing.assert_allclose(several[name], value, atol=1e-5, err_msg=name)


def test_an_epoch_whose_batches_are_accumulated_has_fewer_steps(model: StreamingModel, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path / "run", epochs=1, accumulate=3)
    single = len(trainer.data.epoch(0))
    assert single >= 4
    trainer.run()
    assert trainer.step == -(-single // 3)


def gradients(model: Any, seed: int = 0) -> dict[str, np.ndarray]:
    batch = pad([lesson(1, 7, 6, 1), lesson(2, 5, 8, 3)])
    model.train()
    mx.random.seed(seed)
    _, grads = nn.value_and_grad(model, loss)(model, batch, 0.1)
    return {name: np.array(value) for name, value in tree_flatten(grads)}


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=family.name, marks=[] if family.name in HANDFUL else pytest.mark.long)
        for family in FAMILIES
    ],
)
def test_recomputed_gradients_are_the_same(family: Family) -> None:
    model = build.__wrapped__(family)
    expected = gradients(model)
    names = [name for name, _ in tree_flatten(model.parameters())]
    recompute_blocks(model)
    found = gradients(model)
    assert [name for name, _ in tree_flatten(model.parameters())] == names
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4 * max(np.abs(value).max(), 1), err_msg=name)


def test_dropout_is_the_same_when_it_is_recomputed() -> None:
    """The gradient is the slope of the loss that has the same random numbers."""
    (family,) = (family for family in FAMILIES if family.name == "qwen2")
    model: Any = build.__wrapped__(family)
    add_dropout(model, 0.3)
    recompute_blocks(model)
    found = gradients(model, seed=7)
    mx.random.seed(1)
    direction = tree_map(lambda w: mx.random.normal(w.shape), model.trainable_parameters())
    start, batch = model.trainable_parameters(), pad([lesson(1, 7, 6, 1), lesson(2, 5, 8, 3)])

    def along(step: float) -> float:
        model.update(tree_map(lambda w, d: w + step * d, start, direction))
        mx.random.seed(7)
        return loss(model, batch, 0.1).item()  # type: ignore[return-value]

    slope = (along(1e-3) - along(-1e-3)) / 2e-3
    expected = sum(float((found[name] * np.array(d)).sum()) for name, d in tree_flatten(direction))
    assert slope == pytest.approx(expected, rel=0.02)


def test_recomputing_saves_memory_of_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lm.models import qwen2

    monkeypatch.setattr(learner, "applies", lambda model: False)  # whose memory MLX does not count

    config = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 12, "intermediate_size": 256}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "vocab_size": 48}
    model: Any = qwen2.Model(qwen2.ModelArgs.from_dict(config))
    batch = pad([lesson(seed, 60, 60, 3) for seed in range(8)])
    peaks = []
    for recompute in (False, True):
        if recompute:
            recompute_blocks(model)
        model.train()
        mx.clear_cache()
        mx.reset_peak_memory()
        mx.eval(nn.value_and_grad(model, loss)(model, batch, 0.0))
        peaks.append(mx.get_peak_memory())
    assert peaks[1] < 0.6 * peaks[0]


# Optimizers and schedules


OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))


def optimizer_of(name: str) -> optim.Optimizer:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"optimizer={name}", "training.learning_rate=0.01"])
    made: optim.Optimizer = instantiate(cfg.optimizer, _convert_="all")
    return made


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[dict[str, Any]], None]:
    def track(line: dict[str, Any]) -> None:
        if line["step"] == step:
            raise Stop

    return track


@pytest.mark.long
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_learns_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    def train(folder: str, **options: Any) -> dict[str, np.ndarray]:
        model = fresh(tmp_path / "model")
        rate = {"learning_rate": 0.01, "optimizer": optimizer_of(name)}
        trainer_of(model, tmp_path / folder, **rate, **options).run()
        return weights(model.model)

    straight = train("straight")
    with pytest.raises(Stop):
        train("stopped", track=stop_at(6))
    stopped = train("stopped")
    curve = loss_curve(tmp_path / "straight")
    assert loss_curve(tmp_path / "stopped") == curve
    assert all(np.array_equal(stopped[name], straight[name]) for name in straight)
    losses = [line["validation_loss"] for line in curve if "validation_loss" in line]
    assert losses[-1] < losses[0]


def test_muon_takes_the_matrices_of_the_blocks(model: StreamingModel) -> None:
    muon: Any = optimizer_of("muon")
    muon.init(model.model.trainable_parameters())
    first, rest = ({name.rpartition(".")[0] for name, _ in tree_flatten(o.state)} for o in muon.optimizers)
    assert "model.layers.0.self_attn.q_proj.weight" in first
    assert {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias", "model.norm.weight"} <= rest
    assert not first & rest - {""}
    muon.learning_rate = 0.5
    assert [o.learning_rate.item() for o in muon.optimizers] == pytest.approx([0.5, 0.05])


def test_muon_decays_each_weight_by_its_own_rate() -> None:
    muon = Muon(learning_rate=0.1, others_rate=0.5, weight_decay=0.2)
    weights = {"layers": [{"weight": mx.ones((4, 8))}], "embed": {"weight": mx.ones((6, 8))}}
    nothing = tree_map(mx.zeros_like, weights)
    updated = muon.apply_gradients(nothing, weights)
    assert np.allclose(updated["layers"][0]["weight"], 1 - 0.1 * 0.2)
    assert np.allclose(updated["embed"]["weight"], 1 - 0.1 * 0.5 * 0.2)


@pytest.mark.parametrize(
    ("schedule", "half", "end"),
    [("cosine", 0.51, 0.02), ("linear", 0.51, 0.02), ("constant", 1.0, 1.0), ("inverse_sqrt", 0.1414, 0.1)],
)
def test_schedules(schedule: str, half: float, end: float) -> None:
    assert set(SCHEDULES) == {"cosine", "linear", "constant", "inverse_sqrt"}
    rates = [factor(schedule, step, step / 1000, 10, 0.02) for step in range(1001)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)], rel=0.02)
    assert max(rates) == pytest.approx(1.0, rel=0.01)
    assert rates[500] == pytest.approx(half, rel=0.01)
    assert rates[1000] == pytest.approx(end, rel=0.01)


# Steps, logs and scores


def test_steps_end_a_training_whatever_its_epochs(model: StreamingModel, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path / "run", epochs=1, steps=23, validate_every=5, average=2, log_every=3)
    trainer.run()
    assert trainer.step == 23
    assert trainer.epoch > 1
    assert trainer.kept == [f"step-{step:07d}.safetensors" for step in (5, 10, 15, 20, 23)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [*range(3, 22, 3), 23]
    assert [line["step"] for line in lines if "validation_loss" in line] == [5, 10, 15, 20, 23, 23]
    assert lines[-1]["averaged"] == 2
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates[-1] < 0.1 * max(rates)


@pytest.mark.long
@pytest.mark.parametrize("at", [4, 5, 10])
def test_a_line_of_several_steps_is_whole_after_a_stop_within_it(tmp_path: Path, at: int) -> None:
    """Checkpoints fall between logged lines, and a stop between a validation and its checkpoint."""
    options = {"steps": 12, "log_every": 4, "checkpoint_every": 3, "validate_every": 5, "accumulate": 2}
    for folder in ("straight", "stopped"):
        trainer = trainer_of(fresh(tmp_path / "model"), tmp_path / folder, **options)
        if folder == "stopped":
            trainer.track = stop_at(at)
            with pytest.raises(Stop):
                trainer.run()
            trainer = trainer_of(fresh(tmp_path / "model"), tmp_path / folder, **options)
        trainer.run()
    assert loss_curve(tmp_path / "stopped") == loss_curve(tmp_path / "straight")


def test_a_long_gradient_is_cut_and_a_short_one_is_not(tmp_path: Path) -> None:
    def moved(clip: float) -> tuple[float, float]:
        """By how much a step moves all weights together, and the norm of the gradient that it says."""
        model = fresh(tmp_path / "model")
        trainer = trainer_of(model, tmp_path, dropout=0.0, optimizer=optim.SGD(1.0), clip=clip)
        before = weights(model.model)
        _, norm = trainer.train_step(trainer.data.epoch(0)[:1])
        after = weights(model.model)
        return float(np.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in before))), norm

    length, norm = moved(1e9)
    assert length == pytest.approx(norm, rel=1e-3)
    assert moved(norm / 4) == pytest.approx((norm / 4, norm), rel=1e-3)


def test_the_weights_of_the_last_validations_are_averaged(model: StreamingModel, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path / "run", epochs=4, average=3)
    trainer.run()
    last = [mx.load(str(tmp_path / "run" / f"epoch-{epoch:03d}.safetensors")) for epoch in (2, 3, 4)]
    for name, value in weights(model.model).items():
        expected = sum(np.array(every[name]) for every in last) / 3
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)
    assert not np.allclose(np.array(last[0]["model.norm.weight"]), np.array(last[2]["model.norm.weight"]), atol=1e-6)


def test_a_line_says_how_much_was_padding(model: StreamingModel, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path / "run", epochs=1, log_every=2)
    trainer.run()
    line = json.loads((tmp_path / "run" / "train.jsonl").read_text().splitlines()[0])
    assert {"loss", "tokens_per_second", "peak_memory_gb", "gradient_norm"} <= line.keys()
    batches = trainer.data.epoch(0)[:2]
    size = sum(batch.source.size + batch.target.size for batch, _ in batches)
    pairs = [pair for batch, _ in batches for pair in batch.source_units]
    padding = sum(int((units == 2**30).sum()) for units in pairs)
    for batch, _ in batches:
        for labels in batch.labels.tolist():
            while labels[-1] == -1:
                labels.pop()
                padding += 1
    assert line["padding"] == pytest.approx(padding / size, abs=1e-4)


def test_scores_at_several_k_are_those_of_one_sentence_at_a_time() -> None:
    model = ModelConfig("bundled:tiny-en-de").load()

    def score(k: Any, size: int) -> dict[str, float]:
        return of_wait_k(model, PAIRS, k, Corpus().target_language, Corpus().target_unit, size)  # type: ignore[return-value]

    alone, batched = (score([1, 3, FULL], size) for size in (1, 4))
    assert alone == batched
    assert alone["al_k1"] < alone["al_k3"] < alone["al_full"]
    assert alone["al"] == pytest.approx((alone["al_k1"] + alone["al_k3"] + alone["al_full"]) / 3)
    assert score([3], 4) == {"bleu": alone["bleu_k3"], "al": alone["al_k3"]}


def test_a_lag_is_none_where_nothing_was_written() -> None:
    model = ModelConfig("bundled:tiny-en-de").load()
    model.prompt.end_tokens = frozenset(range(10_000))  # whatever it predicts
    found = of_wait_k(model, PAIRS, [1, 3], Corpus().target_language, Corpus().target_unit, 32)
    assert found == {"bleu": 0.0, "bleu_k1": 0.0, "bleu_k3": 0.0, "al": None, "al_k1": None, "al_k3": None}


@pytest.mark.parametrize("score", [{"bleu": 1.0, "al": None}, {"bleu": None, "al": None}])
def test_a_score_that_is_none_ends_no_training(
    model: StreamingModel, tmp_path: Path, score: dict[str, float | None]
) -> None:
    tracked: list[dict[str, Any]] = []
    trainer = trainer_of(model, tmp_path, score=lambda _: score, track=tracked.append, epochs=2, score_every=1)
    best = trainer.run()
    assert best.get("bleu") == score["bleu"]
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["al"] for line in lines if "al" in line] == [None, None]
    resumed = trainer_of(fresh(tmp_path / "model"), tmp_path, score=lambda _: score, epochs=2, score_every=1)
    assert (resumed.run(), resumed.since_best) == (best, trainer.since_best)


def test_patience_counts_scores_that_are_none(model: StreamingModel, tmp_path: Path) -> None:
    trainer = trainer_of(model, tmp_path, score=lambda _: {"bleu": None}, epochs=9, score_every=1, patience=2)
    trainer.run()
    assert trainer.epoch == 2


@pytest.mark.parametrize(
    ("key", "value"), [("steps", 0), ("validate_every", 0), ("accumulate", 0), ("schedule", "exponential")]
)
def test_wrong_values_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"training.{key} is {value!r}"):
        TrainingConfig(**{key: value})


@pytest.mark.parametrize(
    ("group", "make", "values"),
    [
        ("training", TrainingConfig, {"epochs": "abc", "accumulate": 1.5, "clip": None, "learning_rate": float("nan")}),
        ("training", TrainingConfig, {"label_smoothing": 2, "dropout": 1, "patience": -1, "warmup_steps": True}),
        ("data", DataConfig, {"batch_tokens": 0, "source_mask": 1.5, "bpe_dropout": "x", "k": 0, "max_tokens": None}),
        ("score", ValidationConfig, {"sentences": -7, "k": 2.5, "batch_size": 2e1}),
        ("data", DataConfig, {"buffer": 0, "k": []}),
        ("adapter", AdapterConfig, {"rank": 4.5, "keys": [], "scale": 0, "layers": 0, "dropout": 1.0}),
    ],
)
def test_every_wrong_value_is_named_with_what_is_accepted(group: str, make: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        with pytest.raises(ValueError, match=re.escape(f"{group}.{key} is {value!r}; ") + "(it|each) is a") as refused:
            make(**{key: value})
        assert "\n" not in str(refused.value)
    make()


def test_what_is_accepted() -> None:
    TrainingConfig(clip=math.inf, learning_rate=np.float32(0.1), epochs=np.int64(3), steps=None)  # type: ignore[arg-type]
    DataConfig(k="full", buffer=None)
    with pytest.raises(ValueError, match=r"at least 1, or null for the whole corpus \(.*as in data\.buffer=100000\)"):
        DataConfig(buffer=1e5)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"epochs": 1}, {"steps": 2}])
def test_the_last_validation_has_a_score_although_training_ends_with_it(
    model: StreamingModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    settings = {"validate_every": 1, "score_every": 100, "dropout": 0.0, **options}
    trainer = trainer_of(model, tmp_path, score=lambda _: {"bleu": 7.0}, **settings)
    assert trainer.run()["bleu"] == 7.0
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "bleu" in line] == [trainer.step]
