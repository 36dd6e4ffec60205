"""A model with wider layers that begins as another one: its first outputs are the same."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from streamllm.check import whole_number
from streamllm.files import replacing, write_atomically
from streamllm.models.loading import find_model
from streamllm.models.settings import SETTINGS

COPIED = ("tokenizer.json", "tokenizer_config.json", SETTINGS)


@dataclass(frozen=True)
class GrownModel:
    """What to make, as Net2WiderNet does (Chen, Goodfellow & Shlens 2016, arXiv 1511.05641), for the gated MLPs alone.
    New units are random, of the spread of the others, and nothing comes out of them yet; Net2WiderNet copies units.

    Args:
        path: ``bundled:NAME``, a folder or a hub id, with weights in one safetensors file, whose layers have
            ``mlp.gate_proj``, ``up_proj`` and ``down_proj`` (Llama, Qwen2, Qwen3, …).
        intermediate_size: units of each MLP, at least those that it has.
        seed: what the new weights are drawn from.

    Raises: ValueError: a size or seed that is no whole number of its range.
    """

    path: str
    intermediate_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("fresh.intermediate_size", self.intermediate_size, of="units")
        whole_number("fresh.seed", self.seed, 0, of="")

    def create(self, folder: Path, texts: Iterable[str]) -> None:
        """Write config, tokenizer, settings and float32 weights to ``folder``. The tokenizer stays, whatever ``texts``
        are.

        Raises: ValueError: the model has more units already, or no gated MLP.
        """
        base = find_model(self.path)
        config = json.loads((base / "config.json").read_text())
        units = config.get("intermediate_size")
        weights: dict[str, mx.array] = mx.load(str(base / "model.safetensors"))  # type: ignore[assignment]
        gates = [name for name in weights if name.endswith("mlp.gate_proj.weight")]
        if not isinstance(units, int) or not gates or self.intermediate_size < units:
            raise ValueError(
                f"fresh.intermediate_size is {self.intermediate_size}; accepted for {self.path} is "
                + (f"at least {units}, which it has" if gates else "none: it has no mlp.gate_proj")
            )
        mx.random.seed(self.seed)
        more = self.intermediate_size - units
        wide = {name: weight.astype(mx.float32) for name, weight in weights.items()}
        for name in sorted(gates):
            for part in ("gate_proj", "up_proj"):
                held = wide[of := name.replace("gate_proj", part)]
                new = mx.random.normal((more, held.shape[1])) * mx.std(held)
                wide[of] = mx.concatenate([held, new])
            held = wide[of := name.replace("gate_proj", "down_proj")]
            wide[of] = mx.concatenate([held, mx.zeros((held.shape[0], more))], axis=1)
        for name in COPIED:
            if (base / name).exists():
                shutil.copyfile(base / name, folder / name)
        config |= {"intermediate_size": self.intermediate_size, "torch_dtype": "float32"}
        write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")
        with replacing(folder / "model.safetensors") as file:
            mx.save_safetensors(file, wide, {"format": "mlx"})
