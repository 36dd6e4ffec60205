"""Translate a data set while reading it: streamllm run policy=waitk k=3 (all keys: streamllm run --cfg job)."""

from collections.abc import Mapping
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from streamllm.cli.conf import CONF
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import RunKeys, checked, made
from streamllm.cli.loaded_once import LoadedOnce
from streamllm.cli.main import as_module
from streamllm.cli.together import translator
from streamllm.evaluation.runner import run_experiment
from streamllm.evaluation.tuning import Tuning
from streamllm.metrics.own import own_scores
from streamllm.metrics.scores import scores

PARTS = ("model", "prompt", "policy", "paradigm", "dataset", "tracker", "limits", "arrival", "tuning", "metrics")
PLAIN = ("seed", "batch_size", "min_lag", "max_lag", "rerun")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")
@explained
def main(cfg: DictConfig) -> float:
    """Run one configuration; returns what sweepers maximise (`tuning`): BLEU, unless told otherwise."""
    config, keys, parts = everything(cfg)
    tuning, parts["model"] = parts.pop("tuning"), LoadedOnce(model := parts["model"])
    parts |= {key: getattr(keys, key) for key in PLAIN}
    parts["brief"] = HydraConfig.get().mode == RunMode.MULTIRUN  # its table has all
    parts["translator"] = translator()
    if keys.processes > 1 or keys.cluster is not None:
        from streamllm.evaluation.processes import in_processes

        runs = None
        if keys.cluster is not None:
            from streamllm.evaluation.cluster import on_cluster

            runs = on_cluster(keys.cluster)
        parts["processes"] = (
            keys.processes if keys.cluster in (None, "local") else 1
        )  # elsewhere they take no memory here
        parts["translator"] = in_processes(keys.processes, model, parts["prompt"], parts["paradigm"], runs)
    return float(tuning(run_experiment(config=config, name=str(keys.name), root=str(keys.output.root), **parts)))


def everything(cfg: DictConfig) -> tuple[dict[str, Any], RunKeys, dict[str, Any]]:
    """The resolved configuration, the keys of the command, and the parts that it names; nothing is loaded.

    Raises: as `streamllm.cli.keys.checked`, and what a part's constructor raises.
    """
    config, keys = checked(cfg, RunKeys)
    check_metric_package(config)
    parts = {key: made(cfg.get(key), key) for key in PARTS}
    parts["metrics"] = list((parts["metrics"] or {}).values())
    if isinstance(parts["tuning"], Tuning):
        parts["tuning"].check(scores(own_scores(parts["metrics"], taken=config)))
    return config, keys, parts


def check_metric_package(config: Mapping[str, Any]) -> None:
    """Raises: ValueError: a file of conf/metric does not say where it belongs, and so would be ignored."""
    if "metric" in config:
        raise ValueError(
            f"a file of conf/metric put {config['metric']!r:.60} at `metric`: its first line must be "
            "'# @package metrics.NAME', with a NAME of its own"
        )


def command() -> None:
    launch(main)


if __name__ == "__main__":
    as_module("run")
