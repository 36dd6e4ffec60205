"""Cost of decoding through the dual cache against mlx-lm's own KVCache on the same model, at the same context.

    python scripts/bench_decode.py [--model PATH] [--contexts 64 256 1024 4096] [--json FILE]

Half of the context is source, half target; at each context both caches decode in turn, one token each, so
that a noisy machine disturbs both alike. Printed are medians and the ratio of medians of one run. A second
table shows what one read between two writes costs (the splice of the buffer), and how the cost of a target
token grows with the length of the source.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip
from mlx_lm.models.cache import KVCache  # isort: skip

from streamllm.cache import DualStreamingCache
from streamllm.model import ModelConfig, StreamingModel
from streamllm.prompt import Prompt

TOKEN = mx.array([[5]])


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
    return view._cache.buffers if hasattr(view, "_cache") else [view.keys, view.values]


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
    """Milliseconds per token of both caches, and the ratio of medians, at a context of ``context`` tokens.

    Every step is trimmed again, so that all are taken at this context.
    """
    plain = [KVCache() for _ in model.layers]
    dual = [DualStreamingCache() for _ in model.layers]
    targets = [cache.target for cache in dual]
    prefill(model, context, plain)
    prefill(model, context // 2, [cache.source for cache in dual])
    prefill(model, context - context // 2, targets)

    def step(views: list[Any]) -> mx.array:
        logits: mx.array = model(TOKEN, cache=views)
        for view in views:
            view.trim(1)
        return mx.argmax(logits[:, -1], axis=-1)

    times = alternate({"KVCache": lambda: step(plain), "dual": lambda: step(targets)}, repeats)
    median = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    return {
        "context": context,
        "kvcache_ms": median["KVCache"],
        "dual_ms": median["dual"],
        "ratio": median["dual"] / median["KVCache"],
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
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    if args.model:
        loaded: StreamingModel = ModelConfig(args.model).load(Prompt(target_header="\n"))
        model = loaded.model
    else:
        model = random_model(args.layers, args.hidden)
    rows = [compare(model, context, args.repeats) for context in args.contexts]
    print(f"{'context':>8} {'KVCache ms':>11} {'dual ms':>9} {'ratio':>6} {'KVCache MB':>11} {'dual MB':>8}")
    for row in rows:
        print(
            f"{row['context']:>8} {row['kvcache_ms']:>11.3f} {row['dual_ms']:>9.3f} {row['ratio']:>6.3f} "
            f"{row['kvcache_mb']:>11.2f} {row['dual_mb']:>8.2f}"
        )
    grown = [growth(model, source, 64, args.repeats) for source in args.contexts]
    grown += [growth(model, 64, target, args.repeats) for target in args.contexts[1:]]
    print(f"\n{'source':>8} {'target':>8} {'write ms':>9} {'read ms':>8}")
    for row in grown:
        print(f"{row['source']:>8} {row['target']:>8} {row['write_ms']:>9.3f} {row['read_ms']:>8.3f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"compare": rows, "growth": grown}, file, indent=2)


if __name__ == "__main__":
    main()
