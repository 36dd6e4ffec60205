"""A write head that goes on learning from rewards, after it has learned from labels."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.optimizers as optim
import numpy as np

from streamllm.contents import Contents, of_text
from streamllm.data.joined import each_alone
from streamllm.engine.limits import Limits
from streamllm.engine.write_head import WriteHead
from streamllm.models import write_heads
from streamllm.models.lengths import fitting
from streamllm.models.model import StreamingModel
from streamllm.policies import Learned
from streamllm.policies.bounded import bounded
from streamllm.records import Example
from streamllm.runs.folder import RunFolder
from streamllm.tracking.tracker import Guarded
from streamllm.training.heads.network import Network
from streamllm.training.heads.rollouts import PathData, Rollouts
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.objectives.grpo import GRPO
from streamllm.training.scores import Scores, of_policy
from streamllm.training.sources import Corpus

log = logging.getLogger(__name__)

SCORES = ("bleu", "laal", "dal")


def check(training: TrainingConfig, objective: Any) -> None:
    """Raises: ValueError: no write head can learn so."""
    if not isinstance(objective, GRPO):
        raise ValueError(
            f"objective is {type(objective).__name__}, and a write head learns from labels, where none is given, or "
            "by objective=grpo"
        )
    check_training(training)


def check_training(training: TrainingConfig) -> None:
    """Raises: ValueError: nothing can learn by reward so."""
    if training.label_smoothing:
        raise ValueError(f"training.label_smoothing is {training.label_smoothing}, and rewards are no labels: give 0")
    if training.patience or training.export == "best":
        raise ValueError(
            "training.patience and training.export=best go by BLEU, and a reward counts latency, too: leave them out"
        )


def start_of(folder: Path, adapter: Path | None, chosen: Path | None) -> WriteHead:
    """The head that the policy would ask. Raises: ValueError: there is none, or it is of other weights."""
    head = write_heads.head_of(folder, adapter, chosen)
    if head is None:
        raise ValueError(
            "objective=grpo goes on with a write head, and the model has none: train one from labels (streamllm "
            "train-head, without objective), and give the folder that it writes as model.head_path"
        )
    return head


def sharpened(head: WriteHead, threshold: float, temperature: float) -> WriteHead:
    """A head whose probability is one half where that of ``head`` is ``threshold``, its logits over ``temperature``."""
    (weight, bias), shift = head.layers[-1], math.log(threshold) - math.log1p(-threshold)
    last = (weight / temperature).astype(np.float32), ((bias - shift) / temperature).astype(np.float32)
    return WriteHead([*head.layers[:-1], last])


def contents(head: WriteHead) -> Contents:
    """A digest of the head that training begins with."""
    return {"write head": {"start": of_text(*(array.tobytes().hex() for layer in head.layers for array in layer))}}


def learn(
    run: RunFolder,
    model: StreamingModel,
    learned: Sequence[Example],
    held_out: Sequence[Example],
    start: WriteHead,
    corpus: Corpus,
    objective: GRPO,
    training: TrainingConfig,
    optimizer: optim.Optimizer | None,
    seed: int,
    guarded: Guarded,
    made: Contents,
) -> tuple[WriteHead, dict[str, Any]]:
    """The head and its scores; those of the start stand beside them, with ``start_``.

    Raises: ValueError: no sentence is left to learn from, or to validate with.
    """
    limits = Limits().between(corpus.source_unit, corpus.target_unit, learned)
    pairs, kept = (usable(model, one, limits, what) for one, what in ((learned, "dataset"), (held_out, "validation")))
    start = sharpened(start, objective.threshold, objective.temperature)
    network = Network.of(start)
    language, tokenizer = corpus.target_language, getattr(corpus, "bleu_tokenizer", None)
    rollouts = Rollouts(model, start, objective, limits, seed, language, tokenizer)

    def scores(head: WriteHead) -> Scores:
        model.write_head = head
        policy = bounded(Learned(0.5), max_lag=objective.max_lag)
        target = language, corpus.target_unit, tokenizer
        return of_policy(model, kept, policy, limits, objective.batch_size, SCORES, *target, seed)

    log.info(
        "%d sentences, %d for validation; %d paths of each, %d sentences a step. loss: minus the reward, on paths that "
        "are drawn; %s: what policy=learned policy.threshold=0.5 does; %s",
        *(len(pairs), len(kept), objective.samples, objective.sentences, ", ".join(SCORES), run.path),
    )
    trainer = Trainer(
        network,
        PathData(rollouts, network, pairs),  # type: ignore[arg-type]
        PathData(rollouts, network, kept).fixed(),  # type: ignore[arg-type]
        training,
        run.path,
        score=lambda _: scores(network.head()),
        track=lambda line: guarded.log(line, step=int(line["step"])),
        optimizer=optimizer,
        objective=objective,
        contents=made,
    )
    trainer.run()
    head, before = network.head(), Network.of(start)
    losses = [objective(before, batch, 0, "group", 0.0) for batch in PathData(rollouts, before, kept).fixed()]
    found: dict[str, Any] = {
        "steps": trainer.step,
        "epochs": trainer.epoch,
        "sentences": len(pairs),
        "validation_sentences": len(kept),
        "validation_loss": trainer.loss_of_export,
        **scores(head),
        "start_validation_loss": sum(float(loss) for loss in losses) / len(kept),
    }
    return head, found | {f"start_{name}": value for name, value in scores(start).items()}


def usable(model: StreamingModel, examples: Sequence[Example], limits: Limits, what: str) -> list[Example]:
    """Single sentences that have a reward: both sides say something, and no unit is too long."""
    alone = [one for one in each_alone(examples) if one.source.strip() and one.reference.strip()]
    found = fitting(model, alone, limits, skip=True)
    if not found:
        raise ValueError(f"no sentence pair of {what} is left: all are empty on one side, or too long")
    return found
