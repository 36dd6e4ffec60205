"""What a training step costs, where its time goes, and what each optimisation of it saves.

    python scripts/bench_train.py [--model FOLDER] [--data-dir FOLDER] [--lora RANK] [--rounds 5] [--json FILE]
    python scripts/bench_train.py --processes 2      # also data parallel, by MLX's ring on this machine
    python scripts/bench_train.py --torch PYTHON     # also a loop in PyTorch: PYTHON has torch

Steps of the training loop itself, on pairs of Multi30k (without a folder, of the sample corpus). Every variant takes
the same batches, in turn and in rounds, one that does not count first, so that a noisy machine disturbs all alike.
Printed are medians of the rounds, and ratios of the first variant to the others, by CPU time: of a process with one
thread it is what wall time would be on an idle core.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmark import markdown, save

os.environ.setdefault("STREAMLLM_THREADS", "1")

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip
from bench_eval import load_dataset  # isort: skip  (loads streamllm too)
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from streamllm.cpu import exponentials, learner
from streamllm.cpu.mkl import Batch as Products
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.models.settings import SETTINGS
from streamllm.prompt import Prompt
from streamllm.training import loss
from streamllm.training.adapters import AdapterConfig
from streamllm.training.batch import Batch, pad
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.distributed import Barrier
from streamllm.training.documents import Documents
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.masks import visible
from streamllm.training.optimizers import Muon

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
    documents = Documents(sentences=[1, 1, 1, 1, 1, 1, 1, 2, 3, 5]) if args.documents else None
    return TrainingData(
        corpus.load(), model.prompt, DataConfig(batch_tokens=args.batch_tokens, documents=documents), seed=0
    )


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


def in_mlx() -> Any:
    """Forward and backward are mlx-lm's model."""
    return patched(learner, "applies", lambda model: False)


@contextmanager
def by_mlx() -> Iterator[None]:
    """Nor does an exponential come from numpy."""
    with in_mlx(), patched(exponentials, "on_cpu", lambda *arrays: False):
        yield


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
        "forward and backward by MLX": in_mlx,
        "exponentials by MLX, too": by_mlx,
        "cross-entropy by `mlx.nn`, too": plain,
        "all by MLX, `mx.compile`": compiling,
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
    return rows_of(times, {name: work for name, _, work in steps})


def rows_of(times: dict[str, list[tuple[float, float]]], work_of: dict[str, Sequence[Work]]) -> list[dict[str, Any]]:
    """Means of batches and medians of rounds but the first, and ratios of the first row to the others."""
    rows: list[dict[str, Any]] = []
    for name, work in work_of.items():
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
        """``function``, which evaluates its result itself."""

        def call(*args: Any) -> Any:
            started = time.process_time()
            result = function(*args)
            self.add(what, time.process_time() - started)
            return result

        return call


TIMED = {
    "products": (learner, "product"),
    "products of attention": (Products, "__call__"),
    "softmax": (learner, "softmax"),
    "SwiGLU": (learner, "swiglu"),
    "SwiGLU, gradient": (learner, "swiglu_back"),
    "norms": (learner.Learner, "normed"),
    "norms, gradient": (learner, "norm_back"),
    "rotary positions": (learner, "rotate"),
    "dropout's random numbers": (learner, "drawn"),
    "cross-entropy": (exponentials, "cross_entropy"),
}


def profile(trainer: Trainer, work: Sequence[Work], rounds: int) -> list[dict[str, Any]]:
    """A row for each kind of work in a step as it is, means of all steps."""
    clock, optimizing = Clock(), 0.0
    clip = optim.clip_grad_norm

    def clip_grad_norm(*args: Any) -> Any:  # where the optimizer's part of a step begins
        nonlocal optimizing
        optimizing = time.process_time()
        return clip(*args)

    with ExitStack() as stack:
        stack.enter_context(patched(optim, "clip_grad_norm", clip_grad_norm))
        for what, (owner, name) in TIMED.items():
            stack.enter_context(patched(owner, name, clock.timed(what, getattr(owner, name))))
        whole = 0.0
        for one in [*work] * rounds:
            started = time.process_time()
            trainer.train_step([one])
            clock.add("optimizer", time.process_time() - optimizing)
            whole += time.process_time() - started
    seconds = dict(clock.seconds)
    seconds["all else"] = whole - sum(seconds.values())
    seconds["the step"] = whole
    steps = rounds * len(work)
    return [{"what": what, "seconds": spent / steps, "share": spent / whole} for what, spent in seconds.items()]


# Against PyTorch


def beside_torch(
    python: str, model: StreamingModel, trainer: Trainer, work: Sequence[Work], rounds: int
) -> list[dict[str, Any]]:
    """A row for the steps as they are and one for `torch_training.py`, in turn.

    Raises: ValueError: both do not find the same losses.
    """
    arrays: dict[str, Any] = {"config": json.dumps(vars(model.model.args))}
    arrays |= {f"weights/{name}": np.array(value) for name, value in tree_flatten(model.model.parameters())}
    for number, (batch, _) in enumerate(work):
        parts = {"source": batch.source, "target": batch.target, "labels": batch.labels, "mask": whole_mask(batch)}
        arrays |= {f"{number}/{name}": part for name, part in parts.items()}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "model.npz"), **arrays)
        script = str(Path(__file__).with_name("torch_training.py"))
        command = [python, script, f"{folder}/model.npz", str(trainer.config.dropout)]
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        with subprocess.Popen(command, env=alone, **pipes) as process:
            assert process.stdin and process.stdout
            theirs = json.loads(process.stdout.readline())
            model.model.eval()
            ours = [np.array(trainer.objective(model.model, b, 0, "group", 0.1)) / labels for b, labels in work]
            if not np.allclose(ours, theirs, rtol=1e-3):
                raise ValueError(f"the losses are not equal: {ours} here, {theirs} in PyTorch")
            times: dict[str, list[tuple[float, float]]] = {"as it is": [], "PyTorch": []}
            for _ in range(rounds + 1):
                times["as it is"].append(take(trainer, work))
                process.stdin.write("step\n")
                times["PyTorch"].append(tuple(json.loads(process.stdout.readline())))
            process.stdin.close()
    return rows_of(times, dict.fromkeys(times, work))


def whole_mask(batch: Batch) -> np.ndarray:
    """(B, 1, S + T, S + T): which columns of source and target together each position sees."""
    source, target = batch.source.shape[1], batch.target.shape[1]
    mask = np.tile(np.tri(source + target, dtype=bool), (len(batch.k), 1, 1))
    mask[:, source:, :source] = visible(mx.array(batch.source_units), mx.array(batch.target_units), mx.array(batch.k))
    return mask[:, None]


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
    parser.add_argument("--documents", action="store_true", help="join pairs as experiment=tiny_en_de_documents does")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has torch: also its loop, of Qwen2's shape")
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
        if args.torch:
            tables["torch"] = beside_torch(args.torch, model, trainer, chosen, args.rounds)
            print(markdown(tables["torch"], STEPS), end="\n\n", flush=True)
        if learner.applies(model.model):
            tables["profile"] = profile(trainer, chosen, args.rounds)
            print(markdown(tables["profile"], PROFILE), flush=True)
    if args.processes > 1:
        tables["processes"] = rows = [together(n, sys.argv[1:]) for n in (1, args.processes)]
        for row in rows:
            row["speed_up"] = row["per_second"] / rows[0]["per_second"]
            row["overhead"] = row["cpu_s"] / row["tokens"] * rows[0]["tokens"] / rows[0]["cpu_s"]
        print("\n" + markdown(rows, PROCESSES))
    save(args.json, {"command": " ".join(sys.argv)}, **tables)


if __name__ == "__main__":
    main()
