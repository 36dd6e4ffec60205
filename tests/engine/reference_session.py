"""A session from scratch, to hold `streamllm.engine.session.Session` against: no cache, nothing kept but which token
was fed when. Each prediction is one forward over all tokens, each a row of its own that is told its position, what it
sees and where. Of streamllm it knows the records, and of sampling where noise comes from.

What it cannot tell by itself: whether a moved key was quantised again (windows with `kv_bits`; the comparison is loose
there), and what a unit is worth that is given and then not looked at before the next read (its tokens are fed then)."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import tiny

from streamllm.engine.sampling import Sampling
from streamllm.prompt import Prompt
from streamllm.records import Emission, Hypothesis

Kind = Literal["group", "batch", "batch_positions", "interleaved"]
BASE = 10000.0  # of the models' rotary positions
DROPPED = "?"  # a unit that the tokenizer gives no tokens


# Forwards


@dataclass(eq=False)
class Fed:
    """A token as it was fed: at which position, and what it saw (itself included) at which positions."""

    token: int
    position: int
    sees: "list[tuple[Fed, int]]"
    unit: int | None = None  # of the source that it belongs to


def everything_under(last: Fed) -> list[Fed]:
    """All that has a part in what ``last`` says, itself at the end."""
    found: dict[int, Fed] = {}
    waiting = [last]
    while waiting:
        fed = waiting.pop()
        if id(fed) not in found:
            found[id(fed)] = fed
            waiting += [seen for seen, _ in fed.sees]
    return list(found.values())[::-1]


class Rows:
    """What a model sees in place of a cache: every token is a row, and sees of all rows what it is told to."""

    def __init__(self, rows: Sequence[Fed], kv_bits: int | None):
        place = {id(fed): i for i, fed in enumerate(rows)}
        self.offset = mx.array([fed.position for fed in rows])
        self._kv_bits = kv_bits
        sees = np.zeros((len(rows), len(rows)), bool)
        moved = np.zeros(sees.shape, np.float32)  # of each key, for each row that sees it
        for i, fed in enumerate(rows):
            for seen, position in fed.sees:
                sees[i, place[id(seen)]] = True
                moved[i, place[id(seen)]] = position - seen.position
        self._mask, self._moved = mx.array(sees)[:, None, None, :], mx.array(moved) if moved.any() else None

    def make_mask(self, N: int, **_: Any) -> mx.array:
        return self._mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """(L, H, 1, D) -> (L, H, L, D)."""

        def everyone(rows: mx.array) -> mx.array:
            if self._kv_bits is not None:
                scheme = {"group_size": 32, "bits": self._kv_bits}
                rows = mx.dequantize(*mx.quantize(rows, **scheme), **scheme)
            return mx.broadcast_to(rows.transpose(2, 1, 0, 3), (rows.shape[0], rows.shape[1], *rows.shape[::3]))

        return self._turned(everyone(keys)), everyone(values)

    def _turned(self, keys: mx.array) -> mx.array:
        if self._moved is None:
            return keys
        half = keys.shape[-1] // 2
        angles = self._moved[:, None, :, None] * mx.array(BASE ** (-np.arange(half, dtype=np.float32) / half))
        low, high = keys[..., :half], keys[..., half:]
        cos, sin = mx.cos(angles), mx.sin(angles)
        return mx.concatenate([low * cos - high * sin, low * sin + high * cos], axis=-1)


@contextmanager
def watched() -> Iterator[list[tuple[np.ndarray, np.ndarray, float]]]:
    """Queries (H, D), keys (H_kv, L, D) and the scale of the last row, layer by layer, of the forward inside."""
    attention = mx.fast.scaled_dot_product_attention
    seen: list[tuple[np.ndarray, np.ndarray, float]] = []

    def spy(queries: mx.array, keys: mx.array, values: mx.array, **options: Any) -> mx.array:
        seen.append((np.array(queries[-1, :, 0]), np.array(keys[-1]), options["scale"]))
        return attention(queries, keys, values, **options)

    mx.fast.scaled_dot_product_attention = spy  # type: ignore[assignment]
    try:
        yield seen
    finally:
        mx.fast.scaled_dot_product_attention = attention


# The session


@dataclass
class Window:
    """Which tokens of a stream are held: the first ``sinks`` and the last ones, ``size`` at most."""

    size: int | None
    sinks: int

    def excess(self, held: int, new: int) -> int:
        """An eighth of what may be forgotten, at least, once there is one token too many."""
        if self.size is None or held + new <= self.size:
            return 0
        return min(max(held + new - self.size, math.ceil((self.size - self.sinks) / 8)), held - self.sinks)


@dataclass
class Written:
    """A token of the target; ``fed`` is None before it is fed, and again when source has come since."""

    token: int
    fed: Fed | None = None


@dataclass(frozen=True)
class Mark:
    target: int
    begun: bool
    written: int
    queue: tuple[str, ...]
    has_unit: bool
    after_space: bool
    boundary_is_stale: bool
    target_tokens: int


@dataclass
class ReferenceSession:
    """Answers what `Session` answers, by the same names.

    ``tied`` is True once anything has hung on a difference below ``tie``: rounding may decide otherwise there.
    """

    model: Any
    tokenizer: Any
    prompt: Prompt
    kind: Kind = "group"
    target_start: int | Literal["after_source"] = 0
    unit: Literal["word", "character"] = "word"
    longest: int = 4
    sampling: Sampling | None = None
    max_source: int | None = None
    max_target: int | None = None
    kv_bits: int | None = None
    tie: float = 1e-3

    tied: bool = False
    begun: bool = False
    ended: bool = False
    units_read: int = 0
    target_tokens: int = 0
    _source: list[Fed] = field(default_factory=list)  # held
    _forgotten: int = 0  # source tokens
    _target: list[Written] = field(default_factory=list)
    _start: int | None = None
    _reads: int = 0  # that brought tokens
    _written: int = 0
    _queue: list[str] = field(default_factory=list)
    _has_unit: bool = False
    _after_space: bool = False
    _boundary_is_stale: bool = False

    def __post_init__(self) -> None:
        self._bytes = tiny.token_bytes(self.tokenizer)
        header = self._encode(self.prompt.target_header)
        self._target = [Written(token) for token in header]
        self._source_window = Window(self.max_source, len(self._encode(self.prompt.source_header)))
        self._target_window = Window(self.max_target, len(header))
        self._most_ahead = math.inf if self.max_target is None else self.max_target
        self._said: dict[tuple[int, ...], np.ndarray] = {}  # logits after the tokens of the target, since the last read

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def text(self, tokens: Sequence[int]) -> str:
        return b"".join(self._bytes[token] for token in tokens).decode("utf-8", "replace")

    # Reading

    def read(self, unit: str) -> None:
        first = self.units_read == 0 and not self.ended
        words = [] if unit == DROPPED else self._encode(unit if first else " " + unit)
        header = self._encode(self.prompt.source_header) if first else []
        self._read([(token, None) for token in header] + [(token, self.units_read) for token in words])
        self.units_read += 1

    def end_source(self) -> None:
        header = self._encode(self.prompt.source_header) if self.units_read == 0 else []
        self._read([(token, None) for token in [*header, *self._encode(self.prompt.source_footer)]])
        self.ended = True

    def _read(self, tokens: list[tuple[int, int | None]]) -> None:
        if not tokens:
            return
        self._boundary_is_stale = self._has_unit
        self._reads += 1
        self._said = {}
        if not self.begun:  # what was only looked at is fed again as a whole
            self._start = None
            self._target = [Written(written.token) for written in self._target]
        elif all(written.fed for written in self._target):  # the next token was predicted from less source
            self._target[-1].fed = None
        window, held = self._target_window, sum(written.fed is not None for written in self._target)
        excess = window.excess(held, 0)
        del self._target[window.sinks : window.sinks + excess]
        window = self._source_window
        while tokens:
            room = len(tokens) if window.size is None else window.size - min(len(self._source), window.sinks)
            now, tokens = tokens[:room], tokens[room:]
            excess = window.excess(len(self._source), len(now))
            del self._source[window.sinks : window.sinks + excess]
            self._forgotten += excess
            for token, unit in now:
                self._source.append(self._fed_source(token, unit))

    def _fed_source(self, token: int, unit: int | None) -> Fed:
        before = list(self._source)
        if self.kind == "interleaved":
            before = self._sequence(self._source, [written.fed for written in self._target if written.fed])
        fed = Fed(token, len(before), [(seen, at) for at, seen in enumerate(before)], unit)
        fed.sees.append((fed, fed.position))
        return fed

    @staticmethod
    def _sequence(source: Sequence[Fed], target: Sequence[Fed]) -> list[Fed]:
        """Both streams in the order of their arrival, in which their positions count."""
        return sorted([*source, *target], key=lambda fed: fed.position)

    # Predicting

    def _place(self, written: Sequence[Written], source: Sequence[Fed]) -> None:
        """Feed what has not been fed of the target, all of which is ``written``, in sight of ``source``."""
        if self.kind in ("batch", "batch_positions"):
            start = len(source)
            if self.kind == "batch" and self.target_start != "after_source":
                start = self.target_start
        else:
            start = self._start if self._start is not None else len(source)
            start = self.target_start if self.target_start != "after_source" else start
        for i, each in enumerate(written):
            if each.fed is not None and self.kind != "batch":
                continue
            held = [before.fed for before in written[:i] if before.fed is not None]
            if self.kind == "interleaved":
                sees = list(enumerate(self._sequence(source, held)))
                each.fed = Fed(each.token, len(sees), [(seen, at) for at, seen in sees])
            else:
                own = [(seen, start + at) for at, seen in enumerate(held)]
                each.fed = Fed(each.token, start + i, [*((seen, at) for at, seen in enumerate(source)), *own])
            each.fed.sees.append((each.fed, each.fed.position))

    def _feed(self, target: Sequence[Written]) -> None:
        if self._start is None:
            self._start = len(self._source)
        self._place(target, self._source)

    def _logits_after(self, ahead: Sequence[int] = ()) -> np.ndarray:
        """Of the next token, if ``ahead`` were written before."""
        self._feed(self._target)
        key = (*(written.token for written in self._target), *ahead)
        if key not in self._said:
            target = [*map(self._copy, self._target), *map(Written, ahead)]
            self._place(target, self._source)
            self._said[key] = self._forward(target[-1].fed)
        return self._said[key]

    @staticmethod
    def _copy(written: Written) -> Written:
        return Written(written.token, written.fed)

    def _forward(self, last: Fed | None) -> np.ndarray:
        assert last is not None
        rows = everything_under(last)
        cache = Rows(rows, self.kv_bits)
        tokens = mx.array([fed.token for fed in rows])[:, None]
        return np.array(self.model(tokens, cache=[cache] * len(self.model.layers))[-1, 0].astype(mx.float32))

    def _pick(self, logits: np.ndarray, written: int) -> int:
        if self.sampling is None:
            second, first = np.sort(logits)[-2:]
            self._hangs_on(first - second)
            return int(logits.argmax())
        draws = {self.sampling.draw(mx.array(logits), self._reads, written)}
        for seed in range(4):
            rounding = np.random.default_rng(seed).uniform(-self.tie, self.tie, logits.shape)
            draws.add(self.sampling.draw(mx.array((logits + rounding).astype(np.float32)), self._reads, written))
        self._hangs_on(self.tie if len(draws) == 1 else 0)
        return self.sampling.draw(mx.array(logits), self._reads, written)

    def _hangs_on(self, margin: float) -> None:
        self.tied = self.tied or bool(margin < self.tie)

    # Writing

    def write(self, tokens: tuple[int, ...] = ()) -> Emission:
        if self._queue:
            return Emission(self._queue.pop(0))
        if tokens:
            self._target += map(Written, tokens)
            self._said = {}
            self._written += len(tokens)
            self.begun = True
            emission = self._emission(list(tokens))
            self._boundary_is_stale = self._has_unit
            return emission

        def next_token(unit: list[int]) -> int:
            return self._pick(self._logits_after(unit), self._written + len(unit))

        unit = self._unit(next_token)
        self._target += map(Written, unit)
        self._written += len(unit)
        self.begun = True
        if unit and not (self.unit == "character" and self._closed(unit)):
            self._feed(self._target)  # the token after them was predicted, and is not written
        elif unit:
            self._feed(self._target[:-1])
        return self._emission(unit)

    def _unit(self, next_token: Callable[[list[int]], int]) -> list[int]:
        """The tokens of one unit; none if the end token comes next."""
        unit: list[int] = []
        while True:
            token = next_token(unit)
            if token == 0:
                return unit
            if len(unit) >= self.longest:
                return unit
            divided = unit and (self._bytes[token][:1] in SPACES or self._bytes[unit[-1]][-1:] in SPACES)
            if self.unit == "word" and divided and self.text(unit).strip():
                return unit
            unit.append(token)
            if self.unit == "character" and self._closed(unit):
                return unit

    def _closed(self, unit: list[int]) -> bool:
        text = self.text(unit)
        return bool(text.strip()) and not text.endswith("\ufffd")

    def _emission(self, tokens: list[int]) -> Emission:
        after_space, first = self._after_space, tokens[:1]
        self.target_tokens += len(tokens)
        if tokens:
            self._after_space = self._bytes[tokens[-1]][-1:] in SPACES
        text = self.text(tokens)
        units = text.split() if self.unit == "word" else [char for char in text if not char.isspace()]
        if not units:
            return Emission(None)
        starts = bool(first) and (self._bytes[first[0]][:1] in SPACES or not self._bytes[first[0]])
        extends = self._boundary_is_stale and not after_space and not starts and self.unit == "word"
        self._has_unit, self._boundary_is_stale = True, False
        self._queue += units[1:]
        return Emission(units[0], tuple(tokens), extends)

    # Going back

    def mark(self) -> Mark:
        return Mark(
            len(self._target),
            self.begun,
            self._written,
            tuple(self._queue),
            self._has_unit,
            self._after_space,
            self._boundary_is_stale,
            self.target_tokens,
        )

    def rewind(self, mark: Mark) -> None:
        del self._target[mark.target :]
        self.begun, self._written, self._queue = mark.begun, mark.written, list(mark.queue)
        self._has_unit, self._after_space = mark.has_unit, mark.after_space
        self._boundary_is_stale, self.target_tokens = mark.boundary_is_stale, mark.target_tokens

    # Questions

    def prediction(self, hidden: int = 0) -> np.ndarray:
        """Logits (V,)."""
        shown = range(self.units_read - hidden)
        visible = [i for i, fed in enumerate(self._source) if fed.unit in shown]
        seen = self._source[: visible[-1] + 1 if visible else self._source_window.sinks]
        if not hidden or len(seen) == len(self._source):
            return self._logits_after()
        start = self._start
        if self.begun:  # what was written before knows all of the source
            if any(written.fed is None for written in self._target[:-1]):
                self._feed(self._target[:-1])
                start = self._start
            again = self._target[-1:]
        else:
            again, start = self._target, None
        for written in again:
            written.fed = None
        target = [*map(self._copy, self._target)]
        self._start = start if start is not None else len(seen)
        self._place(target, seen)
        self._start = start
        return self._forward(target[-1].fed)

    def draft(self, max_units: int = 200) -> Hypothesis:
        mark, before = self.mark(), self.target_tokens
        hypothesis: list[Emission] = []
        while len(hypothesis) < max_units and self.target_tokens - before < self._most_ahead:
            emission = self.write()
            if emission.unit is None:
                break
            hypothesis.append(emission)
        self.rewind(mark)
        return tuple(hypothesis)

    def beam(self, size: int, max_units: int) -> list[Hypothesis]:
        """By enumeration of what follows; scores are sums of log-probabilities, means where a hypothesis has ended."""
        most = int(min(4 * max_units + 8, self._most_ahead))
        alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        ended: list[tuple[float, tuple[int, ...]]] = []
        for _ in range(most):
            scored: list[tuple[float, tuple[int, ...], int]] = []
            for score, path in alive:
                row = self._logits_after(path).astype(np.float64)
                row -= np.logaddexp.reduce(row)
                scored += [(score + float(row[token]), path, int(token)) for token in np.argsort(-row)[: 2 * size + 1]]
            scored = sorted(scored, key=lambda each: -each[0])[: 2 * size + 1]
            for one, other in itertools.pairwise(scored):
                self._hangs_on(one[0] - other[0])
            ended += [(score / (len(path) + 1), path) for score, path, token in scored[:size] if token == 0]
            alive = [(score, (*path, token)) for score, path, token in scored[: 2 * size] if token != 0][:size]
            if len(ended) >= size or not alive:
                break
        ended.sort(key=lambda each: -each[0])
        for one, other in itertools.pairwise(ended):
            self._hangs_on(one[0] - other[0])
        found = [(path, True) for _, path in ended] + [(path, False) for _, path in alive]
        return [self._cut(list(path), over, max_units) for path, over in found[:size]]

    def _cut(self, path: list[int], over: bool, max_units: int) -> Hypothesis:
        """The units of a path; if it is not over, its last unit is gone on with greedily."""
        mark = self.mark()
        done = 0

        def next_token(unit: list[int]) -> int:
            at = done + len(unit)
            if at < len(path):
                return path[at]
            if over:
                return 0
            logits = self._logits_after([*path[:done], *unit])
            second, first = np.sort(logits)[-2:]
            self._hangs_on(first - second)
            return int(logits.argmax())

        hypothesis: list[Emission] = []
        while len(hypothesis) < max_units and (self._queue or over or done < len(path)):
            if self._queue:
                hypothesis.append(Emission(self._queue.pop(0)))
                continue
            unit = self._unit(next_token)
            done += len(unit)
            emission = self._emission(unit)
            if emission.unit is None:
                break
            hypothesis.append(emission)
        self._queue, self._has_unit, self._after_space = list(mark.queue), mark.has_unit, mark.after_space
        self._boundary_is_stale, self.target_tokens = mark.boundary_is_stale, mark.target_tokens
        return tuple(hypothesis)

    def watched_draft(self, heads: None, max_units: int) -> tuple[Hypothesis, np.ndarray]:
        mark, before = self.mark(), self.target_tokens
        hypothesis: list[Emission] = []
        rows = [self.unit_attention().mean(axis=0)]
        while len(hypothesis) < max_units and self.target_tokens - before < self._most_ahead:
            emission = self.write()
            if emission.unit is None:
                break
            hypothesis.append(emission)
            rows.append(rows[-1] if self._queue else self.unit_attention().mean(axis=0))
        self.rewind(mark)
        return tuple(hypothesis), np.array(rows[: len(hypothesis)]).reshape(len(hypothesis), rows[0].shape[0])

    def unit_attention(self) -> np.ndarray:
        """(all heads, units that are held at least in part)."""
        self._feed(self._target)
        with watched() as layers:
            self._forward(self._target[-1].fed)
        last = self._target[-1].fed
        assert last is not None
        place = {id(fed): i for i, fed in enumerate(everything_under(last))}
        columns = [place[id(fed)] for fed in self._source]
        first = self._source[self._source_window.sinks].unit if self._forgotten else 0
        units = list(range(first if first is not None else self.units_read, self.units_read))
        if not units:
            raise ValueError("no source unit is held")
        shares = np.zeros((0, len(units)))
        for queries, keys, scale in layers:
            keys = keys[:, columns].repeat(len(queries) // len(keys), axis=0)
            scores = np.einsum("hd,hld->hl", queries.astype(np.float64), keys.astype(np.float64)) * scale
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            own = np.array([[fed.unit == unit for fed in self._source] for unit in units]).reshape(len(units), -1)
            shares = np.concatenate([shares, weights @ own.T])
        return shares


SPACES = (b" ", b"\n", b"\r", b"\t")
