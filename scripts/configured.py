"""What run.py's configuration says of translating, made once for the scripts that translate live."""

import hydra
from omegaconf import DictConfig

import streamllm  # noqa: F401  first: it loads a BLAS, which must come before mlx
from streamllm.model import StreamingModel
from streamllm.policies.bounded import bounded
from streamllm.records import Policy
from streamllm.translate import Limits

PARTS = ("model", "prompt", "policy", "paradigm", "limits")


def translator(cfg: DictConfig) -> tuple[StreamingModel, Policy, Limits]:
    """The loaded model, the policy within its bounds, and the limits."""
    parts = {key: hydra.utils.instantiate(cfg[key], _convert_="all") for key in PARTS}
    dataset = hydra.utils.instantiate(cfg.dataset)  # for its languages' units
    model = parts["model"].load(parts["prompt"], dataset.source_unit, dataset.target_unit, parts["paradigm"])
    return model, bounded(parts["policy"], cfg.min_lag, cfg.max_lag), parts["limits"]
