"""Text that is expected is read and translated ahead: what a stream is told does not change, and what was expected
rightly costs nothing when it comes."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_streams import SENTENCES, Heard, alone, kinds, live, loaded, rest, until, way

from streamllm.cache.retention import Retention
from streamllm.engine.limits import Limits
from streamllm.engine.paradigms.documents import Continuous, Sentences
from streamllm.engine.paradigms.revised import Revised
from streamllm.live.streams import LiveStreams
from streamllm.models.model import StreamingModel
from streamllm.policies import DOA, DST, LSG, Confidence, Full, Learned, LocalAgreement, WaitIfWorse, WaitK
from streamllm.records import READ, WRITE, Action, Example, Policy, State

TEXT = "Two dogs run, and a child plays with a ball on the beach."
POLICIES: list[Policy] = [
    WaitK(1),
    WaitK(3),
    Full(),
    Confidence(0.5),
    Learned(0.5),
    LocalAgreement(),
    WaitIfWorse(2, 1),
    *(LSG(0.05, 0.3, 1, 3), DST(0.6), DOA(1)),
]


def forwards(streams: LiveStreams) -> int:
    return streams.counts.steps


@pytest.mark.parametrize("policy", [WaitK(1), WaitK(3), Confidence(0.5), Learned(0.5)])
def test_what_comes_as_expected_costs_no_forward(policy: Policy) -> None:
    streams = live()
    heard = Heard(streams, policy)
    heard.stream.push("Two dogs run,")
    rest(streams)
    told = len(heard.told)
    heard.stream.expect("and a child plays")
    rest(streams)
    assert len(heard.told) == told  # nothing is told before it is final
    before = forwards(streams)
    assert before
    heard.stream.push("and a child")
    heard.stream.expect("plays")
    rest(streams)
    assert forwards(streams) == before
    assert sum(each.event.kind == "read" for each in heard.told) == 6
    heard.stream.push("plays with a ball on the beach.")
    heard.stream.expect("")
    heard.stream.end()
    until(streams, lambda: bool(heard.ended))
    assert kinds(heard, 0) == alone(loaded(), TEXT, policy)


def test_a_sentence_is_drafted_before_its_first_word_is_final() -> None:
    streams = live()
    heard = Heard(streams, WaitK(1))
    heard.stream.expect("A woman")
    rest(streams)
    before = forwards(streams)
    assert before and not heard.told
    heard.stream.push("A woman")
    heard.stream.expect("")
    rest(streams)
    assert forwards(streams) == before
    heard.stream.push("sits.")
    heard.stream.end()
    until(streams, lambda: bool(heard.ended))
    assert kinds(heard, 0) == alone(loaded(), "A woman sits.", WaitK(1))


def test_an_end_after_what_was_only_expected_is_that_of_an_empty_sentence() -> None:
    streams = live()
    heard = Heard(streams, WaitK(1))
    heard.stream.expect("A woman")
    rest(streams)
    heard.stream.expect("")
    heard.stream.choose(WaitK(3))
    heard.stream.end()
    heard.stream.push(SENTENCES[0])
    heard.stream.end()
    until(streams, lambda: heard.ended == 2)
    assert kinds(heard, 0) == [("stop", "empty")]
    assert kinds(heard, 1) == alone(loaded(), SENTENCES[0], WaitK(3))


def test_what_changes_is_computed_anew_from_there_on() -> None:
    streams = live()
    heard = Heard(streams, WaitK(1))
    heard.stream.push("Two dogs")
    for tail in ("run, or", "run, and the", "runs", "run, and a child plays", ""):
        heard.stream.expect(tail)
        rest(streams)
    heard.stream.push("run, and a child plays with a ball on the beach.")
    heard.stream.end()
    until(streams, lambda: bool(heard.ended))
    assert kinds(heard, 0) == alone(loaded(), TEXT, WaitK(1))


def test_nothing_is_drafted_while_somebody_waits() -> None:
    streams = live()
    drafts, works = Heard(streams, WaitK(1), "a"), Heard(streams, WaitK(1), "b")
    drafts.stream.push("Two")
    rest(streams)
    rows = streams.counts.rows - forwards(streams)
    works.stream.push(SENTENCES[3])
    works.stream.end()
    drafts.stream.expect("dogs run")
    until(streams, lambda: bool(works.ended))
    assert streams.counts.rows - forwards(streams) == rows  # one stream a forward
    before = forwards(streams)
    rest(streams)
    assert forwards(streams) > before


class Stubborn:
    """Decides by a memory of its own, which a draft does not have: it writes after each second question."""

    def start(self, example: Example) -> Callable[[State], Action]:
        asked = 0

        def decide(state: State) -> Action:
            nonlocal asked
            asked += 1
            return WRITE if state.source_done or (state.read > 1 and asked % 3) else READ

        return decide


class Fails:
    """Fails at what it has not been told, if it is asked ahead."""

    def __init__(self, word: str):
        self._word = word

    def start(self, example: Example) -> Callable[[State], Action]:
        def decide(state: State) -> Action:
            if self._word in state.source:
                raise ArithmeticError(self._word)
            return WaitK(1).start(example)(state)

        return decide


def play(streams: LiveStreams, texts: list[str], policies: list[Policy], seed: int) -> list[Heard]:
    """Push the texts word by word, and expect what will come, or something else."""
    by_chance = random.Random(seed)
    heard = [Heard(streams, policy, f"s{i}") for i, policy in enumerate(policies)]
    left = [text.split() for text in texts]
    over = [False] * len(left)
    while not all(over):
        at = by_chance.choice([i for i, done in enumerate(over) if not done])
        stream, words = heard[at].stream, left[at]
        match by_chance.randint(0, 3):
            case 0:
                stream.expect(" ".join(words[: by_chance.randint(0, 4)]))
            case 1:
                stream.expect(" ".join([*words[: by_chance.randint(0, 2)], "zebra,", *words[3:4]]))
            case _:
                if not words:
                    over[at] = True
                    stream.end()
                for _ in range(by_chance.randint(1, 2)):
                    if words:
                        stream.push(words.pop(0))
        for _ in range(by_chance.choice([0, 1, 3, 30])):
            streams.advance()
    until(streams, lambda: all(each.ended for each in heard))
    return heard


@pytest.mark.long
@settings(max_examples=10)
@example(seed=9020)  # what was written ahead is left after a read behind it was taken back
@given(seed=st.integers(0, 2**20))
def test_expectations_change_nothing_that_is_told(seed: int) -> None:
    by_chance = random.Random(seed)
    texts = [by_chance.choice(SENTENCES) for _ in range(3)]
    policies: list[Policy] = [by_chance.choice([*POLICIES, Stubborn(), Fails("zebra,")]) for _ in range(3)]
    heard = play(live(most=by_chance.choice([None, 1])), texts, policies, seed)
    for each, text, policy in zip(heard, texts, policies, strict=True):
        assert kinds(each, 0) == alone(loaded(), text, policy, name="s")


DOCUMENT = "A man is riding a bicycle. Two dogs run. A woman sits. Children play with a ball on the beach."
HOW: dict[str, dict[str, Any]] = {
    "sentences": {"paradigm": Sentences()},
    "context": {"paradigm": Sentences(context=1, held=False)},
    "continuous": {"paradigm": Continuous(max_source=24, max_target=24)},
    "windows": {"retention": Retention(max_source=16, max_target=16)},
    "revised": {"paradigm": Revised()},
}


@pytest.mark.long
@pytest.mark.parametrize("how", HOW)
def test_expectations_change_nothing_in_documents_and_windows(how: str) -> None:
    model = loaded()
    other = StreamingModel(model.model, model.prompt, model.tokenizer, **HOW[how])
    streams = LiveStreams(other, Limits())
    for seed in range(2):
        policies: list[Policy] = [WaitK(2), WaitK(1) if how == "revised" else LocalAgreement()]
        for each, policy in zip(play(streams, [DOCUMENT] * 2, policies, seed), policies, strict=True):
            assert kinds(each, 0) == alone(other, DOCUMENT, policy, name="s")


def test_drafts_in_a_document_cost_nothing_when_their_words_come() -> None:
    model = loaded()
    streams = LiveStreams(StreamingModel(model.model, model.prompt, model.tokenizer, paradigm=Sentences()), way=way())
    heard = Heard(streams, WaitK(2))
    heard.stream.push("A man is riding a bicycle. Two dogs")
    rest(streams)
    heard.stream.expect("run on the")
    rest(streams)
    before = forwards(streams)
    heard.stream.push("run on the")
    heard.stream.expect("")
    rest(streams)
    assert forwards(streams) == before
