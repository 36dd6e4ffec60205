"""The training loop: one process or several (MLX's distributed layer), exact resume.

Invariant: everything random at step n follows from (seed, n), so a checkpoint holds weights, optimizer
state and three counters, and the loss curve of a resumed training is the uninterrupted one.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.nn.utils import average_gradients
from mlx.utils import tree_flatten, tree_unflatten

from streamllm.runs import write_atomically
from streamllm.training.data import Batch, TrainingData
from streamllm.training.distributed import Barrier
from streamllm.training.dropout import add_dropout
from streamllm.training.objective import loss

log = logging.getLogger(__name__)
Log = Callable[[dict[str, Any]], None]
Score = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to learn.

    Args:
        warmup_steps: steps over which the rate rises from 0 to ``learning_rate``; then it falls along a
            cosine to ``final_rate`` times that at the end of the last epoch.
        clip: largest L2 norm of the gradient.
        checkpoint_every, log_every: in steps.
        score_every: in epochs; a validation loss is computed after each epoch.
        patience: scores in a row without a new best before training ends early; 0 for never.
        average: how many of the last epochs' weights are averaged at the end (of those up to the best score, if
            there is patience).
    """

    epochs: int = 20
    learning_rate: float = 2e-3
    warmup_steps: int = 400
    final_rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.1
    dropout: float = 0.1
    checkpoint_every: int = 100
    log_every: int = 20
    score_every: int = 2
    patience: int = 0
    average: int = 5

    def __post_init__(self) -> None:
        for name in ("epochs", "checkpoint_every", "log_every", "score_every", "average"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}; it is at least 1")
        if self.learning_rate <= 0:
            raise ValueError(f"training.learning_rate is {self.learning_rate}; it is above 0")


class Trainer:
    """Trains ``model`` in place.

    Args:
        model: an mlx-lm model in float32.
        validation: batches for the validation loss.
        folder: checkpoints and ``train.jsonl`` go here; a training found here is resumed.
        paradigm: whose mask is trained, "group" or "interleaved" (`objective.forward`).
        score: computes {"bleu": …} for a model, slower than a loss; decides about early stopping.
        track: also gets every logged line (a tracker).
        group: of a distributed training; the gradient is that of all processes' rows together.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        validation: Sequence[Batch],
        config: TrainingConfig,
        folder: Path,
        score: Score | None = None,
        track: Log | None = None,
        group: mx.distributed.Group | None = None,
        target_start: int = 0,
        paradigm: str = "group",
    ):
        self.model, self.data, self.validation = model, data, validation
        self.config, self.folder = config, folder
        self.score, self.track = score, track
        self.group = group or mx.distributed.init()
        self.rank, self.world = self.group.rank(), self.group.size()
        self.target_start, self.paradigm = target_start, paradigm
        self.optimizer = optim.AdamW(
            config.learning_rate, betas=list(config.betas), eps=1e-9, weight_decay=config.weight_decay
        )
        self.optimizer.init(model.trainable_parameters())
        self.step = self.epoch = self.batch = 0
        self.best: dict[str, float] = {}
        self.since_best = 0
        add_dropout(model, config.dropout)
        self._grad = nn.value_and_grad(model, loss)

    # One step

    def train_step(self, batch: Batch, labels: int) -> tuple[float, float]:
        """Learn from this process's rows of a batch that has ``labels`` labels in all processes together.

        Returns: this process's mean loss in nats (label smoothing included) and the norm of the gradient.
        """
        self.model.train()
        mx.random.seed(hash((self.data.seed, self.step, self.rank)) & 0x7FFFFFFF)
        # average_gradients divides by the number of processes.
        total, grads = self._grad(self.model, batch, self.config.label_smoothing, self.target_start, self.paradigm)
        scale = self.world / labels
        grads = _map(lambda g: g * scale, grads)
        if self.world > 1:
            mx.eval(grads)
            self.barrier.wait()
            grads = average_gradients(grads, self.group)
        grads, norm = optim.clip_grad_norm(grads, self.config.clip)
        self.optimizer.update(self.model, grads)
        mx.eval(self.model.trainable_parameters(), self.optimizer.state, total, norm)
        return _float(total) / int((batch.labels >= 0).sum()), _float(norm)

    def rate(self, progress: float) -> float:
        """Learning rate at the current step; ``progress`` is the share of the epochs that is done."""
        c = self.config
        cosine = c.final_rate + (1 - c.final_rate) * (1 + math.cos(math.pi * min(progress, 1))) / 2
        return c.learning_rate * cosine * min(1.0, (self.step + 1) / max(c.warmup_steps, 1))

    # The loop

    def run(self) -> dict[str, float]:
        """Train to the end or resume; return the best scores. The model ends with the averaged weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.barrier = Barrier(self.group, self.folder)
        self._resume()
        while self.epoch < self.config.epochs and not self._out_of_patience():
            self._run_epoch()
            self._end_epoch()
        self._average()
        return self.best

    def _run_epoch(self) -> None:
        started, tokens, losses = time.perf_counter(), 0, []
        batches = self.data.epoch(self.epoch, self.rank, self.world)
        while self.batch < len(batches):
            batch, labels = batches[self.batch]
            rate = self.rate((self.epoch + self.batch / len(batches)) / self.config.epochs)
            self.optimizer.learning_rate = rate
            mean, norm = self.train_step(batch, labels)
            self.step, self.batch = self.step + 1, self.batch + 1
            tokens += batch.source.size + batch.target.size
            losses.append(mean)
            if self.step % self.config.log_every == 0:
                seconds = time.perf_counter() - started
                self._log(
                    step=self.step,
                    epoch=round(self.epoch + self.batch / len(batches), 4),
                    loss=sum(losses) / len(losses),
                    learning_rate=rate,
                    gradient_norm=norm,
                    tokens_per_second=round(self.world * tokens / seconds),
                )
                started, tokens, losses = time.perf_counter(), 0, []
            if self.step % self.config.checkpoint_every == 0:
                self._save()
        self.epoch, self.batch = self.epoch + 1, 0

    def _end_epoch(self) -> None:
        line: dict[str, float] = {"validation_loss": self.validation_loss()}
        if self.score and (self.epoch % self.config.score_every == 0 or self.epoch == self.config.epochs):
            line |= self._scores()
            if line["bleu"] > self.best.get("bleu", -1.0):
                self.best, self.since_best = line | {"epoch": self.epoch}, 0
            else:
                self.since_best += 1
        if self.rank == 0:
            self._write(self.folder / f"epoch-{self.epoch:03d}.safetensors", self._weights())
        self._log(step=self.step, epoch=self.epoch, **line)
        self._save()

    def validation_loss(self) -> float:
        """Mean cross-entropy of a validation label in nats, without label smoothing or dropout."""
        self.model.eval()
        sums = [0.0, 0.0]
        for batch in self.validation[self.rank :: self.world]:
            sums[0] += _float(loss(self.model, batch, 0.0, self.target_start, self.paradigm))
            sums[1] += float((batch.labels >= 0).sum())
        self.barrier.wait()
        total = mx.distributed.all_sum(mx.array(sums), group=self.group)
        return _float(total[0] / total[1])

    def _scores(self) -> dict[str, float]:
        """Scores as computed by the first process, known to all."""
        assert self.score is not None
        self.model.eval()
        scores = self.score(self.model) if self.rank == 0 else {"bleu": 0.0}
        self.barrier.wait()
        bleu = mx.distributed.all_sum(mx.array(scores["bleu"]), group=self.group)
        return scores | {"bleu": _float(bleu)}

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.since_best

    def _average(self) -> None:
        """Give the model the mean of the last epochs' weights; with early stopping, of those up to the best."""
        last = int(self.best["epoch"]) if self.config.patience and self.best else self.epoch
        paths = sorted(self.folder.glob("epoch-*.safetensors"))[:last][-self.config.average :]
        every: list[Any] = [mx.load(str(path)) for path in paths]
        mean = {name: sum(w[name] for w in every) / len(every) for name in every[0]}
        self.model.load_weights(list(mean.items()), strict=False)
        self.model.eval()
        self._log(step=self.step, averaged=len(paths), validation_loss=self.validation_loss())

    # Files

    def _weights(self) -> dict[str, mx.array]:
        return dict(tree_flatten(self.model.trainable_parameters()))

    def _save(self) -> None:
        if self.rank:
            return
        arrays = {f"model.{name}": value for name, value in self._weights().items()}
        arrays |= {f"optimizer.{name}": v for name, v in tree_flatten(self.optimizer.state)}
        counters = {"step": self.step, "epoch": self.epoch, "batch": self.batch}
        counters |= {"best": self.best, "since_best": self.since_best}  # type: ignore[dict-item]
        self._write(self.folder / "last.safetensors", arrays, {"counters": json.dumps(counters)})

    def _write(self, path: Path, arrays: dict[str, mx.array], metadata: dict[str, str] | None = None) -> None:
        part = path.with_name(f"part-{path.name}")
        mx.save_safetensors(str(part), arrays, metadata or {})
        os.replace(part, path)

    def _resume(self) -> None:
        path = self.folder / "last.safetensors"
        if not path.exists():
            return
        loaded: Any = mx.load(str(path), return_metadata=True)
        arrays, metadata = loaded
        weights = [(n.removeprefix("model."), a) for n, a in arrays.items() if n.startswith("model.")]
        self.model.load_weights(weights, strict=False)
        state = [(n.removeprefix("optimizer."), a) for n, a in arrays.items() if n.startswith("optimizer.")]
        self.optimizer.state = tree_unflatten(state)
        counters = json.loads(metadata["counters"])
        self.step, self.epoch, self.batch = counters["step"], counters["epoch"], counters["batch"]
        self.best, self.since_best = counters["best"], counters["since_best"]
        log.info("resuming %s at step %d, epoch %d", self.folder, self.step, self.epoch)
        lines = self.folder / "train.jsonl"
        if self.rank == 0 and lines.exists():  # forget what was logged after the checkpoint
            kept = [line for line in lines.read_text().splitlines() if _logged_step(line) <= self.step]
            write_atomically(lines, "".join(f"{line}\n" for line in kept))

    def _log(self, **line: Any) -> None:
        if self.rank:
            return
        log.info(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items()))
        with (self.folder / "train.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.track:
            self.track(line)


def _logged_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # a line cut off by a kill
        return math.inf


def _float(array: mx.array) -> float:
    return float(array.item())  # type: ignore[arg-type]


def _map(function: Callable[[mx.array], mx.array], tree: Any) -> Any:
    return tree_unflatten([(name, function(value)) for name, value in tree_flatten(tree)])
