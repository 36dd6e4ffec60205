"""Sentences per second over batch sizes and policies, with one model and one data set.

    python scripts/bench_eval.py [--batch-sizes 1 8 32] [--policies waitk full] [--limit 100] [--rounds 3] [--json FILE]

In each round every batch size is run once, in turn, so that a noisy machine disturbs all alike. Printed are medians
over the rounds and their ratio to the first batch size, in wall time and in CPU time of this process. Outputs and
delays are compared with those of the first, and sentences in which they differ are counted.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import markdown, save

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip

from streamllm import policies
from streamllm.batching.scheduler import translate_many
from streamllm.data.hub import HubDataset
from streamllm.data.sample import Sample
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.records import Example, Policy, Trace

COLUMNS = {
    "policy": ("policy", ""),
    "batch_size": ("batch size", "d"),
    "sentences_per_second": ("sentences/s", ".2f"),
    "ratio": ("ratio", ".2f"),
    "cpu_ms_per_sentence": ("CPU ms/sentence", ".1f"),
    "cpu_ratio": ("CPU ratio", ".2f"),
    "peak_mb": ("peak, MB", ".1f"),
    "different": ("different", "d"),
}
POLICIES: dict[str, Policy] = {
    "waitk": policies.WaitK(3),
    "full": policies.Full(),
    "confidence": policies.Confidence(0.5),
    "wait_if_diff": policies.WaitIfDiff(2),
    "local_agreement": policies.LocalAgreement(),
    "alignatt": policies.AlignAtt(2),
    "ralcp": policies.Bounded(policies.RALCP(3, 0.6, 2), min_lag=3),
}


def load_dataset(data_dir: Path | None, limit: int, split: str = "test_2016_flickr") -> Sample | HubDataset:
    """The first sentences of a split of Multi30k in a folder, or of the bundled sample."""
    if data_dir is None:
        return Sample(limit=limit)
    return HubDataset(
        path="multi30k",
        split=split,
        data_dir=data_dir,
        source_language="en",
        target_language="de",
        limit=limit,
    )


def outcome(trace: Trace) -> Any:
    """What must not depend on the batch size: all but times."""
    stats = {name: value for name, value in trace.stats.items() if name != "seconds"}
    return trace.units, trace.delays, [(event.kind, event.text) for event in trace.events], stats


def compare(
    model: StreamingModel, examples: Sequence[Example], policy: Policy, batch_sizes: Sequence[int], rounds: int
) -> list[dict[str, float]]:
    """One row for each batch size."""
    wall: dict[int, list[float]] = {size: [] for size in batch_sizes}
    cpu: dict[int, list[float]] = {size: [] for size in batch_sizes}
    outcomes: dict[int, dict[str, Any]] = {}
    for _ in range(rounds):
        for size in batch_sizes:
            mx.clear_cache()
            mx.reset_peak_memory()
            started, used = time.perf_counter(), time.process_time()
            found = list(translate_many(model, examples, policy, batch_size=size))
            wall[size].append(time.perf_counter() - started)
            cpu[size].append(time.process_time() - used)
            outcomes[size] = {trace.id: outcome(trace) for trace in found} | {"peak": mx.get_peak_memory()}
    first = batch_sizes[0]
    n = len(examples)
    rows = []
    for size in batch_sizes:
        seconds, work = statistics.median(wall[size]), statistics.median(cpu[size])
        same = sum(outcomes[size][example.id] == outcomes[first][example.id] for example in examples)
        rows.append(
            {
                "batch_size": size,
                "sentences_per_second": n / seconds,
                "ratio": statistics.median(wall[first]) / seconds,
                "cpu_ms_per_sentence": work / n * 1e3,
                "cpu_ratio": statistics.median(cpu[first]) / work,
                "peak_mb": outcomes[size]["peak"] / 1e6,
                "different": n - same,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="bundled:tiny-en-de", help="as model.path of run.py")
    parser.add_argument("--data-dir", type=Path, help="folder of Multi30k; without it, the bundled sample")
    parser.add_argument("--limit", type=int, default=100, help="sentences")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 8, 16, 32, 64, 128], help="the first is the base"
    )
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=["waitk", "full"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    dataset = load_dataset(args.data_dir, args.limit)
    examples = dataset.load()
    model = ModelConfig(args.model).load(source_unit=dataset.source_unit, target_unit=dataset.target_unit)
    list(translate_many(model, examples[:2], POLICIES["waitk"], batch_size=2))  # warm
    rows: list[dict[str, Any]] = []
    for name in args.policies:
        found = compare(model, examples, POLICIES[name], args.batch_sizes, args.rounds)
        rows += [{"policy": name} | row for row in found]
        best = max(found, key=lambda row: row["ratio"])
        best_size, speed, ratio = (best[key] for key in ("batch_size", "sentences_per_second", "ratio"))
        print(f"{name}: {speed:.2f} sentences/s at batch size {best_size}, {ratio:.2f} times as many as at the first")
    print(f"\n{markdown(rows, COLUMNS)}")
    save(args.json, {"model": args.model, "sentences": len(examples), "rounds": args.rounds}, rows=rows)


if __name__ == "__main__":
    main()
