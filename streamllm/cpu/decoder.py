"""Forwards of many streams through a decoder of Llama's shape, on a CPU: numpy and MKL compute what mlx-lm's model
would, from its own weights. Tokens of all streams lie side by side, so nothing is padded, and attention takes keys
where they lie.

Invariant: logits are those of the model, but for rounding; `streamllm.batching.trial` tries it for each model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from streamllm.cpu.blocks import Blocks
from streamllm.cpu.enabled import enabled
from streamllm.cpu.mkl import Batch, Floats, Numbers, Sizes, library
from streamllm.cpu.weights import Frequencies, Weights, is_of_the_shape, weights_of

WIDER = 2
"""How many times longer than the shortest the longest of tokens may be whose softmax is taken together."""


@dataclass(frozen=True)
class Spans:
    """The tokens of a forward, as attention sees them: one span for each row that has some, in the order of rows.

    Args:
        rows: (R,) of `Blocks`.
        counts: (R,) tokens of each.
        lengths: (R,) columns that they see, at most; not falling.
        masks: a token sees these columns, (T, the longest): of all that are held, and through each window of the model.
    """

    rows: Numbers
    counts: Numbers
    lengths: Numbers
    masks: Mapping[int | None, np.ndarray[Any, np.dtype[np.bool_]]]


class Scratch:
    """Arrays that are used again and again: to allocate one anew costs as much as to fill it."""

    def __init__(self) -> None:
        self._arrays: dict[str, Floats] = {}

    def __call__(self, name: str, *shape: int) -> Floats:
        size = int(np.prod(shape))
        if name not in self._arrays or self._arrays[name].size < size:
            # Places that no product fills are multiplied by 0 later: what lay in memory could be infinite.
            self._arrays[name] = np.zeros(size + size // 4, np.float32)
        return self._arrays[name][:size].reshape(shape)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())


class Decoder:
    """The forward of a model by its weights. One serves all threads; build it anew when weights have changed.

    Attributes:
        windows: of sliding attention, None standing for that which sees all.
        parameters: how many the model has.
    """

    def __init__(self, weights: Weights):
        self._weights = weights
        self.heads, self.kv_heads, self.width = weights.heads, weights.kv_heads, weights.width
        self.scale, self.layers, self.parameters = weights.scale, len(weights.layers), weights.parameters
        self.windows = sorted({layer.window for layer in weights.layers}, key=lambda window: window or 0)
        self._epsilon = np.float32(weights.epsilon)

    @staticmethod
    def serves(model: Any) -> bool:
        """Whether there is one for this model on this machine. No weights are laid out to find out."""
        on_cpu = mx.default_device() == mx.Device(mx.cpu)  # type: ignore[arg-type]
        return enabled() and library() is not None and on_cpu and is_of_the_shape(model)

    @staticmethod
    def of(model: Any) -> "Decoder | None":
        """None where this model, or this machine, wants MLX to compute."""
        return Decoder(weights_of(model)) if Decoder.serves(model) else None

    def blocks(self, rows: int) -> Blocks:
        """Empty, for so many rows."""
        return Blocks(self.layers, self.kv_heads, self.width, rows)

    def forward(
        self,
        blocks: Blocks,
        tokens: Numbers,
        positions: Numbers,
        columns: Numbers,
        spans: Spans,
        asked: Numbers,
        of_asked: Spans,
        scratch: Scratch,
        noted: list[Floats] | None = None,
        states: list[Floats] | None = None,
    ) -> Floats:
        """Feed tokens (T,), which rows have room for, and return logits (asked, V).

        Args:
            columns: of each token in its row's block.
            spans: of all tokens.
            asked: which tokens' logits are wanted, rising; none of them is an empty array.
            of_asked: the spans of those alone.
            noted: takes the queries (asked, heads, width) of each layer.
            states: takes what the output layer is given, one array (asked, E).
        """
        weights, count = self._weights, len(tokens)
        at = blocks.at(np.repeat(spans.rows, spans.counts), columns)
        turns = [self._turns(rope, positions, self.heads + self.kv_heads) for rope in weights.ropes]
        x = scratch("x", count, weights.embedding.shape[1])
        np.take(weights.embedding, tokens, axis=0, out=x, mode="clip")
        if weights.embedding_scale != 1:
            x *= np.float32(weights.embedding_scale)
        attend = _Attend(self, blocks, spans)
        for i, layer in enumerate(weights.layers):
            qkv = scratch("qkv", count, layer.qkv.width)
            layer.qkv.product(self._normed(x, layer.before_attention, scratch), qkv)
            if layer.qkv_bias is not None:
                qkv += layer.qkv_bias
            each = qkv.reshape(count, self.heads + 2 * self.kv_heads, self.width)
            if layer.heads_norms is not None:
                self._norm_heads(each[:, : self.heads + self.kv_heads], layer.heads_norms)
            _rotate(each[:, : self.heads + self.kv_heads], turns[layer.rope], scratch)
            blocks.keys[i][at] = each[:, self.heads : -self.kv_heads]
            blocks.values[i][at] = each[:, -self.kv_heads :]
            if noted is not None:
                noted.append(each[asked, : self.heads])
            if i == self.layers - 1:
                if not len(asked):
                    return np.empty((0, weights.head.width), np.float32)
                if len(asked) < count:  # nobody asks for more of the others than what is stored by now
                    x, qkv, count = x[asked], qkv[asked], len(asked)
                    attend = _Attend(self, blocks, of_asked)
            seen = attend(i, layer.window, qkv, scratch)
            x += self._after(layer.out.product(seen, scratch("out", *x.shape)), layer.after_attention, scratch)
            both = scratch("both", count, layer.gate_up.width)
            layer.gate_up.product(self._normed(x, layer.before_mlp, scratch), both)
            if weights.activation == "silu":
                gated = _swiglu(both, weights.halved_gates, scratch)
            else:
                gated = _geglu(both, scratch)
            x += self._after(layer.down.product(gated, scratch("out", *x.shape)), layer.after_mlp, scratch)
        logits = np.empty((count, weights.head.width), np.float32)
        normed = self._normed(x, weights.norm, scratch)
        if states is not None:
            states.append(normed.copy())
        return weights.head.product(normed, logits)

    def moved(self, layer: int, keys: Floats, by: int) -> Floats:
        """Keys (…, width) of a layer at positions that are ``by`` higher."""
        out = keys.reshape(-1, 1, self.width).copy()
        rope = self._weights.ropes[self._weights.layers[layer].rope]
        _rotate(out, self._turns(rope, np.array([by]), 1), Scratch())
        return out.reshape(keys.shape)

    def _turns(self, frequencies: Frequencies, positions: Numbers, heads: int) -> "_Turns":
        angles = positions[:, None] * frequencies
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        shape = len(positions), heads, 2, self.width // 2
        return _Turns(
            np.tile(cos, 2 * heads).reshape(shape), np.tile(np.concatenate([-sin, sin], axis=1), heads).reshape(shape)
        )

    def _normed(self, x: Floats, weight: Floats, scratch: Scratch) -> Floats:
        out = scratch("normed", *x.shape)
        factors = np.einsum("te,te->t", x, x) / np.float32(x.shape[1])
        factors += self._epsilon
        np.sqrt(factors, out=factors)
        np.divide(x, factors[:, None], out=out)
        out *= weight
        return out

    def _after(self, x: Floats, weight: Floats | None, scratch: Scratch) -> Floats:
        """What is added to the stream, normalised where the model does."""
        return x if weight is None else self._normed(x, weight, scratch)

    def _norm_heads(self, heads: Floats, weights: tuple[Floats, Floats]) -> None:
        factors = np.sqrt(np.einsum("thd,thd->th", heads, heads) / np.float32(self.width) + self._epsilon)
        heads /= factors[..., None]
        heads[:, : self.heads] *= weights[0]
        heads[:, self.heads :] *= weights[1]


class _Attend:
    """Attention of the tokens of a forward, in each layer anew. Where rows beside each other begin with the prefix, one
    product of each head takes its keys for all their tokens, and one its values; the rest is of each row's own."""

    def __init__(self, decoder: Decoder, blocks: Blocks, spans: Spans):
        self._decoder, self._blocks = decoder, blocks
        # Scores are at most this: of what a token does not see, whatever lies there, NaN included.
        self._bounds = {
            window: np.where(mask, np.float32(np.inf), np.float32(-np.inf))[:, None]
            for window, mask in spans.masks.items()
        }
        heads, width = decoder.heads, decoder.width
        firsts = np.cumsum(spans.counts) - spans.counts
        self._parts = _alike(spans.lengths)
        room = np.zeros(len(spans.rows), np.int64)  # columns of scores that each token has
        offsets = np.zeros(len(spans.rows), np.int64)  # where its scores begin
        self._shapes: list[tuple[slice, int, int]] = []
        at = 0
        for part in self._parts:
            longest = int(spans.lengths[part.stop - 1])
            first, end = int(firsts[part.start]), int(firsts[part.stop - 1] + spans.counts[part.stop - 1])
            room[part] = longest
            offsets[part] = at + (firsts[part] - first) * heads * longest
            self._shapes.append((slice(first, end), longest, at))
            at += (end - first) * heads * longest
        self._scores = at
        # Products of one size stand together.
        begun = blocks.begun[spans.rows]
        own = spans.lengths - begun
        alike = spans.counts + (own << 32) + ((begun > 0).astype(np.int64) << 62)
        _, first_of, group = np.unique(alike, return_index=True, return_inverse=True)
        order = np.argsort(group, kind="stable")
        of_each = np.bincount(group) * heads
        m, n, room_of = spans.counts[first_of], own[first_of], room[first_of]
        k, stride = np.full_like(m, width), np.full_like(m, heads * width)
        of_all = np.full_like(m, (heads + 2 * decoder.kv_heads) * width)
        self._products = Batch(Sizes(m, n, k, of_all, k, heads * room_of, of_each), True, decoder.scale)
        self._sums = Batch(Sizes(m, k, n, heads * room_of, k, stride, of_each), False, added=begun[first_of] > 0)
        every, starts, rows = np.arange(heads), firsts[order][:, None], spans.rows[order]
        self._queries = _flat(4 * width * (starts * (heads + 2 * decoder.kv_heads) + every))
        self._outputs = _flat(4 * width * (starts * heads + every))
        self._to = _flat(4 * (offsets[order][:, None] + every * room[order][:, None] + begun[order][:, None]))
        of_head = every // (heads // decoder.kv_heads)  # which keys it takes
        self._held = _flat(4 * width * (blocks.starts[rows][:, None] + of_head * blocks.sizes[rows][:, None]))
        self._common = None
        if begun.any():
            kinds: Numbers = (begun > 0).astype(np.int64)
            for i, part in enumerate(self._parts):
                kinds[part] += 2 * i
            runs = np.flatnonzero(np.diff(kinds, prepend=-1))
            tokens, run = np.add.reduceat(spans.counts, runs)[begun[runs] > 0], runs[begun[runs] > 0]
            self._common = _Common(decoder, int(begun.max()), firsts[run], tokens, room[run], offsets[run])

    def __call__(self, layer: int, window: int | None, qkv: Floats, scratch: Scratch) -> Floats:
        """(T, heads · width), from queries (with keys and values behind them) of each token."""
        heads, count = self._decoder.heads, len(qkv)
        scores = scratch("scores", self._scores)
        out = scratch("seen", count, heads * self._decoder.width)
        keys, values = self._blocks.keys[layer].ctypes.data, self._blocks.values[layer].ctypes.data
        to, bounds = self._to + scores.ctypes.data, self._bounds[window]
        if self._common:
            self._common.products(qkv, self._blocks.prefix[layer][0], scores)
        self._products(self._queries + qkv.ctypes.data, self._held + keys, to)
        for tokens, longest, start in self._shapes:
            n = tokens.stop - tokens.start
            part = scores[start : start + n * heads * longest].reshape(n, heads, longest)
            np.fmin(part, bounds[tokens, :, :longest], out=part)
            part -= np.maximum.reduce(part, axis=-1, keepdims=True)
            np.exp(part, out=part)
            part /= np.add.reduce(part, axis=-1, keepdims=True)
        if self._common:
            self._common.sums(scores, self._blocks.prefix[layer][1], out)
        self._sums(to, self._held + values, self._outputs + out.ctypes.data)
        return out


class _Common:
    """Attention to the prefix, of all tokens whose rows begin with it.

    Args:
        prefix: its tokens.
        firsts, tokens: runs of such tokens, (runs,): the first one, and how many.
        room, offsets: (runs,) columns of scores that each token of a run has, and where those of the first begin.
    """

    def __init__(
        self, decoder: Decoder, prefix: int, firsts: Numbers, tokens: Numbers, room: Numbers, offsets: Numbers
    ):
        heads, width, firsts, m = decoder.heads, decoder.width, firsts[:, None], tokens
        n, k, many = np.full_like(m, prefix), np.full_like(m, width), np.full_like(m, heads)
        of_all, stride, rows = (heads + 2 * decoder.kv_heads) * k, heads * k, heads * room
        self._products = Batch(Sizes(m, n, k, of_all, k, rows, many), True, decoder.scale)
        self._sums = Batch(Sizes(m, k, n, rows, k, stride, many), False)
        every = np.arange(heads)
        self._queries = _flat(4 * width * (firsts * (heads + 2 * decoder.kv_heads) + every))
        self._outputs = _flat(4 * width * (firsts * heads + every))
        self._scores = _flat(4 * (offsets[:, None] + every * room[:, None]))
        own = every // (heads // decoder.kv_heads)  # which keys a head takes
        self._held = _flat(4 * width * prefix * np.tile(own, (len(m), 1)))

    def products(self, qkv: Floats, keys: Floats, scores: Floats) -> None:
        self._products(
            self._queries + qkv.ctypes.data, self._held + keys.ctypes.data, self._scores + scores.ctypes.data
        )

    def sums(self, scores: Floats, values: Floats, out: Floats) -> None:
        to = self._outputs + out.ctypes.data
        self._sums(self._scores + scores.ctypes.data, self._held + values.ctypes.data, to)


def _alike(lengths: Numbers) -> list[slice]:
    """Cuts rising lengths into parts in which none is `WIDER` times another, but for short ones."""
    parts, start = [], 0
    for i, length in enumerate(lengths.tolist()):
        if length > WIDER * lengths[start] + 16:
            parts.append(slice(start, i))
            start = i
    return [*parts, slice(start, len(lengths))]


def _flat(addresses: Any) -> Numbers:
    return np.ascontiguousarray(addresses.reshape(-1), np.int64)


class _Turns(NamedTuple):
    """Rotary positions of tokens, for both halves of all heads: (T, heads, 2, width / 2) each."""

    cos: Floats
    sin: Floats


def _rotate(x: Floats, turns: _Turns, scratch: Scratch) -> None:
    """In place; x (T, heads, width). The two halves of a head turn with each other."""
    count, heads, width = x.shape
    halves = x.reshape(count, heads, 2, width // 2)  # a view: the numbers of a head lie side by side
    others = scratch("others", *halves.shape)
    np.multiply(halves[:, :, ::-1], turns.sin, out=others)
    halves *= turns.cos
    halves += others


def _swiglu(both: Floats, halved: bool, scratch: Scratch) -> Floats:
    """silu(gate) · up, from both side by side: a sigmoid is half of 1 + tanh(gate / 2), which numpy takes faster than
    an exponential and a division. ``halved``: the gates are halves already."""
    half = both.shape[1] // 2
    gate, out = both[:, :half], scratch("gated", both.shape[0], half)
    if not halved:
        gate *= np.float32(0.5)
    np.tanh(gate, out=out)
    out += 1
    out *= gate
    out *= both[:, half:]
    return out


def _geglu(both: Floats, scratch: Scratch) -> Floats:
    """gelu(gate) · up, by the approximation with a hyperbolic tangent (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    half = both.shape[1] // 2
    gate, out = both[:, :half], scratch("gated", both.shape[0], half)
    np.multiply(gate, gate, out=out)
    out *= np.float32(0.044715)
    out += 1
    out *= gate
    out *= np.float32(np.sqrt(2 / np.pi))
    np.tanh(out, out=out)
    out += 1
    out *= gate
    out *= np.float32(0.5)
    out *= both[:, half:]
    return out
