"""What training needs of an objective."""

from typing import Any, Protocol

import mlx.core as mx

from streamllm.training.batch import Batch


class Objective(Protocol):
    """What a training makes small; a frozen dataclass whose fields are the keys of its YAML.

    It takes its logits from `streamllm.training.loss.forward`, where each position of the target sees what it would
    have seen when streamed.

    One that needs the prompt, or what ``data.latencies`` are, has a method ``prepared(prompt, latencies)`` as well,
    which returns the objective that is used (`streamllm.training.objectives.wait_token`).
    """

    def __call__(self, model: Any, batch: Batch, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        """The objective of one batch, differentiable with respect to the trainable parameters of ``model``.

        Args:
            model: the mlx-lm model that learns.
            batch: source tokens (B, S), target tokens (B, T), and for each position of the target the token that it
                learns to predict, ``labels`` (B, T), -1 for none.
            target_start: position of the first target token (φ).
            paradigm: whose mask is trained, "group" or "interleaved".
            label_smoothing: ``training.label_smoothing``; 0 when it is called for the validation loss.

        Returns: the sum over the labels of the batch in nats, a float32 scalar: the loop divides it by the number of
            labels in all processes, and accumulates batches by that sum.
        """
        ...
