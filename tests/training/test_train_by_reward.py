"""A model, or an adapter, that learns by reward, from a corpus to a folder for policy=learned; stopped, it goes on to
the same weights."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from test_training_made_from import PAIRS, Kills

from streamllm.data.text import ParallelText
from streamllm.engine.limits import Limits
from streamllm.files import RunError
from streamllm.models import write_heads
from streamllm.models.loading import ModelConfig
from streamllm.training import by_reward
from streamllm.training.adapters import AdapterConfig
from streamllm.training.data import DataConfig
from streamllm.training.heads.by_reward import sharpened
from streamllm.training.loop import TrainingConfig
from streamllm.training.objectives.grpo_model import ModelGRPO
from streamllm.training.train import ValidationConfig, train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny.model_folder(tmp_path / "model", hidden=64, tied=True)
    for side, language in enumerate(("en", "de")):
        (tmp_path / f"text.{language}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    write_heads.write(model, sharpened(tiny.write_head(1, 64), 0.5, 30.0), write_heads.trained_on(model), {})
    return tmp_path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model ends no sentence."""
    monkeypatch.setattr(by_reward, "Limits", partial(Limits, length_ratio=1.0, length_extra=1, tokens_per_unit=2.0))


def trained(
    folder: Path,
    root: str = "outputs",
    kill_at: int = 0,
    steps: int = 4,
    adapter: AdapterConfig | None = None,
    rate: float = 1e-2,
    export: str | None = None,
    model: dict[str, Any] | None = None,
    **objective: Any,
) -> Path:
    """Train, and return the run folder."""
    training = TrainingConfig(
        steps=steps, learning_rate=rate, schedule="constant", warmup_steps=0, dropout=0.0, label_smoothing=0.0,
        average=1, checkpoint_every=1, log_every=1, validate_every=2, score_every=1,
    )  # fmt: skip
    text = ParallelText(source=folder / "text.en", target=folder / "text.de")
    grpo = ModelGRPO(**{"samples": 4, "sentences": 2, "thresholds": [0.5, 0.6], **objective})
    parts: dict[str, Any] = {"data": DataConfig(), "training": training, "adapter": adapter}
    made = ModelConfig(str(folder / "model"), **(model or {}))
    parts |= {"validation": ValidationConfig(sentences=2), "tracker": Kills(kill_at), "objective": grpo}
    train({"name": "a model", "seed": 1}, "model", made, text, text, seed=1, root=folder / root, export=export, **parts)
    (run,) = (path for path in (folder / root).iterdir() if path.name.startswith("model-"))
    return run


@pytest.mark.parametrize("adapter", [None, pytest.param(AdapterConfig(rank=2), marks=pytest.mark.long)])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(folder: Path, adapter: AdapterConfig | None) -> None:
    whole = trained(folder, adapter=adapter)
    with pytest.raises(KeyboardInterrupt):
        trained(folder, "stopped", kill_at=3, adapter=adapter)
    (run,) = (folder / "stopped").iterdir()
    assert not (run / "metrics.json").exists()
    assert trained(folder, "stopped", adapter=adapter) == run
    written = "adapter/adapters.safetensors" if adapter else "model/model.safetensors"
    for name in (written, "metrics.json", "step-0000004.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    steps = [tiny.read_weights(run / f"step-000000{step}.safetensors") for step in (2, 4)]
    assert any((before != after).any() for before, after in zip(*(one.values() for one in steps), strict=True))


def test_what_was_trained_is_evaluated_by_the_head_that_it_has_learned_with(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = trained(folder)
    assert f"to evaluate {run / 'model'}: streamllm run policy=learned policy.threshold=… model=folder" in caplog.text
    scores = json.loads((run / "metrics.json").read_text())
    assert {"bleu", "laal", "dal", "bleu_0.5", "dal_0.6", "validation_loss"} <= set(scores)
    head = write_heads.read(folder / "model")
    found = ModelConfig(str(run / "model")).load().write_head
    assert found is not None
    np.testing.assert_array_equal(found.layers[0][0], head.layers[0][0])
    trained(folder, export="step-0000002")
    assert ModelConfig(str(run / "step-0000002")).load().write_head is not None, "an earlier one has it, too"
    said = json.loads((run / "model" / "streamllm.json").read_text())["write_head"]
    assert said["objective"] == "modelgrpo"


def test_an_adapter_alone_learns(folder: Path) -> None:
    before = {name: np.array(value) for name, value in tiny.read_weights(folder / "model/model.safetensors").items()}
    run = trained(folder, adapter=AdapterConfig(rank=2), steps=2)
    assert not (run / "model").exists()
    learned = tiny.read_weights(run / "adapter/adapters.safetensors")
    assert all(name.endswith(("lora_a", "lora_b")) for name in learned)
    assert any(name.endswith("lora_b") and bool(mx.any(value != 0)) for name, value in learned.items())
    after = tiny.read_weights(folder / "model/model.safetensors")
    assert all((np.array(after[name]) == value).all() for name, value in before.items())
    loaded = ModelConfig(str(folder / "model"), adapter_path=str(run / "adapter")).load()
    assert loaded.write_head is not None


@pytest.mark.long
@pytest.mark.parametrize("policy", [{}, {"policy": "waitk", "k": [1]}])
def test_where_a_word_is_all_that_counts_it_learns_to_write_it(folder: Path, policy: dict[str, Any]) -> None:
    """Every reference is «der Hund rennt»; the mean reward of what is drawn rises."""
    (folder / "text.de").write_text("der Hund rennt\n" * len(PAIRS))
    run = trained(folder, steps=60, rate=5e-3, kl=0.0, samples=16, quality="chrf", latency=0.0, **policy)
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 5


@pytest.mark.long
def test_a_heavy_divergence_holds_the_start(folder: Path) -> None:
    start = tiny.read_weights(folder / "model/model.safetensors")
    moved = {}
    for kl in (0.0, 1e4):
        run = trained(folder, f"{kl}", kl=kl, steps=12, latency=50.0, rate=1e-3)
        found = tiny.read_weights(run / "model/model.safetensors")
        name = "model.norm.weight"
        moved[kl] = float(mx.abs(found[name] - start[name]).mean())
    assert moved[1e4] < moved[0.0]


def test_with_another_head_a_training_is_refused(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(folder, kill_at=1)
    model = folder / "model"
    write_heads.write(model, tiny.write_head(7, 64), write_heads.trained_on(model), {})
    with pytest.raises(RunError, match="head"):
        trained(folder)


def test_without_a_head_it_says_what_to_do(folder: Path) -> None:
    (folder / "model" / "streamllm.json").unlink()
    with pytest.raises(ValueError, match=r"has no write head that says when to write: train one .* or take"):
        trained(folder)


def test_windows_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.max_source, model\.max_target or model\.kv_bits"):
        trained(folder, model={"max_source": 64})


def test_the_command_takes_the_objective_and_its_pace() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["objective=grpo_model", "model=tiny-en-de", "adapter=lora", "objective.latency=3"])
    objective = instantiate(cfg.objective, _convert_="all")
    assert objective == ModelGRPO(latency=3.0, thresholds=[0.7, 0.8, 0.9, "full"], k=[1, 2, 3, 5, "full"])
    training, data = (instantiate(cfg[part], _convert_="all") for part in ("training", "data"))
    assert (training.steps, training.schedule, training.dropout) == (100, "constant", 0)
    by_reward.check(training, data, instantiate(cfg.adapter, _convert_="all"), instantiate(cfg.model, _convert_="all"))
