"""Write when more source has changed the prediction, or the model is sure of it."""

from dataclasses import dataclass
from typing import Literal

from streamllm.check import number, probability, whole_number
from streamllm.records import READ, WRITE, Action, Decide, Example, Prediction, State


@dataclass(frozen=True)
class LSG:
    """WRITE iff the prediction from all units read is far from that of a baseline, wait-k, or its likeliest token is
    likely; and within a range of lags.

    LLM-driven SimulMT of Guo et al. 2025 (arXiv 2501.00868): WRITE target unit i where KL(p(· | x≤j) ‖ p(· | x≤i)) > δ
    or max p(· | x≤j) > α, with j units read; it is written after L+i-1 units at the earliest, and after L+i-1+U at the
    latest. A *large* divergence writes: the source that the baseline lacked has come. Values of the paper (Llama-2-7B
    with LoRA, wait-1 as baseline): German to English δ 9.0, α 0.6; English to German δ 7.5, α 0.6; [L, U] = [1, 4],
    [3, 4], [5, 6], [7, 6].

    The code that was published with it has KL(p(· | x≤i) ‖ p(· | x≤j)), ``mean_under="baseline"``. A δ of the one says
    nothing in the other; nor does one of another model: sweep it on validation. That code (of speech) further writes
    at ≥, and drafts up to ten tokens, which it compares with one baseline for all of them; this follows the paper.

    A unit is judged by its first token. The baseline is the prediction with the later units hidden, which written
    tokens that were computed when these were in sight still know; with ``paradigm=batch``, which encodes the target
    again, it is as if they had never been read. It stays the same while units are read, so it is computed once for a
    target unit that confidence alone does not write: one forward, and one more where a WRITE follows before anything
    is read.

    Args:
        delta: the divergence, in nats, above which it writes (δ).
        alpha: the probability of the likeliest token above which it writes (α).
        k_min: units read and not written, below which it reads (L).
        k_more: how many more there may be; with so many it writes (U).
        baseline: the k of the baseline, at most k_min.
        mean_under: the prediction whose mean the divergence is: "current" as in the paper, from all units read, or
            "baseline" as in its code.

    Raises:
        ValueError: delta is not a number of at least 0, alpha not a probability, k_min or baseline not an integer of at
            least 1, k_more not one of at least 0, baseline greater than k_min, or mean_under another word.
    """

    delta: float
    alpha: float
    k_min: int
    k_more: int
    baseline: int = 1
    mean_under: Literal["current", "baseline"] = "current"

    def __post_init__(self) -> None:
        number("delta", self.delta, least=0, hint="nats; .inf leaves confidence alone", infinite=True)
        probability("alpha", self.alpha, hint="1 leaves the divergence alone")
        whole_number("k_min", self.k_min)
        whole_number("k_more", self.k_more, least=0)
        whole_number("baseline", self.baseline)
        if self.baseline > self.k_min:
            raise ValueError(
                f"baseline is {self.baseline}; it is at most k_min, {self.k_min}: with fewer units read there is "
                "nothing to compare with"
            )
        if self.mean_under not in ("current", "baseline"):
            raise ValueError(f"mean_under is {self.mean_under!r:.80}; accepted are current and baseline")

    def start(self, example: Example) -> Decide:
        return _Sentence(self)


class _Sentence:
    """Decides in one sentence."""

    def __init__(self, policy: LSG):
        self._policy = policy
        self._baseline: Prediction | None = None  # of the next target unit, after so many
        self._written = 0
        self._written_after = 0  # units read when this decided to write, the last time

    def __call__(self, state: State) -> Action:
        if state.written != self._written:
            self._baseline, self._written = None, state.written
        action = self._decide(state)
        if action == WRITE:  # also what extends the last unit
            self._baseline, self._written_after = None, state.read
        return action

    def _decide(self, state: State) -> Action:
        policy = self._policy
        lag = state.read - state.written
        if state.source_done or lag >= policy.k_min + policy.k_more:
            return WRITE
        if lag < policy.k_min or state.read == 0:
            return READ
        hidden = lag - policy.baseline
        # Asked for first, where the next token is not known by the end of the last unit: that saves a forward.
        if self._baseline is None and hidden and state.read > self._written_after:
            self._baseline = state.model.prediction(hidden)
        current = state.model.prediction()
        if current.confidence > policy.alpha:
            return WRITE
        if not hidden:  # the two are the same
            return READ
        if self._baseline is None:
            self._baseline = state.model.prediction(hidden)
        one, other = current, self._baseline
        if policy.mean_under == "baseline":
            one, other = other, one
        return WRITE if one.divergence(other) > policy.delta else READ
