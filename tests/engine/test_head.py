"""Logits are computed where they are asked for, and nowhere else."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from families import FAMILIES, VOCABULARY, Family
from reference import build

from streamllm.batching.coroutines import run_all
from streamllm.batching.pool import LONG_READ, Pool
from streamllm.batching.row import Row
from streamllm.engine.head import logits_at
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.memory import Paradigm
from streamllm.engine.paradigms.reencoded import Batch

UNUSUAL = {"talkie"}  # its head is a bare array: all logits are computed


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_the_head_of_every_family_is_given_one_position_of_many(family: Family) -> None:
    """With the logits of a forward that computes all."""
    model, tokens = build(family), mx.array([[3, 9, 4], [1, 5, 7]])
    make = lambda: [cache.source for cache in Group().open(model).caches]  # noqa: E731
    whole = np.array(model(tokens, cache=make()).astype(mx.float32))
    with logits_at(model, mx.array([1, 0]), mx.array([2, 1])) as cut:
        logits = model(tokens, cache=make())
    assert logits.size == (6 if family.model_type in UNUSUAL else 2) * VOCABULARY
    got = np.array(cut.after(logits).astype(mx.float32))
    np.testing.assert_allclose(got, whole[[1, 0], [2, 1]], atol=1e-4 * np.abs(whole).max())
    again = np.array(model(tokens, cache=make()).astype(mx.float32))
    assert again.shape == whole.shape, "the model stayed cut"


class Recorder(nn.Linear):
    """A head that notes how many positions it is given."""

    def __call__(self, x: mx.array) -> mx.array:
        self.given.append(x.size // x.shape[-1])
        return super().__call__(x)


@pytest.fixture(params=["lm_head", "tied"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    """A model, and the numbers of positions that its head is given."""
    given: list[int] = []
    if request.param == "tied":
        as_linear = nn.Embedding.as_linear

        def note(self: Any, x: mx.array) -> mx.array:
            given.append(x.size // x.shape[-1])
            return as_linear(self, x)

        monkeypatch.setattr(nn.Embedding, "as_linear", note)
        return tiny.random_model(1, VOCABULARY, tied=True), given
    model = tiny.random_model(1, VOCABULARY)
    head = Recorder(*model.lm_head.weight.shape[::-1], bias=False)
    object.__setattr__(head, "given", given)
    head.weight = model.lm_head.weight
    model.lm_head = head
    return model, given


@pytest.mark.parametrize("paradigm", [Group(), Batch()], ids=["group", "batch"])
def test_a_write_of_many_tokens_asks_for_the_last(recorded: tuple[Any, list[int]], paradigm: Paradigm) -> None:
    """Also one that encodes the target again."""
    model, given = recorded
    memory = paradigm.open(model)
    memory.read([1, 2])
    del given[:]  # of the read: they are not evaluated
    memory.write([3, 4, 5])
    memory.read([6])
    del given[1:]
    memory.write([7])
    assert given == [1, 1]


def test_a_step_of_a_pool_asks_for_one_a_row(recorded: tuple[Any, list[int]]) -> None:
    """Not for what is read with it, nor for all but the last of what is written."""
    model, given = recorded

    def task(row: Row, clock: Any) -> None:
        for read, written in (([1] * 3, [2, 3]), ([1] * 2, [2])):
            row.read(read)
            row.write(written)

    list(run_all(Pool(model, 3), [task] * 3))
    assert given == [3, 3]


def test_the_logits_of_what_is_read_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take a hundred times the memory of the rest."""
    vocabulary, read = 100_000, 4 * LONG_READ
    memory = GroupMemory(tiny.random_model(1, vocabulary))
    memory.read([1])
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    memory.read([1] * read)
    assert mx.get_peak_memory() - before < read * vocabulary * 4 / 10
    mx.eval(memory.write([1]))


def test_the_host_waits_once_for_a_read_and_once_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = GroupMemory(tiny.random_model(1, VOCABULARY))
    waits: list[str] = []
    evaluate = mx.eval
    monkeypatch.setattr(mx, "eval", lambda *arrays: (waits.append("eval"), evaluate(*arrays)))
    memory.read([1, 2])
    assert waits == ["eval"]
    logits = memory.write([3])
    assert waits == ["eval"], "a write is evaluated when its token is asked for"
    assert memory.likeliest(logits) == int(np.array(logits).argmax())
    assert waits == ["eval", "eval"]
