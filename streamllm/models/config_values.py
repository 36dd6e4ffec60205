"""The values of a config.json, checked before anything is made of them. Invariant: an error names the key, the value
and what is accepted; what passes needs no more memory than its weights say."""

import inspect
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, Union, get_args, get_origin, get_type_hints

from streamllm.check import is_number, is_whole
from streamllm.engine.positions import LENGTHS
from streamllm.models.weights import Arrays

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_transformer_layers")
SIZES = frozenset(
    (
        *(*LAYERS, "vocab_size", "num_vocab", "hidden_size", "n_embd", "d_model", "model_dim", "head_dim"),
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "n_kv_heads", "num_kv_heads"),
        "v_head_dim",
    )
)
POSITIONS = frozenset((*LENGTHS, "n_ctx", "original_max_position_embeddings"))
"""Sizes that no array of the weights need have."""
COUNTS = frozenset(
    (
        *("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_shared_experts", "num_loops"),
        *("n_shared_experts", "loop_num", "num_shared_expert", "intermediate_size", "moe_intermediate_size", "n_inner"),
    )
)
"""Sizes that may be zero."""
ABOVE_ZERO = frozenset(("rope_theta", "rotary_emb_base", "rope_local_base_freq", "swa_rope_theta"))
AT_LEAST_ZERO = frozenset(
    ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps", "norm_epsilon")
)
TOKENS = frozenset(("eos_token_id", "bos_token_id", "pad_token_id"))
LISTS = frozenset(("layer_types", "mlp_layer_types"))
OBJECTS = frozenset(("text_config", "rope_scaling", "rope_parameters", "quantization", "quantization_config"))
PACKED = 32
"""Numbers that quantised weights may pack into one."""


def check_values(config: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Check the values of a configuration that say how large a model is, and those whose kind we know.

    Args:
        arrays: of the weights that belong to it; None compares no sizes.

    Raises:
        ValueError: one is not accepted.
    """
    for key in OBJECTS & config.keys():
        if not isinstance(config[key], dict | None):
            raise ValueError(_refused(key, config[key], "an object in braces, or null"))
    for key in ("group_size", "bits") if config.get("quantization") is not None else ():
        if not is_whole(value := config["quantization"].get(key)) or value < 1:
            raise ValueError(_refused(f"quantization.{key}", value, "a whole number, at least 1"))
    for before, part in _parts(config):
        for key, value in part.items():
            _check_value(key, value, before)
    if arrays is not None and arrays.shapes:  # that there are none is an error of its own
        _check_sizes(config, arrays)


def check_kinds(args: type, config: Mapping[str, Any]) -> None:
    """Compare the values with the kinds that a ``ModelArgs`` of mlx-lm declares: a text is no number, a number no list.

    Raises:
        ValueError: one is of another kind.
    """
    try:
        hints = get_type_hints(args)
    except (NameError, TypeError):  # not all can be read
        return
    for key, hint in hints.items():
        if key in config and config[key] is not None and not _is_kind(config[key], hint):
            raise ValueError(_refused(key, config[key], _accepted(hint)))


def lacking(args: type, config: Mapping[str, Any]) -> list[str]:
    """What a ``ModelArgs`` of mlx-lm needs and the configuration does not have, or has as null."""
    parameters = inspect.signature(args).parameters
    needed = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
    try:
        hints = get_type_hints(args)
    except (NameError, TypeError):
        hints = {}
    null = [
        name
        for name, one in parameters.items()
        if one.default is not None and name in config and config[name] is None and not _is_kind(None, hints.get(name))
    ]
    return [*(name for name in needed if name not in config), *null]


def _parts(config: Mapping[str, Any]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The configuration, and that of the text in it, each with what stands before its keys in an error."""
    return ("", config), ("text_config.", config.get("text_config") or {})


def _refused(key: str, value: object, accepted: str) -> str:
    return f"{key} is {value!r:.60}; it is {accepted}"


def _check_value(key: str, value: Any, before: str) -> None:
    if value is None:
        return
    each = value if isinstance(value, list) and value else [value]
    if key == "model_type" and not isinstance(value, str):
        raise ValueError(_refused(before + key, value, "a name such as qwen2"))
    if key in LISTS and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise ValueError(_refused(before + key, value, "a list of names, one for each layer"))
    if key == "architectures" and not all(isinstance(one, str) for one in each):
        raise ValueError(_refused(before + key, value, "a list of names"))
    if key in SIZES | POSITIONS and not all(is_whole(one) and one >= 1 for one in each):
        raise ValueError(_refused(before + key, value, "a whole number, at least 1"))
    if key in COUNTS and not all(is_whole(one) and one >= 0 for one in each):
        raise ValueError(_refused(before + key, value, "a whole number, at least 0"))
    if key in TOKENS and value != [] and not all(map(is_whole, each)):
        raise ValueError(_refused(before + key, value, "the number of a token, a list of them, or null"))
    if key in ABOVE_ZERO and not all(_is_finite(one) and one > 0 for one in each):
        raise ValueError(_refused(before + key, value, "a number above 0"))
    if key in AT_LEAST_ZERO and not all(_is_finite(one) and one >= 0 for one in each):
        raise ValueError(_refused(before + key, value, "a number, at least 0"))
    if key == "tie_word_embeddings" and not isinstance(value, bool):
        raise ValueError(_refused(before + key, value, "true or false"))


def _check_sizes(config: Mapping[str, Any], arrays: Arrays) -> None:
    largest = PACKED * max((max(shape, default=1) for shape in arrays.shapes.values()), default=1)
    held = len(arrays.shapes)
    for before, part in _parts(config):
        for key, value in part.items():
            each = [one for one in (value if isinstance(value, list) else [value]) if is_whole(one)]
            if key in LAYERS and max(each, default=0) > held:
                raise ValueError(
                    f"{before}{key} is {value!r:.60}, and the weights hold {held} arrays in all, of "
                    f"{arrays.layers} layers: correct it"
                )
            if key in SIZES | COUNTS and max(each, default=0) > max(largest, held):
                raise ValueError(
                    f"{before}{key} is {value!r:.60}, and no array of the weights is that large (the largest has "
                    f"{largest // PACKED} rows or columns): correct it"
                )
            if max(map(abs, each), default=0) >= 1 << 62:
                raise ValueError(_refused(before + key, value, "a number that fits into 62 bits"))


def _is_finite(value: object) -> TypeGuard[float]:
    return is_number(value) and math.isfinite(value)


def _is_kind(value: Any, hint: Any) -> bool:
    """Whether a value of a JSON file may stand for what is declared; all numbers, true and false are of one kind."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_is_kind(value, one) for one in get_args(hint))
    kind = origin or hint
    if kind in (int, float, bool):
        return isinstance(value, int | float)  # true and false among them
    if kind is str:
        return isinstance(value, str)
    if kind is types.NoneType:
        return value is None
    if kind is dict:
        return isinstance(value, dict)
    if kind in (list, tuple, Sequence):
        return isinstance(value, list | tuple)
    return True


def _accepted(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        dict: "an object in braces",
    }
    names |= {list: "a list", tuple: "a list", Sequence: "a list", types.NoneType: "null"}
    each = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return " or ".join(dict.fromkeys(names.get(get_origin(one) or one, str(one)) for one in each))
