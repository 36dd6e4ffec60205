"""Training a write head, from a model and a corpus to a folder that policy=learned takes; stopped, it goes on to the
same head."""

import json
import logging
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from test_training_made_from import PAIRS, Kills

from streamllm.batching.scheduler import translate_many
from streamllm.data.text import ParallelText
from streamllm.models import write_heads
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.settings import SETTINGS
from streamllm.policies import Learned
from streamllm.records import Example
from streamllm.training.adapters import AdapterConfig
from streamllm.training.export import write_adapter
from streamllm.training.heads import measured, train
from streamllm.training.heads.labels.divergence import Divergence
from streamllm.training.heads.labels.needed import Alignment, Oracle
from streamllm.training.heads.labels.regret import Regret
from streamllm.training.heads.measured import CellConfig
from streamllm.training.heads.network import HeadConfig
from streamllm.training.heads.train import train_head
from streamllm.training.loop import TrainingConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.model_folder(tmp_path / "model", hidden=64, tied=True)
    for side, language in enumerate(("en", "de")):
        (tmp_path / f"text.{language}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    return tmp_path


def trained(folder: Path, root: str = "outputs", kill_at: int = 0, **options: Any) -> Path:
    """Train, and return the run folder."""
    text = ParallelText(source=folder / "text.en", target=folder / "text.de")
    steps = TrainingConfig(
        epochs=3, learning_rate=1e-2, warmup_steps=0, dropout=0.0, average=1, checkpoint_every=1, log_every=1
    )
    model = options.pop("model", ModelConfig(str(folder / "model")))
    head = HeadConfig(hidden=[4], batch=4)
    where = {"root": folder / root, "config": {"name": "a head", "seed": 1}, "name": "head"}
    labels = options.pop("labels", Divergence())
    parts = {"labels": labels, "head": head, "cells": CellConfig(rows=3), "training": steps}
    train_head(
        **where, model=model, corpus=text, validation_corpus=text, **parts, tracker=Kills(kill_at), seed=1, **options
    )
    (run,) = (path for path in (folder / root).iterdir() if path.name.startswith("head-"))
    return run


def layers(run: Path) -> list[np.ndarray]:
    return [array for layer in write_heads.read(run / train.HEAD).layers for array in layer]


def test_a_head_that_was_trained_is_asked_by_the_policy(folder: Path) -> None:
    run = trained(folder)
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["epochs"] == 3
    assert scores["validation_loss"] < np.log(2)
    model = ModelConfig(str(folder / "model"), head_path=str(run / train.HEAD)).load()
    examples = [Example(str(i), source, target) for i, (source, target) in enumerate(PAIRS)]

    def delays(threshold: float) -> list[tuple[int, ...]]:
        return [trace.delays for trace in translate_many(model, examples, Learned(threshold))]

    assert all(delay == max(own) for own in delays(1.0) for delay in own), "nothing before the end of the source"
    assert any(own and own[0] == 1 for own in delays(0.0)), "all at once"


@pytest.mark.parametrize("kill_at", [1, 5])
def test_a_training_that_was_stopped_goes_on_to_the_same_head(folder: Path, kill_at: int) -> None:
    whole = trained(folder)
    with pytest.raises(KeyboardInterrupt):
        trained(folder, "stopped", kill_at)
    (run,) = (folder / "stopped").iterdir()
    assert not (run / "metrics.json").exists()
    assert trained(folder, "stopped") == run
    for found, expected in zip(layers(run), layers(whole), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_labels_that_were_stopped_are_gone_on_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "PAIRS", 1)
    whole = trained(folder)
    written: list[Path] = []
    write = measured._write

    def stops(path: Path, what: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write(path, what)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(measured, "_write", stops)
        with pytest.raises(KeyboardInterrupt):
            trained(folder, "stopped")
    times = [path.stat().st_mtime_ns for path in written]
    run = trained(folder, "stopped")
    assert [path.stat().st_mtime_ns for path in written] == times
    for found, expected in zip(layers(run), layers(whole), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "labels",
    [
        Oracle(),
        Alignment(heads=[[0, 0], [1, 2]]),
        pytest.param(Regret(width=1, temperature=None), marks=pytest.mark.long),
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_a_head_is_trained_on_other_labels(folder: Path, labels: Any) -> None:
    run = trained(folder, labels=labels)
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["cells"] > 0 and 0 <= scores["validation_writes"] <= 1
    assert np.isfinite(scores["validation_loss"])
    model = ModelConfig(str(folder / "model"), head_path=str(run / train.HEAD)).load()
    assert model.write_head is not None


def test_a_finished_training_only_tells_its_scores(folder: Path) -> None:
    run = trained(folder)
    time = (run / train.HEAD / write_heads.FILE).stat().st_mtime_ns
    assert trained(folder) == run
    assert (run / train.HEAD / write_heads.FILE).stat().st_mtime_ns == time


def test_with_other_weights_a_training_is_refused_and_a_head_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trained(folder, write=True)
    assert ModelConfig(str(folder / "model")).load().write_head is not None
    weights = folder / "model" / "model.safetensors"
    other = {name: array + 1e-3 for name, array in tiny.read_weights(weights).items()}
    mx.save_safetensors(str(weights), other, {"format": "mlx"})
    with pytest.raises(ValueError, match="weights"):
        trained(folder)
    with caplog.at_level(logging.WARNING):
        assert ModelConfig(str(folder / "model")).load().write_head is None
    assert "was trained on other weights than those in" in caplog.text
    with pytest.raises(ModelError, match=r"was trained on other weights.*: train it anew with `streamllm train-head`"):
        ModelConfig(str(folder / "model"), head_path=str(run / train.HEAD)).load()


# --- beside an adapter


@pytest.fixture
def adapted(folder: Path) -> ModelConfig:
    model = ModelConfig(str(folder / "model")).load()
    settings = AdapterConfig(rank=2).apply(model.model, seed=0)
    for name, module in model.model.named_modules():
        if "lora_b" in module:
            module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(len(name)))
    write_adapter(model, settings, "tiny", folder / "model", folder / "adapter")
    return ModelConfig(str(folder / "model"), adapter_path=str(folder / "adapter"))


def test_a_head_of_an_adapter_lies_beside_it_and_is_not_the_models(folder: Path, adapted: ModelConfig) -> None:
    trained(folder, model=adapted, write=True)
    assert (folder / "adapter" / write_heads.FILE).exists()
    assert not (folder / "model" / write_heads.FILE).exists()
    assert adapted.load().write_head is not None
    assert ModelConfig(str(folder / "model")).load().write_head is None
    settings = json.loads((folder / "adapter" / SETTINGS).read_text())
    assert "base_weights" in settings, "what else stood there stays"


def test_a_models_head_serves_an_adapter_that_has_none_and_that_is_said(
    folder: Path, adapted: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    trained(folder, write=True)
    with caplog.at_level(logging.WARNING):
        assert adapted.load().write_head is not None
    assert "was trained without the adapter" in caplog.text
