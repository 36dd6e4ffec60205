"""The training loop: one process or several (MLX's distributed layer), exact resume.

Invariant: everything random at step n follows from (seed, n), so a checkpoint holds what is trained, the optimizer's
state and some counters, and the loss curve of a resumed training is the uninterrupted one.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.nn.utils import average_gradients
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from streamllm.check import number, whole_number
from streamllm.contents import Contents
from streamllm.cpu import learner
from streamllm.cpu.adam import step_by_numpy
from streamllm.engine.finite import NotFinite
from streamllm.files import open_to_write, read_bytes, write_atomically
from streamllm.training import checkpoint
from streamllm.training.batch import Batch
from streamllm.training.checkpoint import Checkpoint
from streamllm.training.data import TrainingData
from streamllm.training.distributed import Barrier
from streamllm.training.dropout import add_dropout
from streamllm.training.masters import Masters, wide
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.objectives.objective import Objective
from streamllm.training.recompute import recompute_blocks
from streamllm.training.schedules import SCHEDULES, factor

log = logging.getLogger(__name__)
Log = Callable[[dict[str, Any]], None]
Score = Callable[[nn.Module], dict[str, float | None]]
CHECKPOINT = "last.safetensors"
EXPORTS = ("average", "last", "best")
COUNTERS = ("step", "epoch", "block", "batch", "best", "since_best", "validated_at", "kept", "lines")


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to learn.

    Args:
        epochs: how many times the corpus is gone through.
        steps: after how many steps training ends, whatever ``epochs`` says; None for the end of the last epoch.
        learning_rate: the highest, after the warm-up.
        warmup_steps: steps over which the rate rises from 0 to ``learning_rate``.
        schedule: how it falls from there to ``final_rate`` times that at the end: "cosine", "linear", "inverse_sqrt" or
            "constant".
        final_rate: the last learning rate, as a share of ``learning_rate``.
        clip: largest L2 norm of the gradient.
        accumulate: batches whose gradients make one step. The last step of an epoch may have fewer.
        gradient_checkpointing: compute activations twice and keep few of them, for want of memory.
        label_smoothing: the share of the probability that the loss gives to all tokens evenly.
        dropout: the share of numbers that are set to zero between layers while training.
        checkpoint_every: steps between two checkpoints, from one of which a training goes on.
        log_every: steps between two lines of ``train.jsonl``.
        validate_every: steps between two validations, which compute a loss; None for the end of each epoch.
        score_every: one in so many validations also translates, for BLEU and AL.
        patience: scores in a row without a new best before training ends early; 0 for never.
        average: how many of the last validations' weights are averaged at the end (of those up to the best score, if
            there is patience).
        export: which weights the training ends with, and writes: "average" is the mean that ``average`` says, "last"
            the weights of the last validation, "best" those of the best BLEU.
    """

    epochs: int = 20
    steps: int | None = None
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    warmup_steps: int = 400
    final_rate: float = 0.02
    clip: float = 1.0
    accumulate: int = 1
    gradient_checkpointing: bool = False
    label_smoothing: float = 0.1
    dropout: float = 0.1
    checkpoint_every: int = 100
    log_every: int = 20
    validate_every: int | None = None
    score_every: int = 2
    patience: int = 0
    average: int = 5
    export: str = "average"

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "checkpoint_every", "log_every", "score_every", "average"):
            whole_number(f"training.{name}", getattr(self, name), of="")
        for name in ("steps", "validate_every"):
            whole_number(f"training.{name}", getattr(self, name), of="", null="")
        for name in ("warmup_steps", "patience"):
            whole_number(f"training.{name}", getattr(self, name), 0, of="")
        number("training.learning_rate", self.learning_rate, above=0)
        number("training.clip", self.clip, above=0, infinite=True)  # which clips nothing
        for name in ("label_smoothing", "dropout"):
            number(f"training.{name}", getattr(self, name), least=0, below=1)
        number("training.final_rate", self.final_rate, least=0)
        if self.export not in EXPORTS:
            raise ValueError(f"training.export is {self.export!r}; accepted are {', '.join(EXPORTS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"training.schedule is {self.schedule!r}; accepted are {', '.join(SCHEDULES)}")


class Trainer:
    """Trains ``model`` in place.

    Args:
        model: an mlx-lm model; what of it is not frozen learns.
        validation: batches for the validation loss.
        folder: checkpoints and ``train.jsonl`` go here; a training found here is resumed.
        optimizer: its learning rate is set at every step. None is AdamW.
        paradigm: whose mask is trained, "group" or "interleaved" (`streamllm.training.loss.forward`).
        objective: what is made small; validation also goes by it.
        score: computes {"bleu": …} for a model, slower than a loss; decides about early stopping. None where something
            is not defined, as a lag where nothing was written; a BLEU that is None is never the best.
        track: also gets every logged line (a tracker).
        contents: what this training is made from; a checkpoint is gone on from where that is the same.
        group: of a distributed training; the gradient is that of all processes' rows together.

    ``mx.compile`` is not used: on a CPU the exponentials come from numpy (`streamllm.cpu.exponentials`), which
    cannot be compiled and saves more; and batches differ in shape, so that each would be compiled anew.
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
        optimizer: optim.Optimizer | None = None,
        objective: Objective = CrossEntropy(),
        contents: Contents | None = None,
    ):
        if data.count is None and not config.steps:
            raise ValueError(
                "data.buffer streams the corpus, so nobody knows how long an epoch is: give training.steps, or "
                "data.cache=FOLDER for its tokens"
            )
        self.model, self.data, self.validation = model, data, validation
        self.config, self.folder = config, folder
        self.score, self.track, self.contents = score, track, contents
        self.group = group or mx.distributed.init()
        self.rank, self.world = self.group.rank(), self.group.size()
        self.target_start, self.paradigm, self.objective = target_start, paradigm, objective
        self.optimizer = optimizer or optim.AdamW(config.learning_rate, betas=[0.9, 0.98], eps=1e-9)
        step_by_numpy(self.optimizer)
        self.masters = Masters(model)
        self.optimizer.init(self.masters.weights)
        self.step = self.epoch = self.block = self.batch = 0  # steps made, and what comes next in the data
        self.best: dict[str, float] = {}
        self.since_best = 0
        self.validated_at = 0  # step
        self.kept: list[str] = []  # the file of each validation's weights
        self.lines = 0  # of train.jsonl
        self.at: float = 0  # how many epochs are done, the begun one in part, as far as this process has seen
        self.loss_of_export = math.nan
        self.exported: list[str] = []  # the files of the weights that the model ends with
        self.window = _Window()
        add_dropout(model, config.dropout)
        if config.gradient_checkpointing:
            recompute_blocks(model)
        self._grad = nn.value_and_grad(model, objective)

    # One step

    def train_step(self, batches: Sequence[tuple[Batch, int]]) -> tuple[float, float]:
        """Learn from this process's rows of some batches, each with its labels in all processes together, as if
        they were one.

        Returns: this process's mean loss in nats (label smoothing included) and the norm of the gradient.

        Raises:
            NotFinite: one of them is not finite, before anything has changed.
        """
        self.model.train()
        mx.random.seed(hash((self.data.seed, self.step, self.rank)) & 0x7FFFFFFF)
        # average_gradients divides by the number of processes.
        scale = self.world / sum(labels for _, labels in batches)
        grads: Any = None
        sums = [0.0, 0]
        for batch, _ in batches:
            total, now = self._grad(self.model, batch, self.target_start, self.paradigm, self.config.label_smoothing)
            now = _map(lambda g: wide(g) * scale, now)
            grads = now if grads is None else tree_map(mx.add, grads, now)
            mx.eval(total, grads)
            sums[0] += _float(total)
            sums[1] += int((batch.labels >= 0).sum())
        loss = sums[0] / sums[1]
        if self.world > 1:
            if not math.isfinite(loss):  # a gradient may be finite all the same, and all processes are to stop
                grads = _map(lambda g: g * math.nan, grads)
            self.barrier.wait()
            grads = average_gradients(grads, self.group)
        grads, gradient_norm = optim.clip_grad_norm(grads, self.config.clip)
        norm = _float(gradient_norm)
        self._check("loss", loss)
        self._check("norm of the gradient", norm)
        self.masters.set(self.optimizer.apply_gradients(grads, self.masters.weights))
        mx.eval(self.masters.weights, self.model.trainable_parameters(), self.optimizer.state)
        return loss, norm

    def _check(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        last = self.folder / CHECKPOINT
        kept = f"the last checkpoint stays in {last}" if last.exists() else "there is no checkpoint yet"
        raise NotFinite(
            f"the {what} is {value:g} at step {self.step + 1}, so training ends ({kept}): try a lower "
            "training.learning_rate, more training.warmup_steps or model.dtype=float32, and look at that step's data"
        )

    def rate(self, progress: float) -> float:
        """Learning rate at the current step; ``progress`` is the share of the training that is done."""
        c = self.config
        return c.learning_rate * factor(c.schedule, self.step, progress, c.warmup_steps, c.final_rate)

    # The loop

    def run(self) -> dict[str, float]:
        """Train to the end or resume; return the best scores. The model ends with the averaged weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.barrier = Barrier(self.group, self.folder)
        self._resume()
        self._started = time.perf_counter()
        while not self._ended():
            self._run_epoch()
        if self.window.losses:  # the last steps, of a short training all of them
            self._log(step=self.step, epoch=self.at, **self.window.figures())
        if self.validated_at < self.step:
            self._validate(last=True)
        self._average()
        return self.best

    def _run_epoch(self) -> None:
        before = self.step
        for batches in self.data.blocks(self.epoch, self.block, self.rank, self.world):
            while self.batch < len(batches):
                if self.step == 0:
                    self._warn_of_warmup(len(batches))
                self._run_step(batches)
                if self._ended():
                    return
            self.block, self.batch = self.block + 1, 0
        if self.step == before == 0:
            raise ValueError("no sentence pair is left to train on: see data.max_tokens and the data set")
        self.epoch, self.block = self.epoch + 1, 0
        self.at = self.epoch
        if self.config.validate_every is None:
            self._validate(last=self._reached(self.epoch))

    def _run_step(self, batches: Sequence[tuple[Batch, int]]) -> None:
        c = self.config
        now = batches[self.batch : self.batch + c.accumulate]
        rate = self.rate(self.step / c.steps if c.steps else self._epochs(len(batches)) / c.epochs)
        self.optimizer.learning_rate = rate
        mean, norm = self.train_step(now)
        self.step, self.batch = self.step + 1, self.batch + len(now)
        self.at = round(self._epochs(len(batches)), 4)
        self.window.add(mean, [batch for batch, _ in now])
        if self.step % c.log_every == 0:
            seconds = time.perf_counter() - self._started
            line = self.window.figures() | {"learning_rate": rate, "gradient_norm": norm}
            line["tokens_per_second"] = round(self.world * self.window.tokens_since_start / seconds)
            line["peak_memory_gb"] = round((mx.get_peak_memory() + learner.held()) / 1e9, 3)
            self._log(step=self.step, epoch=self.at, **line)
            self.window, self._started = _Window(), time.perf_counter()
        if c.validate_every and self.step % c.validate_every == 0:
            self._validate(last=self._reached(self._epochs(len(batches))))  # not of `at`, which is rounded
        elif self.step % c.checkpoint_every == 0:
            self._save()

    def _warn_of_warmup(self, batches: int) -> None:
        """Say that the rate never rises to what was asked for; ``batches`` are those of the first block."""
        c = self.config
        steps = c.steps or (math.ceil(batches / c.accumulate) * (self.data.count or 1) * c.epochs)
        if c.warmup_steps >= steps and not self.rank:
            log.warning(
                "training.warmup_steps is %d, and the training has %s%d steps, so its rate does not reach "
                "training.learning_rate: give fewer steps of warm-up, or a longer training",
                *(c.warmup_steps, "" if c.steps else "about ", steps),
            )

    def _epochs(self, batches: int) -> float:
        """How many are done, where a block has so many batches; whole ones, where nobody knows their length."""
        return self.epoch + (self.block + self.batch / batches) / self.data.count if self.data.count else self.epoch

    def _ended(self) -> bool:
        return self._reached(self.epoch) or 0 < self.config.patience <= self.since_best

    def _reached(self, epochs: float) -> bool:
        """Whether there is nothing left to learn after so many epochs."""
        return self.step >= self.config.steps if self.config.steps else epochs >= self.config.epochs

    def _validate(self, last: bool) -> None:
        """Log a validation loss, and scores where it is their turn or this is the ``last``; keep the weights; save a
        checkpoint."""
        started = time.perf_counter()
        line: dict[str, Any] = {"validation_loss": self.validation_loss()}
        self._check("validation loss", line["validation_loss"])
        number = len(self.kept) + 1
        if self.score and (number % self.config.score_every == 0 or last):
            line |= self._scores()
            if line["bleu"] is not None and line["bleu"] > self.best.get("bleu", -1.0):
                self.best, self.since_best = line | {"epoch": self.at, "validation": number}, 0
            else:
                self.since_best += 1
        whole = self.block == self.batch == 0
        self.kept.append(f"epoch-{self.epoch:03d}.safetensors" if whole else f"step-{self.step:07d}.safetensors")
        if self.rank == 0:
            checkpoint.write(self.folder / self.kept[-1], self._weights())
        self.validated_at = self.step
        self._log(step=self.step, epoch=self.at, **line)
        self._save()
        self._started += time.perf_counter() - started

    def validation_loss(self) -> float:
        """Mean of the objective over the validation labels in nats, without label smoothing or dropout."""
        self.model.eval()
        sums = [0.0, 0.0]
        for batch in self.validation[self.rank :: self.world]:
            sums[0] += _float(self.objective(self.model, batch, self.target_start, self.paradigm, 0.0))
            sums[1] += float((batch.labels >= 0).sum())
        self.barrier.wait()
        total = mx.distributed.all_sum(mx.array(sums), group=self.group)
        return _float(total[0] / total[1])

    def _scores(self) -> dict[str, float | None]:
        """Scores as computed by the first process, known to all."""
        assert self.score is not None
        self.model.eval()
        scores = self.score(self.model) if self.rank == 0 else {"bleu": 0.0}
        self.barrier.wait()
        own = math.nan if scores["bleu"] is None else scores["bleu"]
        bleu = _float(mx.distributed.all_sum(mx.array(own), group=self.group))
        return scores | {"bleu": None if math.isnan(bleu) else bleu}

    def _ends_with(self, kept: Sequence[str]) -> list[str]:
        """The files of the weights whose mean the model ends with, as ``training.export`` says, of those that the
        validations so far have ``kept``."""
        best = int(self.best["validation"]) if self.best else len(kept)
        if self.config.export != "average":
            return list(kept[-1:] if self.config.export == "last" else kept[max(0, best - 1) : best])
        return list(kept[: best if self.config.patience else None][-self.config.average :])

    def lowest(self) -> float:
        """The lowest validation loss, as ``train.jsonl`` of the first process has them; that of the weights which the
        model ends with is not among them."""
        lines = [json.loads(line) for line in read_bytes(self.folder / "train.jsonl").splitlines()]
        return min(
            float(line["validation_loss"]) for line in lines if "averaged" not in line and "validation_loss" in line
        )

    def _average(self) -> None:
        """Give the model the mean of the weights that `_ends_with` names."""
        names = self.exported = self._ends_with(self.kept)
        self.barrier.meet()  # the first process may still be writing the last of them
        every = [checkpoint.read(self.folder / name, self.masters.weights) for name in names]
        mean = {name: sum(w[name] for w in every) / len(every) for name in every[0]}
        self.masters.set(tree_unflatten([*mean.items()]))
        self.model.eval()
        validation_loss = self.validation_loss()
        self._check("validation loss of the averaged weights", validation_loss)
        self._log(step=self.step, averaged=len(names), validation_loss=validation_loss)
        self.loss_of_export = validation_loss

    # Files

    def _weights(self) -> dict[str, mx.array]:
        return dict(tree_flatten(self.masters.weights))

    def _save(self) -> None:
        if self.rank:
            return
        counters = {name: getattr(self, name) for name in COUNTERS} | {"window": asdict(self.window)}
        counters |= {"world": self.world, "data": self.data.source.digest, "contents": self.contents}
        state = Checkpoint(self._weights(), self.optimizer.state, counters)
        checkpoint.save(self.folder / CHECKPOINT, state)

    def _resume(self) -> None:
        path, lines = self.folder / CHECKPOINT, self.folder / "train.jsonl"
        if not path.exists():
            if self.rank == 0:
                lines.unlink(missing_ok=True)  # logged before a checkpoint was made
            return
        state = self.masters.weights, self.optimizer.state
        found = checkpoint.load(path, self.world, self.data.source.digest, *state, self.contents)
        self.masters.set(tree_unflatten([*found.weights.items()]))
        self.optimizer.state = found.optimizer
        for name in COUNTERS:
            setattr(self, name, found.counters[name])
        self._check_kept(self.kept)
        self.window = _Window(**found.counters["window"] | {"tokens_since_start": 0})
        self.at = self.epoch
        log.info("resuming %s at step %d, after %d whole epochs", self.folder, self.step, self.epoch)
        if self.rank == 0 and lines.exists():  # forget what was logged after the checkpoint
            write_atomically(lines, b"".join(read_bytes(lines).splitlines(keepends=True)[: self.lines]))

    def _check_kept(self, names: Sequence[str]) -> None:
        """Raises: ValueError: weights of a validation are gone, of which the end needs the mean."""
        needed = self._ends_with(names)
        if missing := [name for name in needed if not (self.folder / name).is_file()]:
            raise ValueError(
                f"{self.folder / missing[0]} is gone, and training ends with the mean of such weights: restore it, or "
                "begin anew with rerun=true"
            )

    def _log(self, **line: Any) -> None:
        self.lines += 1
        if self.rank:
            return
        log.info(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items()))
        with open_to_write(self.folder / "train.jsonl", "ab") as file:
            file.write(f"{json.dumps(line)}\n".encode())
        if self.track:
            self.track(line)


@dataclass
class _Window:
    """What has been learned since the last logged line; part of a checkpoint, so that the next line is whole."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    padding: int = 0
    tokens_since_start: int = 0  # of this process

    def add(self, mean: float, batches: Sequence[Batch]) -> None:
        self.losses.append(mean)
        for batch in batches:
            self.tokens += batch.tokens
            self.tokens_since_start += batch.tokens
            self.padding += batch.padding

    def figures(self) -> dict[str, float]:
        return {
            "loss": sum(self.losses) / len(self.losses),
            "padding": round(self.padding / self.tokens, 4),
        }


def _float(array: mx.array) -> float:
    return float(array.item())  # type: ignore[arg-type]


def _map(function: Callable[[mx.array], mx.array], tree: Any) -> Any:
    return tree_unflatten([(name, function(value)) for name, value in tree_flatten(tree)])
