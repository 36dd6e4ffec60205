"""Scaled rotary embeddings of transformers (yarn, longrope) in the keys of mlx-lm, and what no key says, set in the
loaded model. Each is proven against transformers' own numbers."""

import math
from collections.abc import Mapping
from typing import Any

ADVICE = "Choose a model without it, or one whose file in mlx-lm computes it (docs/configs.md)"


def attention_factor_of_yarn(scaling: Mapping[str, Any]) -> float:
    """By what yarn multiplies queries and keys (transformers, `_compute_yarn_parameters`)."""
    if (given := scaling.get("attention_factor")) is not None:
        return float(given)
    factor, mscale, of_all = scaling["factor"], scaling.get("mscale"), scaling.get("mscale_all_dim")
    if mscale and of_all:
        return _mscale(factor, mscale) / _mscale(factor, of_all)
    return _mscale(factor, 1.0)


def _mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def as_yarn(scaling: dict[str, Any], config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """mlx-lm takes no attention_factor, and mscale alone where transformers needs both: say the same by mscale."""
    original = scaling.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    if original is None:
        raise ValueError(f"{where} has no original_max_position_embeddings: add it to config.json")
    if "factor" not in scaling:
        scaling["factor"] = config["max_position_embeddings"] / original
    factor, of_all = scaling["factor"], scaling.get("mscale_all_dim", 0)
    wanted = attention_factor_of_yarn(scaling)
    scaling.pop("attention_factor", None)
    if math.isclose(_mscale(factor, scaling.get("mscale", 1)) / _mscale(factor, of_all), wanted, rel_tol=1e-9):
        return scaling
    if factor <= 1:
        raise ValueError(f"{where}.attention_factor is {wanted} at factor={factor}, which mlx-lm cannot say. {ADVICE}")
    return scaling | {"mscale": (wanted * _mscale(factor, of_all) - 1) / (0.1 * math.log(factor))}


def mend(model: Any, config: Mapping[str, Any]) -> None:
    """Give a loaded ``model`` the rotary embeddings that mlx-lm's file takes no key for.

    gpt_oss with `truncate: false`: the ramp of yarn begins and ends at fractions of a dimension, and mlx-lm rounds.
    glm: a part of each head is rotated (`partial_rotary_factor`), and mlx-lm rotates all of it.

    Args:
        config: what the model was loaded with, as `as_mlx_lm_reads` has it; nothing happens where it says neither.
    """
    scaling, share = config.get("rope_scaling") or {}, config.get("partial_rotary_factor")
    if config["model_type"] == "gpt_oss" and scaling.get("truncate") is False:
        for layer in model.layers:
            rope = layer.self_attn.rope
            rope["_freqs"] = _untruncated(rope.dims, model.args.rope_theta, scaling)
    if config["model_type"] == "glm" and share is not None:
        for layer in model.layers:
            layer.self_attn.rope.dims = int(layer.self_attn.head_dim * share)


def _untruncated(dims: int, base: float, scaling: Mapping[str, Any]) -> Any:
    """Wavelengths / 2π, shape (dims / 2,): transformers, `_compute_yarn_parameters`."""
    import mlx.core as mx

    original = scaling["original_max_position_embeddings"]

    def dimension(rotations: float) -> float:
        return dims * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(dimension(scaling.get("beta_fast") or 32), 0)
    high = min(dimension(scaling.get("beta_slow") or 1), dims - 1)
    ramp = mx.clip((mx.arange(dims // 2, dtype=mx.float32) - low) / (high - low or 0.001), 0, 1)
    frequencies = base ** (-mx.arange(0, dims, 2, dtype=mx.float32) / dims)
    return 1 / (frequencies / scaling["factor"] * ramp + frequencies * (1 - ramp))


def as_longrope(scaling: dict[str, Any], config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """mlx-lm uses the long factors at every length, transformers the short ones up to the original length, where
    sentences lie: give mlx-lm those."""
    original = scaling.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    if original is None:
        raise ValueError(f"{where} has no original_max_position_embeddings: add it to config.json")
    ratio = config.get("max_position_embeddings", original) / original
    if not math.isclose(scaling.pop("factor", ratio), ratio):
        raise ValueError(
            f"{where}.factor is not max_position_embeddings / original_max_position_embeddings = {ratio:g}, "
            f"which mlx-lm takes. {ADVICE}"
        )
    computed = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    if not math.isclose(given := scaling.pop("attention_factor", computed), computed, rel_tol=1e-6):
        raise ValueError(f"{where}.attention_factor is {given}, and mlx-lm computes {computed:g} itself. {ADVICE}")
    return scaling | short_factors(scaling)


def short_factors(scaling: Mapping[str, Any]) -> dict[str, Any]:
    """The changes after which mlx-lm's longrope, which knows only long factors, computes with the short ones."""
    changes = {"long_factor": scaling["short_factor"]} if "short_factor" in scaling else {}
    if "short_mscale" in scaling:
        changes["long_mscale"] = scaling["short_mscale"]
    return changes
