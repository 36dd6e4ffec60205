"""What the configuration says of translating, made once for the commands that translate live."""

from omegaconf import DictConfig

from streamllm.cli.keys import made
from streamllm.engine.limits import Limits
from streamllm.models.model import StreamingModel
from streamllm.policies.bounded import bounded
from streamllm.records import Policy

PARTS = ("model", "prompt", "policy", "paradigm", "limits")


def translator(cfg: DictConfig) -> tuple[StreamingModel, Policy, Limits]:
    """The loaded model, the policy within its bounds, and the limits."""
    parts = {key: made(cfg.get(key), key) for key in PARTS}
    dataset = made(cfg.dataset, "dataset")  # for its languages' units
    model = parts["model"].load(parts["prompt"], dataset.source_unit, dataset.target_unit, parts["paradigm"])
    limits = parts["limits"].between(dataset.source_unit, dataset.target_unit)
    return model, bounded(parts["policy"], cfg.min_lag, cfg.max_lag), limits
