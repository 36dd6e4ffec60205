"""LoRA, DoRA and QLoRA: what is learned, what stays, and that mlx-lm and run.py read it alike."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from families import FAMILIES, VOCABULARY, Family
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.utils import quantize_model, save_config, save_model
from reference import build
from test_training import PAIRS

from streamllm.models.loading import ModelConfig
from streamllm.models.settings import SETTINGS
from streamllm.records import Example
from streamllm.tracking.tracker import NullTracker
from streamllm.training.adapters import AdapterConfig
from streamllm.training.batch import Encoded, pad
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.train import ValidationConfig, train
from streamllm.units import Unit

# One of each kind: tied, windowed, fused projections, latent attention, experts, weights taken without a call.
HANDFUL = ("qwen2", "llama", "gemma2", "gemma3_text", "phi3", "deepseek_v3", "qwen3_moe", "gemma3n")


def parameters(model: Any) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}


def trained(model: Any) -> set[str]:
    return {name for name, _ in tree_flatten(model.trainable_parameters())}


# Every family


def lesson(seed: int, source: int, target: int, k: int) -> Encoded:
    draw = np.random.default_rng(seed)
    tokens = [int(token) for token in draw.integers(1, VOCABULARY, source + 2 * target)]
    units = [i // 2 for i in range(target)]
    return Encoded(
        tokens[:source],
        [-1, *(i // 2 for i in range(source - 1))],
        tokens[source : source + target],
        units,
        units,
        [source] * target,
        tokens[source + target :],
        k,
    )


def taught(model: Any, folder: Path) -> list[float]:
    """Losses of four steps on one batch."""
    config = TrainingConfig(learning_rate=2e-2, warmup_steps=0, dropout=0.0, label_smoothing=0.0)
    trainer = Trainer(model, TrainingData([], None, DataConfig(), 0), [], config, folder)  # type: ignore[arg-type]
    trainer.optimizer.learning_rate = 2e-2
    batch = pad([lesson(1, 7, 6, 1), lesson(2, 5, 8, 3)])
    return [trainer.train_step([(batch, 14)])[0] for _ in range(4)]


def quantise(model: Any) -> None:
    """All that can be, but what is too narrow for a group in a tiny model."""

    def whole_groups(_: str, module: nn.Module) -> bool:
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0

    nn.quantize(model, group_size=32, bits=4, class_predicate=whole_groups)


def learns_beside_its_weights(family: Family, method: Any, folder: Path) -> None:
    model: Any = build.__wrapped__(family)
    if method == "qlora":
        quantise(model)
        assert any(isinstance(module, nn.QuantizedLinear) for _, module in model.layers[0].named_modules())
    weights = parameters(model)
    AdapterConfig("lora" if method == "qlora" else method, rank=4, scale=2.0).apply(model, seed=1)
    before = parameters(model)
    losses = taught(model, folder)
    assert losses[-1] < losses[0]
    after = parameters(model)
    learned = trained(model)
    assert {name for name, value in after.items() if not np.array_equal(value, before[name])} <= learned
    assert any(not np.array_equal(after[name], before[name]) for name in learned)
    assert all(name.rpartition(".")[2] in ("lora_a", "lora_b", "m") for name in learned)
    for name, value in weights.items():
        module, _, last = name.rpartition(".")
        inside = [f"{module}.{wrapped}.{last}" for wrapped in ("linear", "embedding")]
        (kept,) = (after[place] for place in (name, *inside) if place in after)
        np.testing.assert_array_equal(kept, value, err_msg=name)


each_family = pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=family.name, marks=[] if family.name in HANDFUL else pytest.mark.long)
        for family in FAMILIES
    ],
)


@each_family
def test_all_weights_learn(family: Family, tmp_path: Path) -> None:
    model: Any = build.__wrapped__(family)
    before = parameters(model)
    losses = taught(model, tmp_path)
    assert losses[-1] < losses[0]
    still = [name for name, value in parameters(model).items() if np.array_equal(value, before[name])]
    assert set(still).isdisjoint(name for name in before if name.endswith(("q_proj.weight", "down_proj.weight")))


@pytest.mark.parametrize("method", ["lora", "dora", "qlora"])
@each_family
def test_an_adapter_learns_and_the_weights_stay(family: Family, method: str, tmp_path: Path) -> None:
    learns_beside_its_weights(family, method, tmp_path)


# From a folder to a folder


@dataclass
class Corpus:
    source_unit: Unit = "word"
    target_unit: Unit = "word"
    source_language: str = "en"
    target_language: str = "de"

    def load(self) -> list[Example]:
        return PAIRS


def finetune(base: Path, root: Path, adapter: AdapterConfig | None, **model: Any) -> Path:
    """Train two epochs; returns the run folder."""
    train(
        {"adapter": str(adapter), "model": str(model)},
        "test",
        ModelConfig(str(base), **model),
        Corpus(),
        Corpus(),
        DataConfig(k=(1, 3)),
        TrainingConfig(epochs=2, learning_rate=1e-2, warmup_steps=0, dropout=0.0, average=1),
        ValidationConfig(sentences=0),
        NullTracker(),
        root=root,
        adapter=adapter,
    )
    (run,) = root.glob("test-*")
    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.model_folder(tmp_path / "base", hidden=64, tied=True)


@pytest.fixture
def quantised(base: Path) -> Path:
    folder = Path(shutil.copytree(base, base.parent / "quantised"))
    model, _, config = load(str(base), return_config=True)  # type: ignore[misc]
    model, config = quantize_model(model, config, group_size=32, bits=4)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    return folder


def logits(model: Any) -> np.ndarray:
    return np.array(model(mx.array([[5, 9, 40, 7]])).astype(mx.float32))


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("model", ["base", "quantised"])
def test_mlx_lm_and_run_build_the_same_model_of_an_adapter(
    method: Any, model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    adapter = finetune(folder, tmp_path / "outputs", AdapterConfig(method, rank=4, layers=1)) / "adapter"
    theirs: Any = load(str(folder), adapter_path=str(adapter))[0]
    ours = ModelConfig(str(folder), adapter_path=str(adapter), quantized=True).load().model
    quantised_layers = [m for _, m in ours.named_modules() if isinstance(m, nn.QuantizedLinear)]
    assert bool(quantised_layers) == (model == "quantised")
    np.testing.assert_allclose(logits(ours), logits(theirs), atol=1e-5)
    unpacked = ModelConfig(str(folder), adapter_path=str(adapter)).load().model  # what a CPU runs by default
    np.testing.assert_allclose(logits(unpacked), logits(theirs), atol=2e-3)
    assert np.abs(logits(ours) - logits(load(str(folder))[0])).max() > 0.1


def test_an_adapter_knows_how_it_was_trained(base: Path, tmp_path: Path) -> None:
    """The folder of its base says nothing of streaming: φ would be after_source."""
    run = finetune(base, tmp_path / "outputs", AdapterConfig(rank=4))
    assert not (base / SETTINGS).exists()
    assert ModelConfig(str(base)).load().target_start == "after_source"
    assert ModelConfig(str(base), adapter_path=str(run / "adapter")).load().target_start == 0
    checkpoint = mx.load(str(run / "last.safetensors"))
    names = {name.removeprefix("model.") for name in checkpoint if name.startswith("model.")}
    assert names == set(mx.load(str(run / "adapter" / "adapters.safetensors")))


def test_quantised_weights_are_unpacked_to_be_trained_in_full(quantised: Path, tmp_path: Path) -> None:
    folder = finetune(quantised, tmp_path / "outputs", None) / "model"
    assert "quantization" not in json.loads((folder / "config.json").read_text())
    model: Any = load(str(folder))[0]
    assert not [m for _, m in model.named_modules() if isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding)]


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        ({"method": "prefix"}, "adapter.method is 'prefix'"),
        ({"rank": 0}, "adapter.rank is 0"),
        ({"dropout": 1.0}, "adapter.dropout is 1.0"),
        ({"layers": 9}, "the model has 2 blocks"),
        ({"keys": ["attn.q"]}, "self_attn.q_proj"),
    ],
)
def test_a_wrong_adapter_is_refused(base: Path, tmp_path: Path, adapter: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        finetune(base, tmp_path / "outputs", AdapterConfig(**adapter))


def test_what_cannot_be_trained_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add adapter=lora"):
        finetune(base, tmp_path / "outputs", None, quantized=True)
    with pytest.raises(ValueError, match=r"mlx_lm\.fuse"):
        finetune(base, tmp_path / "outputs", AdapterConfig(), adapter_path=str(tmp_path))
