"""What opens memories of the group paradigms: with windows, quantised keys and values, and sentences to forget."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_lm.models import cache as mlx_lm_cache

from streamllm.cache.dual import DualStreamingCache, make_caches
from streamllm.cache.quantised import QuantisedCache, check_quantisable
from streamllm.cache.retention import Retention
from streamllm.engine.paradigms.documents import Continuous, Sentences
from streamllm.engine.paradigms.forgetting import Forgetting, Window, forgetting_of
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.memory import Paradigm, TargetStart
from streamllm.engine.paradigms.revised import Revised


@dataclass(frozen=True)
class Memories:
    """Opens empty memories of one model, given φ.

    Attributes:
        forgetting: how they forget; None where they hold all.
    """

    model: Any
    make: Callable[[], list[DualStreamingCache]]
    forgetting: Forgetting | None

    def __call__(self, target_start: TargetStart) -> GroupMemory:
        return GroupMemory(self.model, target_start, self.make(), self.forgetting)


def memories(
    retention: Retention, model: Any, paradigm: Paradigm, source_header: int = 0, target_header: int = 0
) -> Memories:
    """What opens an empty memory, given φ. Whether the model can do it is tried here, once.

    Args:
        source_header, target_header: tokens of the headers.

    Raises:
        ValueError: the paradigm does not take a ``retention``, the model's keys cannot be moved or not be quantised, or
            a window has no room beside what is never forgotten.
    """
    if not isinstance(paradigm, Group | Sentences | Continuous | Revised):
        raise ValueError(
            "model.max_source, model.max_target and model.kv_bits are for paradigm=group, sentences, continuous "
            f"and revised, and the paradigm is {type(paradigm).__name__}: leave them at null, or choose one of these"
        )
    make: Callable[[], list[DualStreamingCache]] = partial(make_caches, model)
    if retention.kv_bits is not None:
        check_quantisable(model, retention.kv_bits, retention.kv_group_size)
        make = partial(_quantised_caches, model, retention.kv_bits, retention.kv_group_size)
    sizes, sinks = (retention.max_source, retention.max_target), retention.sinks
    if isinstance(paradigm, Continuous):  # the model's own windows come first
        sizes = sizes[0] or paradigm.max_source, sizes[1] or paradigm.max_target
    if not isinstance(paradigm, Group):
        sinks = paradigm.sinks if isinstance(paradigm, Continuous) else 0  # the header alone
    if sizes == (None, None) and not isinstance(paradigm, Sentences | Revised):
        return Memories(model, make, None)
    source = Window("source", sizes[0], max(sinks, source_header))
    target = Window("target", sizes[1], max(sinks, target_header))
    asked = "model.max_source and model.max_target need"
    if not isinstance(paradigm, Group):
        asked = f"paradigm={type(paradigm).__name__.lower()} needs"
    return Memories(model, make, forgetting_of(model, source, target, asked))


def _quantised_caches(model: Any, bits: int, group_size: int) -> list[DualStreamingCache]:
    return [QuantisedCache(bits=bits, group_size=group_size) for _ in mlx_lm_cache.make_prompt_cache(model)]
