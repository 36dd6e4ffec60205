"""The memory that many sentences share: each row gives what a memory of its own gives, whatever the others do."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from families import FAMILIES, VOCABULARY, Family
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import PROGRAM, TOLERANCE, build, deviation, expected, fed_tokens

from streamllm.batching.coroutines import Task, run_all
from streamllm.batching.in_model import NUMPY_TOKENS
from streamllm.batching.pool import LONG_READ, STEP, Pool
from streamllm.batching.row import Row
from streamllm.batching.trial import _why_not
from streamllm.cpu.decoder import Decoder
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.paradigms.memory import Memory
from streamllm.engine.paradigms.together import takes_both
from streamllm.engine.portions import AT_ONCE

UNFIT = {"gemma2", "gpt_bigcode"}  # one computes attention, the other positions, for one sentence only
LATENT = {"deepseek_v3", "deepseek_v3-yarn", "glm4_moe_lite", "kimi_k25", "kimi_vl", "mistral3-mistral4", "mistral4"}
"""Families that compute a part of their attention by themselves."""


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.random_model(5, VOCABULARY)


@pytest.fixture(scope="module", params=["MLX", "numpy"])
def pool_of(request: pytest.FixtureRequest, model: Any) -> Callable[..., Pool]:
    """Makes pools for the model, whose forwards MLX or numpy computes."""
    if request.param == "MLX":
        return partial(Pool, model)
    decoder = Decoder.of(model)
    if decoder is None:
        pytest.skip("numpy computes where MKL does")
    return partial(Pool, model, decoder=decoder)


by_numpy = pytest.mark.parametrize("pool_of", [pytest.param("MLX", marks=pytest.mark.long), "numpy"], indirect=True)
"""Of what takes seconds by MLX."""


def all_of(pool: Pool, tasks: list[Task[Any]]) -> list[Any]:
    """What the tasks return, in their order."""

    def numbered(i: int, task: Task[Any]) -> Task[Any]:
        return lambda row, clock: (i, task(row, clock))

    return [result for _, result in sorted(run_all(pool, [numbered(*pair) for pair in enumerate(tasks)]))]


def programmed(memory: Memory, waits: bool = False) -> list[np.ndarray]:
    """Logits after each write of `reference.PROGRAM`; whether its reads wait for them."""
    tokens = [fed.token for fed in fed_tokens()]
    logits = []
    for step in PROGRAM:
        if step.action == "trim":
            memory.trim(step.count)
            continue
        now, tokens = tokens[: step.count], tokens[step.count :]
        if step.action == "read":
            memory.read(now, waits)
        else:
            logits.append(np.array(memory.write(now)))
    return logits


def ends_of_writes() -> list[int]:
    """Which of the fed tokens are the last of a write."""
    ends, at = [], 0
    for step in PROGRAM:
        at += step.count * (step.action != "trim")
        if step.action == "write":
            ends.append(at - 1)
    return ends


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_rows_of_a_batch_give_the_logits_of_the_reference(family: Family) -> None:
    """The second row stands at another place of the program, so positions and masks differ from row to row."""

    def late(row: Row, clock: Any) -> list[np.ndarray]:
        row.write([1])
        row.trim(1)
        return programmed(row)

    def task(row: Row, clock: Any) -> list[np.ndarray]:
        return programmed(row)

    packs = _why_not(build(family), packs=True) is None
    assert packs == (family.name not in LATENT and family.model_type not in UNFIT)
    try:
        rows = all_of(Pool(build(family), 2, target_start=7, packs=packs), [late, task])
    except Exception:
        assert family.model_type in UNFIT
        return
    for row in rows:
        exact = deviation(np.stack(row), expected(family, 7)[ends_of_writes()]) < TOLERANCE
        assert exact == (family.model_type not in UNFIT)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_reads_that_wait_for_the_next_write_give_the_logits_of_the_reference(family: Family) -> None:
    memory = GroupMemory(build(family), 7)
    logits = programmed(memory, waits=True)
    assert memory.forward_passes == (9 if takes_both(memory.model, memory.caches) else 13)
    assert takes_both(memory.model, memory.caches) == (family.model_type not in UNFIT)
    assert deviation(np.stack(logits), expected(family, 7)[ends_of_writes()]) < TOLERANCE


def random_life(seed: int, longest_read: int) -> Any:
    """A sentence of random reads, writes, hidden writes and trims; returns logits and counts."""

    def live(memory: Memory, clock: Any = None) -> tuple[list[np.ndarray], tuple[int, ...]]:
        dice = random.Random(seed)
        logits: list[np.ndarray] = []
        fresh = read = 0  # target tokens since the last read, source tokens
        for _ in range(dice.randrange(3, 9)):
            tokens = [dice.randrange(VOCABULARY) for _ in range(dice.choice([1, 1, 2, 3]))]
            action = dice.choice(["read", "write", "hidden", "trim"])
            if action == "read":
                tokens *= dice.randrange(1, longest_read + 1)
                memory.read(tokens, waits=dice.random() < 0.5)
                fresh, read = 0, read + len(tokens)
            elif action == "trim":
                n = dice.randrange(fresh + 1)
                memory.trim(n)
                fresh -= n
            else:
                hidden = dice.randrange(read + 1) if action == "hidden" else 0
                logits.append(np.array(memory.write(tokens, hidden)))
                fresh += len(tokens)
        logits.append(np.array(memory.write([1])))
        assert memory.likeliest(mx.array(logits[-1])) == logits[-1].argmax()
        return logits, (memory.forward_passes, memory.source_tokens, memory.fed_tokens, memory.target_offset)

    return live


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    rows=st.integers(1, 4),
    target_start=st.sampled_from([0, 5, "after_source"]),
    longest_read=st.sampled_from([2, LONG_READ + 4]),
)
def test_a_row_gives_what_a_memory_of_its_own_gives(
    model: Any, pool_of: Callable[..., Pool], seeds: list[int], rows: int, target_start: Any, longest_read: int
) -> None:
    check_against_alone(model, pool_of, [random_life(seed, longest_read) for seed in seeds], rows, target_start)


def check_against_alone(
    model: Any, pool_of: Callable[..., Pool], lives: list[Any], rows: int, target_start: Any
) -> None:
    """What each life gives, in a pool with the others, is what it gives in a memory of its own."""
    together = all_of(pool_of(rows, target_start), lives)
    for live, (logits, counts) in zip(lives, together, strict=True):
        alone, counts_alone = live(GroupMemory(model, target_start))
        np.testing.assert_allclose(np.stack(logits), np.stack(alone), atol=2e-4, rtol=1e-4)
        assert counts == counts_alone


def test_reads_longer_than_a_chunk_are_exact(model: Any, pool_of: Callable[..., Pool]) -> None:
    def read(n: int) -> Any:
        def task(memory: Memory, clock: Any = None) -> np.ndarray:
            memory.read([i % VOCABULARY for i in range(n)])
            memory.write([1, 2])
            memory.read([3])
            return np.array(memory.write([4]))

        return task

    lengths = [2 * AT_ONCE + 3, AT_ONCE, LONG_READ, LONG_READ + 1, 5]
    for n, logits in zip(lengths, all_of(pool_of(5), [read(n) for n in lengths]), strict=True):
        np.testing.assert_allclose(logits, read(n)(GroupMemory(model)), atol=2e-4, rtol=1e-4)


def test_attention_is_that_of_a_memory_of_its_own(model: Any, pool_of: Callable[..., Pool]) -> None:
    def look(n: int) -> Any:
        def task(memory: Memory, clock: Any = None) -> np.ndarray:
            memory.read([i % VOCABULARY for i in range(n)])
            memory.write([1, 2])
            memory.read([3, 4])
            logits, attention = memory.attend([5])
            assert memory.likeliest(logits) == int(np.array(logits).argmax())
            return np.array(attention.weights([[0, 1], [1, 3]]))

        return task

    def other(row: Row, clock: Any) -> None:
        row.read([7, 8])
        row.write([9])

    for n, weights in zip((3, 20), all_of(pool_of(3), [look(3), look(20), other]), strict=False):
        np.testing.assert_allclose(weights, look(n)(GroupMemory(model)), atol=1e-5)


def test_a_write_head_is_told_what_it_is_told_in_a_memory_of_its_own(model: Any, pool_of: Callable[..., Pool]) -> None:
    head = tiny.write_head(3)

    def judged(n: int) -> Any:
        def task(memory: Memory, clock: Any = None) -> list[float]:
            memory.read([i % VOCABULARY for i in range(n)])
            first = memory.judge([1, 2])[1].logit
            memory.read([3, 4])
            logits, second = memory.judge([5])
            assert memory.likeliest(logits) == int(np.array(logits).argmax())
            return [first, second.logit]

        return task

    def alone() -> GroupMemory:
        memory = GroupMemory(model)
        memory.write_head = head
        return memory

    def other(row: Row, clock: Any) -> list[float]:
        row.read([7, 8])
        row.check([9, 2, 4], 2)
        return []

    found = all_of(pool_of(3, write_head=head), [judged(3), other, judged(20)])
    assert found[1] == []
    for n, logits in zip((3, 20), (found[0], found[2]), strict=True):
        np.testing.assert_allclose(logits, judged(n)(alone()), atol=1e-4)


def test_a_pool_without_a_write_head_says_how_to_train_one(model: Any, pool_of: Callable[..., Pool]) -> None:
    row = pool_of(1).open()
    row.read([1])
    with pytest.raises(ValueError, match=r"the model has no write head, .*: train one with `streamllm train-head"):
        row.judge([2])


def test_reading_and_writing_rows_share_one_forward(model: Any, pool_of: Callable[..., Pool]) -> None:
    """A read costs no forward of its own, and each row's forwards are counted as it asked for them."""

    def live(reads: int) -> Any:
        def task(row: Row, clock: Any) -> int:
            for _ in range(3):
                for _ in range(reads):
                    row.read([1, 2])
                row.write([3])
            return row.forward_passes

        return task

    pool = pool_of(2)
    assert all_of(pool, [live(2), live(0)]) == [9, 3]
    assert pool.forward_passes == 3
    assert pool.fed_tokens == 18


@pytest.mark.parametrize(
    ("reads", "fed"),
    [
        ((LONG_READ, 0, 0, 0), LONG_READ + 4),
        ((LONG_READ + 1, 2, 2, 0), LONG_READ + 1 + 4 + 4),
        ((6, 5, 6, 6), 4 * 6 + 4),
    ],
    ids=["short", "one is long", "all begin"],
)
def test_long_reads_go_before_side_by_side(model: Any, reads: tuple[int, ...], fed: int) -> None:
    def live(n: int) -> Any:
        def task(row: Row, clock: Any) -> None:
            if n:
                row.read([1] * n)
            row.write([2])

        return task

    pool = Pool(model, 4)
    all_of(pool, [live(n) for n in reads])
    assert (pool.forward_passes, pool.fed_tokens) == (1 if fed == LONG_READ + 4 else 2, fed)


def test_room_grows_with_the_longest_sentence_and_is_given_back(model: Any) -> None:
    pool = Pool(model, 2)
    sizes = []

    def live(n: int) -> Any:
        def task(row: Row, clock: Any) -> None:
            row.read([1] * n)
            row.write([2])
            sizes.append((pool.columns, pool.nbytes))

        return task

    all_of(pool, [live(n) for n in (10, 6 * STEP, 20, 20, 20)])
    columns, nbytes = sizes[-1]
    assert columns == STEP
    assert max(sizes) == (7 * STEP, 7 * nbytes)


def test_a_row_is_given_to_the_next_sentence_without_a_trace_of_the_last(
    model: Any, pool_of: Callable[..., Pool]
) -> None:
    def live(tokens: list[int]) -> Any:
        def task(memory: Memory, clock: Any = None) -> np.ndarray:
            memory.read(tokens)
            return np.array(memory.write([1]))

        return task

    def longer(row: Row, clock: Any) -> None:  # so that forwards look beyond the columns of the others
        row.read([9] * 12)
        for _ in range(3):
            row.write([2])

    pool = pool_of(2)
    _, _, second = all_of(pool, [longer, live([5, 6, 7, 8]), live([3, 4])])
    np.testing.assert_allclose(second, live([3, 4])(GroupMemory(model)), atol=2e-4, rtol=1e-4)
    assert pool.has_room


def test_a_full_pool_refuses_another_sentence(model: Any) -> None:
    pool = Pool(model, 1)
    row = pool.open()
    with pytest.raises(RuntimeError, match="all 1 rows are taken"):
        pool.open()
    pool.close(row)
    pool.close(row)  # once is enough
    pool.open()
    assert not pool.has_room


def test_a_pool_without_rows_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="a pool of 0 rows"):
        Pool(model, 0)


def test_trimming_what_was_fed_before_a_read_is_refused(model: Any, pool_of: Callable[..., Pool]) -> None:
    row = pool_of(1).open()
    row.read([1])
    row.write([2])
    row.read([3])
    row.write([4])
    with pytest.raises(RuntimeError, match="cannot trim 2 target tokens"):
        row.trim(2)


# Beams


def random_beam(seed: int) -> Any:
    """A sentence that goes on in several ways, which end and fork at random, and then as if it had not."""

    def live(memory: Memory, clock: Any = None) -> tuple[np.ndarray, tuple[int, ...]]:
        dice = random.Random(seed)
        tokens = [dice.randrange(VOCABULARY) for _ in range(200)]
        logits: list[np.ndarray] = []
        for _ in range(2):
            memory.read([tokens.pop() for _ in range(dice.randrange(1, LONG_READ + 4))])
            logits.append(np.array(memory.write([tokens.pop() for _ in range(dice.randrange(1, 4))]))[None])
            branches, alive = memory.fork(), 1
            for _ in range(dice.randrange(6)):
                parents = [dice.randrange(alive) for _ in range(dice.randrange(1, 5))]
                alive = len(parents)
                logits.append(np.array(branches.step(parents, [tokens.pop() for _ in parents])))
        logits.append(np.array(memory.write([1]))[None])
        assert memory.likeliest(mx.array(logits[-1][0])) == logits[-1].argmax()
        counts = (memory.forward_passes, memory.source_tokens, memory.fed_tokens, memory.target_offset)
        return np.concatenate(logits), counts

    return live


@by_numpy
@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    rows=st.integers(1, 4),
    target_start=st.sampled_from([0, 5, "after_source"]),
)
def test_a_beam_in_a_row_gives_what_one_in_a_memory_of_its_own_gives(
    model: Any, pool_of: Callable[..., Pool], seeds: list[int], rows: int, target_start: Any
) -> None:
    check_against_alone(model, pool_of, [random_beam(seed) for seed in seeds], rows, target_start)


@pytest.mark.parametrize("decodes", [False, True], ids=["MLX", "numpy"])
def test_a_beam_sees_through_the_windows_of_its_model(decodes: bool) -> None:
    """A window counts the tokens of a hypothesis, and not the columns, which other hypotheses use too."""
    family = next(family for family in FAMILIES if family.name == "gemma3_text")
    model = build(family)
    pool = Pool(model, 1, decoder=Decoder.of(model) if decodes else None)
    (batched,) = all_of(pool, [random_beam(7)])
    alone = random_beam(7)(GroupMemory(model))
    np.testing.assert_allclose(batched[0], alone[0], atol=2e-4, rtol=1e-4)


def test_a_beam_shares_its_forwards_with_other_rows(model: Any, pool_of: Callable[..., Pool]) -> None:
    def beam(row: Row, clock: Any) -> int:
        row.read([1, 2])
        row.write([3])
        branches = row.fork()
        branches.step([0, 0, 0], [4, 5, 6])
        branches.step([2, 0], [7, 8])
        return row.forward_passes

    def writing(row: Row, clock: Any) -> int:
        for _ in range(3):
            row.write([3])
        return row.forward_passes

    pool = pool_of(3)
    assert all_of(pool, [beam, writing, beam]) == [4, 3, 4]
    assert (pool.forward_passes, pool.fed_tokens) == (3, 2 * (3 + 3 + 2) + 3)


def test_a_long_beam_needs_no_more_room_than_what_is_alive(model: Any, pool_of: Callable[..., Pool]) -> None:
    def task(row: Row, clock: Any) -> int:
        row.read([1] * 4)
        row.write([2])
        branches = row.fork()
        branches.step([0, 0, 0], [4, 5, 6])
        for _ in range(STEP - 12):
            branches.step([1, 1, 1], [4, 5, 6])
        return pool.columns

    pool = pool_of(1)
    assert all_of(pool, [task]) == [STEP]


def test_a_beam_keeps_its_columns_while_another_row_steps(model: Any, pool_of: Callable[..., Pool]) -> None:
    def wide(memory: Memory, pause: Any) -> np.ndarray:
        memory.read([1, 2])
        memory.write([3])
        branches = memory.fork()
        branches.step([0] * 40, list(range(1, 41)))
        branches.step(list(range(40)), [5] * 40)
        pause()
        return np.array(branches.step(list(range(40)), [6] * 40))

    def other_steps() -> None:
        row = pool.open()
        row.read([1])
        row.write([2])

    pool = pool_of(2)
    batched, alone = wide(pool.open(), other_steps), wide(GroupMemory(model), lambda: None)
    np.testing.assert_allclose(batched, alone, atol=2e-4, rtol=1e-4)


def test_a_beam_does_not_see_what_was_trimmed(model: Any, pool_of: Callable[..., Pool]) -> None:
    def after_trimming(memory: Memory) -> np.ndarray:
        memory.read([1, 2])
        memory.write([3])
        memory.write([7, 8, 9, 10])
        memory.trim(4)
        branches = memory.fork()
        branches.step([0, 0], [4, 5])
        return np.array(branches.step([0, 1], [5, 6]))

    in_row, alone = after_trimming(pool_of(1).open()), after_trimming(GroupMemory(model))
    np.testing.assert_allclose(in_row, alone, atol=2e-4, rtol=1e-4)


@by_numpy
def test_one_sentence_that_outlasts_the_others_does_not_keep_their_memory(
    model: Any, pool_of: Callable[..., Pool]
) -> None:
    """Its tokens are what they were, wherever its row goes, and rows can be opened again."""

    def life(memory: Memory) -> list[int]:
        memory.read([3, 4, 5])
        return [memory.likeliest(memory.write([6 + i % 20])) for i in range(3 * STEP)]

    pool = pool_of(8)
    rows = [pool.open() for _ in range(8)]
    for row in rows:
        row.read([7])
        row.write([8])
    for row in rows[:5] + rows[6:]:
        pool.close(row)
    pool.close(rows[5])
    rows = [pool.open() for _ in range(8)]
    last = rows[5]
    for row in rows[:5] + rows[6:]:
        pool.close(row)
    assert life(last) == life(GroupMemory(model))
    assert last.slot == 0
    again = [pool.open() for _ in range(7)]
    assert not pool.has_room
    assert [life(row) for row in again] == [life(GroupMemory(model))] * 7
    pool.close(again[3])
    assert pool.has_room


@pytest.mark.parametrize("tokens", [1, NUMPY_TOKENS])
def test_memory_of_rows_that_are_free_is_given_back(model: Any, pool_of: Callable[..., Pool], tokens: int) -> None:
    pool = pool_of(16)
    rows = [pool.open() for _ in range(16)]
    for row in rows:
        row.read([1] * tokens)
        row.write([2])
    before = pool.nbytes
    for row in rows[1:]:
        pool.close(row)
    for _ in range(2 * STEP):
        rows[0].write([3])
    assert pool.nbytes < before / 2


def test_rows_opened_after_the_others_closed_ranks_hold_nothing_at_first(
    model: Any, pool_of: Callable[..., Pool]
) -> None:
    pool = pool_of(40)
    first = pool.open()
    first.read([1] * 4)
    first.write([2])
    for _ in range(2 * STEP):
        first.write([3])
    rows = [pool.open() for _ in range(39)]
    pool.close(first)
    for row in rows[:-1]:
        pool.close(row)
    alone = GroupMemory(model)
    for memory in (rows[-1], alone):
        memory.read([5] * (8 * STEP))
    np.testing.assert_allclose(rows[-1].write([6]), alone.write([6]), atol=1e-4)
