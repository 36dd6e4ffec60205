"""Cost of a target token in streaming, against a plain PyTorch loop of the same model.

    pip install -e '.[torch]'
    python scripts/bench_pytorch.py [--sources 32 128 512] [--json FILE]

The loop is written as such loops are: transformers' model, one `DynamicCache` a stream, joined for each forward pass
of the target and taken apart after it, positions given explicitly. Both are measured on the CPU with one thread, on
the bundled model and on a larger one with random weights; each step is taken by one and then by the other, so that a
noisy machine disturbs both alike. Printed are medians of one run, their ratios (above 1: ours is faster) and those
of the fastest steps and of CPU time, which a busy machine disturbs least. First it is checked that both give the same
logits, and throughout that both write the same tokens.
"""

import argparse
import copy
import inspect
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmark import markdown, save

os.environ.setdefault("STREAMLLM_THREADS", "1")

import streamllm  # loads the BLAS before mlx

import mlx.core as mx  # isort: skip
import numpy as np
from bench_decode import random_model
from mlx.utils import tree_flatten

from streamllm.engine.paradigms.group import GroupMemory
from streamllm.models.loading import ModelConfig

TARGET = 16  # target tokens in the cache before the first that is measured
COLUMNS = {
    "model": ("model", ""),
    "step": ("step", ""),
    "source": ("source (tokens)", ",d"),
    "pytorch_ms": ("PyTorch, ms", ".2f"),
    "streamllm_ms": ("streamllm, ms", ".2f"),
    "ratio": ("ratio", ".2f"),
    "ratio_fastest": ("ratio of the fastest", ".2f"),
    "ratio_cpu": ("ratio of CPU time", ".2f"),
    "pytorch_growth": ("PyTorch, growth", ".2f"),
    "streamllm_growth": ("streamllm, growth", ".2f"),
}


class Loop(Protocol):
    """One sentence on its way through a model."""

    def read(self, tokens: list[int]) -> None: ...

    def write(self, tokens: list[int]) -> Any: ...

    def likeliest(self, logits: Any) -> int: ...


class TorchLoop:
    """The plain loop; no more is computed than has to be (no logits of what is read, no copy that a join does not
    need)."""

    def __init__(self, model: Any):
        import torch
        from transformers import DynamicCache

        self._model, self._torch = model, torch
        # The newer name of the argument; where there are both, the older one costs a warning a forward.
        self._cache_name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self._source: Any = DynamicCache(config=model.config)
        self._target: Any = DynamicCache(config=model.config)

    def read(self, tokens: list[int]) -> None:
        self._model.model(**self._inputs(tokens, self._source.get_seq_length(), self._source))

    def write(self, tokens: list[int]) -> Any:
        """Feed target tokens; the logits (V,) after the last."""
        length = self._source.get_seq_length()
        joined = self._joined()
        inputs = self._inputs(tokens, self._target.get_seq_length(), joined)
        logits = self._model(**inputs, logits_to_keep=1).logits
        for layer in joined.layers:
            layer.keys, layer.values = layer.keys[:, :, length:], layer.values[:, :, length:]
        self._target = joined
        return logits[0, -1]

    def likeliest(self, logits: Any) -> int:
        return int(logits.argmax())

    def _inputs(self, tokens: list[int], start: int, cache: Any) -> dict[str, Any]:
        """Each stream counts its own positions."""
        positions = self._torch.arange(start, start + len(tokens))[None]
        return {"input_ids": self._torch.tensor([tokens]), "position_ids": positions, self._cache_name: cache}

    def _joined(self) -> Any:
        joined = copy.copy(self._source)
        joined.layers = [copy.copy(layer) for layer in self._source.layers]
        if self._target.get_seq_length():
            for layer, target in zip(joined.layers, self._target.layers, strict=True):
                layer.keys = self._torch.cat([layer.keys, target.keys], dim=2)
                layer.values = self._torch.cat([layer.values, target.values], dim=2)
        return joined


def in_torch(model: Any) -> Any:
    """The same Qwen2 in transformers, in float32."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    same: tuple[str, ...] = (
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
    )
    same += ("rms_norm_eps", "vocab_size", "max_position_embeddings", "tie_word_embeddings")
    settings: dict[str, Any] = {name: getattr(model.args, name) for name in same}
    rope = {"rope_type": "default", "rope_theta": model.args.rope_theta}
    other: Any = Qwen2ForCausalLM(Qwen2Config(**settings, rope_parameters=rope))
    other.eval()
    weights = {name: torch.from_numpy(np.array(value)) for name, value in tree_flatten(model.parameters())}
    missing, unexpected = other.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"transformers names the weights of a Qwen2 otherwise: {missing}, {unexpected}")
    other.tie_weights()
    return other


def difference(ours: Loop, theirs: Loop, vocabulary: int) -> float:
    """The largest difference of logits while both read and write the same, as a part of the largest logit."""
    random = np.random.default_rng(0)
    largest, scale = 0.0, 0.0
    for read, written in ((7, 3), (1, 1), (2, 1), (1, 2), (40, 1), (1, 1)):
        source, target = (random.integers(3, vocabulary, n).tolist() for n in (read, written))
        ours.read(source)
        theirs.read(source)
        mine, other = np.array(ours.write(target)), theirs.write(target).numpy()
        largest, scale = max(largest, float(np.abs(mine - other).max())), max(scale, float(np.abs(other).max()))
    return largest / scale


def steps(loop: Loop, source: int, reads: int, count: int) -> Iterator[tuple[int, float, float]]:
    """Each of ``count`` target tokens, greedy, and its seconds, of wall and of CPU time; ``reads`` source tokens are
    read before each, one by one."""
    loop.read([5] * source)
    token = loop.likeliest(loop.write([5] * TARGET))
    for _ in range(count):
        started, used = time.perf_counter(), time.process_time()
        for _ in range(reads):
            loop.read([5])
        token = loop.likeliest(loop.write([token]))
        yield token, time.perf_counter() - started, time.process_time() - used


def compare(
    loops: dict[str, Callable[[], Loop]], sources: list[int], reads: int, count: int, rounds: int
) -> list[dict[str, Any]]:
    """One row for each source length; growth is over the first of them.

    Raises:
        SystemExit: the loops do not write the same.
    """
    rows: list[dict[str, Any]] = []
    for source in sources:
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
        for number in range(rounds + 1):
            for pair in zip(*(steps(make(), source, reads, count) for make in loops.values()), strict=True):
                if len({token for token, *_ in pair}) > 1:
                    raise SystemExit("the loops write different tokens, so they do not do the same work")
                for name, (_, *seconds) in zip(loops, pair, strict=True):
                    times[name] += [(seconds[0], seconds[1])] * (number > 0)  # the first round warms up
        row: dict[str, Any] = {"source": source}
        for name, values in times.items():
            wall, cpu = ([1e3 * each[i] for each in values] for i in (0, 1))
            row[f"{name}_ms"], row[f"{name}_fastest_ms"] = statistics.median(wall), min(wall)
            row[f"{name}_cpu_ms"] = statistics.median(cpu)
        for kind in ("", "_fastest", "_cpu"):
            row[f"ratio{kind}"] = row[f"pytorch{kind}_ms"] / row[f"streamllm{kind}_ms"]
        first = rows[0] if rows else row
        rows.append(row | {f"{name}_growth": row[f"{name}_ms"] / first[f"{name}_ms"] for name in loops})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sources", type=int, nargs="+", default=[32, 128, 512], help="lengths, in tokens")
    parser.add_argument("--layers", type=int, default=8, help="of the larger model")
    parser.add_argument("--hidden", type=int, default=512, help="of the larger model")
    parser.add_argument("--count", type=int, default=16, help="target tokens a round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    try:
        import torch
    except ImportError as error:
        raise SystemExit(f"{error}: pip install -e '.[torch]'") from error
    torch.set_num_threads(1)
    mx.set_default_device(mx.cpu)  # type: ignore[arg-type]
    models = {
        "tiny-en-de": ModelConfig("bundled:tiny-en-de").load().model,
        f"random, {args.layers} layers of {args.hidden}": random_model(args.layers, args.hidden),
    }
    rows = []
    print(f"PyTorch {torch.__version__}; the BLAS of MLX is {streamllm.BLAS or 'its own, which is slow'}", flush=True)
    with torch.inference_mode():
        for name, model in models.items():
            theirs = in_torch(model)
            loops: dict[str, Callable[[], Loop]] = {
                "pytorch": partial(TorchLoop, theirs),
                "streamllm": partial(GroupMemory, model, 0),
            }
            found = difference(loops["streamllm"](), loops["pytorch"](), model.args.vocab_size)
            print(f"{name}: logits differ by at most {found:.1e} of the largest", flush=True)
            if found > 1e-4:
                raise SystemExit("these are not the same model: nothing is measured")
            for reads, step in ((0, "write"), (1, "read and write")):
                about = {"model": name, "step": step, "difference": found}
                rows += [about | row for row in compare(loops, args.sources, reads, args.count, args.rounds)]
    print(f"\n{markdown(rows, COLUMNS)}")
    save(args.json, {"torch": torch.__version__, "count": args.count, "rounds": args.rounds}, rows=rows)


if __name__ == "__main__":
    main()
