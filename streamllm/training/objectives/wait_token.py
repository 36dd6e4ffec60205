"""Self-distillation, and a token with which the model says that it wants to read on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.check import number, probability
from streamllm.engine.finite import without
from streamllm.prompt import PromptTokens
from streamllm.training.batch import Batch
from streamllm.training.loss import cross_entropy, is_lazy, margins, of_labels, relative_entropy, taught
from streamllm.training.objectives.self_distillation import from_a_part, of_rows


@dataclass(frozen=True)
class WaitToken:
    """The model learns to translate as by `SelfDistillation`, and when to write its wait token instead.

    READ is right where the total variation distance between what it predicts from a part of the source and what it
    predicts from the whole is above a bound: the rule of DaP-SiMT (Zhao et al. 2023, arXiv 2310.14853), with a token in
    the place of its head. There is a bound for each of ``data.latencies``, so that one set of weights serves them all,
    as EAST's latency prompts do (arXiv 2504.09570). The distance is measured in the step itself, with the teacher that
    self-distillation has anyway; the student has dropout.

    The loss is that of a softmax over the vocabulary in which the wait token is one of all: a label costs what the
    translation costs among the other tokens, and ``decision`` times -log P(wait) where READ is right, else
    -log (1 - P(wait)). Where a label is predicted from the whole source nothing is decided. The wait token is never
    fed: no position and no key is spent on it, and what is written is the same sequence for every path.

    In validation it is the cross-entropy alone.

    Args:
        bounds: the largest distance at which WRITE is right, one for each of ``data.latencies``, or one alone.
        weight: of the teacher, as in `SelfDistillation`.
        decision: of the decision.

    Raises:
        ValueError: a value is out of range, or the numbers of bounds and latencies differ.
    """

    bounds: Sequence[float] = (0.3,)
    weight: float = 0.3
    decision: float = 1.0
    token: int | None = field(default=None, init=False, repr=False)  # set by `prepared`

    def __post_init__(self) -> None:
        if not isinstance(self.bounds, Sequence) or isinstance(self.bounds, str) or not self.bounds:
            raise ValueError(
                f"objective.bounds is {self.bounds!r}; accepted is a list of distances from 0 to 1, one for each of "
                "data.latencies"
            )
        for bound in self.bounds:
            probability("objective.bounds", bound)
        probability("objective.weight", self.weight)
        number("objective.decision", self.decision, least=0)

    def prepared(self, prompt: PromptTokens, latencies: Sequence[str]) -> "WaitToken":
        """This objective for a model with such a prompt.

        Args:
            latencies: `DataConfig.tags`.

        Raises:
            ValueError: the prompt has no wait token, or the numbers of bounds and latencies differ.
        """
        if prompt.wait_token is None:
            raise ValueError(
                "objective=wait_token needs a wait token, and prompt.wait_token is null: name a control token of the "
                "tokenizer that no target has, as conf/prompt/wait.yaml does"
            )
        if len(self.bounds) != max(1, len(latencies)):
            raise ValueError(
                f"objective.bounds has {len(self.bounds)} numbers and data.latencies {len(latencies)} tags; give one "
                "bound for each tag, or one alone where there are no tags"
            )
        copy = replace(self)
        object.__setattr__(copy, "token", prompt.wait_token)
        return copy

    def __call__(self, model: Any, batch: Batch, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        lazy = is_lazy(model)
        logits, labels = of_labels(model, batch, target_start, paradigm)
        others: Any = without(logits, self.token)
        if not model.training:
            return cross_entropy(others, labels, label_smoothing, lazy)
        teacher: Any = without(taught(model, batch, target_start, paradigm), self.token)
        partial = mx.array(from_a_part(batch, len(labels)))
        of_part, of_whole = mx.where(partial, labels, -1), mx.where(partial, -1, labels)
        latency = of_rows(batch, batch.latency, len(labels))
        return (
            (1 - self.weight) * cross_entropy(others, of_part, label_smoothing, lazy)
            + self.weight * relative_entropy(teacher, others, of_part, lazy)
            + cross_entropy(others, of_whole, label_smoothing, lazy)
            + self.decision * self._decisions(logits, teacher, of_part, latency, lazy)
        )

    def _decisions(
        self, logits: mx.array, teacher: mx.array, labels: mx.array, latency: np.ndarray, lazy: bool
    ) -> mx.array:
        """Sum over rows with a label of what the decision costs, in nats."""
        assert self.token is not None
        bounds = mx.array(np.array(self.bounds, np.float32)[latency])  # -1 is the only one
        margin, student = margins(logits, self.token, lazy)
        _, whole = margins(teacher, self.token, lazy)
        apart = mx.abs(mx.stop_gradient(student) - mx.stop_gradient(whole)).sum(axis=-1) / 2
        sign = mx.where(apart > bounds, 1.0, -1.0)
        return mx.where(labels >= 0, mx.logaddexp(sign * margin, mx.array(0.0)), 0).sum()
