"""A from-scratch reference for any mlx-lm decoder that knows positions and masks only, a program of reads and
writes to compare by, and mistakes that the comparison must notice. Only `stream` and `teach` use streamllm.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache as memoize
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from families import VOCABULARY, Family
from mlx.utils import tree_map
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache

from streamllm.cache.dual import DualStreamingCache
from streamllm.models.families import groups_queries


@memoize
def build(family: Family, seed: int = 0) -> nn.Module:
    """The model of a family with random weights, none of them zeros or ones, so that every part matters."""
    module = importlib.import_module(f"mlx_lm.models.{family.model_type}")
    config = tree_map(lambda x: x, family.config)  # some constructors write into what they get
    model: nn.Module = module.Model(module.ModelArgs.from_dict(config))
    mx.random.seed(seed)

    def randomise(weight: mx.array) -> mx.array:
        if not mx.issubdtype(weight.dtype, mx.floating):
            return weight
        if weight.ndim < 2:  # norms, biases, gains: keep what they start from, but break its symmetry
            return weight.astype(mx.float32) + 0.2 * mx.random.normal(weight.shape)
        return mx.random.normal(weight.shape, scale=1.5 / weight.shape[-1] ** 0.5)

    model.update(tree_map(randomise, model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    return model


# A program: what is fed, in which order. Both streams outgrow WINDOW; the first write has several tokens, as a
# target header has; tokens are trimmed and other ones fed in their place.


@dataclass(frozen=True)
class Step:
    action: Literal["read", "write", "trim"]
    count: int


PROGRAM: tuple[Step, ...] = (
    Step("read", 3),
    Step("read", 1),
    Step("write", 3),
    Step("write", 1),
    Step("read", 2),
    Step("trim", 1),
    Step("write", 1),
    Step("read", 3),
    Step("write", 1),
    Step("write", 2),
    Step("trim", 2),
    Step("read", 1),
    Step("write", 3),
    Step("write", 1),
    Step("write", 1),
)


@dataclass(frozen=True)
class Fed:
    """A token that was fed: what it may see are the tokens (by index) held when its turn came, itself included.

    ``index`` is its place in its stream; ``source`` and ``target`` are what it sees, oldest first.
    """

    token: int
    stream: Literal["source", "target"]
    index: int
    source: tuple[int, ...]
    target: tuple[int, ...]


@memoize
def fed_tokens(program: tuple[Step, ...] = PROGRAM, seed: int = 1) -> tuple[Fed, ...]:
    """Every token that the program feeds, in order, with what each may see. Trimmed tokens are among them."""
    draw = np.random.default_rng(seed)
    fed: list[Fed] = []
    held: dict[str, list[int]] = {"source": [], "target": []}
    for step in program:
        if step.action == "trim":
            del held["target"][-step.count :]
            continue
        stream: Literal["source", "target"] = "source" if step.action == "read" else "target"
        for _ in range(step.count):
            held[stream].append(len(fed))
            target = tuple(held["target"]) if stream == "target" else ()
            index = len(held[stream]) - 1
            fed.append(Fed(int(draw.integers(VOCABULARY)), stream, index, tuple(held["source"]), target))
    return tuple(fed)


# The reference


class RowsCache:
    """Stands for a layer's cache in one forward over all tokens, each of them a row of one token.

    Every row has the position and the mask that it is given, and all rows' keys to choose from; so what a
    token gets depends on nothing but these.
    """

    def __init__(self, fed: Sequence[Fed], positions: Sequence[int], use_window: bool = True):
        self._fed = fed
        self._use_window = use_window
        self.offset = mx.array(list(positions))  # (L,)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        def everyone(x: mx.array) -> mx.array:  # (L, H, 1, D) -> (L, H, L, D)
            rows, heads, _, width = x.shape
            return mx.broadcast_to(x.transpose(2, 1, 0, 3), (rows, heads, rows, width))

        self._shared = everyone(keys), everyone(values)
        return self._shared

    def keys_and_values(self) -> tuple[mx.array, mx.array]:  # for layers that share the keys of this one
        return self._shared

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        mask = np.zeros((len(self._fed), 1, 1, len(self._fed)), bool)
        for row, token in enumerate(self._fed):
            mask[row, ..., _sees(token, window_size if self._use_window else None)] = True
        return mx.array(mask)


class SequentialCache:
    """Stands for a layer's cache when tokens come one at a time: keeps all keys, trimmed ones too."""

    def __init__(self, fed: Sequence[Fed], positions: Sequence[int], use_window: bool = True):
        self._fed, self._positions, self._use_window = fed, positions, use_window
        self._keys: list[mx.array] = []
        self._values: list[mx.array] = []
        self.turn = 0

    @property
    def offset(self) -> int:
        return self._positions[self.turn]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self._keys.append(keys)
        self._values.append(values)
        return mx.concatenate(self._keys, axis=2), mx.concatenate(self._values, axis=2)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        mask = np.zeros((1, self.turn + 1), bool)
        mask[:, _sees(self._fed[self.turn], window_size if self._use_window else None)] = True
        return mx.array(mask)


def _sees(token: Fed, window_size: int | None) -> list[int]:
    """A sliding window of w leaves the last w of each stream."""
    if window_size is None:
        return [*token.source, *token.target]
    return [*token.source[-window_size:], *token.target[-window_size:]]


def positions_of(fed: Sequence[Fed], target_start: int) -> list[int]:
    """Group positions: the source counts from 0, the target from ``target_start``."""
    return [token.index + (target_start if token.stream == "target" else 0) for token in fed]


def reference(family: Family, fed: Sequence[Fed], positions: Sequence[int], use_window: bool = True) -> np.ndarray:
    """Logits (L, V) of all fed tokens from positions and masks alone."""
    model = build(family)
    layers = len(make_prompt_cache(model))
    if family.reference == "rows":
        rows = [RowsCache(fed, positions, use_window) for _ in range(layers)]
        return _float(model(mx.array([[token.token] for token in fed]), cache=rows)[:, 0])
    caches = [SequentialCache(fed, positions, use_window) for _ in range(layers)]
    logits = []
    for turn, token in enumerate(fed):
        for cache in caches:
            cache.turn = turn
        logits.append(model(mx.array([[token.token]]), cache=caches)[:, 0])
    return _float(mx.concatenate(logits))


@memoize
def expected(family: Family, target_start: int) -> np.ndarray:
    """The reference of PROGRAM."""
    fed = fed_tokens()
    return reference(family, fed, positions_of(fed, target_start))


def own_forward(family: Family, tokens: Sequence[int]) -> np.ndarray:
    """Logits (L, V) of a plain sequence as mlx-lm computes them itself."""
    model = build(family)
    return _float(model(mx.array([list(tokens)]), cache=make_prompt_cache(model))[0])


# Mistakes: wrong positions and masks. The comparison must tell each of them from the truth.


def _continued_positions(fed: Sequence[Fed]) -> list[int]:
    return [token.index + (len(token.source) if token.stream == "target" else 0) for token in fed]


def _future_source(fed: Sequence[Fed]) -> list[Fed]:
    source = tuple(i for i, token in enumerate(fed) if token.stream == "source")
    return [replace(token, source=source) if token.stream == "target" else token for token in fed]


def _stale_source(fed: Sequence[Fed]) -> list[Fed]:
    return [replace(token, source=token.source[:-1]) if token.stream == "target" else token for token in fed]


def _source_sees_target(fed: Sequence[Fed]) -> list[Fed]:
    wrong: list[Fed] = []
    target: tuple[int, ...] = ()
    for token in fed:
        target = token.target or target
        wrong.append(replace(token, target=target) if token.stream == "source" else token)
    return wrong


def _bidirectional_header(fed: Sequence[Fed]) -> list[Fed]:
    header = [i for i, token in enumerate(fed) if token.stream == "target"][:3]
    return [replace(token, target=tuple(header)) if i in header else token for i, token in enumerate(fed)]


def _trimmed_token_kept(fed: Sequence[Fed]) -> list[Fed]:
    trimmed = [i for i, token in enumerate(fed) if token.stream == "target"][3]
    return [
        replace(token, target=tuple(sorted({trimmed, *token.target}))) if i > trimmed and token.target else token
        for i, token in enumerate(fed)
    ]


MASK_MISTAKES: dict[str, Callable[[Sequence[Fed]], list[Fed]]] = {
    "a target token sees source that has not been read": _future_source,
    "a target token misses the newest source token": _stale_source,
    "a source token sees the target": _source_sees_target,
    "the first write is not causal": _bidirectional_header,
    "a trimmed token is still seen": _trimmed_token_kept,
}
NEED_THE_FUTURE = {"a target token sees source that has not been read", "the first write is not causal"}
POSITION_MISTAKE = "target positions go on where the source ends"
WINDOW_MISTAKE = "the sliding window is left out"


def has_window(family: Family) -> bool:
    return any(isinstance(cache, RotatingKVCache) for cache in make_prompt_cache(build(family)))


def mistakes_of(family: Family) -> list[str]:
    """The mistakes that the family's reference can make. A sequential one cannot see tokens of the future."""
    masks = [name for name in MASK_MISTAKES if family.reference == "rows" or name not in NEED_THE_FUTURE]
    return [POSITION_MISTAKE, *masks, *([WINDOW_MISTAKE] if has_window(family) else [])]


def mistaken(family: Family, mistake: str) -> np.ndarray:
    """What the reference gives when it makes a mistake (φ = 0)."""
    fed = fed_tokens()
    if mistake == POSITION_MISTAKE:
        return reference(family, fed, _continued_positions(fed))
    if mistake == WINDOW_MISTAKE:
        return reference(family, fed, positions_of(fed, 0), use_window=False)
    return reference(family, MASK_MISTAKES[mistake](fed), positions_of(fed, 0))


# What is to be proven


def stream(family: Family, target_start: int, step: int = 4) -> np.ndarray:
    """Logits (L, V) of all tokens of PROGRAM through `DualStreamingCache`, in the chunks of the program."""
    model, fed = build(family), fed_tokens()
    caches = [DualStreamingCache(target_start, step=step) for _ in make_prompt_cache(model)]
    logits, at = [], 0
    for action in PROGRAM:
        if action.action == "trim":
            for cache in caches:
                cache.target.trim(action.count)
            continue
        tokens = mx.array([[token.token for token in fed[at : at + action.count]]])
        at += action.count
        views = [cache.source if action.action == "read" else cache.target for cache in caches]
        logits.append(model(tokens, cache=views)[0])
        mx.eval(logits[-1])
    return _float(mx.concatenate(logits))


LESSON = (5, 6)  # source and target tokens of a training example
BATCH = 2


def lesson_fed(row: int) -> list[Fed]:
    """A training example: target token i (0-based) of row b sees the first b + i + 1 source tokens."""
    draw = np.random.default_rng(row)
    source, target = LESSON
    tokens = [int(token) for token in draw.integers(VOCABULARY, size=source + target)]
    read = [Fed(tokens[i], "source", i, tuple(range(i + 1)), ()) for i in range(source)]
    written = [
        Fed(
            tokens[source + i],
            "target",
            i,
            tuple(range(min(source, row + i + 1))),
            tuple(range(source, source + i + 1)),
        )
        for i in range(target)
    ]
    return read + written


def teach(family: Family) -> np.ndarray:
    """Logits (BATCH, T, V) of a batch whose whole target is written at once, each row with its own mask."""
    model = build(family)
    source, target = LESSON
    rows = [lesson_fed(row) for row in range(BATCH)]
    tokens = mx.array([[token.token for token in row] for row in rows])
    visible = np.zeros((BATCH, target, source), bool)
    for b, row in enumerate(rows):
        for i, token in enumerate(row[source:]):
            visible[b, i, list(token.source)] = True
    caches = [DualStreamingCache(step=1) for _ in make_prompt_cache(model)]
    model(tokens[:, :source], cache=[cache.source for cache in caches])
    for cache in caches:
        cache.target.visible = mx.array(visible[:, None] if groups_queries(model) else visible)
    return _float(model(tokens[:, source:], cache=[cache.target for cache in caches]))


def taught(family: Family) -> np.ndarray:
    """What `teach` must be equal to: the reference, row by row."""
    rows = [lesson_fed(row) for row in range(BATCH)]
    return np.stack([reference(family, row, positions_of(row, 0))[LESSON[0] :] for row in rows])


def _float(logits: mx.array) -> np.ndarray:
    return np.array(logits.astype(mx.float32))


def deviation(got: np.ndarray, true: np.ndarray) -> float:
    """Largest difference, as a share of the largest logit."""
    return float(np.abs(got - true).max() / np.abs(true).max())


TOLERANCE = 2e-4  # for equal, float32
NOTICEABLE = 100 * TOLERANCE  # for mistakes
