"""What quantised keys and values take and cost, against those as they are, on the same model at the same context.

    python scripts/bench_kv.py [--model PATH] [--contexts 256 1024 4096] [--json FILE]

Half of the context is source, half target; one token at a time is decoded with each in turn, so that a noisy machine
disturbs all alike. Printed are bytes a token, medians of the times, and ratios to keys and values as they are.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip

from bench_decode import TOKEN, alternate, prefill, random_model

from streamllm.cache.retention import Retention
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.windows import memories
from streamllm.models.loading import ModelConfig
from streamllm.prompt import Prompt


def decode(model: Any, memory: GroupMemory) -> mx.array:
    """One target token; it is trimmed again."""
    logits: mx.array = model(TOKEN, cache=[cache.target for cache in memory.caches])
    for cache in memory.caches:
        cache.trim_target(1)
    return mx.argmax(logits[:, -1], axis=-1)


def compare(model: Any, context: int, group_size: int, repeats: int) -> list[dict[str, Any]]:
    """One row for each way to keep keys and values."""
    kept: dict[str, GroupMemory] = {"as they are": GroupMemory(model)}
    for bits in (8, 4):
        retention = Retention(kv_bits=bits, kv_group_size=group_size)
        kept[f"{bits} bits"] = memories(retention, model, Group())(0)
    for memory in kept.values():
        prefill(model, context // 2, [cache.source for cache in memory.caches])
        prefill(model, context - context // 2, [cache.target for cache in memory.caches])
    times = alternate({name: partial(decode, model, memory) for name, memory in kept.items()}, repeats)
    median = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    rows: list[dict[str, Any]] = []
    for name, memory in kept.items():
        # Slack is left out: it does not depend on how numbers are kept.
        held = sum(part.nbytes * context // part.shape[2] for cache in memory.caches for part in cache.buffers)
        rows.append({"context": context, "kept": name, "bytes_per_token": held // context, "ms": median[name]})
    for row in rows:
        row["memory_ratio"] = row["bytes_per_token"] / rows[0]["bytes_per_token"]
        row["time_ratio"] = row["ms"] / rows[0]["ms"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", help="a model folder or hub id; without it, a Qwen2 with random weights")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--group-size", type=int, default=64, choices=(32, 64, 128))
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    if args.model:
        model = ModelConfig(args.model).load(Prompt(target_header="\n")).model
    else:
        model = random_model(args.layers, args.hidden)
    rows = [row for context in args.contexts for row in compare(model, context, args.group_size, args.repeats)]
    print(f"{'context':>8} {'kept':>12} {'bytes/token':>12} {'ratio':>6} {'ms/token':>9} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['context']:>8} {row['kept']:>12} {row['bytes_per_token']:>12.0f} {row['memory_ratio']:>6.3f} "
            f"{row['ms']:>9.3f} {row['time_ratio']:>6.3f}"
        )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
