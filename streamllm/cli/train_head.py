"""Train a head that says when to write, for policy=learned; the model stays as it is.

    streamllm train-head dataset.data_dir=FOLDER
    streamllm train-head model=folder model.path=FOLDER labels=agreement labels.rank=3 dataset=… write=true
    streamllm train-head objective=grpo model.head_path=outputs/head-…/head dataset.data_dir=FOLDER

Model and prompt are those of `streamllm run`, the data those of `streamllm train`, with the same keys. Stopped in any
way, the same command goes on. With write=true the head is kept beside the weights, where the policy finds it.
With objective=grpo a head that was trained from labels goes on learning from rewards.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from streamllm.cli.annotations import Part
from streamllm.cli.conf import CONF
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import CommandKeys, checked, made
from streamllm.cli.main import as_module
from streamllm.cli.train import hold_out
from streamllm.training.heads.train import train_head

PARTS = {"dataset": "corpus", "validation": "validation_corpus"}
PARTS |= {name: name for name in ("model", "prompt", "labels", "head", "cells", "training", "optimizer", "tracker")}
PARTS["objective"] = "objective"


@dataclass(eq=False, repr=False, kw_only=True)
class TrainHeadKeys(CommandKeys):
    """Of ``conf/train_head.yaml``.

    Args:
        model: the model whose hidden states the head is given.
        prompt: the text around the words; null is the model's own.
        dataset: what is learned from.
        validation: another data set, on which the loss is computed while training.
        labels: when WRITE is right.
        objective: grpo learns by reward instead of from labels; null is none.
        head: the shape of the head.
        cells: which places of a pair are looked at.
        training: how long and how fast to learn.
        optimizer: how the weights of the head move.
        tracker: where the training is recorded besides its folder.
        write: true also puts the head beside the weights.
    """

    model: Part
    prompt: Part | None
    dataset: Part
    validation: Part
    labels: Part
    head: Part
    cells: Part
    training: Part
    optimizer: Part | None
    tracker: Part | None
    write: bool
    objective: Part | None = None


OF_LABELS = ("labels", "head", "cells")
"""Keys that say how a head learns from labels."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train_head")
@explained
def main(cfg: DictConfig) -> float:
    """Train one head; returns minus its validation loss, which sweepers maximise."""
    hold_out(cfg)
    config, keys = checked(cfg, TrainHeadKeys)
    del config["write"]  # of this one command, and nothing of what comes out
    name = str(keys.name)
    if keys.objective is not None:
        name = _by_reward(name)
        for key in OF_LABELS:
            del config[key]
    parts: dict[str, Any] = {argument: made(cfg.get(key), key) for key, argument in PARTS.items()}
    root = Path(str(keys.output.root))
    scores = train_head(config, name, seed=keys.seed, root=root, rerun=keys.rerun, write=keys.write, **parts)
    return -float(scores["validation_loss"])


def _by_reward(name: str) -> str:
    """The name of a training by reward, which is not called after labels.

    Raises: ValueError: keys of labels are given.
    """
    composed = HydraConfig.get()
    labels, objective = (composed.runtime.choices[group] for group in ("labels", "objective"))
    given = [word.lstrip("+~").partition("=")[0] for word in composed.overrides.task]
    if unread := [key for key in given if key.partition(".")[0] in OF_LABELS]:
        raise ValueError(f"{unread[0]} is for learning from labels, and objective={objective} has none: leave it out")
    return name if "name" in given else f"{name.removesuffix(f'-{labels}')}-{objective}"


def command() -> None:
    launch(main, "train_head")


if __name__ == "__main__":
    as_module("train-head")
