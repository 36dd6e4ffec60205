"""Memory and time of one endless stream through `streamllm.live.terminal`, with windows on both streams.

    python scripts/bench_long.py [--units 100000] [--max-source 256] [--max-target 256] [--json FILE]
    python scripts/bench_long.py --unbounded --units 5000                         # what it costs without windows
    python scripts/bench_long.py --model bundled:tiny-en-de --units 10800        # an hour at 3 words a second

The words of the sample corpus come again and again, without a line break, and wait-k answers each with one; end tokens
are masked, so that the stream goes on. Nobody waits: each word arrives at its time on a simulated clock, which the time
that its translation took is added to. *Behind* is by how many seconds, at most, a word was read after it had arrived.
"""

import argparse
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip

from streamllm.cache.retention import Retention
from streamllm.data.sample import Sample
from streamllm.engine.paradigms.memory import Memory
from streamllm.engine.session import Session
from streamllm.live.terminal import translate_live
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.prompt import PromptTokens

BUNDLED = "bundled:tiny-en-de"


class Endless:
    """A model that never says some tokens."""

    def __init__(self, model: Any, never: list[int]):
        self.model, self.layers = model, model.layers
        vocabulary = model(mx.array([[0]])).shape[-1]
        self._mask = mx.array([-mx.inf if token in set(never) else 0.0 for token in range(vocabulary)])

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        logits: mx.array = self.model(tokens, cache=cache)
        return logits + self._mask


class Watched(StreamingModel):
    """Keeps the session that it opened last."""

    last: Session

    def session(self, seed: int = 0, name: str = "", memory: Memory | None = None) -> Session:
        self.last = super().session(seed, name, memory)
        return self.last


def random_model(prompt: PromptTokens, layers: int, hidden: int) -> Endless:
    """Random weights; every token that it says begins a word."""
    from mlx_lm.models import qwen2

    vocabulary = 4000
    arguments = {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": vocabulary,
    }
    mx.random.seed(0)
    model = qwen2.Model(qwen2.ModelArgs.from_dict(arguments))
    mx.eval(model.parameters())
    return Endless(model, [t for t in range(vocabulary) if t in prompt.end_tokens or not prompt.starts_unit(t)])


class Stream:
    """Words on a simulated clock, and what the translation of them costs.

    Args:
        units: how many words come.
        rows: filled with a measurement at 1,000, 2,000, 5,000, 10,000, … words.
    """

    def __init__(self, model: Watched, words: Iterator[str], units: int, rate: float, rows: list[dict[str, Any]]):
        self._model, self._words, self._units, self._rate, self._rows = model, words, units, rate, rows
        self._read = 0
        self._now = self._behind = self._busy = 0.0  # seconds; the last two since the last row
        self._resumed, self._cpu = time.perf_counter(), time.process_time()
        self._row_at = 0

    def read_some(self) -> bytes:
        busy = time.perf_counter() - self._resumed if self._read else 0.0
        self._busy += busy
        self._now += busy
        if self._read and (self._is_round(self._read) or self._read == self._units):
            self._measure()
        if self._read == self._units:
            return b""
        arrival = self._read / self._rate
        self._now = max(self._now, arrival)
        self._behind = max(self._behind, self._now - arrival)
        self._read += 1
        self._resumed = time.perf_counter()
        return f"{next(self._words)} ".encode()

    @staticmethod
    def _is_round(n: int) -> bool:
        return n >= 1000 and str(n).rstrip("0") in ("1", "2", "5")

    def _measure(self) -> None:
        memory: Any = self._model.last.memory
        units, cpu = self._read - self._row_at, time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        row = {
            "units": self._read,
            "source_held": memory.caches[0].source_offset,
            "target_held": memory.caches[0].target_offset,
            "target_tokens": self._model.last.target_tokens,
            "cache_mb": sum(cache.nbytes for cache in memory.caches) / 1e6,
            "active_mb": mx.get_active_memory() / 1e6,
            "peak_process_mb": peak / (1e6 if sys.platform == "darwin" else 1e3),
            "ms_per_unit": self._busy / units * 1e3,
            "cpu_ms_per_unit": (cpu - self._cpu) / units * 1e3,
            "behind_s": self._behind,
        }
        self._rows.append(row)
        print(
            f"{row['units']:>8,} {row['source_held']:>7} {row['target_held']:>7} {row['target_tokens']:>8,} "
            f"{row['cache_mb']:>9.2f} {row['active_mb']:>10.2f} {row['peak_process_mb']:>11.0f} "
            f"{row['ms_per_unit']:>8.2f} {row['cpu_ms_per_unit']:>8.2f} {row['behind_s']:>9.2f}",
            flush=True,
        )
        self._row_at, self._busy, self._behind, self._cpu = self._read, 0.0, 0.0, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", help="as model.path of run.py; without it, one with random weights")
    parser.add_argument("--layers", type=int, default=2, help="of the random model")
    parser.add_argument("--hidden", type=int, default=64, help="of the random model")
    parser.add_argument("--units", type=int, default=100_000, help="source words")
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--words-per-second", type=float, default=3.0)
    parser.add_argument("--max-source", type=int, default=256, help="tokens")
    parser.add_argument("--max-target", type=int, default=256, help="tokens")
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--unbounded", action="store_true", help="no windows")
    parser.add_argument("--kv-bits", type=int, choices=(4, 8))
    parser.add_argument("--kv-group-size", type=int, default=32, choices=(32, 64, 128))
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    retention = Retention(
        None if args.unbounded else args.max_source,
        None if args.unbounded else args.max_target,
        args.sinks,
        args.kv_bits,
        args.kv_group_size,
    )
    loaded = ModelConfig(args.model or BUNDLED).load()
    prompt = loaded.prompt
    never = Endless(loaded.model, list(prompt.end_tokens))
    model = never if args.model else random_model(prompt, args.layers, args.hidden)
    watched = Watched(model, prompt, loaded.tokenizer, loaded.target_start, retention=retention)
    words = itertools.cycle([word for example in Sample().load() for word in example.source.split()])
    rows: list[dict[str, Any]] = []
    print(
        f"{'':>8} {'tokens held':>15} {'target':>8} {'keys and':>9} {'MLX active':>10} {'process':>11}\n"
        f"{'words':>8} {'source':>7} {'target':>7} {'tokens':>8} {'values MB':>9} {'MB':>10} {'peak MB':>11} "
        f"{'ms/word':>8} {'CPU ms':>8} {'behind s':>9}"
    )
    stream = Stream(watched, words, args.units, args.words_per_second, rows)
    with open(os.devnull, "w") as nowhere:
        translate_live(watched, WaitK(args.k), stream.read_some, nowhere)
    if args.json:
        Path(args.json).write_text(json.dumps({"arguments": vars(args), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
