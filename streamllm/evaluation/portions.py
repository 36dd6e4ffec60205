"""Data that lies in memory as bytes is translated a portion at a time, so that the first sentence waits for no list of
all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from streamllm.data.as_bytes import PairsAsBytes
from streamllm.engine.limits import Limits
from streamllm.records import Example, Policy, Trace

Translator = Callable[[Any, Sequence[Example], Policy, Limits, int | None, int], Iterator[Trace]]
"""What `streamllm.batching.scheduler.translate_many` is: model, examples, policy, limits, batch size, seed."""

PORTION = 8192
"""Sentences. Those of one portion are put in order of length; between two, a batch runs empty once."""


def in_portions(translate: Translator) -> Translator:
    """What translates `PairsAsBytes` by portions, and other examples as ``translate`` does."""

    def translates(
        model: Any,
        examples: Sequence[Example],
        policy: Policy,
        limits: Limits,
        batch_size: int | None,
        seed: int,
    ) -> Iterator[Trace]:
        if not isinstance(examples, PairsAsBytes):
            return translate(model, examples, policy, limits, batch_size, seed)
        portions = (examples[begin : begin + PORTION] for begin in range(0, len(examples), PORTION))
        return _each(translate(model, portion, policy, limits, batch_size, seed) for portion in portions)

    return translates


def _each(parts: Iterable[Iterator[Trace]]) -> Iterator[Trace]:
    """The traces of all parts; who closes this closes the part under way."""
    for part in parts:
        yield from part
