"""Cost of decoding through the dual cache against mlx-lm's own KVCache, and against two streams kept apart and
concatenated for every attention, on the same model, at the same context.

    python scripts/bench_decode.py [--model PATH] [--contexts 64 256 1024 4096 8192] [--json FILE]

Half of the context is source, half target; at each context the caches decode in turn, one token each, so
that a noisy machine disturbs all alike. Printed are medians, and ratios of medians of one run to the KVCache. A
second table shows what one read between two writes costs (the splice of the buffer), and how the cost of a target
token grows with the length of the source.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmark import markdown, save

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip
from mlx_lm.models.cache import KVCache  # isort: skip

from streamllm.cache.dual import DualStreamingCache
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt

TOKEN = mx.array([[5]])
COMPARED = {
    "context": ("context (tokens)", ",d"),
    "kvcache_ms": ("`KVCache`, ms", ".2f"),
    "dual_ms": ("dual cache, ms", ".2f"),
    "dual_ratio": ("ratio", ".3f"),
    "concatenating_ms": ("concatenating, ms", ".2f"),
    "concatenating_ratio": ("ratio", ".3f"),
    "kvcache_mb": ("`KVCache`, MB", ".2f"),
    "dual_mb": ("dual cache, MB", ".2f"),
}
GROWN = {
    "source": ("source (tokens)", ",d"),
    "target": ("target (tokens)", ",d"),
    "write_ms": ("write, ms", ".2f"),
    "read_ms": ("read, ms", ".2f"),
}


class Concatenating:
    """One layer's source and target in caches of their own, joined anew for every attention of the target."""

    def __init__(self) -> None:
        self.source, self._target = KVCache(), KVCache()

    @property
    def offset(self) -> int:
        return int(self._target.offset)

    @property
    def buffers(self) -> list[mx.array]:
        return [self._target.keys, self._target.values]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        keys, values = self._target.update_and_fetch(keys, values)
        read, offset = self.source, self.source.offset
        keys = mx.concatenate([read.keys[..., :offset, :], keys], axis=2)
        return keys, mx.concatenate([read.values[..., :offset, :], values], axis=2)

    def make_mask(self, N: int, **_: Any) -> str | None:
        return None if N == 1 else "causal"

    def trim(self, n: int) -> int:
        return int(self._target.trim(n))


def random_model(layers: int, hidden: int) -> Any:
    """A Qwen2 with random weights: speed does not depend on what they are."""
    from mlx_lm.models import qwen2

    arguments = {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 3 * hidden,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": max(hidden // 256, 1),
        "rms_norm_eps": 1e-6,
        "vocab_size": 8192,
    }
    model = qwen2.Model(qwen2.ModelArgs.from_dict(arguments))
    mx.eval(model.parameters())
    return model


def prefill(model: Any, length: int, views: list[Any]) -> None:
    for start in range(0, length, 256):
        model(mx.array([[5] * min(256, length - start)]), cache=views)
        mx.eval([view_state(view) for view in views])


def view_state(view: Any) -> list[mx.array]:
    owner = getattr(view, "cache", view)
    return [view.keys, view.values] if isinstance(owner, KVCache) else owner.buffers


def seconds(step: Callable[[], mx.array]) -> float:
    start = time.perf_counter()
    mx.eval(step())
    return time.perf_counter() - start


def alternate(steps: dict[str, Callable[[], mx.array]], repeats: int) -> dict[str, list[float]]:
    """Times of each step, taken in turns."""
    for step in steps.values():
        for _ in range(3):
            seconds(step)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds(step))
    return times


def compare(model: Any, context: int, repeats: int) -> dict[str, float]:
    """Milliseconds per token of all caches, and the ratios of medians, at a context of ``context`` tokens.

    Every step is trimmed again, so that all are taken at this context.
    """
    plain = [KVCache() for _ in model.layers]
    dual = [DualStreamingCache() for _ in model.layers]
    apart = [Concatenating() for _ in model.layers]
    targets = [cache.target for cache in dual]
    prefill(model, context, plain)
    for sources, views in (([cache.source for cache in dual], targets), ([cache.source for cache in apart], apart)):
        prefill(model, context // 2, sources)
        prefill(model, context - context // 2, views)

    def step(views: list[Any]) -> mx.array:
        logits: mx.array = model(TOKEN, cache=views)
        for view in views:
            view.trim(1)
        return mx.argmax(logits[:, -1], axis=-1)

    caches = {"kvcache": plain, "dual": targets, "concatenating": apart}
    times = alternate({name: partial(step, views) for name, views in caches.items()}, repeats)
    median = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    return {
        "context": context,
        **{f"{name}_ms": value for name, value in median.items()},
        "dual_ratio": median["dual"] / median["kvcache"],
        "concatenating_ratio": median["concatenating"] / median["kvcache"],
        "kvcache_mb": sum(cache.nbytes for cache in plain) / 1e6,
        "dual_mb": sum(cache.nbytes for cache in dual) / 1e6,
    }


def growth(model: Any, source: int, target: int, repeats: int) -> dict[str, float]:
    """Milliseconds of a write and of a read, with ``source`` and ``target`` tokens in the cache."""
    caches = [DualStreamingCache() for _ in model.layers]
    prefill(model, source, [cache.source for cache in caches])
    prefill(model, target, [cache.target for cache in caches])

    def write() -> mx.array:
        logits: mx.array = model(TOKEN, cache=[cache.target for cache in caches])
        for cache in caches:
            cache.trim_target(1)
        return mx.argmax(logits[:, -1], axis=-1)

    def read() -> mx.array:
        model(TOKEN, cache=[cache.source for cache in caches])
        mx.eval([buffer for cache in caches for buffer in cache.buffers])
        return TOKEN

    times = alternate({"write": write, "read": read}, repeats)
    return {
        "source": source,
        "target": target,
        "write_ms": statistics.median(times["write"]) * 1e3,
        "read_ms": statistics.median(times["read"]) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", help="a model folder or hub id; without it, a Qwen2 with random weights")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 256, 1024, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    if args.model:
        loaded: StreamingModel = ModelConfig(args.model).load(Prompt(target_header="\n"))
        model = loaded.model
    else:
        model = random_model(args.layers, args.hidden)
    rows = [compare(model, context, args.repeats) for context in args.contexts]
    print(markdown(rows, COMPARED), flush=True)
    grown = [growth(model, source, 64, args.repeats) for source in args.contexts]
    grown += [growth(model, 64, target, args.repeats) for target in args.contexts[1:]]
    print(f"\n{markdown(grown, GROWN)}")
    save(args.json, {"repeats": args.repeats}, compare=rows, growth=grown)


if __name__ == "__main__":
    main()
