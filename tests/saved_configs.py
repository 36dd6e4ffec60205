"""The tiny configurations of tests/families.py with one rotary base, in the old form and as transformers 5 saves them."""

import copy
import json
from functools import cache as memoize
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from families import FAMILIES, Family

BASE, LOCAL = 123_456.0, 345.0

_BASE_KEYS = {"gpt_neox": "rotary_emb_base", "openelm": "rope_freq_constant"}
_LOCAL_KEYS = {
    "gemma3": "rope_local_base_freq",
    "gemma3_text": "rope_local_base_freq",
    "gemma3n": "rope_local_base_freq",
    "plamo3": "rope_local_theta",
    "mimo_v2_flash": "swa_rope_theta",
}
_BY_LAYER = ("gemma4", "gemma4_text", "laguna", "mellum", "spark2_5")
_IN_PARAMETERS = ("ministral3", "mistral4")
_SHARES = {"glm4", "glm4_moe", "phi", "solar_open", "stablelm", "mimo_v2_flash"}  # besides gpt_neox, minimax

# What transformers' class takes besides, or must not be given: its checks of types are stricter than mlx-lm's.
_FOR_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8},
}


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that is about text."""
    text: dict[str, Any] = config.get("text_config", config)
    return text


def old_form(family: Family) -> dict[str, Any]:
    """The configuration of ``family`` with base `BASE`, and `LOCAL` for layers with a window, as mlx-lm reads it."""
    config = copy.deepcopy(family.config)
    text, kind = text_of(config), family.model_type
    if kind == "dbrx":
        config["attn_config"]["rope_theta"] = BASE
    elif kind in _BY_LAYER:
        text["rope_parameters"] = _by_layer(kind)
    elif "rope_parameters" in text:
        text["rope_parameters"]["rope_theta"] = BASE
        text["rope_theta"] = BASE
    else:
        text[_BASE_KEYS.get(kind, "rope_theta")] = BASE
    if kind in _LOCAL_KEYS:
        text[_LOCAL_KEYS[kind]] = LOCAL
    return config


def parameters(family: Family) -> dict[str, Any]:
    """The `rope_parameters` of `old_form`."""
    text, kind = text_of(family.config), family.model_type
    if kind in _BY_LAYER:
        return _by_layer(kind)
    if kind in _LOCAL_KEYS or kind == "olmo3" or kind == "step3p5":
        both = {"full_attention": BASE, "sliding_attention": LOCAL if kind in _LOCAL_KEYS else BASE}
        share = {"partial_rotary_factor": 0.5} if kind == "mimo_v2_flash" else {}
        return {label: {"rope_type": "default", "rope_theta": base} | share for label, base in both.items()}
    scaling = dict(text.get("rope_scaling") or {})
    scaling["rope_type"] = scaling.pop("type", scaling.get("rope_type", "default"))
    if "original_max_position_embeddings" in text and scaling["rope_type"] == "longrope":
        scaling["original_max_position_embeddings"] = text["original_max_position_embeddings"]
    given = scaling | text.get("rope_parameters", {}) | {"rope_theta": BASE}
    if kind == "gpt_neox":
        given["partial_rotary_factor"] = text["rotary_pct"]
    elif kind == "minimax":
        given["partial_rotary_factor"] = text["rotary_dim"] / text["head_dim"]
    elif kind in _SHARES:
        given["partial_rotary_factor"] = text["partial_rotary_factor"]
    return given


def _by_layer(kind: str) -> dict[str, Any]:
    shares = {"partial_rotary_factor": 1.0} if kind in ("laguna", "spark2_5") else {}
    found = {
        "full_attention": {"rope_type": "default", "rope_theta": BASE} | shares,
        "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL} | shares,
    }
    if kind.startswith("gemma4"):
        found["full_attention"] |= {"rope_type": "proportional", "partial_rotary_factor": 0.25}
    return found


_OLD_KEYS = ("rope_theta", "rope_scaling", "rotary_emb_base", "rotary_pct", "partial_rotary_factor", *_LOCAL_KEYS.values())


@memoize
def as_json(family: Family) -> str:
    """`config.json` as transformers 5 saves it: by its class of that type, else by the class of all."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    config = copy.deepcopy(family.config)
    text = text_of(config)
    for key in _OLD_KEYS:
        text.pop(key, None)
    text["rope_parameters"] = parameters(family)
    text |= _FOR_TRANSFORMERS.get(family.model_type, {})
    if family.model_type == "dbrx":
        config["attn_config"].pop("rope_theta")
    kind = config.pop("model_type")
    with TemporaryDirectory() as folder:
        if kind in CONFIG_MAPPING and kind != "pixtral":
            CONFIG_MAPPING[kind](**config).save_pretrained(folder)
        else:
            PreTrainedConfig(**config).save_pretrained(folder)
        saved = json.loads((Path(folder) / "config.json").read_text())
    return json.dumps(saved | {"model_type": kind})


def as_saved(family: Family) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(as_json(family))
    return found


__all__ = ["BASE", "FAMILIES", "LOCAL", "as_saved", "old_form", "parameters", "text_of"]
