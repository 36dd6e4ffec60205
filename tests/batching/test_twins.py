"""Twins of a row give what twins of a memory of its own give, whatever the others do; and leave the row as it was."""

import random
from typing import Any

import numpy as np
import pytest
import tiny
from families import VOCABULARY

from streamllm.batching.coroutines import run_all
from streamllm.batching.pool import Pool
from streamllm.batching.twins import Places
from streamllm.cpu.decoder import Decoder
from streamllm.engine.paradigms.group import GroupMemory

SOURCE = [7, 3, 9, 5, 11]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.random_model(5, VOCABULARY)


def programmed(memory: Any, seed: int) -> list[np.ndarray]:
    """Logits of twins that read, write, look ahead and take back at random, side by side."""
    dice = random.Random(seed)
    held = memory.held()
    read = {0: 0}
    twins = {0: memory.beside(SOURCE)}
    fresh = {0: 0}  # tokens that may be trimmed
    logits = []
    for _ in range(60):
        name = dice.choice(sorted(twins))
        twin, action = twins[name], dice.choice(["read", "write", "write", "trim", "twin", "close", "check", "hide"])
        tokens = [dice.randrange(VOCABULARY) for _ in range(dice.randint(1, 3))]
        if action == "read" and read[name] < len(SOURCE):
            twin.read(SOURCE[read[name] : read[name] + 1])
            read[name] += 1
            fresh[name] = 0
        elif not read[name]:
            continue
        elif action == "write":
            logits.append(np.array(twin.write(tokens)))
            fresh[name] += len(tokens)
        elif action == "hide":
            logits.append(np.array(twin.write(tokens, hidden=1)))
            twin.trim(len(tokens))
        elif action == "check":
            found, likeliest = twin.check(tokens, len(tokens))
            assert np.array(found).argmax(axis=-1).tolist() == likeliest
            logits += list(np.array(found))
            twin.trim(len(tokens) - 1)
            fresh[name] += 1
        elif action == "trim":
            n = dice.randint(0, fresh[name])
            twin.trim(n)
            fresh[name] -= n
        elif action == "twin" and len(twins) < 5:
            other = max(twins) + 1
            twins[other], read[other], fresh[other] = twin.twin(), read[name], fresh[name]
        elif action == "close" and len(twins) > 1:
            twin.close()
            del twins[name]
    memory.take_back(held)
    memory.read(SOURCE[:2])
    logits.append(np.array(memory.write([4, 2])))
    memory.read(SOURCE[2:])
    logits.append(np.array(memory.write([1])))
    return logits


@pytest.mark.parametrize("numpy", [False, True], ids=["MLX", "numpy"])
@pytest.mark.parametrize("start", [2, "after_source"])
def test_twins_of_a_row_are_those_of_a_memory_of_its_own(model: Any, numpy: bool, start: Any) -> None:
    decoder = Decoder.of(model) if numpy else None
    if numpy and decoder is None:
        pytest.skip("numpy computes where MKL does")
    pool = Pool(model, 3, start, decoder=decoder)
    tasks = [lambda row, clock, seed=seed: (seed, programmed(row, seed)) for seed in range(4)]
    together = dict(run_all(pool, tasks))
    for seed, found in together.items():
        alone = programmed(GroupMemory(model, start), seed)
        assert len(found) == len(alone) > 20
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_a_column_is_given_out_again_once_nobody_holds_it() -> None:
    places = Places(5)
    one, other = places.take(), places.take()
    assert (one, other) == (5, 6)
    places.hold([5, 6])
    places.drop([5, 6])
    assert places.take() == 7
    places.drop([5])
    assert places.take() == 5
