"""Sessions in several threads: what one puts in the place of a function of MLX, the others do not see."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny

from streamllm.cpu import exponentials
from streamllm.cpu.fewer_operations import fewer_operations
from streamllm.engine.attention import recorded
from streamllm.engine.head import logits_at
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.standins import replaced

STAND_INS: dict[str, Callable[[Any], AbstractContextManager[Any]]] = {
    "fewer_operations": lambda model: fewer_operations(),
    "logits_at": lambda model: logits_at(model, slice(None), -1),
    "recorded": lambda model: recorded(model),
    "exponentials": lambda model: exponentials.numpy_exponentials(model),
}


ORIGINALS = {
    (owner, name): getattr(owner, name)
    for owner, name in [
        (mx.fast, "scaled_dot_product_attention"),
        (mx.fast, "rope"),
        (mx.fast, "rms_norm"),
        (nn.Embedding, "as_linear"),
    ]
}


@pytest.mark.parametrize("name", STAND_INS)
def test_what_a_thread_puts_in_place_no_other_sees(name: str) -> None:
    model = tiny.random_model(3, 64)
    tokens = mx.array([[1, 2, 3]])
    expected, found = model(tokens), []
    with STAND_INS[name](model):
        thread = threading.Thread(target=lambda: found.append(np.array(model(tokens))))
        thread.start()
        thread.join(30)
        model(tokens)
    with STAND_INS[name](model), STAND_INS[name](model):
        model(tokens)
    np.testing.assert_array_equal(found[0], np.array(expected))
    assert {key: getattr(*key) for key in ORIGINALS} == ORIGINALS


def test_a_stand_in_ends_with_its_own_context_whatever_other_threads_do() -> None:
    class Owner:
        @staticmethod
        def answer() -> int:
            return 1

    class Heir(Owner):
        pass

    def plus(n: int) -> Any:
        return lambda function: lambda: function() + n

    seen: list[int] = []
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with replaced(Heir, "answer", plus(10)):
            inside.set()
            leave.wait(30)
            seen.append(Heir.answer())

    thread = threading.Thread(target=other)
    with replaced(Heir, "answer", plus(100)):
        thread.start()
        inside.wait(30)
        with replaced(Heir, "answer", plus(1000)):
            assert Heir.answer() == 1101
        assert Heir.answer() == 101
    assert Heir.answer() == 1
    leave.set()
    thread.join(30)
    assert seen == [11]
    assert "answer" not in vars(Heir)


def test_threads_get_what_one_gets() -> None:
    model = tiny.random_model(3, 64)

    def logits(seed: int) -> list[float]:
        memory, found = GroupMemory(model), []
        for i in range(12):
            memory.read([(seed + i) % 20 + 1] * 3)
            found.append(mx.max(memory.write([i + 1, i + 2])).item())
        return found  # type: ignore[return-value]

    found: dict[int, list[float]] = {}
    threads = [threading.Thread(target=lambda seed=i: found.update({seed: logits(seed)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {seed: logits(seed) for seed in range(4)}
