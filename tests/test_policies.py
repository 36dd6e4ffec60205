"""What each policy decides, and the delays that follow from it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_fixtures import FakeSession

from streamllm.policies import Full, WaitK
from streamllm.records import READ, WRITE, Decide, Example, State
from streamllm.translate import translate

EXAMPLE = Example("1", "a b c", "")


def delays(policy: Any, source_units: int, target_units: int) -> list[int]:
    """Delays when the model writes just ``target_units`` units."""
    source = " ".join(f"s{i}" for i in range(source_units))
    session = FakeSession(lambda read, written, ended: f"t{written}" if written < target_units else None)
    return list(translate(session, Example("1", source, ""), policy).delays)


@pytest.mark.parametrize("k", range(1, 7))
def test_wait_k_writes_unit_t_after_k_plus_t_minus_1_units(k: int) -> None:
    for x in range(7):
        for y in range(9):
            assert delays(WaitK(k), x, y) == [min(k + t - 1, x) for t in range(1, y + 1)], (x, y)


def test_wait_k_reads_until_it_is_k_units_ahead() -> None:
    decide = WaitK(3).start(EXAMPLE)
    assert [decide(State(read, 0, False)) for read in range(5)] == [READ, READ, READ, WRITE, WRITE]
    assert [decide(State(4, written, False)) for written in range(4)] == [WRITE, WRITE, READ, READ]


def test_wait_k_writes_once_the_source_is_done() -> None:
    assert WaitK(5).start(EXAMPLE)(State(0, 0, True)) == WRITE


@pytest.mark.parametrize("k", [0, -1, 2.5, 3.0, True, "3", None])
def test_wait_k_refuses_a_k_that_is_no_number_of_units(k: Any) -> None:
    with pytest.raises(ValueError, match="whole number of units, at least 1") as error:
        WaitK(k)
    assert f"k is {k!r}" in str(error.value)
    assert "policy=full" in str(error.value)


def test_full_reads_everything_first() -> None:
    decide = Full().start(EXAMPLE)
    assert [decide(State(read, 0, False)) for read in range(4)] == [READ] * 4
    assert decide(State(3, 0, True)) == WRITE
    for x in range(5):
        assert delays(Full(), x, 6) == [x] * 6


def test_sentences_under_way_at_once_do_not_disturb_each_other() -> None:
    def trace_of(make: Callable[[], Decide]) -> list[Any]:
        decide = make()
        return [decide(State(read, read // 2, False)) for read in range(6)]

    policy = WaitK(2)
    first, second = policy.start(EXAMPLE), policy.start(Example("2", "d", ""))
    interleaved = [(first(State(read, read // 2, False)), second(State(0, 0, True)))[0] for read in range(6)]
    assert interleaved == trace_of(lambda: WaitK(2).start(EXAMPLE))


def test_policies_know_nothing_of_models() -> None:
    """Policies are asked at every step and by live clients; they import records only."""
    names = "mlx, streamllm.session, streamllm.model, hydra"
    code = f"import sys, streamllm.policies; print([n for n in {names.split(', ')!r} if n in sys.modules])"
    root = Path(__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
