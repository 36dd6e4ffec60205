"""Hypotheses of a beam that go on from one memory side by side."""

import mlx.core as mx

from streamllm.engine.forward import forward
from streamllm.engine.paradigms.memory import CachedMemory
from streamllm.engine.positions import check_end


class Branches:
    """See `Fork`. The source is copied, not encoded again."""

    def __init__(self, memory: CachedMemory, of_source: bool):
        self._memory = memory
        self._caches = [cache.copy() for cache in memory.caches]
        self._views = [cache.source if of_source else cache.target for cache in self._caches]

    def step(self, parents: list[int], tokens: list[int]) -> mx.array:
        if parents != list(range(self._caches[0].batch_size)):
            for cache in self._caches:
                cache.select(parents)
        check_end(self._memory.positions, self._views[0].offset + 1)
        self._memory.forward_passes += 1
        self._memory.fed_tokens += len(tokens)
        logits, _ = forward(self._memory.model, mx.array(tokens)[:, None], self._views)
        return logits[:, -1]
