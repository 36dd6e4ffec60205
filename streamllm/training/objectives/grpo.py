"""Learning by reward: of several samples of one sentence, those above their mean become likelier."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import mlx.core as mx
import numpy as np

from streamllm.check import number, whole_number

Floats = np.ndarray[Any, np.dtype[np.float32]]
Quality = Literal["bleu", "chrf"]
Scale = Literal["group", "none"]
LEAST_DEVIATION = 1e-4
"""Added to the deviation of a group, which may be 0."""


@dataclass(frozen=True)
class Paths:
    """Read/write paths of some sentences, drawn from a head, as a batch of the trainer.

    Args:
        states: that the head was given, (N, E), for all decisions: one path's after the other's.
        writes: whether each was WRITE, (N,).
        start: what the head that the training began with says of these states, as logits (N,).
        advantages: that of each decision's path, (N,).
        rewards: of each path, (P,).
    """

    states: Floats
    writes: np.ndarray[Any, np.dtype[np.bool_]]
    start: Floats
    advantages: Floats
    rewards: Floats
    padding = 0

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """As the trainer counts them: a mean is one over paths."""
        return np.zeros(len(self.rewards), np.int32)

    @property
    def tokens(self) -> int:
        return len(self.writes)

    def drawn(self) -> "Paths":
        return self


class Groups(Protocol):
    """What objectives by reward have in common: how many samples there are, and what they are worth."""

    @property
    def samples(self) -> int: ...
    @property
    def sentences(self) -> int: ...
    @property
    def quality(self) -> Quality: ...
    @property
    def latency(self) -> float: ...
    @property
    def kl(self) -> float: ...
    @property
    def scale(self) -> Scale: ...
    @property
    def max_lag(self) -> int | None: ...
    @property
    def batch_size(self) -> int: ...


def check_groups(objective: Groups, of: str = "paths") -> None:
    """Raises: ValueError: a value is not accepted; ``of``: what is drawn."""
    whole_number("objective.samples", objective.samples, 2, of=of, hint="one has nothing to be compared with")
    whole_number("objective.sentences", objective.sentences, of="")
    whole_number("objective.batch_size", objective.batch_size, of=of)
    whole_number("objective.max_lag", objective.max_lag, of="units", null="for no bound")
    for name, accepted in (("quality", get_args(Quality)), ("scale", get_args(Scale))):
        if (value := getattr(objective, name)) not in accepted:
            raise ValueError(f"objective.{name} is {value!r}; accepted are {', '.join(accepted)}")
    for name in ("latency", "kl"):
        number(f"objective.{name}", getattr(objective, name), least=0)


@dataclass(frozen=True)
class GRPO:
    """Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) of a write head.

    ``samples`` paths of a sentence are drawn, WRITE with the probability that the head gives it. The reward of a path
    is the quality of its translation less ``latency`` times its DAL, in source units; where nothing was written, it is
    less than any path of the sentence can have (`streamllm.training.heads.rewards`). Its advantage is the reward less
    the mean of the sentence's samples. Made small is the mean over paths of

        - advantage · Σ log π(decision) + kl · Σ KL(π ‖ π of the start),

    sums over a path's decisions, the divergence exact. Each path is learned from once, by the head that drew it, so
    that no ratio has to be clipped. Neither is a sum divided by its length, nor an advantage by the deviation of its
    sentence: short paths, and sentences whose samples hardly differ, would weigh more (Liu et al. 2025, arXiv
    2503.20783). The value that is logged is minus the mean reward plus the divergence's part.

    Args:
        samples: paths of a sentence.
        sentences: of a step.
        quality: bleu (of the sentence, 0 to 100), or chrf, less where the translation is too long.
        latency: points of quality that a source unit of DAL costs.
        kl: points that a nat of divergence from the start costs, at each decision.
        scale: none, or group, which divides advantages by the deviation of their sentence, as the first paper does.
        threshold: the start is this high up on the curve of the head that is given: where that gives WRITE this
            probability, the start gives it one half.
        temperature: the start's logits are those of the head over this; below 1, it draws more often what
            ``policy=learned`` would decide.
        max_lag: WRITE from so many units on that are read and not written, whatever the head says; null is no bound.
        batch_size: paths that are drawn at a time. Another one changes decisions at near-ties only.

    Raises:
        ValueError: a value is not accepted.
    """

    samples: int = 8
    sentences: int = 32
    quality: Quality = "bleu"
    latency: float = 2.0
    kl: float = 0.1
    scale: Scale = "none"
    threshold: float = 0.9
    temperature: float = 0.5
    max_lag: int | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_groups(self)
        number("objective.threshold", self.threshold, above=0, below=1)
        number("objective.temperature", self.temperature, above=0)

    def __call__(self, model: Any, batch: Any, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        paths: Paths = batch.drawn()
        logits = model(mx.array(paths.states))
        writes, none_writes = _log_probabilities(logits)
        chosen = mx.where(mx.array(paths.writes), writes, none_writes)
        policy = -(mx.array(paths.advantages) * chosen).sum()
        start, none_start = _log_probabilities(mx.array(paths.start))
        divergence = mx.exp(writes) * (writes - start) + mx.exp(none_writes) * (none_writes - none_start)
        # The gradient is that of the first two, and the value is worth reading.
        value = policy - mx.stop_gradient(policy) + self.kl * divergence.sum()
        total: mx.array = value - float(paths.rewards.sum())
        return total


def _log_probabilities(logits: mx.array) -> tuple[mx.array, mx.array]:
    """Of WRITE and of READ."""
    return -mx.logaddexp(0, -logits), -mx.logaddexp(0, logits)


def advantages(rewards: Floats, scale: str) -> Floats:
    """Of samples with these rewards (sentences, samples): by how much each is above the mean of its sentence, over the
    deviation (unbiased, ÷ samples - 1) if the ``scale`` is "group". Samples of equal rewards have 0, and so has one
    alone."""
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    if scale == "group" and rewards.shape[1] > 1:
        centred = centred / (rewards.std(axis=1, ddof=1, keepdims=True) + LEAST_DEVIATION)
    found: Floats = centred.astype(np.float32)
    return found
