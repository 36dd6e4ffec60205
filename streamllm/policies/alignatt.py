"""Stop where the model looks at the end of what has been read."""

from collections.abc import Sequence
from dataclasses import dataclass

from streamllm import check
from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class AlignAtt:
    """READ iff the source unit that the next token attends to most is among the last ``f``.

    Papi et al. 2023 (arXiv 2305.11408). Where the paper has audio frames and cross-attention, this has units and
    self-attention to the source; it looks once for each target unit, at its first token. ``heads`` are the pairs of
    layer and head that are looked at; None takes those that the model names. A decision costs the forward that writing
    needs anyway (with attention read out, which is slower than without).

    Args:
        f: how many of the last source units make it READ; more waits longer.
        heads: pairs of layer and head that are looked at, such as [[2, 0], [3, 1]]; None takes those that the model
            names.

    Raises:
        ValueError: f is not an integer of at least 1, or heads are not pairs of layer and head.
    """

    f: int
    heads: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        check.whole_number("f", self.f)
        check.heads("heads", self.heads)

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if state.read <= self.f:  # wherever it looks
            return READ
        return READ if state.model.attended(self.heads) >= state.read - self.f else WRITE
