"""Write where a head that was trained for it says so."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from streamllm.check import probability
from streamllm.records import READ, WRITE, WRITE_BARE, Action, Decide, Example, State


@dataclass(frozen=True)
class Learned:
    """WRITE iff the model's write head gives it a probability of at least ``threshold``; something has to be read
    first.

    After DaP-SiMT (Zhao et al. 2023, arXiv 2310.14853): a frozen model, and a small network on its hidden state where
    the next token is predicted. One head gives the whole curve of quality over latency by its threshold. What it
    learned from, its own labels say (docs/learned.md). A unit is judged by its first token; the decision costs the
    forward that writing needs anyway, so each READ after the first unit costs one more than with a fixed policy.

    Args:
        threshold: the probability from which on it writes; a higher one reads more.
        latency: what the model's target header is to ask for, one of the tags that the head was trained with, as
            ``cells.latencies`` said; None leaves its own. Bounds that write before this policy is asked leave it, too.

    Raises:
        ValueError: threshold is not a probability.
    """

    threshold: float
    latency: str | int | None = None

    def __post_init__(self) -> None:
        probability("threshold", self.threshold)

    @property
    def _tag(self) -> str | None:
        return None if self.latency is None else str(self.latency)

    @cached_property
    def _logit(self) -> float:
        """The threshold as a logit, in float32 as the head's."""
        if self.threshold in (0, 1):
            return -math.inf if self.threshold == 0 else math.inf
        return float(np.float32(math.log(self.threshold) - math.log1p(-self.threshold)))

    def check_model(self, model: Any) -> None:
        """Raises: ValueError: the model cannot be asked for this latency, or its head was not trained with it."""
        prompt, head = model.prompt, model.write_head
        if self._tag is not None:
            prompt.header_asking(self._tag, "policy.latency")
        if head is not None:
            head.check_latency(prompt.text.latency if self._tag is None else self._tag)

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if not state.read:
            return READ
        return WRITE_BARE if state.model.write_logit(self._tag) >= self._logit else READ
