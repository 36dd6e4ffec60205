"""What a training step costs, where its time goes, and what each optimisation of it saves.

    python scripts/bench_train.py [--model FOLDER] [--data-dir FOLDER] [--lora RANK] [--rounds 5] [--json FILE]
    python scripts/bench_train.py --processes 2      # also data parallel, by MLX's ring on this machine

Steps of the training loop itself, on pairs of Multi30k (without a folder, of the sample corpus). Every variant takes
the same batches, in turn and in rounds, one that does not count first, so that a noisy machine disturbs all alike.
Printed are medians of the rounds, and ratios of the first variant to the others, by CPU time: of a process with one
thread it is what wall time would be on an idle core. The profile needs MKL, which reports its products.
"""

import argparse
import ctypes
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmark import markdown, save

os.environ.setdefault("STREAMLLM_THREADS", "1")
os.environ.setdefault("MKL_VERBOSE_OUTPUT_FILE", f"{tempfile.gettempdir()}/mkl-{os.getpid()}.txt")

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip
from bench_eval import load_dataset  # isort: skip  (loads streamllm too)
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from streamllm.cache.dual import make_caches
from streamllm.cpu import exponentials
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.models.settings import SETTINGS
from streamllm.prompt import Prompt
from streamllm.training import loss
from streamllm.training.adapters import AdapterConfig
from streamllm.training.data import Batch, DataConfig, TrainingData, pad
from streamllm.training.distributed import Barrier
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.optimizers import Muon

VERBOSE = Path(os.environ["MKL_VERBOSE_OUTPUT_FILE"])  # where MKL reports its products
Work = tuple[Batch, int]  # a batch and its labels, as a step takes it
PROMPT = Prompt(source_header="English:", target_header="\nGerman:", leading_space=True, stop="\n")  # of base models
STEPS = {
    "step": ("step", ""),
    "wall_s": ("wall, s", ".3f"),
    "cpu_s": ("CPU, s", ".3f"),
    "per_cpu_second": ("tokens a CPU second", ",.0f"),
    "real_per_cpu_second": ("without padding", ",.0f"),
    "ratio": ("ratio", ".2f"),
}
PADDING = {
    "batches": ("batches of", ""),
    "tokens": ("tokens at most", ",d"),
    "count": ("batches an epoch", ",d"),
    "padding": ("padding", ".1%"),
}
PROFILE = {"what": ("part of a step", ""), "seconds": ("CPU, s", ".3f"), "share": ("share", ".0%")}
PROCESSES = {
    "processes": ("processes", "d"),
    "wall_s": ("wall, s", ".3f"),
    "cpu_s": ("CPU of all, s", ".3f"),
    "per_second": ("tokens/s", ",.0f"),
    "speed_up": ("speed-up", ".2f"),
    "overhead": ("CPU, ratio", ".2f"),
}


# What is measured


def load(args: argparse.Namespace) -> StreamingModel:
    own = args.model.startswith("bundled:") or Path(args.model, SETTINGS).exists()
    model = ModelConfig(args.model, dtype="float32").load(None if own else PROMPT)
    model.target_start = 0
    if args.lora:
        AdapterConfig(rank=args.lora, scale=2.0).apply(model.model, seed=0)
    return model


def data_of(args: argparse.Namespace, model: StreamingModel) -> TrainingData:
    corpus = load_dataset(args.data_dir, args.pairs, "train")
    return TrainingData(corpus.load(), model.prompt, DataConfig(batch_tokens=args.batch_tokens), seed=0)


def trainer_of(args: argparse.Namespace, model: StreamingModel, data: TrainingData, folder: str) -> Trainer:
    config = TrainingConfig(dropout=0.0 if args.lora else args.dropout, gradient_checkpointing=args.recompute)
    optimizer = Muon(1e-4) if args.optimizer == "muon" else optim.AdamW(1e-4)
    return Trainer(model.model, data, [], config, Path(folder), optimizer=optimizer)


def spread(items: Sequence[Work], count: int) -> list[Work]:
    """Some of them, at equal distances in their order of size."""
    ordered = sorted(items, key=lambda item: (item[0].source.shape[1], item[0].target.shape[1]))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(min(count, len(ordered)))]


def in_any_order(data: TrainingData) -> list[Work]:
    """An epoch whose batches are of pairs in the order of chance instead of similar length."""
    rng = random.Random("0/0")
    (pairs,) = data.source.blocks(0, 0)
    encoded = data.encode_all(pairs, rng)
    rng.shuffle(encoded)
    return [(batch, int((batch.labels >= 0).sum())) for batch in map(pad, data.cut(encoded, len))]


def padding(ways: dict[str, list[Work]], tokens: int) -> list[dict[str, Any]]:
    rows = []
    for name, work in ways.items():
        share = sum(batch.padding for batch, _ in work) / sum(batch.tokens for batch, _ in work)
        rows.append({"batches": name, "tokens": tokens, "count": len(work), "padding": share})
    return rows


# Ways to take a step


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def mlx_cross_entropy(logits: mx.array, labels: mx.array, smoothing: float, lazy: bool = False) -> mx.array:
    """As `loss.cross_entropy`, by mlx.nn."""
    each = nn.losses.cross_entropy(logits, mx.maximum(labels, 0), label_smoothing=smoothing)
    return mx.where(labels >= 0, each, 0).sum()


def by_mlx() -> Any:
    """No exponential comes from numpy."""
    return patched(exponentials, "on_cpu", lambda *arrays: False)


@contextmanager
def plain() -> Iterator[None]:
    """Nor does the cross-entropy keep its exponentials."""
    with by_mlx(), patched(loss, "cross_entropy", mlx_cross_entropy):
        yield


def compiled(trainer: Trainer) -> Callable[..., Any]:
    """What stands for ``trainer._grad``: by ``mx.compile``, anew for each shape of a batch."""
    model, config = trainer.model, trainer.config

    def call(arrays: list[mx.array]) -> Any:
        rest = trainer.target_start, trainer.paradigm, config.label_smoothing
        return nn.value_and_grad(model, trainer.objective)(model, Batch(*arrays), *rest)  # type: ignore[arg-type]

    state = [model.state, mx.random.state]
    function: Any = mx.compile(call, inputs=state, outputs=state)

    def grad(_: nn.Module, batch: Batch, *rest: Any) -> Any:
        return function([mx.array(getattr(batch, field.name)) for field in fields(Batch)])

    return grad


def ways_of(trainer: Trainer) -> dict[str, Callable[[], Any]]:
    """Each opens a context in which steps are taken so."""
    grad = compiled(trainer)

    @contextmanager
    def compiling() -> Iterator[None]:
        with by_mlx(), patched(trainer, "_grad", grad):
            yield

    return {
        "as it is": nullcontext,
        "exponentials by MLX": by_mlx,
        "cross-entropy by `mlx.nn`, too": plain,
        "exponentials by MLX, `mx.compile`": compiling,
    }


def take(trainer: Trainer, work: Sequence[Work]) -> tuple[float, float]:
    """Seconds of wall and of CPU time for a step on each batch. What is learned is undone, so that all variants compute
    with the same weights."""
    weights = trainer.masters.weights
    state = tree_map(lambda leaf: leaf, trainer.optimizer.state)
    wall, cpu = time.perf_counter(), time.process_time()
    for one in work:
        trainer.train_step([one])
    times = time.perf_counter() - wall, time.process_time() - cpu
    trainer.masters.set(weights)
    trainer.optimizer.state = state
    return times


def compare(trainer: Trainer, similar: Sequence[Work], mixed: Sequence[Work], rounds: int) -> list[dict[str, Any]]:
    """A row for each way to take a step, means of batches and medians of rounds."""
    steps = [(name, way, similar) for name, way in ways_of(trainer).items()]
    steps.insert(1, ("pairs of any length together", nullcontext, mixed))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in steps}
    for number in range(rounds + 1):
        for name, way, work in steps:
            with way():
                times[name].append(take(trainer, work))
            print(f"round {number}, {name}: {times[name][-1][1]:.2f} CPU s", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for name, _, work in steps:
        wall, cpu = (statistics.median(column) for column in zip(*times[name][1:], strict=True))
        tokens = sum(batch.tokens for batch, _ in work)
        real = tokens - sum(batch.padding for batch, _ in work)
        row = {"step": name, "wall_s": wall / len(work), "cpu_s": cpu / len(work)}
        rows.append(row | {"per_cpu_second": tokens / cpu, "real_per_cpu_second": real / cpu})
    for row in rows:
        row["ratio"] = rows[0]["real_per_cpu_second"] / row["real_per_cpu_second"]
    return rows


# Where the time goes


class Clock:
    """CPU seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def timed(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` on its evaluated arguments; it evaluates its result itself."""

        def call(*args: Any) -> Any:
            mx.eval([arg for arg in args if isinstance(arg, mx.array)])
            started = time.process_time()
            result = function(*args)
            self.add(what, time.process_time() - started)
            return result

        return call


def mkl() -> Any:
    """MKL, or None where it is not."""
    found = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))
    return ctypes.CDLL(str(found[0])) if found else None


Shape = tuple[str, str, int, int, int]  # of a product as BLAS names it: whether each side is transposed, m, n, k


def products(report: str) -> Counter[Shape]:
    """How many products of each shape are in a report of MKL."""
    found = re.findall(r"SGEMM\w*\((\w),(\w),(\d+),(\d+),(\d+),", report)
    return Counter((a, b, int(m), int(n), int(k)) for a, b, m, n, k in found)


def cost(shape: Shape, count: int, repeats: int = 3) -> float:
    """CPU seconds of ``count`` such products, which are done again, small ones many at a time."""
    a, b, m, n, k = shape
    many = min(count, 64) if m * n * k < 1_000_000 else 1
    left, right = mx.random.normal((many, *((n, k) if b == "N" else (k, n)))), mx.random.normal((many, m, k))
    left = left if b == "N" else left.swapaxes(-1, -2)
    right = right.swapaxes(-1, -2) if a == "T" else mx.random.normal((many, k, m))
    mx.eval(left, right)
    times = []
    for _ in range(repeats):
        started = time.process_time()
        mx.eval(left @ right)
        times.append(time.process_time() - started)
    return min(times) * count / many


def profile(trainer: Trainer, work: Sequence[Work], vocabulary: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each kind of work in a step as it is, means of all steps. MKL reports the products of one round, which
    are timed afterwards; the rest is timed in others, since reporting itself takes time."""
    library, clock, optimizing, whole = mkl(), Clock(), 0.0, 0.0
    clip = optim.clip_grad_norm

    def clip_grad_norm(*args: Any) -> Any:  # where the optimizer's part of a step begins
        nonlocal optimizing
        library.MKL_Verbose(0)
        optimizing = time.process_time()
        return clip(*args)

    with ExitStack() as stack:
        stack.enter_context(patched(optim, "clip_grad_norm", clip_grad_norm))
        for one in work:
            library.MKL_Verbose(1)
            take(trainer, [one])
        for name, what in (("softmax", "softmax"), ("_sigmoid", "SwiGLU"), ("cross_entropy", "cross-entropy")):
            function = clock.timed(f"exponentials of {what}", getattr(exponentials, name))
            stack.enter_context(patched(exponentials, name, function))
        for one in [*work] * rounds:
            started = time.process_time()
            trainer.train_step([one])
            clock.add("optimizer", time.process_time() - optimizing)
            whole += time.process_time() - started
    seconds = {"products of the blocks": 0.0, "products of logits": 0.0}
    for shape, count in products(VERBOSE.read_text()).items():
        seconds["products of logits" if vocabulary in shape else "products of the blocks"] += cost(shape, count)
    VERBOSE.unlink()
    seconds |= {what: spent / rounds for what, spent in clock.seconds.items()}
    seconds["all else"] = whole / rounds - sum(seconds.values())
    seconds["the step"] = whole / rounds
    return [
        {"what": what, "seconds": spent / len(work), "share": spent * rounds / whole} for what, spent in seconds.items()
    ]


# Several processes


def share(args: argparse.Namespace) -> dict[str, float]:
    """What one process of several does: its rows of batches, of which a step has those of all."""
    group = mx.distributed.init()
    model = load(args)
    data = data_of(args, model)
    work = data.epoch(0, group.rank(), group.size())
    work = [work[i * len(work) // args.batches] for i in range(args.batches)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(args, model, data, folder)
        trainer.barrier = Barrier(group, Path(args.child))
        times = [take(trainer, work) for _ in range(args.rounds + 1)][1:]
    wall, cpu = (statistics.median(column) / len(work) for column in zip(*times, strict=True))
    return {"wall_s": wall, "cpu_s": cpu, "tokens": sum(batch.tokens for batch, _ in work) / len(work)}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def together(processes: int, arguments: Sequence[str]) -> dict[str, Any]:
    """One row: this script in so many processes, which MLX's ring connects."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder, "hosts.json")
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(processes)]))
        command = [sys.executable, __file__, *arguments, "--child", folder]
        several = {"MLX_HOSTFILE": str(hosts)} if processes > 1 else {}
        environments = [os.environ | several | {"MLX_RANK": str(rank)} for rank in range(processes)]
        running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for env in environments]
        found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    wall = max(one["wall_s"] for one in found)
    tokens, cpu = (sum(one[key] for one in found) for key in ("tokens", "cpu_s"))
    return {"processes": processes, "wall_s": wall, "cpu_s": cpu, "tokens": tokens, "per_second": tokens / wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="bundled:tiny-en-de", help="a model folder or hub id")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train an adapter instead of all weights")
    parser.add_argument("--data-dir", type=Path, help="a folder with Multi30k's train.en and train.de")
    parser.add_argument("--pairs", type=int, default=2000, help="of the data, at most")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--batches", type=int, default=4, help="steps that are taken in a round")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--recompute", action="store_true", help="with gradient checkpointing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(share(args)))
        return
    model = load(args)
    data = data_of(args, model)
    similar, mixed = data.epoch(0), in_any_order(data)
    tables: dict[str, Any] = {
        "padding": padding({"pairs of similar length": similar, "pairs of any length": mixed}, args.batch_tokens)
    }
    print(markdown(tables["padding"], PADDING), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(args, model, data, folder)
        chosen = spread(similar, args.batches)
        tables["steps"] = compare(trainer, chosen, spread(mixed, args.batches), args.rounds)
        print(markdown(tables["steps"], STEPS), end="\n\n", flush=True)
        if mkl():
            tables["profile"] = profile(trainer, chosen, vocabulary_of(model), args.rounds)
            print(markdown(tables["profile"], PROFILE), flush=True)
    if args.processes > 1:
        tables["processes"] = rows = [together(n, sys.argv[1:]) for n in (1, args.processes)]
        for row in rows:
            row["speed_up"] = row["per_second"] / rows[0]["per_second"]
            row["overhead"] = row["cpu_s"] / row["tokens"] * rows[0]["tokens"] / rows[0]["cpu_s"]
        print("\n" + markdown(rows, PROCESSES))
    save(args.json, {"command": " ".join(sys.argv)}, **tables)


def vocabulary_of(model: StreamingModel) -> int:
    """How many logits a position has."""
    caches = make_caches(model.model, 0, step=1)
    logits: mx.array = model.model(mx.array([[0]]), cache=[cache.source for cache in caches])
    return int(logits.shape[-1])


if __name__ == "__main__":
    main()
