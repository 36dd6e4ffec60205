"""A config.json as transformers 5 writes it, in the form that mlx-lm's model files read, or an error that says what
they cannot. The folder is left as it is; a configuration in the old form passes unchanged where it loads as trained."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamllm.models.families import check_supported, resolve
from streamllm.models.rotary import flattened

log = logging.getLogger(__name__)

FULL, SLIDING = "full_attention", "sliding_attention"

_TEXT_TYPES: dict[str, str] = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n",
    "gemma4": "gemma4_text",
    "kimi_k25": "deepseek_v3",
    "kimi_vl": "deepseek_v3",
    "muse_glimmer": "muse_glimmer",
    "qwen2_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
}
"""The file that computes the text of a model whose text lies in `text_config`; for two more types it says so itself."""
_MISTRAL_TEXT = {"mistral": "llama", "llama": "llama", "ministral3": "ministral3", "mistral4": "mistral4"}

# Keys that transformers 5 writes under another name: mlx-lm's name, then transformers'.
_RENAMED: dict[str, dict[str, str]] = {
    "exaone": {"num_layers": "num_hidden_layers", "layer_norm_epsilon": "rms_norm_eps"},
    "gpt2": {"n_ctx": "n_positions"},
    "mellum": {"num_experts": "num_local_experts"},
    "mimo_v2_flash": {
        "layernorm_epsilon": "rms_norm_eps",
        "swa_num_attention_heads": "num_attention_heads",
        "swa_head_dim": "head_dim",
        "swa_v_head_dim": "v_head_dim",
    },
    "minimax": {"shared_intermediate_size": "intermediate_size"},
    "qwen3_moe": {"num_experts": "num_local_experts"},
    "solar_open": {"intermediate_size": "moe_intermediate_size"},
    "step3p5": {
        "num_attention_groups": "num_key_value_heads",
        "moe_num_experts": "n_routed_experts",
        "moe_top_k": "num_experts_per_tok",
    },
}

# What transformers' classes compute without a key for it, and mlx-lm's files want to be told.
_CONSTANT: dict[str, dict[str, Any]] = {
    "apertus": {"mlp_bias": False, "post_norm": False, "qk_norm": True},
    "exaone4": {"rope_scaling": None},
    "glm4_moe": {"rope_scaling": None},
    "mimo_v2_flash": {
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "n_shared_experts": None,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    },
    "qwen3_moe": {"norm_topk_prob": True},  # where it is not said: Qwen3-VL
    "solar_open": {"first_k_dense_replace": 0},
}

# What a file of mlx-lm takes for granted, in either form: another value would be left out without a word.
_ASSUMED: dict[str, dict[str, Any]] = {"qwen2_moe": {"norm_topk_prob": False}}
_WARNED: dict[str, str] = {
    "ernie4_5_moe": "mlx-lm chooses the experts of ernie4_5_moe without the correction bias (moe_statics) that the "
    "model was trained with: where the bias decides, other experts answer",
}

_NEEDS_HEAD_DIM = frozenset(("exaone4", "exaone_moe", "glm4", "glm4_moe", "qwen3", "qwen3_moe", "glm", "seed_oss"))
_READS_LAYER_TYPES = frozenset(("afmoe", "exaone_moe", "gemma3n", "gemma4_text", "gpt_oss", "laguna", "llama"))
_READS_LAYER_TYPES |= frozenset(("mellum", "ministral3", "muse_glimmer", "olmo3", "spark2_5", "step3p5"))


def as_mlx_lm_reads(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that mlx-lm loads as the model was trained.

    Args:
        config: the content of a config.json, of a type that is `SUPPORTED`, in the old form or in transformers 5's.

    Returns:
        All of ``config``, with what had to change. A key that must not be read is None.

    Raises:
        ValueError: the type is not supported, or mlx-lm's file of it cannot compute what ``config`` says; one line
            with key and value.
    """
    check_supported(config["model_type"])
    model_type = resolve(config["model_type"])
    if "text_config" not in config:
        return {**config, **_text(config, _TEXT_TYPES.get(model_type, model_type))}
    text_type = _text_type(config["text_config"], model_type)
    text = {**_inherited(config, model_type), **config["text_config"]}
    text |= _text(text, text_type)
    outer: dict[str, Any] = {"text_config": text}
    if model_type in ("gemma3", "gemma4") and "vocab_size" in config["text_config"]:
        outer["vocab_size"] = text["vocab_size"]  # mlx-lm overwrites the text's by it, by default with Google's
    return {**config, **outer}


def _text_type(text: Mapping[str, Any], model_type: str) -> str:
    if model_type in _TEXT_TYPES:
        return _TEXT_TYPES[model_type]
    named = text.get("model_type", "mistral")
    if named not in _MISTRAL_TEXT:
        raise ValueError(
            f"text_config.model_type is {named!r}, and mlx-lm's file of type {model_type!r} computes only "
            f"{', '.join(_MISTRAL_TEXT)}: choose a model of one of these"
        )
    return _MISTRAL_TEXT[named]


def _inherited(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """What transformers 5 writes beside `text_config`, and mlx-lm looks for in it."""
    if model_type in ("qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "mistral3") and "tie_word_embeddings" in config:
        return {"tie_word_embeddings": config["tie_word_embeddings"]}
    return {}


def _text(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    renamed = _RENAMED.get(model_type, {})
    told = _CONSTANT.get(model_type, {}) | {
        ours: config[theirs] for ours, theirs in renamed.items() if theirs in config
    }
    if model_type in _NEEDS_HEAD_DIM and "hidden_size" in config:
        told["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    changes = {key: value for key, value in told.items() if config.get(key) is None}
    if model_type in _DERIVED:
        source, derive = _DERIVED[model_type]
        if source in config:
            changes |= {key: value for key, value in derive(config).items() if key not in config}
    if config.get("per_layer_config") and model_type not in ("gemma4_text", "step3p5"):
        raise ValueError(
            f"per_layer_config is {config['per_layer_config']!r:.60}, and mlx-lm's file of type {model_type!r} has "
            "layers of one kind: choose a model without it"
        )
    for key, assumed in _ASSUMED.get(model_type, {}).items():
        if config.get(key, assumed) != assumed:
            raise ValueError(
                f"{key} is {config[key]!r}, and mlx-lm's file of type {model_type!r} computes with {assumed!r}: choose "
                "another model"
            )
    if model_type in _WARNED:
        log.warning(_WARNED[model_type])
    changes |= _layers(config, model_type)
    if model_type == "mimo_v2_flash":
        changes["sliding_window_size"] = _mimo_window(config)
    return changes | flattened({**config, **changes}, model_type)


# Which layers attend to a window


def _layers(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    types: Sequence[str] | None = config.get("layer_types")
    if types is None:
        has_window = model_type in _READS_LAYER_TYPES - {"llama", "ministral3"} or model_type in _PATTERNS
        if not has_window and config.get("use_sliding_window", True):
            _warn_of_window(config, model_type, "sliding_window", config.get("sliding_window"))
        return {}
    if others := sorted(set(types) - {FULL, SLIDING, "chunked_attention"}):
        raise ValueError(
            f"layer_types holds {others[0]!r}, which mlx-lm's file of type {model_type!r} does not compute: choose a "
            f"model with {FULL} and {SLIDING} only"
        )
    count = config.get("num_hidden_layers", len(types))
    if len(types) != count:
        raise ValueError(f"layer_types has {len(types)} entries for num_hidden_layers={count}: correct config.json")
    if model_type in _PATTERNS:
        return _PATTERNS[model_type](types, config)
    if model_type in _READS_LAYER_TYPES:
        if FULL not in types and SLIDING in types:
            raise ValueError(
                f"layer_types holds only {SLIDING}, and mlx-lm's file of type {model_type!r} needs a layer that "
                "attends to everything: choose another model"
            )
        return {}
    if SLIDING in types:
        _warn_of_window(config, model_type, "sliding_window", config.get("sliding_window"))
    if "chunked_attention" in types:
        _warn_of_window(config, model_type, "attention_chunk_size", config.get("attention_chunk_size", 8192))
    return {}


def _warn_of_window(config: Mapping[str, Any], model_type: str, key: str, window: int | None) -> None:
    if not window or window >= config.get("max_position_embeddings", 0) > 0:
        return
    log.warning(
        "config.json says %s=%s, and mlx-lm's file of type %s has no such window: it computes what the model was "
        "trained for up to %s tokens of a stream, and attends to more beyond them",
        key,
        window,
        model_type,
        window,
    )


def _every(types: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Every n-th layer attends to everything: n is what cohere2, gemma3 and plamo3 take."""
    period = types.index(FULL) + 1 if FULL in types else 0
    if period == 0 or any((kind == FULL) != ((i + 1) % period == 0) for i, kind in enumerate(types)):
        raise ValueError(
            f"layer_types is {', '.join(types):.80}, and mlx-lm's file takes only a period (every n-th layer is "
            f"{FULL}): choose a model with such layers"
        )
    return {"sliding_window_pattern": period}


def _letters(types: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """exaone4: a letter a layer, and no pattern if no layer has a window."""
    if SLIDING not in types:
        return {"sliding_window_pattern": None, "sliding_window": None}
    if FULL not in types:
        raise ValueError(f"layer_types holds only {SLIDING}, and mlx-lm's file of type 'exaone4' needs {FULL}, too")
    return {"sliding_window_pattern": "".join("L" if kind == SLIDING else "G" for kind in types)}


def _mimo(types: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    return {"hybrid_layer_pattern": [int(kind == SLIDING) for kind in types]}


def _mimo_window(config: Mapping[str, Any]) -> int:
    """The token itself included, as mlx-lm masks: MiMo's sliding_window_size does not count it, transformers'
    sliding_window does."""
    before = config.get("sliding_window_size")
    return int(config["sliding_window"] if before is None else before + 1)


_PATTERNS: dict[str, Callable[[Sequence[str], Mapping[str, Any]], dict[str, Any]]] = {
    "cohere2": _every,
    "exaone4": _letters,
    "gemma3_text": _every,
    "mimo_v2_flash": _mimo,
    "plamo3": _every,
}


# Mixtures of experts, and heads of several sizes


def _sparse(config: Mapping[str, Any]) -> list[bool]:
    return [kind == "sparse" for kind in config["mlp_layer_types"]]


def _dense_first(config: Mapping[str, Any]) -> dict[str, Any]:
    sparse = _sparse(config)
    dense = sparse.index(True) if True in sparse else len(sparse)
    if not all(sparse[dense:]):
        raise ValueError(
            f"mlp_layer_types is {', '.join(config['mlp_layer_types']):.80}, and mlx-lm's file takes only a number of "
            "dense layers at the beginning: choose a model with such layers"
        )
    return {"first_k_dense_replace": dense}


def _moe_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    sparse = [str(i) for i, sparse in enumerate(_sparse(config)) if sparse]
    if not sparse:
        raise ValueError(
            "mlp_layer_types holds only 'dense', and mlx-lm's file of type 'step3p5' has mixtures of experts then: "
            "choose another model"
        )
    return {"moe_layers_enum": ",".join(sparse)}


def _step(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config.get("num_sliding_attention_heads", config["num_attention_heads"])
    groups = config["num_key_value_heads"]
    return _moe_layers(config) | {
        "attention_other_setting": {"num_attention_heads": heads, "num_attention_groups": groups}
    }


def _global_heads(config: Mapping[str, Any]) -> dict[str, Any]:
    """gemma4: layers that attend to everything have heads of their own, which transformers 5 writes layer by layer."""
    changes: dict[str, Any] = {"global_head_dim": config["head_dim"], "num_global_key_value_heads": None}
    own = {int(layer): settings for layer, settings in (config.get("per_layer_config") or {}).items()}
    full = [i for i, kind in enumerate(config["layer_types"]) if kind == FULL]
    keys = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
    if not own:
        return changes
    if sorted(own) != full or any(
        settings != own[full[0]] or not settings.keys() <= keys.keys() for settings in own.values()
    ):
        raise ValueError(
            f"per_layer_config is {config['per_layer_config']!r:.80}, and mlx-lm's file of type 'gemma4_text' takes "
            f"one {' and one '.join(keys)} for all layers that are {FULL}: choose a model with such layers"
        )
    return changes | {keys[key]: value for key, value in own[full[0]].items()}


def _mimo_heads(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "moe_layer_freq": [int(sparse) for sparse in _sparse(config)],
        "swa_num_key_value_heads": 2 * config["num_key_value_heads"],  # as transformers' class has it
    }


_Derive = Callable[[Mapping[str, Any]], dict[str, Any]]
_DERIVED: dict[str, tuple[str, _Derive]] = {
    "exaone_moe": ("mlp_layer_types", lambda config: {"is_moe_layer": _sparse(config)}),
    "gemma4_text": ("per_layer_config", _global_heads),
    "glm4_moe_lite": ("mlp_layer_types", _dense_first),
    "mimo_v2_flash": ("mlp_layer_types", _mimo_heads),
    "step3p5": ("mlp_layer_types", _step),
}
"""For a type: the key by which transformers 5 says something in another way, and how it reads in mlx-lm's keys."""
