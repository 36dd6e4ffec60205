"""The tiny configurations of tests/families.py with another base, in the old form and as transformers 5 saves them."""

import copy
import json
from functools import cache as memoize
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from families import Family

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
_SHARES = {"glm", "glm4", "glm4_moe", "phi", "solar_open", "stablelm", "mimo_v2_flash"}  # besides gpt_neox, minimax

# What makes a configuration one that transformers' class can be given and mlx-lm's file computes alike.
_GPT = {"max_position_embeddings": 64}  # one with n_positions for transformers
_SAID: dict[str, dict[str, Any]] = {
    "afmoe": {"mup_enabled": True, "route_scale": 2.0},
    "ernie4_5_moe": {"moe_num_shared_experts": 1},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8},
    "gemma4": {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],  # the last must be full
        "use_double_wide_mlp": True,
        "final_logit_softcapping": 30.0,
    },
    "gemma4_text": {"use_double_wide_mlp": True, "final_logit_softcapping": 30.0},
    "glm": {"partial_rotary_factor": 0.5},
    "gpt2": _GPT,
    "gpt_bigcode": _GPT | {"attention_bias": True, "mlp_bias": True},
    "gptj": _GPT,
    "mimo_v2_flash": {
        "attention_value_scale": 0.5,
        "num_key_value_heads": 2,
        "swa_num_key_value_heads": 4,  # transformers' class: twice as many
        "mlp_layer_types": ["dense", "sparse", "sparse"],
    },
    "ministral3": {"sliding_window": None, "layer_types": None},  # transformers' class: a window on every layer or none
    "muse_glimmer": {"final_logit_softcapping": 20.0, "output_multiplier": 0.2, "layer_rope_theta": [BASE, 0, BASE]},
    "qwen2_moe": {"norm_topk_prob": False},
    "solar_open": {"first_k_dense_replace": 0},
    "step3p5": {
        "moe_router_scaling_factor": 2.0,
        "moe_layers_enum": "1,2",
        "mlp_layer_types": ["dense", "sparse", "sparse"],
    },
}


def configuration(family: Family) -> dict[str, Any]:
    """The configuration of ``family``, with what `_SAID` says."""
    config = copy.deepcopy(family.config)
    text_of(config).update(_SAID.get(family.model_type, {}))
    return config


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that is about text."""
    text: dict[str, Any] = config.get("text_config", config)
    return text


def old_form(family: Family) -> dict[str, Any]:
    """The configuration of ``family`` with base `BASE`, and `LOCAL` for layers with a window, as mlx-lm reads it."""
    config = configuration(family)
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
    text, kind = text_of(configuration(family)), family.model_type
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


_OLD_KEYS = (
    "rope_theta",
    "rope_scaling",
    "rotary_emb_base",
    "rotary_pct",
    "partial_rotary_factor",
    *_LOCAL_KEYS.values(),
)


@memoize
def as_json(family: Family) -> str:
    """`config.json` as transformers 5 saves it: by its class of that type, else by the class of all."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    config = configuration(family)
    text = text_of(config)
    for key in _OLD_KEYS:
        text.pop(key, None)
    text["rope_parameters"] = parameters(family)
    if family.model_type == "dbrx":
        config["attn_config"].pop("rope_theta")
    if family.model_type == "muse_glimmer":
        config = {"model_type": "muse_glimmer", "text_config": config}
    kind = config.pop("model_type")
    with TemporaryDirectory() as folder:
        known: dict[str, Any] = {}
        if kind in CONFIG_MAPPING and kind != "pixtral":  # there the name of an encoder of pictures
            CONFIG_MAPPING[kind](**config).save_pretrained(folder)
            known = CONFIG_MAPPING[kind]().to_dict()
        else:
            PreTrainedConfig(**config).save_pretrained(folder)
        saved = json.loads((Path(folder) / "config.json").read_text())
    if known and "text_config" in saved:
        known["text_config"] = CONFIG_MAPPING[saved["text_config"]["model_type"]]().to_dict()
    return json.dumps((_only(saved, known) if known else saved) | {"model_type": kind})


def _only(saved: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """``saved`` without keys of mlx-lm's that transformers' class does not know and has only passed on.

    layer_types and the window are let through: Mistral's class does not know the one, Llama's neither.
    """
    return {
        key: _only(value, known[key]) if key in ("text_config", "attn_config", "ffn_config") else value
        for key, value in saved.items()
        if key in known or key in ("layer_types", "sliding_window")
    }


def as_saved(family: Family) -> dict[str, Any]:
    """`as_json`, to be changed at will."""
    found: dict[str, Any] = json.loads(as_json(family))
    return found
