"""A new model from nothing: a vocabulary learned from the training text and random weights, as a folder
that `ModelConfig` opens like any other."""

import importlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from streamllm.check import whole_number
from streamllm.engine.paradigms.memory import check_target_start
from streamllm.files import replacing, write_atomically
from streamllm.models.model_configs import as_mlx_lm_reads
from streamllm.models.settings import SETTINGS
from streamllm.prompt import Prompt
from streamllm.training.bpe import train_tokenizer


@dataclass(frozen=True)
class FreshModel:
    """What to make.

    Args:
        architecture: an mlx-lm config.json without vocabulary: model_type, hidden_size, ….
        vocab_size: pieces of the byte-level BPE, special tokens included.
        seed: what the weights are drawn from.
        target_start: position of the first target token (φ).
        special_tokens: the tokens before the source, before the target, and at the end of the target, which are added
            to the vocabulary.

    Raises: ValueError: ``target_start`` is no position.
    """

    architecture: dict[str, Any]
    vocab_size: int = 4000
    seed: int = 0
    target_start: int = 0
    special_tokens: dict[str, str] = field(
        default_factory=lambda: {"source": "<|source|>", "target": "<|target|>", "end": "<|end|>"}
    )

    def __post_init__(self) -> None:
        whole_number("fresh.vocab_size", self.vocab_size, of="pieces")
        whole_number("fresh.seed", self.seed, 0, of="")
        check_target_start("fresh.target_start", self.target_start)

    def create(self, folder: Path, texts: Iterable[str]) -> None:
        """Write config, tokenizer, prompt and random float32 weights to ``folder``."""
        train_tokenizer(texts, self.vocab_size, self.special_tokens, folder)
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        end = vocabulary[self.special_tokens["end"]]
        config = dict(self.architecture) | {
            "vocab_size": len(vocabulary),
            "eos_token_id": end,
            "bos_token_id": None,
            "pad_token_id": end,
            "torch_dtype": "float32",
        }
        write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")
        prompt = Prompt(
            source_header=self.special_tokens["source"],
            source_footer=self.special_tokens["end"],
            target_header=self.special_tokens["target"],
            leading_space=True,
        )
        settings = {"prompt": asdict(prompt), "target_start": self.target_start}
        write_atomically(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
        family = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
        mx.random.seed(self.seed)
        model = family.Model(family.ModelArgs.from_dict(as_mlx_lm_reads(config)))
        weights = dict(tree_flatten(model.parameters()))
        with replacing(folder / "model.safetensors") as file:
            mx.save_safetensors(file, weights, {"format": "mlx"})
