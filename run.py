"""Translate a data set while reading it: python run.py policy=waitk k=3 (all keys: python run.py --cfg job)."""

import streamllm  # noqa: F401, I001  first: it loads a BLAS, which must come before mlx

import hydra
from omegaconf import DictConfig

from entry import explained, launch, resolved
from streamllm.experiment import run_experiment
from sweep import LoadedOnce

PARTS = ("model", "prompt", "policy", "paradigm", "dataset", "tracker", "limits", "arrival", "objective")
PLAIN = ("name", "seed", "batch_size", "min_lag", "max_lag")


@hydra.main(version_base="1.3", config_path="conf", config_name="run")
@explained
def main(cfg: DictConfig) -> float:
    """Run one configuration; returns its objective, which sweepers maximise: BLEU, unless told otherwise."""
    config = resolved(cfg)
    parts = {key: hydra.utils.instantiate(cfg[key], _convert_="all") for key in PARTS}
    rest = {key: cfg[key] for key in PLAIN}
    objective, parts["model"] = parts.pop("objective"), LoadedOnce(parts["model"])
    return float(objective(run_experiment(config=config, root=cfg.output.root, **rest, **parts)))


if __name__ == "__main__":
    launch(main)
