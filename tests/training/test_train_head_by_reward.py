"""A write head that goes on learning by reward, from a model, a head and a corpus to a folder for policy=learned;
stopped, it goes on to the same head."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_training_made_from import PAIRS, Kills

from streamllm.cli.keys import checked
from streamllm.cli.train_head import TrainHeadKeys, _by_reward
from streamllm.data.text import ParallelText
from streamllm.engine.limits import Limits
from streamllm.files import RunError
from streamllm.models import write_heads
from streamllm.models.loading import ModelConfig
from streamllm.training.data import DataConfig
from streamllm.training.heads import by_reward, train
from streamllm.training.heads.by_reward import sharpened
from streamllm.training.heads.labels.divergence import Divergence
from streamllm.training.heads.measured import CellConfig
from streamllm.training.heads.network import HeadConfig
from streamllm.training.heads.train import train_head
from streamllm.training.loop import TrainingConfig
from streamllm.training.objectives.grpo import GRPO
from streamllm.training.train import ValidationConfig
from streamllm.training.train import train as train_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny.model_folder(tmp_path / "model", hidden=64, tied=True)
    for side, language in enumerate(("en", "de")):
        (tmp_path / f"text.{language}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    (tmp_path / "start").mkdir()
    head = sharpened(tiny.write_head(1, 64), 0.5, 30.0)
    write_heads.write(tmp_path / "start", head, write_heads.trained_on(model), {})
    return tmp_path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model ends no sentence."""
    limits = partial(Limits, length_ratio=1.0, length_extra=1, tokens_per_unit=2.0)
    monkeypatch.setattr(by_reward, "Limits", limits)


def text(folder: Path) -> ParallelText:
    return ParallelText(source=folder / "text.en", target=folder / "text.de")


def trained(folder: Path, root: str = "outputs", kill_at: int = 0, steps: int = 4, **objective: Any) -> Path:
    """Train, and return the run folder."""
    training = TrainingConfig(
        steps=steps, learning_rate=3e-2, schedule="constant", warmup_steps=0, dropout=0.0, label_smoothing=0.0,
        average=1, checkpoint_every=1, log_every=1, validate_every=2, score_every=1,
    )  # fmt: skip
    where = {"root": folder / root, "config": {"name": "a head", "seed": 1}, "name": "head"}
    model = ModelConfig(str(folder / "model"), head_path=str(folder / "start"))
    unread = {"labels": Divergence(), "head": HeadConfig(), "cells": CellConfig()}
    grpo = GRPO(**{"samples": 4, "sentences": 2, "threshold": 0.5, "temperature": 1.0, **objective})
    parts = {"model": model, "training": training, "tracker": Kills(kill_at), "objective": grpo}
    train_head(**where, **unread, **parts, corpus=text(folder), validation_corpus=text(folder), seed=1)
    (run,) = (path for path in (folder / root).iterdir() if path.name.startswith("head-"))
    return run


@pytest.mark.long
def test_where_latency_is_all_that_counts_it_learns_to_write_at_once(folder: Path) -> None:
    run = trained(folder, steps=15, latency=1000.0, kl=0.0)
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["validation_loss"] < scores["start_validation_loss"] - 100
    assert scores["dal"] <= scores["start_dal"]
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert {"bleu", "laal", "dal", "validation_loss"} <= set(lines[2])
    assert ModelConfig(str(folder / "model"), head_path=str(run / train.HEAD)).load().write_head is not None
    assert json.loads((run / train.HEAD / "streamllm.json").read_text())["write_head"]["objective"] == "grpo"


def test_a_training_that_was_stopped_goes_on_to_the_same_head(folder: Path) -> None:
    whole = trained(folder)
    with pytest.raises(KeyboardInterrupt):
        trained(folder, "stopped", kill_at=3)
    (run,) = (folder / "stopped").iterdir()
    assert not (run / "metrics.json").exists()
    assert trained(folder, "stopped") == run
    for name in (f"{train.HEAD}/{write_heads.FILE}", "metrics.json", "step-0000004.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    start = write_heads.read(folder / "start").layers
    assert any((ours[0] != theirs[0]).any() for ours, theirs in zip(
        write_heads.read(run / train.HEAD).layers, start, strict=True))  # fmt: skip


@pytest.mark.long
def test_a_heavy_divergence_holds_the_start(folder: Path) -> None:
    found = {kl: write_heads.read(trained(folder, f"{kl}", kl=kl, latency=50.0) / train.HEAD) for kl in (0.0, 1e4)}
    states = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    start = write_heads.read(folder / "start")(states)
    far, near = (np.abs(found[kl](states) - start).mean() for kl in (0.0, 1e4))
    assert near < far


def test_with_another_start_a_training_is_refused(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(folder, kill_at=1)
    head = write_heads.read(folder / "start")
    write_heads.write(folder / "start", sharpened(head, 0.6, 1.0), write_heads.trained_on(folder / "model"), {})
    with pytest.raises(RunError, match="write head"):
        trained(folder)


def test_without_a_head_it_says_how_to_train_one(folder: Path) -> None:
    (folder / "start" / "streamllm.json").unlink()
    with pytest.raises(ValueError, match="names no write_head: train it anew with `streamllm train-head`"):
        trained(folder)


def test_a_model_without_a_head_says_how_to_train_one(folder: Path) -> None:
    with pytest.raises(ValueError, match="objective=grpo goes on with a write head, and the model has none"):
        by_reward.start_of(folder / "model", None, None)


def test_weights_and_adapters_learn_by_another_objective_and_that_is_said(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"teaches a write head: .*; weights and adapters learn by objective=grpo_model"
    ):
        train_model(
            {}, "x", ModelConfig(str(folder / "model")), text(folder), text(folder), DataConfig(), TrainingConfig(),
            ValidationConfig(), Kills(0), objective=GRPO(),
        )  # fmt: skip


# --- the command


def composed(*words: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train_head", [*words], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


def test_the_command_takes_the_objective_and_its_pace_and_names_the_run_after_it() -> None:
    cfg = composed("objective=grpo", "objective.latency=3", "dataset.data_dir=FOLDER")
    checked(cfg, TrainHeadKeys)
    assert instantiate(cfg.objective, _convert_="all") == GRPO(latency=3)
    training = instantiate(cfg.training, _convert_="all")
    assert (training.steps, training.schedule) == (100, "constant")
    assert _by_reward("head-multi30k-train-divergence") == "head-multi30k-train-grpo"
    composed("objective=grpo", "name=mine-divergence")
    assert _by_reward("mine-divergence") == "mine-divergence"
    assert "objective" not in composed("dataset.data_dir=FOLDER"), "from labels, the key does not count in the digest"


@pytest.mark.parametrize("word", ["labels=agreement", "head.hidden=[8]", "cells.rows=2", "+labels.mine=1"])
def test_keys_of_labels_are_refused_with_it(word: str) -> None:
    composed("objective=grpo", word)
    key = word.lstrip("+").partition("=")[0]
    with pytest.raises(ValueError, match=rf"^{key} is for learning from labels, and objective=grpo has none"):
        _by_reward("head-x-divergence")
