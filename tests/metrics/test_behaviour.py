"""What is counted from the events of a trace."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import FakeSession

from streamllm.engine.limits import EarlyStop, Limits
from streamllm.engine.loop import translate
from streamllm.metrics.behaviour import (
    CutShort,
    alternations,
    cut_short,
    displayed,
    early_ends,
    erasure,
    forced_reads,
    normalised_erasure,
    source_after_last_write,
    stops,
)
from streamllm.metrics.latency import consecutive_waits
from streamllm.policies import Full, WaitK
from streamllm.records import Event, Example, Trace


def of(*events: Event | str, units: tuple[str, ...] = ()) -> Trace:
    """A trace with these events; a string is an event of that kind."""
    steps = tuple(Event(event) if isinstance(event, str) else event for event in events)
    return Trace("0", "s", "r", units, (1,) * len(units), (0.0,) * len(units), steps, 4, " ".join(units))


def drafts(*texts: str, units: tuple[str, ...]) -> Trace:
    """A trace that drafts these and writes nothing before the end."""
    return of(*(Event("draft", text) for text in texts), *(Event("write", unit) for unit in units), units=units)


def test_an_alternation_is_a_write_after_a_read() -> None:
    assert alternations(of("read", "read", "write", "write", "read", "write", "stop")) == 2


def test_a_forced_read_is_a_read_and_an_extension_is_a_write() -> None:
    assert alternations(of("read", "write", "forced_read", "extend")) == 2


@pytest.mark.parametrize("kind", ["draft", "end"])
def test_what_takes_no_source_and_gives_no_target_is_no_alternation(kind: str) -> None:
    assert alternations(of("read", "write", kind, "write", "stop")) == 1
    assert alternations(of("read", kind, "write", "stop")) == 1


def test_reads_without_a_write_are_no_alternation() -> None:
    assert alternations(of("read", "end", "stop")) == 0


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 6))
def test_there_are_as_many_alternations_as_waits(k: int, source: int, target: int) -> None:
    example = Example("0", " ".join("s" * source), "r")
    answer = lambda read, written, ended: "t" if written < target else None  # noqa: E731
    for policy in (WaitK(k), Full()):
        trace = translate(FakeSession(answer), example, policy)
        assert alternations(trace) == len(consecutive_waits(trace.delays))


def test_the_reason_of_a_stop_is_its_text() -> None:
    trace = of("write", Event("stop", "max_units"))
    assert stops(trace, "max_units") and not stops(trace, "early_stop")


def test_a_forced_read_at_the_length_limit_is_no_early_end() -> None:
    limits = Limits(length_ratio=1, length_extra=1)
    trace = of("write", "forced_read", "forced_read", "write", "forced_read")
    assert forced_reads(trace) == 3
    assert early_ends(trace, limits.reached) == 2


def test_a_forced_read_at_the_limit_of_tokens_is_no_early_end() -> None:
    trace = of("write", Event("limit", "max_tokens"), "forced_read", "forced_read")
    assert (forced_reads(trace), early_ends(trace, Limits().reached)) == (2, 1)


def test_an_extension_does_not_count_for_the_length_limit() -> None:
    limits = Limits(length_ratio=0, length_extra=2)
    assert early_ends(of("write", "extend", "forced_read"), limits.reached) == 1


def test_the_end_token_that_ends_a_sentence_early_is_an_early_end() -> None:
    assert early_ends(of("read", Event("stop", "early_stop")), Limits().reached) == 1
    assert early_ends(of("read", "end", Event("stop", "end_token")), Limits().reached) == 0


@given(
    source=st.integers(0, 6),
    answers=st.lists(st.booleans(), min_size=1, max_size=12),
    extra=st.integers(1, 4),
    ratio=st.sampled_from([0.0, 0.5, 1.0]),
    early_stop=st.sampled_from(["read", "stop"]),
)
def test_early_ends_are_the_end_tokens_that_the_loop_met_while_source_remained(
    source: int, answers: list[bool], extra: int, ratio: float, early_stop: EarlyStop
) -> None:
    early = asked = 0

    def answer(read: int, written: int, ended: bool) -> str | None:
        nonlocal early, asked
        word = answers[asked % len(answers)]
        asked += 1
        early += not word and not ended and (read < source or early_stop == "stop")
        return "t" if word else None

    limits = Limits(early_stop, length_ratio=ratio, length_extra=extra)
    trace = translate(FakeSession(answer), Example("0", " ".join("s" * source), "r"), WaitK(1), limits)
    assert early_ends(trace, limits.reached) == early


def lasting(source_units: int, *delays: int) -> Trace:
    trace = of(units=("a",) * len(delays))
    return dataclasses.replace(trace, delays=delays, source_units=source_units)


def test_a_sentence_is_cut_short_if_half_of_a_long_source_came_after_its_last_unit() -> None:
    assert cut_short(lasting(16, 4, 8))
    assert not cut_short(lasting(16, 4, 9))
    assert not cut_short(lasting(14, 3, 7)), "seven units are no sentence of their own"
    assert not cut_short(lasting(30)), "without output nothing was cut"
    assert source_after_last_write(lasting(10, 2, 4)) == 0.6
    assert source_after_last_write(lasting(10)) == 1
    assert source_after_last_write(lasting(0)) == 0


def warning_of(traces: list[Trace]) -> str | None:
    found = CutShort()
    for trace in traces:
        found.add(trace)
    return found.warning()


def test_a_run_whose_documents_end_with_their_first_sentence_says_so() -> None:
    assert warning_of([lasting(9, 5, 9)]) is None
    whole, cut = lasting(9, 5, 9), lasting(100, 5, 10)
    assert warning_of([whole] * 20 + [cut]) is None, "one of many, and no sentence ends within it"
    several = warning_of([whole] * 20 + [dataclasses.replace(cut, source="aa. bb")])
    assert several is not None and "a document, which a translation that ends with its first" in several
    said = warning_of([whole, cut])
    assert said is not None
    assert said.startswith("1 of 2 translations ended with 90% of the source still to come")
    assert "The model has ended early, or" in said, "no sentence ends within it"


def test_a_reader_sees_the_written_units_then_the_draft_and_at_the_end_the_translation() -> None:
    trace = of(
        Event("draft", "the dog"),
        Event("write", "the"),
        Event("draft", "big dog"),
        Event("write", "big"),
        Event("extend", ","),
        Event("draft", "old"),
        Event("write", "bad"),
        units=("the", "big,", "bad"),
    )
    assert displayed(trace, "word") == [
        ["the", "dog"],
        ["the", "big,", "dog"],  # in its last form, so that the comma takes nothing back
        ["the", "big,", "old"],
        ["the", "big,", "bad"],
    ]


def test_an_extension_of_a_written_unit_erases_nothing() -> None:
    """The comma was drafted too, but is no unit of the draft."""
    steps = (Event("write", "Ball"), Event("draft", "der"), Event("extend", ","), Event("write", "der"))
    assert displayed(of(*steps, units=("Ball,", "der")), "word") == [["Ball,", "der"], ["Ball,", "der"]]


@pytest.mark.parametrize("extensions", [(",",), (")", ",")])
def test_an_extension_that_comes_after_a_draft_erases_nothing(extensions: tuple[str, ...]) -> None:
    """The unit was drafted without its comma, and written so; the comma came later."""
    later = [Event("extend", text) for text in extensions]
    steps = (Event("draft", "Ball der"), Event("write", "Ball"), Event("draft", "der"), *later, Event("write", "der"))
    trace = of(*steps, units=(f"Ball{''.join(extensions)}", "der"))
    assert erasure(displayed(trace, "word")) == 0
    assert normalised_erasure([trace], "word") == 0


def test_another_unit_than_was_drafted_is_an_erasure_with_an_extension_too() -> None:
    steps = (Event("draft", "Hund der"), Event("write", "Ball"), Event("extend", ","), Event("write", "der"))
    assert erasure(displayed(of(*steps, units=("Ball,", "der")), "word")) == 2


def test_a_comma_that_a_draft_had_and_the_translation_has_not_is_erased() -> None:
    steps = (Event("draft", "Ball, der"), Event("write", "Ball"), Event("write", "der"))
    assert erasure(displayed(of(*steps, units=("Ball", "der")), "word")) == 2


def test_a_draft_in_characters_is_cut_into_them() -> None:
    assert displayed(drafts("你 好", units=("你",)), "character") == [["你", "好"], ["你"]]


@pytest.mark.parametrize(
    ("outputs", "erased"),
    [
        ([["a"], ["a", "b"], ["a", "b", "c"]], 0),
        ([["a", "b", "c"], ["a", "x", "c"]], 2),
        ([["a", "b"], ["a"]], 1),
        ([["a", "b"], [], ["a", "b"]], 2),
        ([["a"], ["b"], ["a"]], 2),
        ([["Ball"], ["Ball."]], 1),
        ([["a"]], 0),
    ],
    ids=["append", "a change takes the rest", "shorten", "clear", "flicker", "punctuation", "one output"],
)
def test_erased_units(outputs: list[list[str]], erased: int) -> None:
    assert erasure(outputs) == erased


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=5), min_size=1, max_size=5))
def test_erased_and_shown_units_balance(outputs: list[list[str]]) -> None:
    """What a reader was shown is what is left and what was taken back."""
    added = sum(
        len(after) - next((n for n in range(len(after), -1, -1) if before[:n] == after[:n] and n <= len(before)), 0)
        for before, after in zip([[], *outputs], outputs, strict=False)
    )
    assert added - erasure(outputs) == len(outputs[-1])


def test_normalised_erasure_is_erased_units_over_final_units_of_the_run() -> None:
    flickering = drafts("a b c", "a x", units=("a", "x", "y"))  # 2 erased
    growing = drafts("a", units=("a",))
    assert normalised_erasure([flickering, growing], "word") == 2 / 4


def test_a_sentence_without_drafts_erases_nothing() -> None:
    plain = of(Event("write", "a"), units=("a",))
    assert normalised_erasure([drafts("x", units=("a",)), plain], "word") == 1 / 2


def test_a_sentence_that_ends_empty_still_erases() -> None:
    assert normalised_erasure([drafts("x y", units=()), drafts("a", units=("a",))], "word") == 2


def test_normalised_erasure_without_drafts_or_output_is_nan() -> None:
    plain = of(Event("write", "a"), units=("a",))
    assert math.isnan(normalised_erasure([plain], "word"))
    assert math.isnan(normalised_erasure([drafts("x", units=())], "word"))
    assert not math.isnan(normalised_erasure([dataclasses.replace(plain, events=(Event("draft"),))], "word"))
