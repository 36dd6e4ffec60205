"""One training of a write head, free of Hydra: a network learns from labels of cells, or by reward, and ``head/`` in
the run folder is what ``model.head_path=…`` takes. The model stays as it is."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.optimizers as optim
import numpy as np

from streamllm.data.joined import sentence_pairs
from streamllm.engine.paradigms.group import Group
from streamllm.engine.write_head import WriteHead
from streamllm.files import write_atomically
from streamllm.models import write_heads
from streamllm.models.loading import ModelConfig, find_model
from streamllm.models.settings import read_settings
from streamllm.prompt import Prompt
from streamllm.records import Example
from streamllm.runs import made_from
from streamllm.runs.environment import environment
from streamllm.runs.folder import METRICS, RunFolder
from streamllm.tracking.tracker import Guarded, RunInfo, Tracker
from streamllm.training.heads import by_reward
from streamllm.training.heads.cells import Measured
from streamllm.training.heads.labels.labels import OfCells, OfSentences, targets
from streamllm.training.heads.measured import CellConfig, measure
from streamllm.training.heads.network import BinaryCrossEntropy, CellData, HeadConfig, Network
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.objectives.grpo import GRPO
from streamllm.training.sources import Corpus

log = logging.getLogger(__name__)

HEAD, LABELS = "head", "labels"  # folders in that of the run


def train_head(
    config: Mapping[str, Any],
    name: str,
    model: ModelConfig,
    corpus: Corpus,
    validation_corpus: Corpus,
    labels: OfCells | OfSentences,
    head: HeadConfig,
    cells: CellConfig,
    training: TrainingConfig,
    tracker: Tracker,
    seed: int = 0,
    root: Path = Path("outputs"),
    prompt: Prompt | None = None,
    optimizer: optim.Optimizer | None = None,
    rerun: bool = False,
    write: bool = False,
    objective: GRPO | None = None,
) -> dict[str, Any]:
    """Train a head, or resume, and return its scores; a finished training only returns them.

    Args:
        config: the resolved configuration; it names the run folder.
        write: put the head beside the weights of the model, or of its adapter, too.
        objective: learn by reward instead of from labels, going on with the head that the model has (`GRPO`). Then
            ``labels``, ``head`` and ``cells`` are not used.
        rerun: train anew; a folder that is there is kept under another name.

    Raises:
        ValueError, FileNotFoundError: the data or the model cannot be had, or is not what a training that is there was
            begun with.
    """
    if training.dropout:
        raise ValueError(f"training.dropout is {training.dropout}, and a write head has none: leave it at 0")
    if objective is not None:
        by_reward.check(training, objective)
    run = RunFolder.of(config, name, root)
    if rerun and (aside := run.set_aside()) is not None:
        log.info("what was in %s is in %s now", run.path, aside)
    folder, adapter = find_model(model.path), Path(model.adapter_path) if model.adapter_path else None
    chosen = Path(model.head_path) if model.head_path else None
    model = replace(model, head_path=None)  # one that is there does not matter to the next one
    weights = write_heads.trained_on(folder, adapter)
    made = {
        "weights": {"trained_on": weights},
        **made_from.of_own_code(config),
        **made_from.of_part(labels),
        **made_from.of_data(corpus),
        **made_from.of_data(validation_corpus, "validation data"),
    }
    made_from.check(run, made)
    if not run.finished:
        start = None if objective is None else by_reward.start_of(folder, adapter, chosen)
        if start is not None:
            made |= by_reward.contents(start)
        learned, held_out = ([*sentence_pairs(one.load())] for one in (corpus, validation_corpus))
        made |= made_from.of_sentences(learned) | made_from.of_sentences(held_out, "validation sentences")
        made_from.check(run, made)
        guarded = Guarded(tracker)
        with run, guarded.finishing():
            run.begin(config, environment(), made, traces=False)
            streaming = model.load(prompt, corpus.source_unit, corpus.target_unit, Group())
            guarded.start(RunInfo(run.digest, run.path.name, run.path, config, job_type="train-head"))

            def measured(examples: Sequence[Example], what: str, labels: OfCells | OfSentences) -> Measured:
                def progress(done: int, of: int) -> None:
                    if done == of or done // 64 % 16 == 0:
                        log.info("%s: %d of %d pairs measured (%s)", what, done, of, labels.measures)

                kept = Path(cells.cache) if cells.cache else run.path / LABELS
                return measure(streaming, examples, labels, cells, kept, weights, seed, progress)

            facts: dict[str, Any] = {"run": run.path.name}
            if objective is None or start is None:
                of_learned = measured(learned, "training data", labels)
                of_held_out = measured(held_out, "validation data", getattr(labels, "of_validation", labels))
                found, scores = _by_labels(
                    run, of_learned, of_held_out, labels, head, training, optimizer, seed, guarded, made
                )
                facts["labels"] = type(labels).__name__.lower()
                if tags := cells.tags(streaming.prompt):
                    facts["latencies"] = tags
            else:
                how = training, optimizer, seed, guarded, made
                found, scores = by_reward.learn(run, streaming, learned, held_out, start, corpus, objective, *how)
                facts["objective"] = type(objective).__name__.lower()
            (run.path / HEAD).mkdir(exist_ok=True)
            write_heads.write(run.path / HEAD, found, weights, facts)
            write_atomically(run.path / METRICS, json.dumps(scores, indent=2) + "\n")
            guarded.summary(scores)
    scores = run.metrics()
    to = run.path / HEAD
    if write:
        beside = adapter or folder
        write_heads.write(beside, write_heads.read(to), weights, _facts(to))
        log.info("the head is beside the weights in %s: streamllm run policy=learned policy.threshold=0.5 …", beside)
    else:
        log.info("the head is in %s: streamllm run policy=learned policy.threshold=0.5 model.head_path=%s …", to, to)
    return scores


def _by_labels(
    run: RunFolder,
    learned: Measured,
    held_out: Measured,
    labels: OfCells | OfSentences,
    head: HeadConfig,
    training: TrainingConfig,
    optimizer: optim.Optimizer | None,
    seed: int,
    guarded: Guarded,
    made: Any,
) -> tuple[WriteHead, dict[str, Any]]:
    states = learned.states.astype(np.float32)
    deviation = states.std(axis=0)
    network = Network(states.mean(axis=0), np.where(deviation > 1e-6, deviation, 1), head.hidden, seed)
    of_learned = CellData(learned.states, targets(labels, learned), head.batch, seed)
    of_held_out = CellData(held_out.states, targets(labels, held_out), head.batch, seed)
    log.info(
        "%d cells, %d for validation; WRITE is right at %.1f and %.1f %% of them; %s",
        *(len(learned), len(held_out), *(100 * one.targets.mean() for one in (of_learned, of_held_out)), run.path),
    )
    trainer = Trainer(
        network,
        of_learned,  # type: ignore[arg-type]
        of_held_out.fixed(),  # type: ignore[arg-type]
        training,
        run.path,
        track=lambda line: guarded.log(line, step=int(line["step"])),
        optimizer=optimizer,
        objective=BinaryCrossEntropy(),
        contents=made,
    )
    trainer.run()
    found = network.head()
    logits = found(held_out.states.astype(np.float32))
    right = targets(labels, held_out)
    scores: dict[str, Any] = {
        "steps": trainer.step,
        "epochs": trainer.epoch,
        "cells": len(learned),
        "validation_cells": len(held_out),
        "validation_loss": trainer.loss_of_export,
        "validation_accuracy": float(((logits >= 0) == (right >= 0.5)).mean()),
        "validation_writes": float(right.mean()),
    }
    return found, scores


def _facts(head: Path) -> dict[str, Any]:
    said = dict(read_settings(head).write_head or {})
    said.pop("trained_on", None)
    return said
