"""What opens memories of the group paradigms: with windows, quantised keys and values, and sentences to forget."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_lm.models import cache as mlx_lm_cache

from streamllm.cache.dual import DualStreamingCache, make_caches
from streamllm.cache.quantised import QuantisedCache, check_quantisable
from streamllm.cache.retention import Retention
from streamllm.engine.paradigms.forgetting import Forgetting
from streamllm.engine.paradigms.group import GroupMemory, GroupParadigm
from streamllm.engine.paradigms.memory import Paradigm, TargetStart


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
    if not isinstance(paradigm, GroupParadigm):
        raise ValueError(
            "model.max_source, model.max_target and model.kv_bits are for paradigm=group, sentences, continuous "
            f"and revised, and the paradigm is {type(paradigm).__name__}: leave them at null, or choose one of these"
        )
    make: Callable[[], list[DualStreamingCache]] = partial(make_caches, model)
    if retention.kv_bits is not None:
        check_quantisable(model, retention.kv_bits, retention.kv_group_size)
        make = partial(_quantised_caches, model, retention.kv_bits, retention.kv_group_size)
    return Memories(model, make, paradigm.forgetting(model, retention, source_header, target_header))


def _quantised_caches(model: Any, bits: int, group_size: int) -> list[DualStreamingCache]:
    return [QuantisedCache(bits=bits, group_size=group_size) for _ in mlx_lm_cache.make_prompt_cache(model)]
