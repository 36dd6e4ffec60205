"""Translate a data set while reading it: streamllm run policy=waitk k=3 (all keys: streamllm run --cfg job)."""

import hydra
from omegaconf import DictConfig

from streamllm.cli.conf import CONF
from streamllm.cli.errors import explained, launch, resolved
from streamllm.cli.loaded_once import LoadedOnce
from streamllm.evaluation.runner import run_experiment

PARTS = ("model", "prompt", "policy", "paradigm", "dataset", "tracker", "limits", "arrival", "tuning")
PLAIN = ("name", "seed", "batch_size", "min_lag", "max_lag")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")
@explained
def main(cfg: DictConfig) -> float:
    """Run one configuration; returns what sweepers maximise (`tuning`): BLEU, unless told otherwise."""
    config = resolved(cfg)
    parts = {key: hydra.utils.instantiate(cfg[key], _convert_="all") for key in PARTS}
    rest = {key: cfg[key] for key in PLAIN}
    tuning, parts["model"] = parts.pop("tuning"), LoadedOnce(parts["model"])
    return float(tuning(run_experiment(config=config, root=cfg.output.root, **rest, **parts)))


def command() -> None:
    launch(main)
