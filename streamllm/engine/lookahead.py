"""What a model says of the target to come: the next token, and the best continuations by beam search."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx
import numpy as np

from streamllm.engine.finite import Logits, NotFinite, not_finite_logits
from streamllm.records import Prediction

Step = Callable[[list[int], list[int]], Logits]
"""``step(parents, tokens)``: branch ``parents[i]`` goes on with ``tokens[i]``; logits (len(tokens), V)."""

IsCut = Callable[[list[int]], bool]
"""Whether the tokens of a hypothesis stop in the middle."""


@dataclass(frozen=True)
class NextToken:
    """A `records.Prediction` from the ``logits`` (V,) of the next token, of those that may be written: all but
    ``never``."""

    logits: Logits
    end_tokens: frozenset[int]
    never: int | None = None

    @cached_property
    def _logprobs(self) -> np.ndarray:
        return logprobs(self.logits, self.never)  # no operation of MLX: in a batch, each would be evaluated on its own

    @property
    def token(self) -> int:
        return int(self._logprobs.argmax())

    @property
    def ends(self) -> bool:
        return self.token in self.end_tokens

    @property
    def confidence(self) -> float:
        return float(np.exp(self._logprobs.max()))

    @property
    def entropy(self) -> float:
        possible = self._logprobs[self._logprobs > -np.inf]
        return float(-(np.exp(possible) * possible).sum())

    def probability(self, token: int) -> float:
        return float(np.exp(self._logprobs[token]))

    def divergence(self, other: Prediction) -> float:
        if not isinstance(other, NextToken):
            raise TypeError(
                f"the divergence from a {type(other).__name__} is not known; give a prediction of a session"
            )
        possible = np.exp(self._logprobs) > 0
        own, others = self._logprobs[possible], other._logprobs[possible]
        return max(0.0, float((np.exp(own) * (own - others)).sum()))  # not below, whatever is rounded


def copied(logits: Logits) -> np.ndarray:
    """Logits that may be kept: those of a batch are a part of what was computed for all of its sentences."""
    return np.array(logits) if isinstance(logits, np.ndarray) else np.array(logits.astype(mx.float32))


def logprobs(logits: Logits, never: int | None = None) -> np.ndarray:
    """Log-probabilities, float64, of logits (…, V); that of the token ``never`` is -inf. Raises: NotFinite: a row has
    NaN, +inf, or all -inf."""
    values = logits.astype(np.float64) if isinstance(logits, np.ndarray) else _float64(logits)
    if never is not None:
        values[..., never] = -np.inf
    highest = values.max(axis=-1, keepdims=True)
    if not np.isfinite(highest).all():
        raise NotFinite(not_finite_logits(float(highest[~np.isfinite(highest)][0])))
    values -= highest
    normalised: np.ndarray = values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return normalised


class NoWaitToken(ValueError):
    """A model is asked for its wait token, and has none."""


def probability_of(wait_token: int | None, logits: Logits) -> float:
    """How likely a model's wait token is by logits (V,). Raises: NoWaitToken: it has none."""
    if wait_token is None:
        raise NoWaitToken(
            "the model has no wait token, which policy=wait_token asks for: take model=tiny-en-de-wait, or train one "
            "with objective=wait_token, such as `streamllm train experiment=tiny_en_de_wait` (docs/learned.md)"
        )
    return float(np.exp(logprobs(logits)[wait_token]))


def _float64(logits: mx.array) -> np.ndarray:
    wide: np.ndarray = np.array(logits.astype(mx.float32)).astype(np.float64)
    return wide


def beam_search(
    first: Logits, step: Step, is_end: Callable[[int], bool], size: int, max_tokens: int
) -> list[list[int]]:
    """At most ``size`` continuations in tokens (without end token), the best first.

    Those that ended come first, by their mean log-probability a token (the end token counts); the search is over
    when ``size`` have ended.

    Args:
        first: logits (V,) of the first token.
    """
    ended: list[tuple[float, list[int]]] = []
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    logits = first[None]
    for _ in range(max_tokens):
        scores = logprobs(logits) + np.array([[score] for score, _ in alive])
        flat = scores.reshape(-1)
        top = _best(flat, 2 * size)  # twice as many as wanted: half of them may end
        following: list[tuple[float, list[int]]] = []
        parents: list[int] = []
        for rank, index in enumerate(top.tolist()):
            parent, token = divmod(index, scores.shape[-1])
            if is_end(token):
                if rank < size:
                    ended.append((float(flat[index]), alive[parent][1]))
            elif len(following) < size:
                following.append((float(flat[index]), [*alive[parent][1], token]))
                parents.append(parent)
        alive = following
        if len(ended) >= size or not alive:
            break
        logits = step(parents, [tokens[-1] for _, tokens in alive])
    ended.sort(key=lambda scored: -scored[0] / (len(scored[1]) + 1))
    return [tokens for _, tokens in [*ended, *alive][:size]]


def write_on(
    hypotheses: list[list[int]], logits: Logits, step: Step, is_end: Callable[[int], bool], is_cut: IsCut
) -> list[tuple[list[int], bool]]:
    """Go on greedily with each of ``hypotheses`` while ``is_cut(tokens)``; each with whether it has ended.

    Args:
        hypotheses: in the order of their branches; the last of those may be none of them.
        logits: after each branch, (branches, V).
    """
    found = [(tokens, False) for tokens in hypotheses]
    branches = list(range(len(found)))  # whose hypothesis each is
    while going := [row for row, i in enumerate(branches) if is_cut(found[i][0])]:
        likeliest = logprobs(logits).argmax(axis=-1)
        on = [row for row in going if not is_end(int(likeliest[row]))]
        for row in going:
            tokens, i = found[branches[row]][0], branches[row]
            found[i] = ([*tokens, int(likeliest[row])], False) if row in on else (tokens, True)
        if not on:
            break
        branches, logits = [branches[row] for row in on], step(on, [int(likeliest[row]) for row in on])
    return found


def _best(scores: np.ndarray, n: int) -> np.ndarray:
    """Where the ``n`` highest of ``scores`` (N,) are, the best first; of equal ones those that stand first."""
    n = min(n, scores.size)
    least = -np.partition(-scores, n - 1)[n - 1]
    candidates = np.flatnonzero(scores >= least)  # all that tie at the cut, of which a partition takes any
    return candidates[np.argsort(-scores[candidates], kind="stable")][:n]
