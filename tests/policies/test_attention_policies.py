"""Policies that go by how attention is spread, played against a session that is told where the model looks."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_hypothesis_policies import committed, rest, words
from tiny_fixtures import FakeSession, sentence

from streamllm.engine.loop import translate
from streamllm.policies import DOA, DST, DrFrattn
from streamllm.policies.doa import z_scores
from streamllm.records import READ, WRITE, Action, Emission, Hypothesis, Looks, State


class Looking:
    """Answers of a model whose layers attend so."""

    def __init__(self, layers: Sequence[Looks]):
        self._layers = layers

    def attention(self) -> Sequence[Looks]:
        return self._layers


def decides(policy: Any, layers: Sequence[Looks]) -> Action:
    """Before the first unit, with these looks of the layers at the units read."""
    looking: Any = Looking(layers)
    action: Action = policy.start(sentence(9))(State(len(layers[0]), 0, False, looking))
    return action


# --- DST


def test_every_layer_of_the_upper_half_has_to_look_back() -> None:
    back, ahead = (0.5, 0.4, 0.1), (0.2, 0.2, 0.6)
    assert decides(DST(0.5), [ahead, ahead, back, back]) == WRITE
    assert decides(DST(0.5), [back, back, back, ahead]) == READ
    assert decides(DST(0.5), [back, back, ahead, back]) == READ
    assert decides(DST(0.5), [ahead, ahead, back, back, back]) == WRITE  # of five, the last three
    assert decides(DST(0.5), [back, back, ahead, back, back]) == READ


@pytest.mark.parametrize(("threshold", "action"), [(0.75, WRITE), (0.76, READ)])
def test_a_share_that_is_just_reached_is_reached_and_headers_do_not_count(threshold: float, action: Action) -> None:
    """0.375 + 0 of 0.5: the other half goes to a header."""
    assert decides(DST(threshold), [(0.375, 0.0, 0.125)]) == action


def test_dst_reads_some_first_and_never_less_than_it_writes() -> None:
    session = FakeSession(
        lambda read, written, ended: f"t{written}" if written < 6 else None,
        layers=lambda read, written: [[1.0] + [0.0] * (read - 1)],  # all on the first unit
    )
    assert translate(session, sentence(5), DST(0.9, initial=3)).delays == (3, 3, 3, 4, 5, 5)
    assert session.asked[0] == ("attention", 3, 0)


# --- DrFrattn


@pytest.mark.parametrize(
    ("newest", "temperature", "lacks"),
    [(1, 1.0, 0.1), (2, 1.0, 0.4), (1, 0.5, 0.01 / 0.46), (2, 0.5, 0.10 / 0.46)],
)
def test_what_a_unit_lacks_is_the_sharpened_attention_on_the_newest_units(
    newest: int, temperature: float, lacks: float
) -> None:
    """By hand: at 0.5, 0.6, 0.3 and 0.1 are squared, to 0.36, 0.09 and 0.01 of 0.46."""
    looks = [(0.6, 0.3, 0.1)]
    assert decides(DrFrattn(lacks + 1e-6, newest, temperature=temperature), looks) == WRITE
    assert decides(DrFrattn(lacks - 1e-6, newest, temperature=temperature), looks) == READ
    halves = [tuple(look / 2 for look in looks[0])]  # a header takes the rest
    assert decides(DrFrattn(lacks + 1e-6, newest, temperature=temperature), halves) == WRITE
    assert decides(DrFrattn(lacks - 1e-6, newest, temperature=temperature), halves) == READ


def test_drfrattn_looks_at_one_layer_by_default_the_last() -> None:
    back, ahead = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)
    assert decides(DrFrattn(0.5), [ahead, back]) == WRITE
    assert decides(DrFrattn(0.5, layer=0), [ahead, back]) == READ
    with pytest.raises(ValueError, match="layer is 2; the model has 2 layers, the first of which is 0"):
        decides(DrFrattn(0.5, layer=2), [ahead, back])


def test_drfrattn_does_not_ask_while_all_is_new() -> None:
    session = FakeSession(
        lambda read, written, ended: "t" if written < 1 else None,
        layers=lambda read, written: [[1.0] + [0.0] * (read - 1)],
    )
    assert translate(session, sentence(5), DrFrattn(0.5, newest=2)).delays == (3,)
    assert session.asked[0] == ("attention", 3, 0)


def test_shares_so_small_that_their_powers_vanish_are_compared_all_the_same() -> None:
    assert decides(DrFrattn(0.1, temperature=0.01), [(1e-30, 1e-31)]) == WRITE
    assert decides(DrFrattn(0.1), [(0.0, 0.0)]) == READ


# --- both: one threshold gives the whole curve


@given(st.integers(0, 10**6), st.integers(0, 8), st.integers(0, 8))
def test_a_stricter_threshold_never_writes_earlier(seed: int, x: int, y: int) -> None:
    def looks(read: int, written: int) -> list[list[float]]:
        dice = Random(seed * 100 + read * 10 + written)
        return [[dice.random() for _ in range(read)] for _ in range(3)]

    def delays(policy: Any) -> tuple[int, ...]:
        session = FakeSession(lambda read, written, ended: "t" if written < y else None, layers=looks)
        return translate(session, sentence(x), policy).delays

    grid = [0.0, 0.2, 0.5, 0.8, 0.95, 1.0]
    for policies in ([DST(theta) for theta in grid], [DrFrattn(1 - theta) for theta in grid]):
        found = [delays(policy) for policy in policies]
        assert all(a <= b for early, late in pairwise(found) for a, b in zip(early, late, strict=True))


# --- DOA


def test_z_scores_by_hand() -> None:
    """Three rows that all look at the first column look at the first, the second and the third."""
    scores = z_scores([(0.6, 0.2, 0.2), (0.5, 0.4, 0.1), (0.5, 0.1, 0.4)])
    assert scores[0] == pytest.approx([1.1547, -0.2182, -0.2182], abs=1e-4)
    assert scores[1] == pytest.approx([-0.5774, 1.0911, -0.8729], abs=1e-4)
    assert scores[2] == pytest.approx([-0.5774, -0.8729, 1.0911], abs=1e-4)


def test_a_column_without_deviation_is_0() -> None:
    assert z_scores([(0.1, 0.3), (0.1, 0.5), (0.1, 0.4)]) == [
        [0.0, pytest.approx(-1)],
        [0.0, pytest.approx(1)],
        [0.0, pytest.approx(0, abs=1e-9)],
    ]


def play(policy: DOA, drafts: dict[int, Hypothesis], looks: dict[int, Any], source_units: int) -> Any:
    """A sentence whose hypothesis after so many source units is what ``drafts`` says, with these looks."""
    session = FakeSession(
        drafts=lambda read, written: drafts.get(read, ()), looks=lambda read, written: looks.get(read, ())
    )
    return translate(session, sentence(source_units), policy), session


ALL_AT_THE_FIRST = [(0.6, 0.2, 0.2), (0.5, 0.4, 0.1), (0.5, 0.1, 0.4)]


def test_a_draft_is_written_up_to_the_first_unit_that_looks_at_the_end() -> None:
    trace, _ = play(DOA(1, step=3), {3: words("a b c"), 6: ()}, {3: ALL_AT_THE_FIRST}, 6)
    assert committed(trace)[2] == ["a", "b"]
    trace, _ = play(DOA(2, step=3), {3: words("a b c"), 6: ()}, {3: ALL_AT_THE_FIRST}, 6)
    assert committed(trace)[2] == ["a"]
    trace, _ = play(DOA(1, step=3, z_score=False), {3: words("a b c"), 6: ()}, {3: ALL_AT_THE_FIRST}, 6)
    assert committed(trace)[2] == ["a", "b", "c"]


def test_a_unit_that_follows_one_that_is_held_back_is_held_back_too() -> None:
    looks = [(0.5, 0.1, 0.4), (0.6, 0.2, 0.2), (0.5, 0.4, 0.1)]  # at the third, the first, the second
    trace, _ = play(DOA(1, step=3), {3: words("a b c"), 6: ()}, {3: looks}, 6)
    assert committed(trace)[2] == []


def test_one_row_alone_looks_where_it_does() -> None:
    """Where published code takes 0 / 0, and writes."""
    for row, written in (((0.1, 0.1, 0.8), []), ((0.1, 0.8, 0.1), ["a"])):
        trace, _ = play(DOA(1, step=3), {3: words("a"), 6: ()}, {3: [row]}, 6)
        assert committed(trace)[2] == written


def test_written_units_stay_rows_with_nothing_on_what_was_read_later() -> None:
    """After three units, "a" and "b" are written with looks at the first and the second. After four there is one row
    more. By itself it would look at the fourth; with those before, it is the second unit that stands out."""
    after_four = [(0.2, 0.55, 0.0, 0.25)]
    drafts = {3: words("a b c"), 4: words("d")}
    written = [(0.6, 0.2, 0.2, 0.0), (0.5, 0.4, 0.1, 0.0)]
    at = [row.index(max(row)) for row in z_scores([*written, *after_four])]
    assert at[2] == 3, "by hand: 0.25 over 0, 0 is the furthest from its mean"
    trace, _ = play(DOA(1), drafts, {3: ALL_AT_THE_FIRST, 4: after_four}, 4)
    assert committed(trace) == [[], [], ["a", "b"], []]
    alone, _ = play(DOA(1), {4: words("d")}, {4: after_four}, 4)
    assert committed(alone)[3] == ["d"]  # without them it looks at the second


@pytest.mark.parametrize("noise", [-1e-7, 1e-7])
def test_what_one_row_alone_has_seen_is_told_apart_by_its_attention(noise: float) -> None:
    """The third and the fourth unit were read after three units were written. By hand, both have a z-score of 3 / 2
    in the fourth row, whatever it gives them, and rounding would decide."""
    written = [(0.9, 0.1), (0.6, 0.4), (0.7, 0.3)]
    late = (0.68 - noise, 0.3, 0.015 + noise, 0.005)
    assert z_scores([*((*row, 0.0, 0.0) for row in written), late])[3][2:] == pytest.approx([1.5, 1.5], abs=1e-6)
    assert DOA(1)._at([*written, late], 4)[3] == 2


def test_what_extends_the_last_unit_is_no_row_of_a_written_unit() -> None:
    drafts: dict[int, Hypothesis] = {3: words("a b c"), 4: (rest(","), *words("d e"))}
    looks = {3: ALL_AT_THE_FIRST, 4: [(0.7, 0.1, 0.1, 0.1), (0.1, 0.7, 0.1, 0.1), (0.1, 0.1, 0.2, 0.6)]}
    trace, _ = play(DOA(1), drafts, looks, 5)
    assert committed(trace)[3] == [",", "d"]
    assert trace.units[:3] == ("a", "b,", "d")


def test_units_out_of_one_token_are_not_torn() -> None:
    drafts: dict[int, Hypothesis] = {3: (*words("a b"), Emission("c")), 6: ()}
    looks = [(0.5, 0.1, 0.4), (0.6, 0.2, 0.2), (0.6, 0.2, 0.2)]
    trace, _ = play(DOA(1, step=3, z_score=False), drafts, {3: [looks[1], looks[2], looks[0]]}, 6)
    assert committed(trace)[2] == ["a", "b", "c"]
    trace, _ = play(DOA(2, step=3, z_score=False), drafts, {3: [looks[1], (0.2, 0.4, 0.4), (0.2, 0.4, 0.4)]}, 6)
    assert committed(trace)[2] == ["a"]


def test_doa_asks_for_the_heads_and_the_length_that_it_was_given() -> None:
    _, session = play(DOA(1, heads=[[1, 0]], max_tokens=7), {}, {}, 2)
    assert (session.heads, session.max_tokens) == ([[1, 0]], 7)
