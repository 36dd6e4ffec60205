"""What it costs to ask a write head: CPU time per target token against wait-k, on the same paths.

    python scripts/bench_head.py [--model PATH] [--k 3] [--batch-sizes 1 32] [--limit 40] [--rounds 20] [--json FILE]

All decide as wait-k does, so all write the same at the same places. *before each WRITE*: the head is asked in the
forward that predicts what is written. *at each decision*: as policy=learned asks it, which predicts after each of the
first k units read, too. The head is a random one of the shape that `streamllm train-head` trains; what it says does not
matter to the cost. In each round all take turns, after a round that does not count. Printed are medians, and the median
of the ratios of each round to wait-k with its 95 % interval (bootstrap over rounds).
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from bench_beside import ratio
from bench_eval import load_dataset
from benchmark import markdown, save

import streamllm  # noqa: F401  (loads the BLAS before mlx)
from streamllm.batching.scheduler import translate_many
from streamllm.engine.write_head import WriteHead
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.records import WRITE, Action, Decide, Example, Policy, State

COLUMNS = {
    "batch_size": ("batch size", "d"),
    "asked": ("the head is asked", ""),
    "forward_passes": ("forward passes", ",d"),
    "cpu_ms_per_token": ("CPU ms/token", ".3f"),
    "ratio": ("ratio", ".3f"),
    "low": ("from", ".3f"),
    "high": ("to", ".3f"),
}


@dataclass(frozen=True)
class Asking:
    """wait-k that asks the write head and does not listen.

    Args:
        reads: ask before a READ, too.
    """

    k: int
    reads: bool

    def start(self, example: Example) -> Decide:
        decide = WaitK(self.k).start(example)

        def ask(state: State) -> Action:
            action = decide(state)
            if not state.source_done and state.read and (self.reads or action is WRITE):
                state.model.write_logit()
            return action

        return ask


def head_of(model: StreamingModel, hidden: int = 64) -> WriteHead:
    """A random head for a model, as wide as its states are."""
    dice = np.random.default_rng(0)
    widths = [width_of(model), hidden, 1]
    return WriteHead(
        [(dice.normal(size=(m, n)).astype(np.float32), np.zeros(m, np.float32)) for n, m in pairwise(widths)]
    )


def width_of(model: StreamingModel) -> int:
    args = model.model.args
    return int(getattr(args, "hidden_size", None) or args.text_config["hidden_size"])


def compare(
    model: StreamingModel, examples: Sequence[Example], k: int, batch_size: int, rounds: int
) -> list[dict[str, Any]]:
    """A row for each way to ask."""
    ways: dict[str, Policy] = {
        "never": WaitK(k),
        "before each WRITE": Asking(k, reads=False),
        "at each decision": Asking(k, reads=True),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    passes: dict[str, int] = {}
    written = None
    for counted in [False, *[True] * rounds]:
        for way, policy in ways.items():
            start = time.process_time()
            traces = list(translate_many(model, examples, policy, batch_size=batch_size))
            seconds = time.process_time() - start
            tokens = sum(trace.stats["target_tokens"] for trace in traces)
            passes[way] = int(sum(trace.stats["forward_passes"] for trace in traces))
            same = sorted((trace.id, trace.units, trace.delays) for trace in traces)
            if written not in (None, same):
                raise SystemExit(f"{way}: the translations differ from those of wait-k")
            written = same
            if counted:
                times[way].append(1000 * seconds / tokens)
    rows = []
    for way, own in times.items():
        row: dict[str, Any] = {"batch_size": batch_size, "asked": way, "forward_passes": passes[way]}
        row["cpu_ms_per_token"] = statistics.median(own)
        if way != "never":
            row["ratio"], row["low"], row["high"] = ratio(times["never"], own)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="bundled:tiny-en-de", help="a folder or a name")
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--limit", type=int, default=40, help="sentences of the sample")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="keep the rows there")
    args = parser.parse_args()
    data = load_dataset(None, args.limit)
    model = ModelConfig(args.model).load()
    model.write_head = head_of(model)
    examples = data.load()
    rows = [row for size in args.batch_sizes for row in compare(model, examples, args.k, size, args.rounds)]
    print(markdown(rows, COLUMNS))
    save(args.json, {"model": args.model, "k": args.k, "limit": args.limit, "rounds": args.rounds}, rows=rows)


if __name__ == "__main__":
    main()
