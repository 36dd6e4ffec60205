"""LoRA and DoRA, by the layers of mlx-lm's own tuner. What is saved is mlx-lm's format: ``mlx_lm.load`` and
``model.adapter_path=…`` build the same model from it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from streamllm.check import whole_number
from streamllm.files import replacing, write_atomically
from streamllm.models.families import NO_ADAPTER, resolve
from streamllm.models.settings import check_lora

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
METHODS = ("lora", "dora")


@dataclass(frozen=True)
class AdapterConfig:
    """Small matrices beside frozen weights: ``W + scale · A B``.

    Args:
        method: "lora" (Hu et al. 2021, arXiv 2106.09685) or "dora" (Liu et al. 2024, arXiv 2402.09353), which also
            learns the length of each row and cannot adapt experts, which stay as they are.
            On quantised weights LoRA is QLoRA (Dettmers et al. 2023, arXiv 2305.14314).
        rank: columns of A.
        scale: by how much the product of both matrices is multiplied, as in mlx-lm; others write alpha / rank.
        dropout: the share of what enters A that is set to zero while training.
        layers: how many blocks, from the last one back; None for all.
        keys: names of the modules within a block, e.g. "self_attn.q_proj", or within the model, e.g. "lm_head";
            None for every linear layer and embedding of the blocks.
    """

    method: Literal["lora", "dora"] = "lora"
    rank: int = 8
    scale: float = 20.0
    dropout: float = 0.0
    layers: int | None = None
    keys: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"adapter.method is {self.method!r}; accepted are {' and '.join(METHODS)}")
        check_lora("adapter", self.rank, self.scale, self.dropout)
        whole_number("adapter.layers", self.layers, of="blocks", null="for all")
        if self.keys is not None and (isinstance(self.keys, str) or not self.keys):
            raise ValueError(
                f"adapter.keys is {self.keys!r}; it is a list of names, e.g. [self_attn.q_proj], or null for all"
            )

    def apply(self, model: Any, seed: int) -> dict[str, Any]:
        """Freeze ``model`` and give it adapters that change nothing yet, their random half drawn from ``seed``.

        Returns: the content of adapter_config.json.

        Raises:
            ValueError: no module has one of the keys, or there are fewer blocks than ``layers``.
        """
        from mlx_lm.tuner.utils import linear_to_lora_layers

        if self.layers is not None and self.layers > len(model.layers):
            raise ValueError(f"adapter.layers is {self.layers}, and the model has {len(model.layers)} blocks")
        parameters = {"rank": self.rank, "scale": self.scale, "dropout": self.dropout, "keys": self._keys(model)}
        layers = self.layers or -1  # mlx-lm's word for all
        model.freeze()
        mx.random.seed(seed % 2**64)  # a negative one, too
        linear_to_lora_layers(model, layers, parameters, use_dora=self.method == "dora")
        mx.eval(model.parameters())
        return {"fine_tune_type": self.method, "num_layers": layers, "lora_parameters": parameters}

    def _keys(self, model: Any) -> list[str]:
        blocks = model.layers[-(self.layers or len(model.layers)) :]
        known = {name for block in blocks for name, module in block.named_modules() if self._adaptable(module)}
        if self.keys is None:
            never = NO_ADAPTER.get(resolve(model.model_type), ())
            return sorted(name for name in known if not name.startswith(never))
        known |= {name for name, module in model.named_modules() if self._adaptable(module)}
        for key in self.keys:
            if key not in known:
                inside = ", ".join(sorted(name for name in known if not name.startswith("model.")))
                raise ValueError(f"adapter.keys has {key!r}, which {self.method} finds nowhere; there is: {inside}")
        return sorted(self.keys)

    def _adaptable(self, module: nn.Module) -> bool:
        from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

        if self.method == "lora":
            kinds: tuple[type, ...] = (nn.Linear, nn.Embedding, nn.QuantizedLinear, nn.QuantizedEmbedding)
            return isinstance(module, (*kinds, SwitchLinear, QuantizedSwitchLinear))
        # mlx-lm's DoRA takes the width of quantised weights to be a multiple of 32 / bits.
        whole = isinstance(module, nn.QuantizedLinear) and 32 % module.bits == 0
        return whole or isinstance(module, nn.Linear | nn.Embedding)


def save_adapter(model: nn.Module, config: dict[str, Any], base: str, folder: Path) -> None:
    """Write what is trained of ``model``, and ``config`` (of `AdapterConfig.apply`). ``base`` names the model that it
    belongs to; nothing reads it but people."""
    folder.mkdir(exist_ok=True)
    weights = dict(tree_flatten(model.trainable_parameters()))
    with replacing(folder / WEIGHTS) as file:
        mx.save_safetensors(file, weights, {"format": "mlx"})
    write_atomically(folder / CONFIG, json.dumps(config | {"model": base}, indent=2) + "\n")
