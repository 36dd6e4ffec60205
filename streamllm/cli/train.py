"""Train a model to stream: streamllm train experiment=tiny_en_de, or adapt one: streamllm train model=qwen2.5-0.5b
adapter=lora (docs/training.md; all keys: streamllm train --cfg job). The same command with --export epoch-004 writes
the model of that checkpoint.

Two processes on one machine: streamllm train --processes 2 experiment=tiny_en_de
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from streamllm.cli.annotations import Part
from streamllm.cli.conf import CONF
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import CommandKeys, checked, made
from streamllm.cli.main import as_module
from streamllm.cli.ring import together_if_asked
from streamllm.data.held_out import HeldOut
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
    export, _EXPORT[:] = (_EXPORT[0] if _EXPORT else None), []
    scores = train(config, name, seed=keys.seed, root=root, rerun=keys.rerun, export=export, **parts)
    return float(scores.get("bleu", 0.0))


def everything(cfg: DictConfig) -> tuple[dict[str, Any], TrainKeys, dict[str, Any]]:
    """The resolved configuration, the keys of the command, and the parts that it names; nothing is loaded.

    Raises: as `streamllm.cli.keys.checked`; ValueError: both or none of model and fresh; what a part's constructor
        raises.
    """
    hold_out(cfg)
    config, keys = checked(cfg, TrainKeys)
    model, fresh = cfg.get("model"), cfg.get("fresh")
    if (model is None) == (fresh is None):
        raise ValueError("give one of model=… (to go on from) and fresh=… (to make); see conf/model and conf/fresh")
    parts = {argument: made(cfg.get(key), key) for key, argument in PARTS.items()}
    parts["model"] = made(fresh, "fresh") if model is None else made(model, "model")
    return config, keys, parts


def hold_out(cfg: DictConfig) -> None:
    """Let a training on files that was told of no validation data hold out some of their pairs: the usual validation
    data are another data set's."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    usual = OmegaConf.load(CONF / "train.yaml").defaults
    untold = {"dataset@validation": choices.get("dataset@validation")} in usual
    if choices.get("dataset") != "files" or not untold:
        return
    with open_dict(cfg):
        cfg.validation = {**cfg.dataset, "_target_": f"{HeldOut.__module__}.HeldOut"}
        cfg.dataset = {**cfg.dataset, "_target_": f"{HeldOut.__module__}.Remaining"}


_EXPORT: list[str] = []
"""The checkpoint that the command line names after --export, which Hydra knows nothing of."""


def command() -> None:
    together_if_asked("train")
    words = sys.argv[1:]
    for place, word in enumerate(words):
        flag, equals, name = word.partition("=")
        if flag == "--export":
            rest = words[place + 1 :]
            if not equals:
                name, rest = (rest[0], rest[1:]) if rest else ("", [])
            if not name or "=" in name or name.startswith("-"):
                sys.exit("error: --export needs the name of a checkpoint: give --export epoch-004 beside the command")
            _EXPORT[:], sys.argv[1:] = [name], words[:place] + rest
            break
    launch(main, "train")


if __name__ == "__main__":
    as_module("train")
