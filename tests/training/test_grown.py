"""A model that begins as another one with narrower layers."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streamllm.models.loading import ModelConfig
from streamllm.training.grown import GrownModel

TOKENS = mx.array([[5, 7, 11, 13]])


def logits(folder: Path) -> np.ndarray[Any, Any]:
    return np.array(ModelConfig(str(folder)).load().model(TOKENS))


def test_it_begins_as_the_other_and_all_of_it_can_learn(model_folder: Path, tmp_path: Path) -> None:
    units = json.loads((model_folder / "config.json").read_text())["intermediate_size"]
    GrownModel(str(model_folder), units + 8).create(tmp_path, [])
    np.testing.assert_allclose(logits(tmp_path), logits(model_folder), atol=1e-5)

    weights = mx.load(str(tmp_path / "model.safetensors"))
    gate = weights["model.layers.0.mlp.gate_proj.weight"]
    assert gate.shape[0] == units + 8
    assert float(mx.std(gate[units:])) == pytest.approx(float(mx.std(gate[:units])), rel=0.3)  # random, not zero
    assert (tmp_path / "tokenizer.json").read_bytes() == (model_folder / "tokenizer.json").read_bytes()


def test_a_model_does_not_shrink(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fresh\.intermediate_size is 2; accepted for .* is at least \d+"):
        GrownModel(str(model_folder), 2).create(tmp_path, [])


@pytest.mark.parametrize("size", [0, -1, 1.5, "many"])
def test_a_size_is_a_whole_number(size: Any) -> None:
    with pytest.raises(ValueError, match="intermediate_size"):
        GrownModel("anything", size)
