"""The mismatches one at a time: neither is group, both are interleaved, and each alone is neither."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny

from experiments.mismatch.paradigm import Mismatched
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm

STEPS = [("read", [5, 6, 7]), ("write", [8, 9]), ("read", [10]), ("write", [11]), ("trim", 1), ("read", [12, 13])]
STEPS += [("write", [11]), ("write", [14])]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return tiny.random_model(3, len(tokenizer))


def logits_of(model: Any, paradigm: Paradigm, steps: list[tuple[str, Any]] = STEPS) -> np.ndarray:
    memory = paradigm.open(model)
    found = []
    for kind, what in steps:
        if kind == "write":
            found.append(memory.write(what))
        else:
            getattr(memory, kind)(what)
    return np.array(mx.stack(found))


@pytest.mark.parametrize(
    ("switches", "same"),
    [(Mismatched(), Group()), (Mismatched(source_sees_target=True, arrival_positions=True), Interleaved())],
)
def test_with_none_it_is_group_and_with_both_interleaved(model: Any, switches: Mismatched, same: Paradigm) -> None:
    np.testing.assert_allclose(logits_of(model, switches), logits_of(model, same), atol=1e-5)


def test_each_alone_changes_what_is_predicted_after_a_write_and_a_read(model: Any) -> None:
    ways: list[Paradigm] = [Group(), Mismatched(True, False), Mismatched(False, True), Interleaved()]
    found = [logits_of(model, way) for way in ways]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.abs(one[-1] - other[-1]).max() > 1e-3


def test_the_source_sees_the_target_only_where_that_is_switched_on(model: Any) -> None:
    """Another target before a read changes that source's keys, and so what the same target predicts after it."""

    def after(paradigm: Paradigm, target: int) -> np.ndarray:
        memory: Any = paradigm.open(model)
        memory.read([5])
        memory.write([target])
        memory.read([6])
        keys = memory.caches[-1].get_source()[0]
        return np.array(keys)[..., -1, :]

    assert np.abs(after(Mismatched(True), 8) - after(Mismatched(True), 9)).max() > 1e-4
    np.testing.assert_array_equal(after(Mismatched(), 8), after(Mismatched(), 9))


def test_a_hidden_source_stays_hidden(model: Any) -> None:
    memories = [paradigm.open(model) for paradigm in (Group(), Mismatched())]
    for memory in memories:
        memory.read([5, 6, 7])
    first, second = (np.array(memory.write([8], hidden=2)) for memory in memories)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_sliding_window_is_refused(model: Any) -> None:
    memory: Any = Mismatched().open(model)
    with pytest.raises(ValueError, match="choose paradigm=group"):
        memory._sources[0].make_mask(5, window_size=4)
