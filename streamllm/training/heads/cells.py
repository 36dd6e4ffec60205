"""Predictions of a model at each place where a policy could stand: so many source units read, so much of the target
written. All of a pair come out of a few forwards: its source is read once, and each row of the target sees other
prefixes of it."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from streamllm.cache.dual import make_caches
from streamllm.engine.attention import Call, check_heads
from streamllm.engine.forward import forward
from streamllm.models.families import groups_queries
from streamllm.models.model import StreamingModel
from streamllm.prompt import PromptTokens
from streamllm.training.sources import Tokenized

MANY_EXPONENTIALS = 20_000
ROWS = 96
"""Rows of targets in a forward, at most."""

LOGITS = 1 << 25
"""Logits of a forward, at most: 128 MiB."""

Floats = np.ndarray[Any, np.dtype[np.float32]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Heads = Sequence[Sequence[int]] | None
T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """A target as a policy decides on it: units, with the punctuation after a word apart (`records.Write.bare`), and
    the end token.

    Args:
        tokens: of all parts, the end token last, (M,).
        starts: where each part begins in ``tokens``, (parts,).
        units: the unit that each is of, (parts,); of the end, how many there are.
    """

    tokens: Numbers
    starts: Numbers
    units: Numbers

    @property
    def sizes(self) -> Numbers:
        """Tokens of each, (parts,)."""
        return np.diff(self.starts, append=len(self.tokens))

    @staticmethod
    def of(pair: Tokenized, prompt: PromptTokens) -> "Parts":
        tokens: list[int] = []
        starts, units = [], []
        for unit, piece in enumerate(pair.target):
            begin = 0
            for i, token in enumerate(piece):
                if i == begin or prompt.divides(piece[begin:i], token):
                    begin = i
                    starts.append(len(tokens) + i)
                    units.append(unit)
            tokens += piece
        return Parts(
            np.array([*tokens, prompt.end_token]),
            np.array([*starts, len(tokens)]),
            np.array([*units, len(pair.target)]),
        )


@dataclass(frozen=True)
class Cells:
    """Places of one pair, (C,), where a policy decides about a part.

    Args:
        read: source units read, 1 to |x|.
        part: which of ``parts`` comes next.
        states: what the output layer is given where the part's first token is predicted, (C, E).
        logits: of all tokens of these parts, one cell's after the other's, (N, V).
        whole: of all tokens, from the whole source and its footer, (M, V).
        units: |x|.
        aligned: the source unit, from 0, that each token looks at most when it is predicted from the whole source (M,);
            None where nobody asks.
        needs: how many source units each target unit needs, by a word aligner; None where nobody asks.
    """

    parts: Parts
    read: Numbers
    part: Numbers
    states: Floats
    logits: Floats
    whole: Floats
    units: int
    aligned: Numbers | None = None
    needs: Numbers | None = None

    @property
    def written(self) -> Numbers:
        """Target units written by then: the word itself, where its punctuation comes next."""
        begun = np.diff(self.parts.units, prepend=-1) == 0
        written: Numbers = (self.parts.units + begun)[self.part]
        return written

    @property
    def starts(self) -> Numbers:
        """Where each cell begins in ``logits``."""
        sizes = self.parts.sizes[self.part]
        return np.cumsum(sizes) - sizes

    @property
    def places(self) -> Numbers:
        """Which of all tokens each of ``logits`` is of, (N,)."""
        sizes = self.parts.sizes[self.part]
        return np.arange(len(self.logits)) + np.repeat(self.parts.starts[self.part] - self.starts, sizes)


@dataclass(frozen=True)
class Measured:
    """Cells of many pairs, (C,) each.

    Args:
        states: what the output layer is given, (C, E), float16.
        measured: by the labels, float32.
        read, written, units: source units read, target units written, and |x|.
        latency: which of ``cells.latencies`` the target header asks for; -1 is the prompt's own.
    """

    states: np.ndarray[Any, Any]
    measured: np.ndarray[Any, Any]
    read: np.ndarray[Any, Any]
    written: np.ndarray[Any, Any]
    units: np.ndarray[Any, Any]
    latency: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.measured)


def every_path(parts: Parts, units: int, ahead: int) -> Numbers:
    """How many source units each part sees by wait-k, (rows, parts): k from 1 - ``ahead``, which has as many units
    written and not read, to |x|. What is below 1 or above |x| is no place that a policy decides at."""
    return np.arange(1 - ahead, units + 1)[:, None] + parts.units


def drawn_paths(
    parts: Parts, units: int, ahead: int, behind: int, jitter: int, rows: int, rng: random.Random
) -> Numbers:
    """As `every_path`, of ``rows`` k's that are drawn up to ``behind``. A path strays from wait-k by up to ``jitter``
    units at each part, and never goes back: a policy that decides for itself reads in leaps, too."""
    every = range(1 - ahead, max(2, min(units, behind) + 1))
    paths = np.array([[rng.choice(every)] for _ in range(rows)]) + parts.units
    if jitter:
        paths = paths + np.array([[rng.randint(-jitter, jitter) for _ in parts.units] for _ in range(rows)])
        paths = np.maximum.accumulate(paths, axis=1)
    return paths


def cells_of(
    model: StreamingModel,
    pairs: Sequence[Tokenized],
    paths_of: Sequence[Numbers],
    heads: Heads = None,
    headers: Sequence[Sequence[int]] | None = None,
) -> Iterator[Cells]:
    """The cells of each pair, in order, on its paths (rows, parts). Pairs of similar length beside each other cost
    least.

    Args:
        heads: pairs of layer and head that say which unit each token is aligned with; None asks nobody.
        headers: the target header of each pair, all of as many tokens (`PromptTokens.header_asking`); None takes the
            prompt's own.

    Raises:
        ValueError: the model has no such head, or its attention cannot be read out.
    """
    made = [Parts.of(pair, model.prompt) for pair in pairs]
    headers = headers if headers is not None else [model.prompt.target_header] * len(pairs)

    def cells(some: list[int]) -> Iterator[Cells]:
        def of(each: Sequence[T]) -> list[T]:
            return [each[i] for i in some]

        return _cells(model, of(pairs), of(made), of(paths_of), of(headers), heads)

    group: list[int] = []
    rows = logits = 0
    wide = _vocabulary(model.model)
    for i, (parts, own) in enumerate(zip(made, paths_of, strict=True)):
        more, wanted = len(own) + 1, (len(own) + 1) * len(parts.tokens) * wide
        if group and (rows + more > ROWS or logits + wanted > LOGITS):
            yield from cells(group)
            group, rows, logits = [], 0, 0
        group.append(i)
        rows, logits = rows + more, logits + wanted
    if group:
        yield from cells(group)


def _vocabulary(model: Any) -> int:
    args = model.args
    return int(getattr(args, "vocab_size", None) or args.text_config["vocab_size"])


def _cells(
    model: StreamingModel,
    pairs: Sequence[Tokenized],
    made: Sequence[Parts],
    paths_of: Sequence[Numbers],
    headers: Sequence[Sequence[int]],
    heads: Heads = None,
) -> Iterator[Cells]:
    prompt, header = model.prompt, len(model.prompt.target_header)
    sources, units = [], []  # tokens, and the unit of each: 0 is the header, |x| + 1 the footer
    for pair in pairs:
        pieces = [prompt.source_header, *pair.source, prompt.source_footer]
        sources.append([token for piece in pieces for token in piece])
        units.append(np.array([unit for unit, piece in enumerate(pieces) for _ in piece]))
    sees = [_sees(path, len(pair.source)) for pair, path in zip(pairs, paths_of, strict=True)]
    counts = [len(one) for one in sees]
    longest, widest = header - 1 + max(len(parts.tokens) for parts in made), max(map(len, sources))
    visible = np.zeros((sum(counts), longest, widest), bool)
    visible[:, :, 0] = True  # padding sees something
    tokens = np.zeros((sum(counts), longest), np.int32)
    at: list[tuple[Numbers, Numbers]] = []
    start = 0
    each = zip(pairs, units, made, sees, paths_of, headers, strict=True)
    for pair, source_units, parts, own, path, target_header in each:
        of_pair, end = slice(start, start + len(own)), header - 1 + len(parts.tokens)
        of_token = np.concatenate([np.repeat(own[:, :1], header - 1, axis=1), np.repeat(own, parts.sizes, axis=1)], 1)
        visible[of_pair, :end, : len(source_units)] = source_units <= of_token[:, :, None]
        tokens[of_pair, :end] = [*target_header, *parts.tokens[:-1]]
        row, place = np.nonzero(np.repeat(_are_cells(path, len(pair.source)), parts.sizes, axis=1))
        at.append((start + row, header - 1 + place))
        start += len(own)
    caches = make_caches(model.model, 0 if model.target_start == "after_source" else model.target_start, step=1)
    padded = np.zeros((len(sources), widest), np.int32)
    for line, source in zip(padded, sources, strict=True):
        line[: len(source)] = source
    forward(model.model, mx.array(padded), [cache.source for cache in caches], least=MANY_EXPONENTIALS)
    mask = mx.array(visible)
    for cache in caches:
        cache.select([i for i, n in enumerate(counts) for _ in range(n)])
        cache.target.visible = mask[:, None] if groups_queries(model.model) else mask
    which = [mx.array(np.concatenate(each)) for each in zip(*at, strict=True)]
    states: list[mx.array] = []
    targets = [cache.target for cache in caches]
    wanted = (which[0], which[1])
    attends = heads is not None
    logits, calls = forward(model.model, mx.array(tokens), targets, wanted, MANY_EXPONENTIALS, attends, states=states)
    found, hidden = (np.array(array.astype(mx.float32)) for array in (logits, states[0]))
    if prompt.wait_token is not None:
        found[:, prompt.wait_token] = -np.inf  # it is never written: no prediction counts it
    start = row_of_whole = 0
    for pair, parts, own, path, source_units, (rows, _) in zip(pairs, made, sees, paths_of, units, at, strict=True):
        row, part = np.nonzero(_are_cells(path, len(pair.source))[:-1])
        sizes = parts.sizes[part]
        firsts = start + np.cumsum(sizes) - sizes
        whole = start + len(rows) - len(parts.tokens)
        row_of_whole += len(own)
        places = slice(header - 1, header - 1 + len(parts.tokens))
        aligned = (
            None if heads is None else _aligned(calls, heads, row_of_whole - 1, places, source_units, len(pair.source))
        )
        yield Cells(
            parts,
            own[row, part],
            part,
            hidden[firsts],
            found[start:whole],
            found[whole : start + len(rows)],
            len(pair.source),
            aligned,
        )
        start += len(rows)


def _aligned(
    calls: list[Call], heads: Sequence[Sequence[int]], row: int, places: slice, units: Numbers, count: int
) -> Numbers:
    """Which of ``count`` source units, from 0, each token of a row is aligned with (M,): that which the heads look at
    most, on average. ``units`` (S,) says what each source token is of: 0 is the header, 1 the first unit."""
    check_heads(heads, len(calls), calls[0][0].shape[1])
    looks = np.zeros((places.stop - places.start, len(units)), np.float32)
    for layer, head in heads:
        queries, keys, scale = calls[layer]
        of_head = keys[row, head * keys.shape[1] // queries.shape[1], : len(units)].astype(mx.float32)
        looks += np.array(mx.softmax(queries[row, head, places].astype(mx.float32) @ of_head.T * scale, axis=-1))
    found: Numbers = (looks @ (units[:, None] == np.arange(1, count + 1))).argmax(axis=1)
    return found


def _sees(paths: Numbers, units: int) -> Numbers:
    """How many source units each part sees, (rows + 1, parts): one at least. The last row sees the footer, too."""
    return np.concatenate([np.clip(paths, 1, units), np.full((1, paths.shape[1]), units + 1)])


def _are_cells(paths: Numbers, units: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of them a policy decides at; all of the last row are wanted."""
    return np.concatenate([(paths >= 1) & (paths <= units), np.ones((1, paths.shape[1]), bool)])
