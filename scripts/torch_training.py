"""The steps of `bench_train.py` as a loop in PyTorch: the same weights (Qwen2's shape), batches, masks, dropout and
optimizer. Started by that script, with a Python that has torch:

    python torch_training.py FILE.npz DROPOUT

It prints the loss of each batch without dropout; then, for each line it reads, what a step on each batch takes.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Arrays = dict[str, Tensor]


class Model(nn.Module):  # type: ignore[misc]
    """Both streams of a pair in one forward, the source before the target, each with positions of its own."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor], dropout: float):
        super().__init__()
        self.config = config
        self.weights = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(each) for name, each in weights.items()})
        self.dropout, self.epsilon = dropout, config["rms_norm_eps"]

    def get(self, name: str) -> Tensor:
        return self.weights[name.replace(".", "/")]

    def linear(self, x: Tensor, name: str) -> Tensor:
        bias = f"{name}.bias".replace(".", "/")
        return F.linear(x, self.get(f"{name}.weight"), self.weights.get(bias))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.get(f"{name}.weight"), self.epsilon)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def forward(self, batch: Arrays) -> Tensor:
        """Logits (B, T, V) of the target positions."""
        c = self.config
        heads, shared = c["num_attention_heads"], c["num_key_value_heads"]
        tokens = torch.cat([batch["source"], batch["target"]], 1)
        (rows, both), start = tokens.shape, batch["source"].shape[1]
        width = c["hidden_size"] // heads
        rates = c["rope_theta"] ** (-torch.arange(0, width, 2) / width)
        angles = torch.cat([torch.arange(start), torch.arange(both - start)])[:, None] * rates
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

        def turned(x: Tensor) -> Tensor:
            first, second = x.chunk(2, dim=-1)
            return x * cos + torch.cat([-second, first], -1) * sin

        x = self.drop(F.embedding(tokens, self.get("model.embed_tokens.weight")))
        for i in range(c["num_hidden_layers"]):
            at = f"model.layers.{i}."
            normed = self.norm(x, at + "input_layernorm")
            q, k, v = (
                self.linear(normed, f"{at}self_attn.{name}_proj").view(rows, both, count, width).transpose(1, 2)
                for name, count in (("q", heads), ("k", shared), ("v", shared))
            )
            seen = F.scaled_dot_product_attention(
                turned(q), turned(k), v, attn_mask=batch["mask"], enable_gqa=heads != shared
            )
            x = x + self.drop(self.linear(seen.transpose(1, 2).reshape(rows, both, -1), at + "self_attn.o_proj"))
            normed = self.norm(x, at + "post_attention_layernorm")
            gated = F.silu(self.linear(normed, at + "mlp.gate_proj")) * self.linear(normed, at + "mlp.up_proj")
            x = x + self.drop(self.linear(gated, at + "mlp.down_proj"))
        x = self.norm(x[:, start:], "model.norm")
        return F.linear(x, self.get("model.embed_tokens.weight"))


def loss(model: Model, batch: Arrays, smoothing: float) -> Tensor:
    labels = batch["labels"].flatten().long()
    logits = model(batch).flatten(0, 1)
    return F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=smoothing)


def main() -> None:
    torch.set_num_threads(1)
    file, dropout = sys.argv[1:]
    found: dict[str, Arrays] = {}  # weights, and the batches by their numbers
    with np.load(file) as arrays:
        config = json.loads(str(arrays["config"]))
        for name in arrays.files:
            group, _, rest = name.partition("/")
            if rest:
                found.setdefault(group, {})[rest] = torch.from_numpy(arrays[name])
    model = Model(config, found.pop("weights"), float(dropout)).eval()
    batches = list(found.values())
    with torch.no_grad():
        print(json.dumps([loss(model, batch, 0.1).item() for batch in batches]), flush=True)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.98), eps=1e-9, foreach=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            optimizer.zero_grad()
            mean = loss(model, batch, 0.1)
            mean.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            mean.item()
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


if __name__ == "__main__":
    main()
