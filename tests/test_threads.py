"""Sessions in several threads: while one puts something in the place of a function of MLX, the others wait."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
import pytest
import tiny

from streamllm.attention import recorded
from streamllm.fewer_ops import fewer_operations
from streamllm.head import logits_at
from streamllm.paradigms import GroupMemory

STAND_INS: dict[str, Callable[[Any], AbstractContextManager[Any]]] = {
    "fewer_operations": lambda model: fewer_operations(),
    "logits_at": lambda model: logits_at(model, slice(None), -1),
    "recorded": lambda model: recorded(model),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_no_thread_feeds_a_model_while_another_has_changed_it(name: str) -> None:
    model, fed = tiny.random_model(3, 64), threading.Event()

    def feed() -> None:
        GroupMemory(model).read([1, 2, 3])
        fed.set()

    thread = threading.Thread(target=feed)
    with STAND_INS[name](model):
        model(mx.array([[1]]))
        thread.start()
        assert not fed.wait(0.3)
    thread.join(30)
    assert fed.is_set()


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
