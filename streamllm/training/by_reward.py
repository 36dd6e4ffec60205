"""A model or an adapter that learns by reward: what `streamllm.training.train` does otherwise then."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from streamllm.contents import Contents
from streamllm.data.joined import each_alone
from streamllm.engine.limits import Limits
from streamllm.engine.write_head import WriteHead
from streamllm.models import write_heads
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training.adapters import AdapterConfig
from streamllm.training.data import DataConfig
from streamllm.training.fresh import FreshModel
from streamllm.training.grown import GrownModel
from streamllm.training.heads import by_reward as of_heads
from streamllm.training.heads.by_reward import SCORES
from streamllm.training.loop import TrainingConfig
from streamllm.training.objectives.grpo_model import ModelGRPO
from streamllm.training.samples import SampleData, Sampler, policy_of
from streamllm.training.scores import Scores, of_policy, together

log = logging.getLogger(__name__)


def check(
    training: TrainingConfig,
    data: DataConfig,
    adapter: AdapterConfig | None,
    model: ModelConfig | FreshModel | GrownModel,
) -> None:
    """Raises: ValueError: a part of the configuration is of no use where rewards are learned from."""
    of_heads.check_training(training)
    if not isinstance(model, ModelConfig):
        raise ValueError(
            "objective=grpo_model goes on with a model that translates, and fresh makes one that does not: give model=…"
        )
    if model.temperature or model.top_p != 1:
        raise ValueError(
            f"model.temperature is {model.temperature} and model.top_p {model.top_p}, and tokens are drawn at "
            "objective.temperature, among all: leave both out"
        )
    rates = {"training.dropout": training.dropout, "adapter.dropout": adapter.dropout if adapter else 0}
    for name, rate in rates.items():
        if rate:
            raise ValueError(
                f"{name} is {rate}, and what is learned from must be what was drawn, without dropout: give 0"
            )
    usual = DataConfig()
    for name in (field.name for field in fields(data)):
        given, expected = (getattr(one, name) for one in (data, usual))
        same = list(given) == list(expected) if name == "k" and not isinstance(given, int | str) else given == expected
        if not same and name != "max_tokens":
            what = "objective.policy and objective.k say how" if name == "k" else "objective.sentences says how many"
            raise ValueError(
                f"data.{name} is {given!r}, and with objective=grpo_model translations are drawn instead of read from "
                f"data ({what}): leave it out"
            )


@dataclass(frozen=True)
class Learning:
    """A training by reward, ready for the trainer.

    Args:
        objective: with the start that it is held near to.
        data, held_out: what is learned from, and validated with.
        scored: the sentences that are translated for a score.
    """

    objective: ModelGRPO
    data: SampleData
    held_out: SampleData
    scored: Sequence[Example]
    sampler: Sampler
    batch_size: int

    @staticmethod
    def of(
        model: StreamingModel,
        objective: ModelGRPO,
        learned: Sequence[Example],
        held_out: Sequence[Example],
        corpus: Any,
        sentences: int,
        batch_size: int,
        max_tokens: int,
        seed: int,
    ) -> "Learning":
        """Args:
            model: as training begins with it; its write head decides, if the policy is learned.
            corpus: says the languages.
            sentences, batch_size: that are translated for a score, in all and at a time.
            max_tokens: sentence pairs with a longer stream are left out.

        Raises: ValueError: the model has no write head, or keeps no whole streams; or no sentence is left.
        """
        if objective.policy == "learned" and model.write_head is None:
            raise ValueError(
                "objective.policy is learned, and the model has no write head that says when to write: train one "
                "(streamllm train-head) and give the folder that it writes as model.head_path, or take "
                "objective.policy=waitk"
            )
        if not model.retention.keeps_all:
            raise ValueError(
                "model.max_source, model.max_target or model.kv_bits is given, and learning by reward needs whole "
                "streams as they are computed: leave them out"
            )
        limits = Limits().between(corpus.source_unit, corpus.target_unit, learned)
        pairs, kept = (
            _short_enough(model, of_heads.usable(model, [*each_alone(one)], limits, what), max_tokens, what)
            for one, what in ((learned, "dataset"), (held_out, "validation"))
        )
        prepared = objective.prepared_for(model.model, model.prompt.wait_token)
        language, tokenizer = corpus.target_language, getattr(corpus, "bleu_tokenizer", None)
        sampler = Sampler(model, prepared, limits, seed, language, tokenizer)
        log.info(
            "%d sentences, %d for validation; %d translations of each, %d sentences a batch. loss: minus the reward of "
            "translations that are drawn; %s: of the likeliest tokens, by the same policies, on %d sentences",
            *(len(pairs), len(kept), objective.samples, objective.sentences, ", ".join(SCORES)),
            min(sentences, len(kept)),
        )
        data, validation = SampleData(sampler, pairs), SampleData(sampler, kept)
        return Learning(prepared, data, validation, kept[:sentences], sampler, batch_size)

    def scores(self, model: StreamingModel) -> Scores:
        """BLEU, LAAL and DAL of greedy translations, for each of the objective's policies and on average."""
        target = self.sampler.language, model.prompt.target_unit, self.sampler.tokenizer
        how = self.sampler.limits, self.batch_size, SCORES
        each: dict[str, Scores] = {}
        for setting in dict.fromkeys(self.objective.settings):
            own = of_policy(model, self.scored, policy_of(self.objective, setting), *how, *target)
            each[f"k{setting}" if isinstance(setting, int) else f"{setting}"] = own
        return together(each)


def contents(model: StreamingModel, objective: ModelGRPO) -> Contents:
    """A digest of the head that decides, if one does."""
    return of_heads.contents(model.write_head) if objective.policy == "learned" and model.write_head else {}


def write_head(head: WriteHead | None, folder: Path, start: Path, adapter: bool) -> None:
    """Put the head by which a model has learned, if one did, beside what it has learned: it has judged its states
    throughout.

    Args:
        folder: of the model or the adapter that has learned.
        start: of the model that training began with.
    """
    if head is not None:
        weights = write_heads.trained_on(start, folder) if adapter else write_heads.trained_on(folder)
        write_heads.write(folder, head, weights, {"objective": "modelgrpo"})


def _short_enough(model: StreamingModel, examples: list[Example], most: int, what: str) -> list[Example]:
    prompt = model.prompt
    around = len(prompt.source_header) + len(prompt.source_footer)
    kept = [one for one in examples if len(prompt.encode(one.source)) + around <= most]
    if not kept:
        raise ValueError(f"no sentence pair of {what} is left: all are longer than data.max_tokens, {most}")
    return kept
