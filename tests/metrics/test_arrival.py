"""Latency in seconds: the events of a trace on a clock at which source units arrive."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import FakeSession

from streamllm.engine.loop import translate
from streamllm.metrics.arrival import (
    ArrivalClock,
    arrival_clock,
    arrival_latency,
    computation_aware_delays,
    ideal_delays,
)
from streamllm.metrics.latency import latency
from streamllm.policies import WaitK
from streamllm.records import Event, Example, Trace


def of(*events: Event | str, delays: tuple[int, ...], source_units: int = 2, reference: str = "a b") -> Trace:
    """A trace with these events; a string is an event of that kind, with the text "a" where it has one."""
    steps = tuple(Event(event, "a") if isinstance(event, str) else event for event in events)
    units = ("a",) * len(delays)
    return Trace("0", "s t", reference, units, delays, (0.0,) * len(delays), steps, source_units, " ".join(units))


READ_WRITE = of("read", "read", "write", "end", "write", "stop", delays=(2, 2))


def aware(trace: Trace, clock: ArrivalClock) -> Any:
    """The computation-aware delays, to compare by approximation."""
    return pytest.approx(computation_aware_delays(trace, clock, "word"))


def test_compute_is_added_from_when_a_unit_is_there() -> None:
    """Read at 0.5 and 1.0, each 0.1 longer; written 0.3 later; 0.1 for the end of the source and 0.3 again."""
    assert aware(READ_WRITE, ArrivalClock(2, 0.1, 0.3)) == [1.4, 1.8]


def test_a_system_that_is_busy_reads_late() -> None:
    """Units are there at 0.1 and 0.2, but each read takes a second."""
    assert aware(READ_WRITE, ArrivalClock(10, 1, 0)) == [2.1, 3.1]


def test_a_system_that_is_done_waits_for_the_next_unit() -> None:
    trace = of("read", "write", "read", "write", delays=(1, 2))
    assert aware(trace, ArrivalClock(0.1, 1, 1)) == [12, 22]


def test_a_forced_read_waits_for_its_unit_too() -> None:
    assert aware(of("read", "forced_read", "write", delays=(2,)), ArrivalClock(2, 0, 0)) == [1]


def test_an_extended_unit_is_whole_only_then() -> None:
    trace = of("read", "write", "read", "extend", delays=(2,))
    assert aware(trace, ArrivalClock(1, 0, 0.5)) == [2.5]


def test_a_draft_costs_its_units_and_writing_them_is_free() -> None:
    trace = of(
        *("read", Event("draft", "a b c"), Event("write", "a"), Event("write", "b"), "read"),
        *(Event("write", "c"), Event("write", "d")),
        delays=(1, 1, 2, 2),
    )
    assert aware(trace, ArrivalClock(1, 0, 0.1)) == [1.3, 1.3, 2.1, 2.2]


def test_a_unit_that_was_not_drafted_ends_the_draft() -> None:
    drafted = (Event("draft", "a b c"), Event("write", "x"), Event("write", "a"))
    assert aware(of("read", *drafted, delays=(1, 1)), ArrivalClock(1, 0, 0.1)) == [1.4, 1.5]


def test_an_extension_belongs_to_the_draft_it_comes_with() -> None:
    drafted = of("read", "write", "read", Event("draft", "b"), "extend", Event("write", "b"), delays=(2, 2))
    assert aware(drafted, ArrivalClock(1, 0, 0.1)) == [2.1, 2.1]
    assert aware(of("read", "write", "read", "extend", delays=(2,)), ArrivalClock(1, 0, 0.1)) == [2.1]


REVISED = of(
    *("read", Event("shown", "a b"), "read", Event("shown", "a c d"), "end", Event("shown", "a c d e")),
    *(Event("write", unit) for unit in "acde"),
    delays=(1, 2, 2, 2),
)


def test_a_unit_that_is_revised_was_there_when_it_was_shown_for_the_last_time_in_its_final_form() -> None:
    """At 1.0 and 2.0 a unit is read; two new units cost 0.2, two more 0.2, and one 0.1; to write them is free."""
    assert aware(REVISED, ArrivalClock(1, 0, 0.1)) == [1.2, 2.2, 2.2, 2.3]


def test_an_output_that_shows_nothing_new_costs_a_unit() -> None:
    shown = (Event("shown", "a"), Event("shown", "a"), Event("write", "a"))
    trace = of("read", *shown, Event("shown", "a"), Event("write", "a"), delays=(1, 1))
    assert aware(trace, ArrivalClock(1, 0, 0.1)) == [1.1, 1.3]


def test_recorded_times_are_taken_without_a_cost_model() -> None:
    """0.2 s for the first read, 0.1 for the second, 0.4 and 0.2 for the writes."""
    steps = [("read", 0.2), ("read", 0.3), ("write", 0.7), ("write", 0.9)]
    trace = of(*(Event(kind, "a", seconds) for kind, seconds in steps), delays=(2, 2))
    assert aware(trace, ArrivalClock(2)) == [1.5, 1.7]


def test_the_cost_model_ignores_recorded_times() -> None:
    clock = ArrivalClock(2, 0.1, 0.3)
    timed = tuple(dataclasses.replace(event, seconds=9.0 + i) for i, event in enumerate(READ_WRITE.events))
    recorded = dataclasses.replace(READ_WRITE, events=timed)
    assert arrival_latency(recorded, clock, "word") == arrival_latency(READ_WRITE, clock, "word")


def test_times_that_were_not_recorded_are_not_taken_for_zero() -> None:
    assert computation_aware_delays(READ_WRITE, ArrivalClock(2), "word") is None
    lags = arrival_latency(READ_WRITE, ArrivalClock(2), "word")
    assert math.isnan(lags["al_ca"]) and math.isnan(lags["laal_ca"])
    assert lags["al_seconds"] == 1


def test_the_source_is_as_long_as_it_takes_to_arrive() -> None:
    trace = of("read", "write", "read", "write", delays=(1, 2))
    lags = arrival_latency(trace, ArrivalClock(2, 0.0, 0.1), "word")
    assert lags["al_seconds"] == pytest.approx((0.5 + (1 - 0.5)) / 2)
    assert lags["al_ca"] == pytest.approx((0.6 + (1.1 - 0.5)) / 2)


def test_only_the_length_adaptive_one_knows_the_hypothesis_length() -> None:
    trace = of("read", "write", "write", "read", "write", "write", delays=(1, 1, 2, 2))
    lags = arrival_latency(trace, ArrivalClock(1, 0, 0), "word")
    assert lags["al_ca"] == pytest.approx((1 + (1 - 1) + (2 - 2)) / 3)
    assert lags["laal_ca"] == pytest.approx((1 + (1 - 0.5) + (2 - 1)) / 3)


def test_a_sentence_without_output_has_no_latency_in_seconds() -> None:
    lags = arrival_latency(of("read", "end", "stop", delays=()), ArrivalClock(2, 1, 1), "word")
    assert list(lags) == ["al_seconds", "laal_seconds", "al_ca", "laal_ca"]
    assert all(math.isnan(lag) for lag in lags.values())


def test_events_that_are_not_those_of_the_delays_are_refused() -> None:
    with pytest.raises(ValueError, match="'0' has 1 delays but 0 write events"):
        computation_aware_delays(of("read", delays=(1,)), ArrivalClock(1, 0, 0), "word")


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=f"words_per_second is {rate}"):
        ArrivalClock(rate)


@pytest.mark.parametrize("cost", [-0.1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["seconds_per_read", "seconds_per_write"])
def test_a_cost_that_is_none_is_refused(name: str, cost: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {cost}"):
        ArrivalClock(2, **{"seconds_per_read": 0.0, "seconds_per_write": 0.0, name: cost})


def test_half_a_cost_model_is_refused() -> None:
    with pytest.raises(ValueError, match="half a cost model; give both"):
        ArrivalClock(2, seconds_per_read=0.1)


def test_a_configuration_without_a_rate_has_no_clock() -> None:
    assert arrival_clock() is None
    assert arrival_clock(2.5) == ArrivalClock(2.5)
    assert arrival_clock(2.5, 0.1, 0.2) == ArrivalClock(2.5, 0.1, 0.2)


def test_costs_without_a_rate_are_refused() -> None:
    with pytest.raises(ValueError, match=r"words_per_second is null .* seconds_per_write 0.5; .* set words_per_second"):
        arrival_clock(seconds_per_write=0.5)


lengths = st.integers(1, 8)
traces = st.builds(
    lambda k, source, target: translate(
        FakeSession(lambda read, written, ended: "t" if written < target else None),
        Example("0", " ".join("s" * source), "a b c"),
        WaitK(k),
    ),
    lengths,
    lengths,
    lengths,
)
rates = st.sampled_from([0.5, 2.5, 3.0, 7.0])


@given(traces, rates)
def test_free_compute_makes_the_delays_ideal(trace: Trace, rate: float) -> None:
    clock = ArrivalClock(rate, 0, 0)
    assert computation_aware_delays(trace, clock, "word") == ideal_delays(trace, clock)


@given(traces, rates)
def test_ideal_latency_in_seconds_is_that_in_units_over_the_rate(trace: Trace, rate: float) -> None:
    lags = arrival_latency(trace, ArrivalClock(rate, 0, 0), "word")
    in_units = latency(trace.delays, trace.source_units, trace.reference, "word")
    for name in ("al", "laal"):
        assert lags[f"{name}_seconds"] * rate == pytest.approx(in_units[name])
        assert lags[f"{name}_ca"] == pytest.approx(lags[f"{name}_seconds"])


@given(traces, rates, st.floats(0, 2), st.floats(0, 2))
def test_compute_never_makes_a_unit_earlier(trace: Trace, rate: float, read: float, write: float) -> None:
    slow = computation_aware_delays(trace, ArrivalClock(rate, read, write), "word")
    assert slow is not None
    assert slow == sorted(slow)
    assert all(delay >= ideal for delay, ideal in zip(slow, ideal_delays(trace, ArrivalClock(rate)), strict=True))
