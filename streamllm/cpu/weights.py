"""What `streamllm.cpu.decoder` needs of a model, read out of mlx-lm's modules: weights where they lie, and what the
forward does with them. A model with anything in it that is not looked for here is left to MLX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from streamllm.cpu.mkl import Floats, Weight

SHAPES = ("gemma3_text", "llama", "qwen2", "qwen3")
"""Model types whose forward `Decoder` computes."""

PARTS = ("Linear", "Embedding", "RMSNorm", "RoPE", "Llama3RoPE")
"""What they are built of."""

COPIED = 1 << 25
"""Parameters up to which a model's weights are laid out once more, for faster products: 128 MiB."""

Frequencies = np.ndarray[Any, np.dtype[np.float64]]
"""Radians a position, (width / 2,)."""


class LayerWeights(NamedTuple):
    before_attention: Floats  # weights of norms
    qkv: Weight
    qkv_bias: Floats | None
    heads_norms: tuple[Floats, Floats] | None  # of queries and keys
    out: Weight
    after_attention: Floats | None
    before_mlp: Floats
    gate_up: Weight
    down: Weight
    after_mlp: Floats | None
    rope: int  # which of `Weights.ropes`
    window: int | None  # tokens of a stream that attention sees


@dataclass(frozen=True)
class Weights:
    """``heads`` queries and ``kv_heads`` keys of ``width`` numbers in each layer; ``scale`` of the scores; how many
    ``parameters`` there are in all."""

    heads: int
    kv_heads: int
    width: int
    scale: float
    epsilon: float
    ropes: list[Frequencies]
    layers: list[LayerWeights]
    embedding: Floats
    embedding_scale: float
    norm: Floats
    head: Weight
    activation: Literal["silu", "gelu"]
    halved_gates: bool  # what `silu` is of comes out as half of it, which is what it takes
    parameters: int


def weights_of(model: Any) -> Weights:
    """Of a model that `is_of_the_shape`."""
    inside, args = model.model, model.args
    gemma = model.model_type == "gemma3_text"
    parameters = sum(array.size for array in _arrays(model))
    copies = parameters <= COPIED
    attention = inside.layers[0].self_attn
    ropes: list[Frequencies] = []
    halved = copies and not gemma
    layers = [_layer(layer, inside, gemma, copies, halved, ropes) for layer in inside.layers]
    head = model.lm_head.weight if "lm_head" in model else inside.embed_tokens.weight
    scale = mx.array(args.hidden_size**0.5, mx.bfloat16).item() if gemma else 1.0
    return Weights(
        heads=attention.n_heads,
        kv_heads=attention.n_kv_heads,
        width=_width(attention),
        scale=float(attention.scale),
        epsilon=float(args.rms_norm_eps),
        ropes=ropes,
        layers=layers,
        embedding=_numpy(inside.embed_tokens.weight),
        embedding_scale=float(scale),  # type: ignore[arg-type]
        norm=_norm(inside.norm, gemma),
        head=Weight([_numpy(head)], copies),
        activation="gelu" if gemma else "silu",
        halved_gates=halved,
        parameters=parameters,
    )


def _layer(layer: Any, inside: Any, gemma: bool, copies: bool, halved: bool, ropes: list[Frequencies]) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    into = (attention.q_proj, attention.k_proj, attention.v_proj)
    norms = (_norm(attention.q_norm, gemma), _norm(attention.k_norm, gemma)) if "q_norm" in attention else None
    frequencies = frequencies_of(attention.rope)
    known = [i for i, rope in enumerate(ropes) if np.array_equal(rope, frequencies)]
    if not known:
        ropes.append(frequencies)
    gate = _numpy(mlp.gate_proj.weight)
    if halved:
        gate = np.multiply(gate, np.float32(0.5))  # which is exact
    slides = attention.is_sliding if gemma else getattr(layer, "use_sliding", False)
    return LayerWeights(
        before_attention=_norm(layer.input_layernorm, gemma),
        qkv=Weight([_numpy(each.weight) for each in into], copies),
        qkv_bias=np.concatenate([_numpy(each.bias) for each in into]) if "bias" in into[0] else None,
        heads_norms=norms,
        out=Weight([_numpy(attention.o_proj.weight)], copies),
        after_attention=_norm(layer.post_attention_layernorm, gemma) if gemma else None,
        before_mlp=_norm(layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm, gemma),
        gate_up=Weight([gate, _numpy(mlp.up_proj.weight)], copies),
        down=Weight([_numpy(mlp.down_proj.weight)], copies),
        after_mlp=_norm(layer.post_feedforward_layernorm, gemma) if gemma else None,
        rope=known[0] if known else len(ropes) - 1,
        window=int(inside.window_size if gemma else inside.sliding_window) if slides else None,
    )


def is_of_the_shape(model: Any, dropout: bool = False) -> bool:
    """Whether nothing in it is other than what is looked for: no adapter, no packed weights, no other numbers than
    float32, no other positions, no bias where none is looked for. ``dropout``: training may have added it."""
    if getattr(model, "model_type", None) not in SHAPES or not type(model).__module__.startswith("mlx_lm.models."):
        return False
    leaves = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    names = [type(leaf).__name__ for _, leaf in leaves]
    if any((name.removesuffix("WithDropout") if dropout else name) not in PARTS for name in names):
        return False
    if any(array.dtype != mx.float32 for array in _arrays(model)):
        return False
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        into = [attention.q_proj, attention.k_proj, attention.v_proj]
        others = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        if len({"bias" in each for each in into}) > 1 or any("bias" in each for each in others):
            return False
        if attention.rope.traditional or attention.rope.dims != _width(attention):
            return False
    return "lm_head" not in model or "bias" not in model.lm_head


def _width(attention: Any) -> int:
    return int(attention.q_proj.weight.shape[0]) // int(attention.n_heads)


def frequencies_of(rope: Any) -> Frequencies:
    """Radians by which a position turns each pair of numbers."""
    if hasattr(rope, "_freqs"):  # Llama 3's
        return 1 / np.array(rope._freqs, np.float64)
    frequencies: Frequencies = rope.scale * rope.base ** (-np.arange(0, rope.dims, 2) / rope.dims)
    return frequencies


def _norm(norm: Any, gemma: bool) -> Floats:
    return _numpy(1.0 + norm.weight if gemma else norm.weight)


def _arrays(module: Any) -> Sequence[mx.array]:
    return [array for _, array in tree_flatten(module.parameters())]  # type: ignore[misc]


def _numpy(array: mx.array) -> Floats:
    """Where it lies."""
    mx.eval(array)
    return np.asarray(array)
