"""However long a unit is, what one forward feeds is bounded, with the results of one forward."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny

from streamllm.batching.pool import Pool
from streamllm.cache.retention import Retention
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Memory, Paradigm
from streamllm.engine.paradigms.reencoded import Batch
from streamllm.engine.paradigms.windows import memories
from streamllm.engine.portions import AT_ONCE, FEWEST, SCORES, portion, portions

VOCABULARY = 48
LONG = [i % VOCABULARY for i in range(2 * AT_ONCE + 40)]


class Watched:
    """A model that notes how many tokens each forward feeds."""

    def __init__(self) -> None:
        self.model = tiny.random_model(3, VOCABULARY)
        self.fed: list[int] = []

    @property
    def layers(self) -> Any:
        return self.model.layers

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        self.fed.append(tokens.shape[1])
        logits: mx.array = self.model(tokens, cache=cache)
        return logits


def after(memory: Memory, reads: list[list[int]]) -> np.ndarray[Any, Any]:
    for tokens in reads:
        memory.read(tokens)
    memory.write([5, 6])
    memory.read([7])
    return np.array(memory.write([8]))


@pytest.mark.parametrize("paradigm", [Group(), Interleaved(), Batch()], ids=lambda paradigm: type(paradigm).__name__)
def test_a_long_unit_is_fed_in_portions_and_gives_what_its_tokens_one_read_each_give(paradigm: Paradigm) -> None:
    model = Watched()
    memory = paradigm.open(model, 0)
    found = after(memory, [LONG])
    assert max(model.fed) <= AT_ONCE
    assert model.fed[:3] == [AT_ONCE, AT_ONCE, 40]
    assert memory.forward_passes == len(model.fed)
    parts = [LONG[i : i + 100] for i in range(0, len(LONG), 100)]
    np.testing.assert_allclose(found, after(paradigm.open(model, 0), parts), atol=2e-4, rtol=1e-4)


def test_a_target_that_is_encoded_again_is_fed_in_portions() -> None:
    model = Watched()
    memory = Batch().open(model, 0)
    memory.read([1, 2])
    memory.write(LONG)
    memory.read([3])
    memory.write([4])
    assert max(model.fed) <= AT_ONCE


def test_hidden_source_stays_hidden_in_every_portion() -> None:
    model = Watched()
    memory, less = Group().open(model), Group().open(model)
    memory.read([1, 2, 3, 4])
    less.read([1, 2])
    np.testing.assert_allclose(np.array(memory.write(LONG, hidden=2)), np.array(less.write(LONG)), atol=2e-4, rtol=1e-4)
    assert max(model.fed) <= AT_ONCE


def test_a_window_is_filled_in_portions() -> None:
    model = Watched()
    open_memory = memories(Retention(max_source=2 * AT_ONCE), model, Group())
    after(open_memory(0), [LONG])
    assert max(model.fed) <= AT_ONCE


def test_a_sentence_counts_the_same_forwards_in_a_batch_as_alone() -> None:
    model = tiny.random_model(3, VOCABULARY)
    alone, row = Group().open(model), Pool(model, 1).open()
    np.testing.assert_allclose(after(row, [LONG]), after(alone, [LONG]), atol=2e-4, rtol=1e-4)
    assert row.forward_passes == alone.forward_passes


def test_a_forward_feeds_fewer_tokens_where_many_are_held() -> None:
    assert portion(0) == AT_ONCE
    assert all(portion(held) * held <= SCORES for held in (1000, 16384, 16385, 50_000, SCORES // FEWEST))
    assert portion(10**9) == FEWEST
    assert sum(sizes := portions(3000, 40_000)) == 3000
    assert sizes == sorted(sizes, reverse=True)
    assert portions(0, 5) == [0]
