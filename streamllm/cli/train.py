"""Train a model to stream: streamllm train experiment=tiny_en_de, or adapt one: streamllm train model=qwen2.5-0.5b
adapter=lora (docs/training.md; all keys: streamllm train --cfg job).

Several processes on one machine, or more: mlx.launch -n 2 python train.py experiment=tiny_en_de
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from streamllm.cli.annotations import Part
from streamllm.cli.conf import CONF
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import CommandKeys, checked, made
from streamllm.cli.main import as_module
from streamllm.training.train import train

PARTS = {"dataset": "corpus", "validation": "validation_corpus", "score": "validation"}
PARTS |= {name: name for name in ("data", "training", "objective", "optimizer", "tracker")}
PARTS |= {name: name for name in ("paradigm", "prompt", "adapter")}


@dataclass(eq=False, repr=False, kw_only=True)
class TrainKeys(CommandKeys):
    """Of ``conf/train.yaml``.

    Args:
        dataset: what is learned from.
        validation: another data set, on which loss and translations are scored while training.
        paradigm: how the streams lie in the model, which the mask follows.
        training: how long and how fast to learn.
        objective: what is minimised.
        optimizer: how the weights move.
        tracker: where the training is recorded besides its folder.
        score: what is scored on the validation data.
        data: how examples become batches.
        model: the model to go on from; give this or ``fresh``.
        fresh: a model to make.
        adapter: lora or dora; null trains all weights.
        prompt: the text around the words, which is kept with the result; null is the model's own.
    """

    dataset: Part
    validation: Part
    paradigm: Part
    training: Part
    objective: Part
    optimizer: Part | None
    tracker: Part | None
    score: Part
    data: Part
    model: Part | None = None
    fresh: Part | None = None
    adapter: Part | None = None
    prompt: Part | None = None


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@explained
def main(cfg: DictConfig) -> float:
    """Train one configuration; returns validation BLEU, which sweepers maximise."""
    config, keys, parts = everything(cfg)
    name, root = str(keys.name), Path(str(keys.output.root))
    scores = train(config, name, seed=keys.seed, root=root, rerun=keys.rerun, **parts)
    return float(scores.get("bleu", 0.0))


def everything(cfg: DictConfig) -> tuple[dict[str, Any], TrainKeys, dict[str, Any]]:
    """The resolved configuration, the keys of the command, and the parts that it names; nothing is loaded.

    Raises: as `streamllm.cli.keys.checked`; ValueError: both or none of model and fresh; what a part's constructor
        raises.
    """
    config, keys = checked(cfg, TrainKeys)
    model, fresh = cfg.get("model"), cfg.get("fresh")
    if (model is None) == (fresh is None):
        raise ValueError("give one of model=… (to go on from) and fresh=… (to make); see conf/model and conf/fresh")
    parts = {argument: made(cfg.get(key), key) for key, argument in PARTS.items()}
    parts["model"] = made(fresh, "fresh") if model is None else made(model, "model")
    return config, keys, parts


def command() -> None:
    launch(main, "train")


if __name__ == "__main__":
    as_module("train")
