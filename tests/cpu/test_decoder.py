"""The decoder in numpy serves models of its shape and no others, and gives what they give. (`tests/batching` holds that
rows in it are what sentences alone are.)"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from families import FAMILIES, VOCABULARY, Family
from mlx_lm.tuner.utils import linear_to_lora_layers
from reference import build

from streamllm.batching.trial import _difference
from streamllm.cpu import weights
from streamllm.cpu.decoder import Decoder
from streamllm.cpu.mkl import library
from streamllm.cpu.weights import SHAPES

pytestmark = pytest.mark.skipif(library() is None, reason="numpy computes where MKL does")

SERVED = [family for family in FAMILIES if family.model_type in SHAPES]


def test_llama_and_its_like_are_tried() -> None:
    assert {family.model_type for family in SERVED} == set(SHAPES)


@pytest.mark.parametrize("copies", [True, False], ids=["laid out anew", "as they lie"])
@pytest.mark.parametrize("family", SERVED, ids=[family.name for family in SERVED])
def test_the_decoder_gives_the_logits_of_the_model(
    family: Family, copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "COPIED", weights.COPIED if copies else 0)
    model = build(family)
    decoder = Decoder.of(model)
    assert decoder is not None
    difference, _ = _difference(model, True, None, decoder)
    assert difference < 1e-5


def test_a_model_of_another_family_is_left_to_mlx() -> None:
    others = [family for family in FAMILIES if family.name in ("gemma2", "olmo2", "gpt_neox")]
    assert len(others) == 3
    assert [Decoder.of(build(family)) for family in others] == [None] * 3


def _adapted(model: Any) -> None:
    linear_to_lora_layers(model, 1, {"rank": 2, "scale": 1.0, "dropout": 0.0})


def _quantised(model: Any) -> None:
    nn.quantize(model, 32, 8, class_predicate=lambda path, module: path == "model.embed_tokens")


def _half(model: Any) -> None:
    model.set_dtype(mx.float16)


@pytest.mark.parametrize("change", [_adapted, _quantised, _half])
def test_a_model_that_was_changed_is_left_to_mlx(change: Any) -> None:
    model = tiny.random_model(1, VOCABULARY)
    assert Decoder.of(model) is not None
    change(model)
    assert Decoder.of(model) is None


def test_keys_are_moved_as_the_model_rotates_them() -> None:
    model = tiny.random_model(1, VOCABULARY)
    decoder = Decoder.of(model)
    assert decoder is not None
    rope = model.layers[0].self_attn.rope
    keys = mx.random.normal((1, decoder.kv_heads, 3, decoder.width), key=mx.random.key(2))
    moved = decoder.moved(0, np.array(rope(keys, offset=9)), -4)
    np.testing.assert_allclose(moved, np.array(rope(keys, offset=5)), atol=1e-5)
