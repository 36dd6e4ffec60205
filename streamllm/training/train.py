"""One training from data to a model folder, free of Hydra. What it leaves is ``model/`` in the run folder, which
``model=folder model.path=…`` takes as it is, or ``adapter/``, which ``model.adapter_path=…`` does."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from streamllm.check import whole_number
from streamllm.contents import of_file, of_folder
from streamllm.data.joined import each_alone, sentence_pairs
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm
from streamllm.engine.positions import PositionError
from streamllm.files import new_folder, write_atomically
from streamllm.models import write_heads
from streamllm.models.languages import Languages
from streamllm.models.loading import TOKENIZER_FILES, ModelConfig, find_model
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example
from streamllm.runs import made_from
from streamllm.runs.environment import environment
from streamllm.runs.folder import METRICS, RunFolder
from streamllm.tracking.tracker import Guarded, NullTracker, RunInfo, Tracker
from streamllm.training import by_reward
from streamllm.training.adapters import AdapterConfig
from streamllm.training.bpe import BPEDropout
from streamllm.training.by_reward import Learning
from streamllm.training.data import DataConfig, TrainingData, values_of_k
from streamllm.training.export import export_checkpoint, write_adapter, write_model
from streamllm.training.fresh import FreshModel
from streamllm.training.grown import GrownModel
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.objectives.grpo import GRPO
from streamllm.training.objectives.grpo_model import ModelGRPO
from streamllm.training.objectives.objective import Objective
from streamllm.training.scores import of_wait_k, to_be_scored
from streamllm.training.sources import Buffered, Corpus, Source, TokenFiles, Whole, token_files

log = logging.getLogger(__name__)

START = "start"  # a fresh model before its first step, in the run folder


@dataclass(frozen=True)
class ValidationConfig:
    """What training is judged by.

    Args:
        k: of the validation loss and of the wait-k translations that are scored, one or several; "full" is the
            whole source. With several, scores are means, and ``bleu_k3`` and so on stand beside them.
        sentences: how many of the validation set are translated for a score; 0 for none.
        batch_size: how many at a time; the scores are the same.
    """

    k: int | str | Sequence[int | str] = 5
    sentences: int = 100
    batch_size: int = 32

    def __post_init__(self) -> None:
        whole_number("score.sentences", self.sentences, 0, of="sentences")
        whole_number("score.batch_size", self.batch_size, of="sentences")
        values_of_k(self.k, "score.k")

    @property
    def ks(self) -> list[int | str]:
        return values_of_k(self.k, "score.k")


def train(
    config: Mapping[str, Any],
    name: str,
    model: ModelConfig | FreshModel | GrownModel,
    corpus: Corpus,
    validation_corpus: Corpus,
    data: DataConfig,
    training: TrainingConfig,
    validation: ValidationConfig,
    tracker: Tracker,
    seed: int = 0,
    root: Path = Path("outputs"),
    paradigm: Paradigm = Group(),
    prompt: Prompt | None = None,
    adapter: AdapterConfig | None = None,
    optimizer: optim.Optimizer | None = None,
    objective: Objective = CrossEntropy(),
    rerun: bool = False,
    export: str | None = None,
) -> dict[str, Any]:
    """Train, or resume, and return the scores; a finished training only returns them.

    What it was made from (base model, data, validation data, prompt, own code) is compared first.

    Args:
        config: the resolved configuration; it names the run folder.
        paradigm: of the mask that is trained: `Group` or `Interleaved`. The others decode a `Group` model.
        prompt: as for `ModelConfig.load`; what is trained keeps it.
        adapter: what is trained instead of the weights. Quantised weights then stay so, unless
            ``model.quantized`` is False; without an adapter they are unpacked.
        export: train nothing, but write this checkpoint of the training ("epoch-004") as a folder beside it.
        rerun: train anew; a folder that is there is kept as ``<folder>.before-1``, or the next number that is free.

    Raises:
        ValueError, FileNotFoundError: the data or the model cannot be had, or is not what a training that is there was
            begun with, before anything is computed.
    """
    if not isinstance(paradigm, Group | Interleaved):
        raise ValueError(
            f"paradigm is {type(paradigm).__name__}, which is a way of decoding: train with paradigm=group (or "
            "interleaved), and give this one to streamllm run"
        )
    if isinstance(objective, GRPO):
        raise ValueError(
            "objective=grpo teaches a write head: streamllm train-head objective=grpo model.head_path=…; weights and "
            "adapters learn by objective=grpo_model"
        )
    if isinstance(objective, ModelGRPO):
        by_reward.check(training, data, adapter, model)
    _check_weights(model, adapter)
    group = mx.distributed.init()
    run = RunFolder.of(config, name, root)
    if export is not None:
        folder = export_checkpoint(
            run.path,
            export,
            model if isinstance(model, ModelConfig) else ModelConfig(str(run.path / START)),
            prompt,
            (corpus.source_unit, corpus.target_unit),
            (corpus.source_language, corpus.target_language),
            paradigm,
            adapter,
            data.documents is not None,
            data.tags,
            seed,
        )
        if isinstance(objective, ModelGRPO) and isinstance(model, ModelConfig):
            start, chosen = find_model(model.path), Path(model.head_path) if model.head_path else None
            by_reward.write_head(write_heads.head_of(start, None, chosen), folder, start, adapter is not None)
        log.info("%s is in %s%s", export, folder, _how_to_run(run.path, model, folder))
        return {}
    if rerun:
        if group.rank() == 0 and (aside := run.set_aside()) is not None:
            log.info("what was in %s is in %s now", run.path, aside)
        mx.eval(mx.distributed.all_sum(mx.array(1), group=group))  # the others wait until it is gone
    made = {
        **made_from.of_part(model),
        **made_from.of_own_code(config),
        **made_from.of_data(corpus),
        **made_from.of_data(validation_corpus, "validation data"),
    }
    if group.rank() == 0 and (unchecked := made_from.unchecked(run)):
        log.info("%s: %s", run.path, unchecked)
    if run.finished:
        read = {"sentences": corpus.load, "validation sentences": validation_corpus.load}
        made_from.check(run, made, read)
        log.info("%s has finished already%s", run.path, _how_to_run(run.path, model))
        return run.metrics()
    _check_languages(corpus, validation_corpus)
    if training.patience and not validation.sentences:
        raise ValueError(
            f"training.patience is {training.patience}, which counts scores, and there are none: give score.sentences"
        )
    if training.export == "best" and not validation.sentences:
        raise ValueError("training.export is 'best', which is told by scores, and there are none: give score.sentences")
    try:
        validation_examples = validation_corpus.load()
    except (ValueError, OSError) as error:
        raise ValueError(
            f"there is no validation data, which dataset@validation=… chooses with keys validation.…: {error}"
        ) from error
    if data.buffer:
        next(corpus.stream(), None)  # what is wrong with it at once is said at once

        def pairs() -> Iterator[Example]:
            return sentence_pairs(corpus.stream())
    else:
        examples = corpus.load()
        made |= made_from.of_sentences(examples)
        examples = [*sentence_pairs(examples)]
        pairs = partial(iter, examples)
    made |= made_from.of_sentences(validation_examples, "validation sentences")
    validation_examples = [*each_alone(validation_examples)]
    made_from.check(run, made)
    guarded = Guarded(tracker if group.rank() == 0 else NullTracker())
    with run if group.rank() == 0 else nullcontext(), guarded.finishing():
        if group.rank() == 0:
            run.begin(config, environment(), made, traces=False)
            if isinstance(model, FreshModel | GrownModel) and not (run.path / START).exists():
                texts = (text for example in pairs() for text in (example.source, example.reference))
                with new_folder(run.path / START) as part:
                    model.create(part, texts)
        mx.eval(mx.distributed.all_sum(mx.array(1), group=group))  # the others wait for the folder
        if isinstance(model, FreshModel | GrownModel):
            model = ModelConfig(str(run.path / START))
        start = find_model(model.path)  # once: a hub id asks the hub
        name_of_start = model.path
        quantized = adapter is not None and model.quantized is not False
        model = replace(model, path=str(start), quantized=quantized)
        streaming = model.load(prompt, corpus.source_unit, corpus.target_unit, paradigm, data.tags)
        made |= {**made_from.of_part(model), **made_from.of_part(streaming)}
        made_from.check(run, made)
        if group.rank() == 0:
            run.add_contents(made)
        streaming.documents |= data.documents is not None
        pair = corpus.source_language, corpus.target_language
        streaming.languages = Languages(pair, run.path, ordered=True) if all(pair) else None
        _check_positions(streaming, data, paradigm)
        adapter_settings = adapter.apply(streaming.model, seed) if adapter else None
        if streaming.target_start == "after_source":  # not trained to stream so far
            streaming.target_start = 0
        guarded.start(RunInfo(run.digest, run.path.name, run.path, config, job_type="train"))
        learning: Learning | None = None
        training_data: Any  # with what is validated on, as the trainer takes both
        held_out: Any
        if isinstance(objective, ModelGRPO):
            made |= by_reward.contents(streaming, objective)
            made_from.check(run, made)
            if group.rank() == 0:
                run.add_contents(made)
            how = validation.sentences, validation.batch_size, data.max_tokens, seed
            learning = Learning.of(streaming, objective, examples, validation_examples, corpus, *how)
            objective, training_data, held_out = learning.objective, learning.data, learning.held_out.fixed()
        else:
            dropout = BPEDropout(start / "tokenizer.json", data.bpe_dropout, seed) if data.bpe_dropout else None
            source = _source(corpus, pairs, streaming.prompt, data, start, seed, group)
            training_data = TrainingData(source, streaming.prompt, data, seed, dropout)
            validated = TrainingData(validation_examples, streaming.prompt, replace(data, bpe_dropout=0.0), seed)
            held_out = [*validated.fixed(*validation.ks)]
            if (prepared := getattr(objective, "prepared", None)) is not None:
                objective = prepared(streaming.prompt, data.tags)
            scored = to_be_scored(streaming, validation_examples[: validation.sentences], validation_corpus)

        def score(_: nn.Module) -> dict[str, float | None]:  # the trainer changes the model of `streaming` in place
            if learning is not None:
                return learning.scores(streaming)
            target = corpus.target_language, corpus.target_unit
            return of_wait_k(streaming, scored, validation.ks, *target, validation.batch_size)

        trainer = Trainer(
            streaming.model,
            training_data,
            held_out,
            training,
            run.path,
            score=score if validation.sentences else None,
            track=lambda line: guarded.log(line, step=int(line["step"])),
            target_start=streaming.target_start,
            paradigm=paradigm.trained_as,
            optimizer=optimizer,
            objective=objective,
            contents=made if run.contents() is not None else None,
        )
        size = "a stream of" if data.buffer else len(examples)
        log.info("%s sentence pairs, %d for validation; %s", size, len(validation_examples), run.path)
        if validation.sentences and learning is None:
            log.info(
                "bleu and al are of wait-k with k = %s (score.k), of %d sentences (score.sentences)",
                *(", ".join(map(str, validation.ks)), len(scored)),
            )
        try:
            best = trainer.run()
        except KeyboardInterrupt:
            log.info("interrupted at step %d; the same command goes on from the last checkpoint", trainer.step)
            raise
        scores: dict[str, Any] = {"steps": trainer.step, "epochs": trainer.epoch}
        scores |= {f"best_{name}": value for name, value in best.items()}
        scores["validation_loss"] = trainer.loss_of_export
        exported = ", ".join(file.removesuffix(".safetensors") for file in trainer.exported)
        if group.rank() == 0:
            scores["best_validation_loss"] = trainer.lowest()
            if adapter_settings:
                folder = run.path / "adapter"
                write_adapter(streaming, adapter_settings, name_of_start, start, folder)
                written = replace(model, adapter_path=str(folder), head_path=None)
            else:
                folder = run.path / "model"
                write_model(streaming, start, folder)
                written = replace(model, path=str(folder), head_path=None)
            if learning is not None:
                by_reward.write_head(streaming.write_head, folder, start, adapter is not None)
            if validation.sentences:  # of what was written, as a run will load it
                del trainer  # and with it the optimizer's state
                streaming = written.load(None, corpus.source_unit, corpus.target_unit, paradigm)
                scores |= score(streaming.model)
            write_atomically(run.path / METRICS, json.dumps(scores, indent=2) + "\n")
            what = "mean" if "," in exported else {"best": "best by BLEU"}.get(training.export, "last")
            log.info("written are the weights of %s (the %s)%s", exported, what, _how_to_run(run.path, name_of_start))
        guarded.summary(scores)
    return scores


def _how_to_run(run: Path, start: Any, folder: Path | None = None) -> str:
    """Where the result of a training is, and what evaluates it; ``start`` is what it began with."""
    found = folder or next((run / name for name in ("adapter", "model") if (run / name).is_dir()), None)
    if found is None:
        return ""
    words = f"model.path={found}"
    if (found / "adapter_config.json").exists():
        words = f"model.path={start.path if isinstance(start, ModelConfig) else start} model.adapter_path={found}"
    policy = "policy=learned policy.threshold=… " if (found / write_heads.FILE).exists() else ""
    return f"; to evaluate {found}: streamllm run {policy}model=folder {words} dataset=…"


def _check_weights(model: ModelConfig | FreshModel | GrownModel, adapter: AdapterConfig | None) -> None:
    if not isinstance(model, ModelConfig):
        return
    if model.quantized and adapter is None:
        raise ValueError(
            "model.quantized is true, and quantised weights cannot learn: add adapter=lora, or leave it out"
        )
    if model.adapter_path is not None:
        raise ValueError(
            f"model.adapter_path is {model.adapter_path!r}, and training goes on from whole weights: join them with "
            "`mlx_lm.fuse --model MODEL --adapter-path ADAPTER --save-path FOLDER` and give model.path=FOLDER"
        )


def _check_languages(corpus: Corpus, validation: Corpus) -> None:
    trained, judged = ((one.source_language, one.target_language) for one in (corpus, validation))
    if [code.split("-")[0] for code in trained] != [code.split("-")[0] for code in judged]:  # pt-br is pt
        raise ValueError(
            f"dataset is {' to '.join(trained)}, and validation is {' to '.join(judged)}: give the same languages, as "
            f"validation.source_language={trained[0]} validation.target_language={trained[1]}"
        )


def _check_positions(model: StreamingModel, data: DataConfig, paradigm: Paradigm) -> None:
    if model.positions.kind != "learned":
        return
    limit = int(model.positions.limit or 0)
    start = model.target_start
    most = limit // 2 if isinstance(paradigm, Interleaved) else limit - (0 if start == "after_source" else start)
    if data.max_tokens > most:
        raise PositionError(
            f"data.max_tokens is {data.max_tokens}, and the model's table of positions, which is learned, has {limit}: "
            f"set data.max_tokens={most}, or take a model with more positions"
        )


def _source(
    corpus: Corpus,
    pairs: Callable[[], Iterator[Example]],
    prompt: PromptTokens,
    data: DataConfig,
    start: Path,
    seed: int,
    group: mx.distributed.Group,
) -> Source:
    """What is trained on, as ``data`` says. Tokens that are to be kept are made by the first process."""
    varied = data.bpe_dropout or data.source_mask
    if data.cache and varied:
        log.info("data.cache is not used: bpe_dropout and source_mask give other tokens in every epoch")
    first_differs = data.documents is not None and not prompt.text.leading_space
    if data.cache and first_differs:
        log.info("data.cache is not used: the first word of a stream has other tokens than within it")
    if data.cache and not varied and not first_differs:
        key = {
            "corpus": _described(corpus),
            "files": [(str(file.resolve()), of_file(file)) for file in corpus.files()],
            "prompt": asdict(prompt.text),
            "units": (corpus.source_unit, corpus.target_unit),
            "tokenizer": of_folder(start, (*TOKENIZER_FILES, "tokenizer_config.json")),
        }
        tokenize = TrainingData([], prompt, data, seed).tokenize
        if group.rank() == 0:
            token_files(Path(data.cache).expanduser(), key, pairs, tokenize)
        mx.eval(mx.distributed.all_sum(mx.array(1), group=group))  # the others wait
        folder = token_files(Path(data.cache).expanduser(), key, pairs, tokenize)
        return TokenFiles(folder, data.buffer, seed, data.documents is not None and data.documents.order == "kept")
    if data.buffer:
        return Buffered(pairs, data.buffer, seed)
    return Whole(list(pairs()))


def _described(corpus: Corpus) -> Any:
    if not is_dataclass(corpus) or isinstance(corpus, type):
        return repr(corpus)
    return {key: value for key, value in asdict(corpus).items() if key != "skip_long"}  # it changes no tokens
