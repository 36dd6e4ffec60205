"""Learning by reward for the translation model itself: of several translations of one sentence, drawn token by token,
those above their mean become likelier."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from streamllm.check import flag, is_number, number
from streamllm.engine.finite import without
from streamllm.training.batch import Batch
from streamllm.training.data import FULL, values_of_k
from streamllm.training.loss import flat, is_lazy, of_labels, reinforced
from streamllm.training.objectives.grpo import Floats, Quality, Scale, check_groups

POLICIES = ("learned", "waitk")


@dataclass(frozen=True)
class Samples:
    """Translations of some sentences, drawn from the model, as a batch of the trainer.

    Args:
        batch: each with its source as one sentence pair; a position of the target sees what was read when the token
            was drawn that follows there.
        advantages: of each position of the target, (B, T); 0 where it has no label.
        rewards: of each translation, (B,).
    """

    batch: Batch
    advantages: Floats
    rewards: Floats

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """As the trainer counts them: a mean is one over translations."""
        return np.zeros(len(self.rewards), np.int32)

    @property
    def tokens(self) -> int:
        return self.batch.tokens

    @property
    def padding(self) -> int:
        return self.batch.padding

    def drawn(self) -> "Samples":
        return self


@dataclass(frozen=True)
class ModelGRPO:
    """Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) of the model that translates.

    ``samples`` translations of a sentence are drawn, token by token, with one policy for all of them. The reward of a
    translation is its quality less ``latency`` times its DAL, in source units; where nothing was written, it is less
    than any translation of the sentence can have (`streamllm.training.heads.rewards`). Its advantage is the reward less
    the mean of the sentence's samples. Made small is the mean over translations of

        - advantage · Σ log p(token) + kl · Σ KL(p ‖ p of the start),

    sums over the tokens that were written and the end token, p the distribution that they were drawn from, each seeing
    the source that had been read by then. The divergence is exact, over the vocabulary; the start is the model that
    training began with. Each translation is learned from once, by the model that drew it, so that no ratio has to be
    clipped. Neither is a sum divided by its length, nor an advantage by the deviation of its sentence (Liu et al. 2025,
    arXiv 2503.20783). The value that is logged is minus the mean reward plus the divergence's part.

    The read/write policy does not learn: a write head stays as it is. Neither do tokens that were drawn and given up,
    since they were followed by a READ.

    Args:
        samples: translations of a sentence.
        sentences: of a batch; ``training.accumulate`` of them make a step.
        quality: bleu (of the sentence, 0 to 100), or chrf, less where the translation is too long.
        latency: points of quality that a source unit of DAL costs.
        kl: points that a nat of divergence from the start costs, at each token.
        scale: none, or group, which divides advantages by the deviation of their sentence, as the first paper does.
        phases: a token that is written after the source has ended is judged by quality alone: all that it could still
            change of the lag is the length that this is a mean over. False judges all tokens alike.
        policy: learned, by the model's write head, or waitk.
        thresholds: of the head; one is drawn for each sentence. "full" reads the whole source first.
        chance: 0 decides as ``policy=learned`` does. Above, WRITE is drawn, with probability one half at the threshold:
            the logits over ``chance``.
        max_lag: WRITE from so many units on that are read and not written, whatever the head says; null is no bound.
        k: of wait-k; one is drawn for each sentence.
        temperature: that tokens are drawn at.
        batch_size: translations that are drawn at a time. Another one changes draws at near-ties only.

    Raises:
        ValueError: a value is not accepted.
    """

    samples: int = 8
    sentences: int = 32
    quality: Quality = "bleu"
    latency: float = 2.0
    kl: float = 0.1
    scale: Scale = "none"
    phases: bool = True
    policy: Literal["learned", "waitk"] = "learned"
    thresholds: Sequence[float | str] = (0.7, 0.8, 0.9, FULL)
    chance: float = 0.0
    max_lag: int | None = None
    k: Sequence[int | str] = (1, 2, 3, 5, FULL)
    temperature: float = 1.0
    batch_size: int = 256
    start: Any = field(default=None, init=False, repr=False, compare=False)  # both set by `prepared_for`
    never: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_groups(self, of="translations")
        flag("objective.phases", self.phases)
        if self.policy not in POLICIES:
            raise ValueError(f"objective.policy is {self.policy!r}; accepted are {', '.join(POLICIES)}")
        values_of_k(self.k, "objective.k")
        given = self.thresholds
        if isinstance(given, str) or not isinstance(given, Sequence) or not given or not all(map(_is_threshold, given)):
            raise ValueError(
                f"objective.thresholds is {given!r}; accepted is a list of numbers above 0 and below 1, and 'full'"
            )
        number("objective.chance", self.chance, least=0)
        number("objective.temperature", self.temperature, above=0, hint="greedy samples would all be alike")

    @property
    def settings(self) -> list[Any]:
        """Thresholds or values of k, of which each sentence draws one."""
        return list(self.thresholds) if self.policy == "learned" else values_of_k(self.k, "objective.k")

    def prepared_for(self, model: nn.Module, never: int | None) -> "ModelGRPO":
        """This objective for a model as it is now, before it learns; ``never``: a token that is never written."""
        copy = replace(self)
        start = tree_map(lambda weight: weight + 0, model.trainable_parameters())
        mx.eval(start)
        object.__setattr__(copy, "start", start)
        object.__setattr__(copy, "never", never)
        return copy

    def __call__(self, model: Any, batch: Any, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        samples: Samples = batch.drawn()
        value = mx.array(-float(samples.rewards.sum()))
        if not (model.training or self.kl):
            return value
        how = samples.batch, target_start, paradigm
        start = self._scaled(self._of_start(model, *how)) if self.kl else None
        logits, labels = of_labels(model, *how)
        advantages = mx.array(flat(samples.advantages, samples.batch, len(labels)))
        scaled = self._scaled(logits)
        total: mx.array = value + reinforced(scaled, start, labels, advantages, self.kl, is_lazy(model))
        return total

    def _of_start(self, model: Any, batch: Batch, target_start: int, paradigm: str) -> mx.array:
        """Logits of the start, of the rows of `of_labels`."""
        now = model.trainable_parameters()
        model.update(self.start)
        try:
            return of_labels(model, batch, target_start, paradigm, gradient=False)[0]
        finally:
            model.update(now)

    def _scaled(self, logits: mx.array) -> mx.array:
        """Logits of the distribution that tokens are drawn from."""
        possible: Any = without(logits, self.never)
        scaled: mx.array = possible if self.temperature == 1 else possible / self.temperature
        return scaled


def _is_threshold(value: object) -> bool:
    return value == FULL or (is_number(value) and 0 < value < 1)
