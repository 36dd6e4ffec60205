"""Policies that commit to parts of hypotheses, played against a session that is told what the model would draft."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import FakeSession, sentence

from streamllm.engine.loop import translate
from streamllm.policies import RALCP, Bounded, HoldN, LocalAgreement
from streamllm.policies.hypotheses import after, agreed, units, whole
from streamllm.records import READ, WRITE, Decide, Emission, Example, Hypothesis, State, Trace, Write


def unit(text: str) -> Emission:
    return Emission(text, (ord(text[0]),))


def rest(text: str) -> Emission:
    """What extends the last written unit."""
    return Emission(text, (1000 + ord(text[0]),), extends=True)


def words(text: str) -> Hypothesis:
    return tuple(unit(word) for word in text.split())


def committed(trace: Trace) -> list[list[str]]:
    """What was written after each READ, before the source was known to end."""
    steps: list[list[str]] = []
    for event in itertools.takewhile(lambda event: event.kind != "end", trace.events):
        assert event.kind in ("read", "write", "extend", "draft"), event
        if event.kind == "read":
            steps.append([])
        elif event.kind != "draft":
            steps[-1].append(event.text)
    return steps


def play(policy: Any, drafts: dict[int, Hypothesis], source_units: int) -> tuple[Trace, FakeSession]:
    """A sentence whose hypothesis after so many source units is what ``drafts`` says, greedily and by beam search."""
    session = FakeSession(
        drafts=lambda read, written: drafts.get(read, ()), beams=lambda read, written: [drafts.get(read, ())]
    )
    return translate(session, sentence(source_units), policy), session


# --- alignment and agreement


def test_what_is_left_of_a_hypothesis_begins_after_the_units_that_were_written() -> None:
    hypothesis = (rest(","), *words("a b c"))
    assert units(hypothesis) == 3
    assert after(hypothesis, 0) == hypothesis
    assert after(hypothesis, 1) == words("b c")
    assert after(hypothesis, 3) == after(hypothesis, 4) == ()
    assert after(words("a b"), 1) == words("b")


def test_a_prefix_that_is_no_unit_is_not_committed_to() -> None:
    assert whole((rest(","), *words("a")), 1) == ()
    assert whole((rest(","), *words("a")), 2) == (rest(","), unit("a"))
    assert whole(words("a b"), 0) == whole(words("a b"), -1) == ()


def test_a_prefix_tears_no_token_of_several_units() -> None:
    torn = (unit("a"), Emission("中", (7,)), Emission("国"), unit("b"))
    assert whole(torn, 2) == torn[:1]
    assert [len(whole(torn, length)) for length in range(5)] == [0, 1, 1, 3, 4]


HYPOTHESES = st.lists(
    st.tuples(st.booleans(), st.text("ab", max_size=4)).map(
        lambda drawn: ((rest(","),) if drawn[0] else ()) + tuple(unit(letter) for letter in drawn[1])
    ),
    min_size=1,
    max_size=6,
)


@given(HYPOTHESES, st.sampled_from([Fraction(51, 100), Fraction(6, 10), Fraction(3, 4), Fraction(1)]))
def test_agreement_of_more_than_half_is_the_longest_prefix_with_enough_supporters(
    hypotheses: list[Hypothesis], share: Fraction
) -> None:
    """Against all prefixes of all hypotheses: no two of a length can have more than half of the supporters."""
    prefixes = {hypothesis[:length] for hypothesis in hypotheses for length in range(len(hypothesis) + 1)}
    supported = [
        prefix
        for prefix in prefixes
        if sum(hypothesis[: len(prefix)] == prefix for hypothesis in hypotheses) >= share * len(hypotheses)
    ]
    longest = max(supported, key=len)
    assert agreed(hypotheses, share) == (longest if units(longest) else ())


def test_those_who_left_the_prefix_do_not_vote_any_more() -> None:
    """Two of four say "c" at the third position, but one of them had said something else before."""
    hypotheses = [words("a b c"), words("a b d"), words("a b e"), words("x y c")]
    assert agreed(hypotheses, Fraction(1, 2)) == words("a b")


def test_the_better_hypothesis_wins_a_tie() -> None:
    assert agreed([words("a b"), words("c d")], Fraction(1, 2)) == words("a b")


def test_what_agrees_is_text_and_the_tokens_are_those_of_the_best_that_agrees_to_the_end() -> None:
    first, second, third = (Emission("a", (1,)), unit("x")), (Emission("a", (2,)), unit("b")), words("a b")
    assert agreed([first, second, third], Fraction(2, 3)) == second


def test_a_share_is_a_decimal() -> None:
    """0.8 is a little more than that in binary, but eight of ten are enough."""
    beam = [words("a b")] * 8 + [words("c d")] * 2
    session = FakeSession(beams=lambda read, written: beam)
    assert RALCP(10, 0.8).start(sentence(1))(State(1, 0, False, session)) == Write((ord("a"),))
    assert RALCP(10, 0.81).start(sentence(1))(State(1, 0, False, session)) == READ


def test_a_unit_of_its_own_does_not_agree_with_one_that_extends() -> None:
    assert agreed([(rest("a"), unit("b")), words("a b")]) == ()


def test_nothing_agrees_with_no_hypotheses() -> None:
    assert agreed([]) == agreed([(), words("a")]) == ()


# --- local agreement

DRAFTS = {1: words("A man"), 2: words("A boy in"), 3: words("boy in red"), 4: words("in red hat"), 5: words("hat .")}


def test_local_agreement_writes_what_two_hypotheses_in_a_row_share() -> None:
    trace, _ = play(LocalAgreement(2), DRAFTS, 5)
    assert committed(trace) == [[], ["A"], ["boy", "in"], [], []]
    assert trace.delays[:3] == (2, 3, 3)


def test_local_agreement_of_three_is_later() -> None:
    drafts = {1: words("a b c"), 2: words("a b d"), 3: words("a b"), 4: words("b d"), 5: words("d")}
    assert committed(play(LocalAgreement(2), drafts, 3)[0]) == [[], ["a", "b"], []]
    drafts = {1: words("a b c"), 2: words("a b d"), 3: words("a c"), 4: words("b d"), 5: words("b d")}
    assert committed(play(LocalAgreement(3), drafts, 5)[0]) == [[], [], ["a"], [], []]


def test_after_the_end_of_the_source_the_last_hypothesis_is_all_that_counts() -> None:
    trace, _ = play(LocalAgreement(2), {1: words("a"), 2: words("b c"), 3: words("d e")}, 3)
    assert trace.units == ("d", "e")
    assert trace.delays == (3, 3)


@st.composite
def drafts(draw: Callable[..., Any]) -> dict[int, Hypothesis]:
    """Hypotheses after each read, some of which go on with the last written unit."""
    return dict(enumerate(draw(st.lists(HYPOTHESES.map(lambda some: some[0]), min_size=6, max_size=6)), start=1))


def sentences_in_agreement(drafts: Callable[[int, int], Hypothesis], x: int, n: int, step: int) -> list[list[str]]:
    """LA-n on whole translations: each is what is written and the draft; the last n are compared from the start."""
    target: Hypothesis = ()
    translations: list[Hypothesis] = []
    steps: list[list[str]] = []
    for read in range(1, x + 1):
        before = len(target)
        if read % step == 0:
            translations.append(target + drafts(read, before))
            if len(translations) >= n:
                shared = [pair[0] for pair in itertools.takewhile(alike, zip(*translations[-n:], strict=False))]
                while shared and shared[-1].extends:
                    shared.pop()
                target = max(target, tuple(shared), key=len)
        steps.append([emission.unit or "" for emission in target[before:]])
    return steps


def alike(emissions: Sequence[Emission]) -> bool:
    return len(set(emissions)) == 1


@given(drafts(), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 2]))
def test_local_agreement_is_that_of_whole_translations(
    given: dict[int, Hypothesis], x: int, n: int, step: int, beam: int
) -> None:
    def drafted(read: int, written: int) -> Hypothesis:
        return tuple(emission for emission in given[read] if written or not emission.extends)

    session = FakeSession(drafts=drafted, beams=lambda read, written: [drafted(read, written)])
    trace = translate(session, sentence(x), LocalAgreement(n, step, beam))
    assert committed(trace) == sentences_in_agreement(drafted, x, n, step)
    assert list(trace.delays) == sorted(trace.delays)


@pytest.mark.parametrize("policy", [LocalAgreement(2), HoldN(1), LocalAgreement(2, beam=2), HoldN(1, beam=2)])
def test_there_is_one_hypothesis_after_each_read_and_none_after_the_end(policy: Any) -> None:
    _, session = play(policy, {read: words("a b c d") for read in range(1, 6)}, 5)
    assert [read for _, read, _ in session.asked] == [1, 2, 3, 4, 5]


def test_hypotheses_are_step_units_apart() -> None:
    _, session = play(LocalAgreement(2, step=2), DRAFTS, 5)
    assert [read for _, read, _ in session.asked] == [2, 4]
    _, session = play(HoldN(1, step=3), DRAFTS, 5)
    assert [read for _, read, _ in session.asked] == [3]


def test_tokens_of_the_newest_hypothesis_are_forced() -> None:
    session = FakeSession(beams=lambda read, written: [(Emission("a", (read,)),)])
    decide = LocalAgreement(2, beam=2).start(sentence(3))
    for read in (1, 2):
        session.calls.append(("read", None))
        action = decide(State(read, 0, False, session))
    assert action == Write((2,))


@pytest.mark.parametrize("beam", [1, 2])
def test_what_extends_the_last_unit_is_written_with_the_unit_after_it(beam: int) -> None:
    drafts = {1: words("a"), 2: words("a b"), 3: (rest(","), *words("b c")), 4: (rest(","), *words("b c d"))}
    trace, _ = play(LocalAgreement(2, beam=beam), drafts, 4)
    assert committed(trace) == [[], ["a"], [], [",", "b", "c"]]
    assert trace.units[:2] == ("a,", "b")
    assert trace.delays[:2] == (4, 4)


@pytest.mark.parametrize("beam", [1, 2])
def test_what_extends_the_last_unit_is_not_written_alone(beam: int) -> None:
    drafts = {1: words("a"), 2: words("a b"), 3: (rest(","), *words("b c")), 4: (rest(","), *words("x"))}
    trace, _ = play(LocalAgreement(2, beam=beam), drafts, 4)
    assert committed(trace) == [[], ["a"], [], []]


@pytest.mark.parametrize("beam", [1, 2])
def test_what_extends_the_last_unit_takes_part_in_the_agreement(beam: int) -> None:
    drafts = {1: words("a"), 2: words("a b"), 3: words("b c"), 4: (rest(","), *words("b c"))}
    trace, _ = play(LocalAgreement(2, beam=beam), drafts, 4)
    assert committed(trace) == [[], ["a"], ["b"], []]


# --- hold-n


def test_hold_n_writes_all_but_the_last_units() -> None:
    drafts = {1: words("a"), 2: words("a b c"), 3: words("x y z w"), 4: ()}
    assert committed(play(HoldN(2), drafts, 4)[0]) == [[], ["a"], ["x", "y"], []]
    assert committed(play(HoldN(0), drafts, 4)[0]) == [["a"], ["a", "b", "c"], ["x", "y", "z", "w"], []]


@given(drafts(), st.integers(1, 6), st.integers(0, 3), st.sampled_from([1, 2]))
def test_hold_n_holds_n_units_of_each_hypothesis(given: dict[int, Hypothesis], x: int, n: int, beam: int) -> None:
    trace, _ = play(HoldN(n, beam=beam), {r: tuple(e for e in h if not e.extends) for r, h in given.items()}, x)
    texts = ["".join(e.unit or "" for e in given[read] if not e.extends) for read in range(1, x + 1)]
    assert committed(trace) == [list(text[: max(0, len(text) - n)]) for text in texts]


def test_what_extends_the_last_unit_is_not_held() -> None:
    drafts = {1: words("a b"), 2: (rest(","), *words("b c")), 3: (rest(","), *words("c")), 4: ()}
    assert committed(play(HoldN(1), drafts, 3)[0]) == [["a"], [",", "b"], []]


def test_the_best_of_a_beam_is_taken_and_forced() -> None:
    session = FakeSession(
        drafts=lambda read, written: words("x y z"), beams=lambda read, written: [words("a b c"), words("x y z")]
    )
    decide = HoldN(1, beam=2).start(sentence(3))
    assert decide(State(1, 0, False, session)) == Write((ord("a"),))
    assert decide(State(1, 1, False, session)) == Write((ord("b"),))
    assert decide(State(1, 2, False, session)) == READ
    assert HoldN(1).start(sentence(3))(State(1, 0, False, session)) == WRITE


def test_a_beam_without_hypotheses_is_a_reason_to_read() -> None:
    session = FakeSession(beams=lambda read, written: [])
    for policy in (HoldN(0, beam=2), LocalAgreement(1, beam=2), RALCP(2, 0.5)):
        assert policy.start(sentence(3))(State(1, 0, False, session)) == READ


# --- RALCP


def ralcp(beams: dict[int, list[Hypothesis]], policy: RALCP, source_units: int) -> Trace:
    session = FakeSession(
        beams=lambda read, written: beams[read], drafts=lambda read, written: words("g h") if not written else ()
    )
    return translate(session, sentence(source_units), policy)


def test_ralcp_writes_what_enough_candidates_share() -> None:
    beams = {1: [words("a b c"), words("a b d"), words("a e"), words("f")], 2: [words("c"), words("d"), (), ()]}
    assert committed(ralcp(beams, RALCP(4, 0.5), 2)) == [["a", "b"], []]
    assert committed(ralcp(beams, RALCP(4, 0.75), 2)) == [["a"], []]
    assert committed(ralcp(beams, RALCP(4, 0.8), 2)) == [[], []]


def test_ralcp_counts_the_candidates_that_there_are() -> None:
    assert committed(ralcp({1: [words("a b"), words("a c")]}, RALCP(5, 1.0), 1)) == [["a"]]


def test_ralcp_writes_what_extends_the_last_unit_before_the_next_one() -> None:
    beams = {1: [words("a"), words("a")], 2: [(rest(","), *words("b")), (rest(","), *words("b c"))]}
    trace = ralcp(beams, RALCP(2, 1.0), 2)
    assert committed(trace) == [["a"], [",", "b"]]
    assert trace.units[:2] == ("a,", "b")
    beams = {1: [words("a"), words("a")], 2: [(rest(","), *words("b")), (rest(","), *words("c"))]}
    assert committed(ralcp(beams, RALCP(2, 1.0), 2)) == [["a"], []]


def test_ralcp_writes_the_units_of_one_token_together_or_not_at_all() -> None:
    china = (Emission("中", (7,)), Emission("国"))
    assert committed(ralcp({1: [(*china, unit("a")), (*china, unit("b"))]}, RALCP(2, 1.0), 1)) == [["中", "国"]]
    assert committed(ralcp({1: [china, words("中 间")]}, RALCP(2, 1.0), 1)) == [[]]


def test_ralcp_writes_the_rest_greedily() -> None:
    trace = ralcp({1: [words("a"), words("b")]}, RALCP(2, 1.0), 1)
    assert trace.units == ("g", "h")


def test_ralcp_searches_every_step_units() -> None:
    session = FakeSession(beams=lambda read, written: [words("a")], drafts=lambda read, written: ())
    translate(session, sentence(5), RALCP(2, 1.0, step=2))
    assert [read for _, read, _ in session.asked] == [2, 4]


# --- all of them


@pytest.mark.parametrize("policy", [LocalAgreement(2), HoldN(1), RALCP(2, 1.0)])
def test_sentences_under_way_at_once_do_not_disturb_each_other(policy: Any) -> None:
    other = {read: words("x y z") for read in range(1, 6)}

    def decisions(starts: list[tuple[Decide, dict[int, Hypothesis]]]) -> list[list[Any]]:
        said: list[list[Any]] = [[] for _ in starts]
        for read in range(1, 6):
            for (decide, hypotheses), answers in zip(starts, said, strict=True):
                session = FakeSession(
                    drafts=lambda r, w, h=hypotheses: h[r], beams=lambda r, w, h=hypotheses: [h[r], h[r]]
                )
                session.calls = [("read", None)] * read
                answers.append(decide(State(read, 0, False, session)))
        return said

    alone = decisions([(policy.start(sentence(5)), DRAFTS)])[0]
    together = decisions([(policy.start(sentence(5)), DRAFTS), (policy.start(Example("2", "", "")), other)])[0]
    assert together == alone


@given(drafts(), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2))
def test_bounds_hold_for_policies_that_commit(given: dict[int, Hypothesis], x: int, low: int, more: int) -> None:
    def drafted(read: int, written: int) -> Hypothesis:
        return (*(emission for emission in given[read] if written or not emission.extends), *words("p q r s t u v"))

    for policy in (LocalAgreement(2), HoldN(1)):
        trace = translate(FakeSession(drafts=drafted), sentence(x), Bounded(policy, low, low + more))
        for t, delay in enumerate(trace.delays):
            assert min(low + t, x) <= delay
        assert list(trace.delays) == sorted(trace.delays)
