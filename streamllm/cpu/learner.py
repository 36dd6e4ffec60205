"""Forward and backward of a decoder of Llama's shape for training on a CPU: numpy and MKL compute what mlx-lm's model
and its gradient would. Tokens of all streams lie side by side, so nothing is padded, and both streams of a sentence
pair go through a layer at once.

Invariant: logits and gradients are those that MLX computes, but for rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from streamllm.cpu.decoder import Scratch
from streamllm.cpu.enabled import enabled
from streamllm.cpu.mkl import Batch, Floats, Numbers, Sizes, library, product
from streamllm.cpu.weights import frequencies_of, is_of_the_shape

FAMILIES = ("llama", "qwen2", "qwen3")
"""Model types whose forward and backward are these."""

TOKENS = 128
"""How many go through SwiGLU at a time: what the cache of a core holds."""

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Complex = np.ndarray[Any, np.dtype[np.complex64]]


class Spans(NamedTuple):
    """Queries of tokens that follow each other, and the keys that they see: one span for each stream that has some.

    Args:
        first: (R,) token of the first query.
        counts: (R,) queries.
        keys: (R,) token of the first key.
        lengths: (R,) keys.
        hidden: (all queries, the most keys), which keys of its span a query does not see. One it sees at least.
    """

    first: Numbers
    counts: Numbers
    keys: Numbers
    lengths: Numbers
    hidden: Bools

    @property
    def tokens(self) -> Numbers:
        """(all queries,)"""
        starts = np.repeat(self.first - np.cumsum(self.counts) + self.counts, self.counts)
        return starts + np.arange(len(starts))


@dataclass(frozen=True)
class Streams:
    """The tokens of a batch without padding.

    Args:
        tokens, positions: (T,) each.
        spans: attention of all tokens; those of one stream are in one of them.
        asked: tokens that are computed to the end, rising; of the others the last layer needs keys and values alone.
        asked_spans: attention of those.
        learned: which of them have a label, as numbers into ``asked``.
        drawn: the arrays (B, L) of tokens that dropout draws numbers for, one after the other: for each its shape, the
            tokens that are in it, and where each stands in it when it is flat.
    """

    tokens: Numbers
    positions: Numbers
    spans: Sequence[Spans]
    asked: Numbers
    asked_spans: Sequence[Spans]
    learned: Numbers
    drawn: Sequence[tuple[tuple[int, int], Numbers, Numbers]]


def logits_of(model: Any, streams: Callable[[], Streams], gradient: bool = True) -> mx.array | None:
    """Logits (labels, V) of the tokens that have a label, differentiable with respect to the parameters of ``model``,
    unless ``gradient`` is False; None where this model, or this machine, wants MLX to compute."""
    if not applies(model):
        return None
    learner = Learner(model)
    laid_out = streams()
    dropout = drawn(model, laid_out)
    named: Any = tree_flatten(model.parameters())
    names = [name for name, _ in named]
    if not gradient:  # at once, so that the next forward has the same memory
        weights = [mx.stop_gradient(array) for _, array in named]
        mx.eval(weights)
        return learner.forward(_Tape(dict(zip(names, map(np.asarray, weights), strict=True)), laid_out, dropout))
    tapes: list[_Tape] = []

    @mx.custom_function
    def logits(*weights: mx.array) -> mx.array:
        mx.eval(weights)
        tape = _Tape(dict(zip(names, map(np.asarray, weights), strict=True)), laid_out, dropout)
        tapes[:] = [tape]
        return learner.forward(tape)

    @logits.vjp
    def gradients(_: Any, cotangent: Any, __: Any) -> Any:
        mx.eval(cotangent)
        found = learner.backward(tapes.pop(), np.asarray(cotangent))
        return tuple(mx.array(found[name]) for name in names)

    differentiable: Any = logits
    result: mx.array = differentiable(*(array for _, array in named))
    return result


def applies(model: Any) -> bool:
    """Whether `logits_of` computes this model here."""
    if not enabled() or library() is None or mx.default_device() != mx.Device(mx.cpu):  # type: ignore[arg-type]
        return False
    if getattr(model, "recomputes", False) or not is_of_the_shape(model, dropout=True):
        return False
    slides = any(getattr(layer, "use_sliding", False) for layer in model.model.layers)
    return model.model_type in FAMILIES and not slides


def drawn(model: Any, streams: Streams) -> list[Floats | None]:
    """What dropout multiplies by, (T, D) each: for the embeddings, and for attention and MLP of each layer (of the last
    one, for those asked). The numbers are those that `streamllm.training.dropout` draws."""
    inside = model.model
    places = [inside.embed_tokens, *(part for layer in inside.layers for part in (layer.self_attn, layer.mlp))]
    rates = [getattr(place, "dropout_p", 0.0) if place.training else 0.0 for place in places]
    width = inside.norm.weight.shape[0]
    drawn = [
        [mx.random.bernoulli(1 - rate, (*shape, width)) if rate else None for rate in rates]
        for shape, _, _ in streams.drawn
    ]
    found: list[Floats | None] = []
    for place, rate in enumerate(rates):
        if not rate:
            found.append(None)
            continue
        last = place >= len(rates) - 2
        keep = np.empty((len(streams.tokens), width), np.bool_)
        for (_, tokens, flat), masks in zip(streams.drawn, drawn, strict=True):
            if not last or np.isin(tokens, streams.asked).any():
                keep[tokens] = np.asarray(masks[place]).reshape(-1, width)[flat]
        found.append(np.multiply(keep[streams.asked] if last else keep, np.float32(1 / (1 - rate))))
    return found


_free: list[Scratch] = []  # between a backward and the next forward


def held() -> int:
    """Bytes that wait for the next forward; MLX does not count them."""
    return sum(scratch.nbytes for scratch in _free)


class _Tape:
    """What a forward leaves for its backward. Arrays of a layer have its number in their name."""

    def __init__(self, weights: dict[str, Floats], streams: Streams, dropout: list[Floats | None]):
        self.weights, self.streams, self.dropout = weights, streams, dropout
        self.scratch = _free.pop() if _free else Scratch()
        self.attends: list[_Attend] = []
        self.kept: dict[str, Floats] = {}
        self.norms: dict[str, tuple[Floats, Floats]] = {}  # what was normed, and by which factors

    def __del__(self) -> None:
        if not _free:
            _free.append(self.scratch)

    def __call__(self, name: str, *shape: int) -> Floats:
        """An array that stays until the backward has been."""
        self.kept[name] = self.scratch(name, *shape)
        return self.kept[name]

    def joined(self, name: str, parts: Sequence[str], order: Numbers | None = None) -> Floats:
        """Weights (all N, K) of linear layers that read the same, their rows in this order."""
        arrays = [self.weights[part] for part in parts]
        out = np.concatenate(arrays, out=self(name, sum(map(len, arrays)), arrays[0].shape[1]))
        if order is not None:
            out[:] = out[order]
        return out


class Learner:
    """What of a model does not learn: its shape."""

    def __init__(self, model: Any):
        args, attention = model.args, model.model.layers[0].self_attn
        self.heads, self.kv_heads = attention.n_heads, attention.n_kv_heads
        self.width = attention.q_proj.weight.shape[0] // self.heads
        self.layers = len(model.model.layers)
        self.scale, self.epsilon = float(attention.scale), np.float32(args.rms_norm_eps)
        self.frequencies = frequencies_of(attention.rope)
        # Within a head of queries and keys, the two numbers that turn together stand side by side here.
        self._pairs = np.arange(self.width).reshape(2, -1).T.reshape(-1)
        heads = np.arange((self.heads + 2 * self.kv_heads) * self.width).reshape(-1, self.width)
        heads[: -self.kv_heads] = heads[: -self.kv_heads, self._pairs]
        self._order = heads.reshape(-1)
        self.head = "lm_head.weight" if hasattr(model, "lm_head") else "model.embed_tokens.weight"

    def forward(self, tape: _Tape) -> mx.array:
        """Logits (labels, V); ``tape`` gets what `backward` needs."""
        weights, streams, dropout = tape.weights, tape.streams, tape.dropout
        turns = self._turns(streams.positions)
        embedding = weights["model.embed_tokens.weight"]
        x = tape("x0", len(streams.tokens), embedding.shape[1])
        np.take(embedding, streams.tokens, axis=0, out=x, mode="clip")
        _drop(x, dropout[0])
        attend = _Attend(self, streams.spans, np.arange(len(x)))
        for i in range(self.layers):
            at = f"model.layers.{i}."
            qkv = self._qkv(tape, i, x)
            rotate(qkv[:, : -self.kv_heads * self.width], turns)
            if i == self.layers - 1:
                x = np.take(x, streams.asked, axis=0, out=tape("asked", len(streams.asked), x.shape[1]), mode="clip")
                attend = _Attend(self, streams.asked_spans, streams.asked)
            tape.attends.append(attend)
            seen = attend.forward(qkv, tape, i)
            middle = product(seen, weights[at + "self_attn.o_proj.weight"].T, tape(f"middle{i}", *x.shape))
            _drop(middle, dropout[1 + 2 * i])
            middle += x
            normed = self.normed(tape, f"before_mlp{i}", middle, weights[at + "post_attention_layernorm.weight"])
            gate_up = tape.joined(f"gate_up{i}", [at + f"mlp.{name}_proj.weight" for name in ("gate", "up")])
            both = product(normed, gate_up.T, tape(f"both{i}", len(x), len(gate_up)))
            x = product(swiglu(both, tape, i), weights[at + "mlp.down_proj.weight"].T, tape(f"x{i + 1}", *x.shape))
            _drop(x, dropout[2 + 2 * i])
            x += middle
        x = np.take(x, streams.learned, axis=0, out=tape("learned", len(streams.learned), x.shape[1]), mode="clip")
        normed = self.normed(tape, "before_head", x, weights["model.norm.weight"])
        logits = mx.zeros((len(x), len(weights[self.head])))
        mx.eval(logits)
        product(normed, weights[self.head].T, np.asarray(logits))  # into the memory of what nobody else holds yet
        return logits

    def backward(self, tape: _Tape, logits: Floats) -> dict[str, Floats]:
        """Gradients by the names of the weights, from that of the logits. They are overwritten by the next forward."""
        weights, streams, dropout, scratch, kept = tape.weights, tape.streams, tape.dropout, tape.scratch, tape.kept
        turns = self._turns(streams.positions)
        grads: dict[str, Floats] = {}

        def learn(name: str, grad: Floats, inputs: Floats) -> Floats:
            """The gradient of a linear layer's weights."""
            return product(grad.T, inputs, scratch(f"of {name}", grad.shape[1], inputs.shape[1]))

        def norm(name: str, of: str, grad: Floats, to: Floats) -> None:
            grads[name] = norm_back(grad, *tape.norms[of], weights[name], to, scratch)

        grads[self.head] = learn(self.head, logits, kept["before_head"])
        of_labels = product(logits, weights[self.head], scratch("of_normed", *kept["learned"].shape))
        summed = np.zeros_like(kept["learned"])
        norm("model.norm.weight", "before_head", of_labels, summed)
        g = np.zeros((len(streams.asked), summed.shape[1]), np.float32)
        g[streams.learned] = summed
        for i in reversed(range(self.layers)):
            at = f"model.layers.{i}."
            # MLP
            name = at + "mlp.down_proj.weight"
            out = _dropped(g, dropout[2 + 2 * i], scratch)
            grads[name] = learn(name, out, kept[f"gated{i}"])
            gated = product(out, weights[name], scratch("of_gated", *kept[f"gated{i}"].shape))
            both = swiglu_back(gated, kept[f"both{i}"], kept[f"sigmoid{i}"])
            joined = learn(f"gate_up{i}", both, kept[f"before_mlp{i}"])
            grads[at + "mlp.gate_proj.weight"], grads[at + "mlp.up_proj.weight"] = np.split(joined, 2)
            normed = product(both, kept[f"gate_up{i}"], scratch("of_normed", *g.shape))
            norm(at + "post_attention_layernorm.weight", f"before_mlp{i}", normed, g)
            # Attention
            name = at + "self_attn.o_proj.weight"
            out = _dropped(g, dropout[1 + 2 * i], scratch)
            grads[name] = learn(name, out, kept[f"seen{i}"])
            seen = product(out, weights[name], scratch("of_seen", *kept[f"seen{i}"].shape))
            qkv = tape.attends[i].backward(seen, tape, i)
            rotate(qkv[:, : -self.kv_heads * self.width], turns.conj())
            self._qkv_back(tape, i, qkv, grads, learn)
            normed = product(qkv, kept[f"qkv_weight{i}"], scratch("of_normed", len(qkv), g.shape[1]))
            if i == self.layers - 1:
                of_asked, g = g, np.zeros((len(streams.tokens), g.shape[1]), np.float32)
                g[streams.asked] = of_asked
            norm(at + "input_layernorm.weight", f"before_attention{i}", normed, g)
        _drop(g, dropout[0])
        _embed_back(g, streams.tokens, weights["model.embed_tokens.weight"], grads)
        return grads

    def _turns(self, positions: Numbers) -> Complex:
        turns: Complex = np.exp(1j * (positions[:, None] * self.frequencies)).astype(np.complex64)
        return turns

    def normed(self, tape: _Tape, name: str, x: Floats, weight: Floats) -> Floats:
        factors = np.einsum("td,td->t", x, x) / np.float32(x.shape[1])
        factors += self.epsilon
        factors = 1 / np.sqrt(factors)
        tape.norms[name] = x, factors
        out = tape(name, *x.shape)
        np.multiply(x, factors[:, None], out=out)
        out *= weight
        return out

    def _qkv(self, tape: _Tape, i: int, x: Floats) -> Floats:
        """Queries, keys and values (T, heads · width …) of a layer, before they are turned."""
        at = f"model.layers.{i}."
        parts = [at + f"self_attn.{part}_proj." for part in "qkv"]
        normed = self.normed(tape, f"before_attention{i}", x, tape.weights[at + "input_layernorm.weight"])
        weight = tape.joined(f"qkv_weight{i}", [part + "weight" for part in parts], self._order)
        qkv = product(normed, weight.T, tape(f"qkv{i}", len(x), len(weight)))
        if parts[0] + "bias" in tape.weights:
            qkv += np.concatenate([tape.weights[part + "bias"] for part in parts])[self._order]
        for name, heads in self._normed_heads(qkv):
            if (key := f"{at}self_attn.{name}_norm.weight") in tape.weights:
                before = tape(f"{name}{i}", heads.shape[0] * heads.shape[1], self.width)
                before.reshape(heads.shape)[:] = heads
                weight = tape.weights[key][self._pairs]
                heads[:] = self.normed(tape, f"{name}_normed{i}", before, weight).reshape(heads.shape)
        return qkv

    def _normed_heads(self, qkv: Floats) -> list[tuple[str, Floats]]:
        """Views (T, heads, width) of what a family like Qwen3 norms in each head."""
        each = qkv.reshape(len(qkv), -1, self.width)
        return [("q", each[:, : self.heads]), ("k", each[:, self.heads : -self.kv_heads])]

    def _qkv_back(self, tape: _Tape, i: int, qkv: Floats, grads: dict[str, Floats], learn: Any) -> None:
        at = f"model.layers.{i}."
        for name, heads in self._normed_heads(qkv):
            if (key := f"{at}self_attn.{name}_norm.weight") in tape.weights:
                grad = np.ascontiguousarray(heads).reshape(-1, self.width)
                to, weight = np.zeros_like(grad), tape.weights[key][self._pairs]
                of_weight = norm_back(grad, *tape.norms[f"{name}_normed{i}"], weight, to, tape.scratch)
                grads[key] = of_weight[np.argsort(self._pairs)]
                heads[:] = to.reshape(heads.shape)
        cuts = [self.heads * self.width, (self.heads + self.kv_heads) * self.width]
        back = np.argsort(self._order)
        joined = np.split(learn(f"qkv{i}", qkv, tape.kept[f"before_attention{i}"])[back], cuts)
        biases = np.split(qkv.sum(axis=0)[back], cuts)
        for part, weight, bias in zip("qkv", joined, biases, strict=True):
            grads[f"{at}self_attn.{part}_proj.weight"] = weight
            if (key := f"{at}self_attn.{part}_proj.bias") in tape.weights:
                grads[key] = bias


class _Attend:
    """Attention of queries over spans: which numbers each product takes is the same in all layers.

    Args:
        rows: tokens of the queries, rising; what is attended to stands in their order.
    """

    def __init__(self, learner: Learner, spans: Sequence[Spans], rows: Numbers):
        self._heads, self._width = learner.heads, learner.width
        self._count, self._parts = len(rows), [_Part(learner, one, rows) for one in spans]

    def forward(self, qkv: Floats, tape: _Tape, i: int) -> Floats:
        """(queries, heads · width)"""
        out = tape(f"seen{i}", self._count, self._heads * self._width)
        for j, part in enumerate(self._parts):
            p = tape(f"p{i}.{j}", len(part.hidden), self._heads, part.hidden.shape[-1])
            part.scores(qkv, qkv, p)
            softmax(p, part.hidden)
            part.sums(p, qkv, out)
        return out

    def backward(self, grad: Floats, tape: _Tape, i: int) -> Floats:
        """The gradient of queries, keys and values of all tokens, from that of `forward`."""
        seen, qkv = tape.kept[f"seen{i}"], tape.kept[f"qkv{i}"]
        out = tape.scratch("of_qkv", *qkv.shape)
        out.fill(0)
        each = (-1, self._heads, self._width)
        means = np.einsum("thd,thd->th", grad.reshape(each), seen.reshape(each))
        for j, part in enumerate(self._parts):
            p = tape.kept[f"p{i}.{j}"]
            of_p = tape.scratch(f"of_p{j}", *p.shape)
            part.of_values(p, grad, out)
            part.of_p(grad, qkv, of_p)
            of_p -= means[part.rows][:, :, None]
            of_p *= p
            part.of_queries(of_p, qkv, out)
            part.of_keys(of_p, qkv, out)
        return out


class _Part:
    """The products of one attention: each is called with the arrays A, B and C of C = A · B."""

    def __init__(self, learner: Learner, spans: Spans, rows: Numbers):
        heads, kv_heads, width = learner.heads, learner.kv_heads, learner.width
        row, shared, room = (heads + 2 * kv_heads) * width, heads // kv_heads, spans.hidden.shape[1]
        self.hidden = spans.hidden[:, None]
        self.rows = np.searchsorted(rows, spans.tokens)
        # Products of one size stand together.
        _, first, group = np.unique(spans.counts + (spans.lengths << 32), return_index=True, return_inverse=True)
        order = np.argsort(group, kind="stable")
        n, m = spans.counts[first], spans.lengths[first]  # queries, keys
        d, many = np.full_like(n, width), np.bincount(group) * kv_heads
        of_qkv, of_p, of_out = (np.full_like(n, size) for size in (row, heads * room, heads * width))
        own, starts = np.arange(kv_heads), (np.cumsum(spans.counts) - spans.counts)[order]
        # Heads that share keys come one after the other, since their gradients are added.
        keys = [_addresses(spans.keys[order] * row, (heads + own) * width)] * shared
        values = [_addresses(spans.keys[order] * row, (heads + kv_heads + own) * width)] * shared
        queries, p, out = (
            [_addresses(at * stride, (own * shared + g) * size) for g in range(shared)]
            for at, stride, size in (
                (spans.first[order], row, width),
                (starts, heads * room, room),
                (self.rows[starts], heads * width, width),
            )
        )

        def products(addresses: Any, *sizes: Numbers, **how: Any) -> Callable[[Floats, Floats, Floats], None]:
            batch = Batch(Sizes(*(*sizes, many)), **how)

            def call(*arrays: Floats) -> None:
                bases = [array.ctypes.data for array in arrays]
                for three in zip(*addresses, strict=True):
                    batch(*(base + offsets for base, offsets in zip(bases, three, strict=True)))

            return call

        turned: dict[str, Any] = {"transposed": False, "a_transposed": True, "added": np.ones(len(n))}
        scale = learner.scale
        self.scores = products((queries, keys, p), n, m, d, of_qkv, of_qkv, of_p, transposed=True, scale=scale)
        self.sums = products((p, values, out), n, d, m, of_p, of_qkv, of_out, transposed=False)
        self.of_values = products((p, out, values), m, d, n, of_p, of_out, of_qkv, **turned)
        self.of_p = products((out, values, p), n, m, d, of_out, of_qkv, of_p, transposed=True)
        self.of_queries = products((p, keys, queries), n, d, m, of_p, of_qkv, of_qkv, transposed=False, scale=scale)
        self.of_keys = products((p, queries, keys), m, d, n, of_p, of_qkv, of_qkv, scale=scale, **turned)


def _addresses(starts: Numbers, of_heads: Numbers) -> Numbers:
    """Bytes from the beginning of an array to the first number of each head of each span."""
    return np.ascontiguousarray(4 * (starts[:, None] + of_heads), np.int64).reshape(-1)


def softmax(scores: Floats, hidden: Bools) -> None:
    """In place, of what is not hidden."""
    np.copyto(scores, -np.inf, where=hidden)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)


def rotate(x: Floats, turns: Complex) -> None:
    """In place; x (T, heads · width), two numbers side by side as one that is complex; turns (T, width / 2)."""
    pairs = x.reshape(len(x), -1, 2 * turns.shape[1]).view(np.complex64)
    pairs *= turns[:, None]


def _drop(x: Floats, factors: Floats | None) -> None:
    if factors is not None:
        x *= factors


def _dropped(x: Floats, factors: Floats | None, scratch: Scratch) -> Floats:
    return x if factors is None else np.multiply(x, factors, out=scratch("dropped", *x.shape))


def norm_back(grad: Floats, x: Floats, factors: Floats, weight: Floats, to: Floats, scratch: Scratch) -> Floats:
    """Adds the gradient of what was normed to ``to``; returns that of the weight. ``grad`` is overwritten."""
    work = np.multiply(grad, x, out=scratch("norm", *x.shape))
    found: Floats = factors @ work
    grad *= weight
    means = np.einsum("td,td->t", grad, x) * factors**3 / np.float32(x.shape[1])
    grad *= factors[:, None]
    to += grad
    to -= np.multiply(x, means[:, None], out=work)
    return found


def _embed_back(g: Floats, tokens: Numbers, embedding: Floats, grads: dict[str, Floats]) -> None:
    """Adds the gradients of the tokens' embeddings to that of the head, where both are one matrix."""
    order = np.argsort(tokens, kind="stable")
    own, starts = np.unique(tokens[order], return_index=True)
    name = "model.embed_tokens.weight"
    grads.setdefault(name, np.zeros_like(embedding))
    grads[name][own] += np.add.reduceat(g[order], starts, axis=0)


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + TOKENS, count)) for start in range(0, count, TOKENS)]


def swiglu(both: Floats, tape: _Tape, i: int) -> Floats:
    """silu(gate) · up, from both side by side."""
    count, half = len(both), both.shape[1] // 2
    sigmoids, out = tape(f"sigmoid{i}", count, half), tape(f"gated{i}", count, half)
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that is meant
        for rows in _blocks(count):
            gate, s = both[rows, :half], sigmoids[rows]
            np.negative(gate, out=s)
            np.exp(s, out=s)
            s += 1
            np.reciprocal(s, out=s)
            np.multiply(gate, s, out=out[rows])
            out[rows] *= both[rows, half:]
    return out


def swiglu_back(grad: Floats, both: Floats, sigmoids: Floats) -> Floats:
    """The gradient of gate and up, in their place."""
    half = both.shape[1] // 2
    silu, slope = np.empty((2, TOKENS, half), np.float32)
    for rows in _blocks(len(both)):
        gate, up, s, of_out = both[rows, :half], both[rows, half:], sigmoids[rows], grad[rows]
        n = len(s)
        np.multiply(gate, s, out=silu[:n])
        np.subtract(1, s, out=slope[:n])  # silu' = s + silu · (1 - s)
        slope[:n] *= silu[:n]
        slope[:n] += s
        slope[:n] *= up
        np.multiply(slope[:n], of_out, out=gate)
        np.multiply(silu[:n], of_out, out=up)
    return both
