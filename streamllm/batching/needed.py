"""How much memory a run will take, estimated before it, and said where it may not be there."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from streamllm.batching.sizes import batch_size_of, on_cpu
from streamllm.cache.dual import make_caches
from streamllm.cpu.decoder import Decoder
from streamllm.engine.forward import forward
from streamllm.machine import in_words, room
from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.units import Unit, pieces

log = logging.getLogger(__name__)

PROGRAM = 300_000_000
"""Bytes of a process with all libraries and no model."""
GROWTH = 1.25
"""Keys and values grow by a quarter at a time."""
LOOKED_AT = 8192
"""Sentences among which the longest are looked for."""
STEPS = 3
"""Arrays of logits, and of a layer's widest numbers, that are there at a time."""


@dataclass(frozen=True)
class Needed:
    """Bytes that a run takes at its largest, as far as is known before it: ``weights`` of one model, ``held`` by the
    keys and values of ``rows`` sentences side by side, a ``step`` of all of them; each of the ``processes`` has a model
    of its own, besides that of the process that was started by hand."""

    weights: int
    held: int
    step: int
    rows: int
    processes: int = 1

    @property
    def whole(self) -> int:
        models = self.processes + 1 if self.processes > 1 else 1
        return models * (PROGRAM + self.weights) + self.held + self.step


def say_memory(model: Any, examples: Sequence[Example], batch_size: int | None, processes: int = 1) -> None:
    """A warning if a run over these examples may not fit into the memory that is free, with what may be done."""
    if isinstance(model, StreamingModel) and isinstance(model.model, nn.Module) and len(examples) and on_cpu():
        _say(needed(model, examples, batch_size_of(batch_size), processes), model)


def needed(model: StreamingModel, examples: Sequence[Example], batch_size: int, processes: int = 1) -> Needed:
    """Of a run whose outputs are as long as the references, with as many rows as it may have. The longest sentences are
    those that are side by side."""
    rows = min(batch_size * processes, len(examples))
    longest = nlargest(rows, islice(examples, LOOKED_AT), key=lambda example: len(example.source))
    lengths = [sum(_lengths(model, example)) for example in longest]
    in_numpy = Decoder.serves(model.model)
    tokens = sum(lengths) if in_numpy else rows * max(lengths)  # rows of MLX are as long as the longest
    widest, vocabulary = _widths(model.model)
    a_step = rows * vocabulary + max(rows, max(lengths)) * widest
    size = mx.float32.size if in_numpy else _size(model.model)
    return Needed(
        weights=sum(array.nbytes for array in _arrays(model.model)),
        held=round(GROWTH * tokens * token_bytes(model.model)),
        step=STEPS * a_step * size,
        rows=rows,
        processes=processes,
    )


def _say(found: Needed, model: StreamingModel) -> None:
    there = room()
    # What this process holds by now is its first model.
    if there is None or found.whole - found.weights - PROGRAM <= there.free:
        return
    ways = []
    if found.processes > 1:
        ways.append(f"fewer processes than {found.processes}")
    if found.rows > 1:
        ways.append(f"a batch_size below {found.rows}")
    if model.retention.max_source is None:
        ways.append("windows (model.max_source, model.max_target)")
    if _size(model.model) > mx.bfloat16.size:
        ways.append("model.dtype=bfloat16, which takes half and is slow on a CPU")
    several = f"{found.processes + 1} models of " if found.processes > 1 else "weights "
    log.warning(
        "this run may take %s of memory (%s%s, keys and values of %d sentences %s, a step of them %s), and beside what "
        "is loaded there are %s free of %s: give %s",
        *(in_words(found.whole), several, in_words(found.weights), found.rows, in_words(found.held)),
        *(in_words(found.step), in_words(there.free), in_words(there.whole), " or ".join(ways)),
    )


def token_bytes(model: Any) -> int:
    """What the keys and values of one token take. Nothing is computed."""
    caches = make_caches(model)
    forward(model, mx.array([[0]]), [cache.source for cache in caches])
    return sum(array.nbytes for cache in caches for array in cache.get_source() if array is not None)


def _lengths(model: StreamingModel, example: Example) -> tuple[int, int]:
    """Tokens of source and target, as far as they are kept."""
    prompt, kept = model.prompt, model.retention
    source = len(prompt.source_header) + _tokens(model, example.source, prompt.source_unit) + len(prompt.source_footer)
    target = len(prompt.target_header) + _tokens(model, example.reference, prompt.target_unit)
    return min(source, kept.max_source or source), min(target, kept.max_target or target)


def _tokens(model: StreamingModel, text: str, unit: Unit) -> int:
    return sum(len(model.prompt.source_tokens(piece, first=i == 0)) for i, piece in enumerate(pieces(text, unit)))


def _widths(model: Any) -> tuple[int, int]:
    """The most numbers that a layer makes of a token, and the logits of one."""
    shapes = {name: array.shape for name, array in tree_flatten(model.parameters()) if array.ndim == 2}  # type: ignore[attr-defined]
    outer = [shape[0] for name, shape in shapes.items() if ".layers." in name or ".h." in name]
    return 2 * max(outer, default=0), max((shape[0] for shape in shapes.values()), default=0)


def _size(model: Any) -> int:
    """Bytes of a number in it."""
    return max((array.itemsize for array in _arrays(model)), default=4)


def _arrays(model: Any) -> list[mx.array]:
    return [array for _, array in tree_flatten(model.parameters())]  # type: ignore[misc]
