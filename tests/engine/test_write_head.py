"""What a write head is given: the state that the output layer is given where the next token is predicted, without a
forward of its own; and units without the punctuation after them."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from families import FAMILIES, Family
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import build

from streamllm.batching.scheduler import translate_many
from streamllm.engine.forward import forward
from streamllm.engine.head import UnreadableStates
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.engine.write_head import NoWriteHead, WriteHead
from streamllm.live.simuleval import as_sent
from streamllm.models.model import StreamingModel
from streamllm.policies import Bounded, WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import READ, WRITE, WRITE_BARE, Decide, Example, State, Trace, Write

UNREADABLE = {"talkie"}  # whose output layer is a bare array


def judged(model: Any) -> float:
    memory = GroupMemory(model)
    memory.write_head = tiny.write_head(0)
    memory.read([3, 9])
    return memory.judge([4])[1].logit


def test_layers_have_a_relu_between_them_and_none_at_the_end() -> None:
    """By hand: (1·2 - 1·1, -1·2) + (0, 1) = (1, -1), rectified (1, 0); 3·1 + 5·0 - 7 = -4."""
    first = np.array([[1, -1], [-1, 0]], np.float32), np.array([0, 1], np.float32)
    last = np.array([[3, 5]], np.float32), np.array([-7], np.float32)
    head = WriteHead([first, last])
    assert head(np.array([[2, 1]], np.float32)).tolist() == [-4]
    assert head.width == 2


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_the_state_gives_the_logits_by_the_output_layer_of_every_family(family: Family) -> None:
    """States of positions that are picked give the logits there, through the model's own last layer: some scale or cap
    them, but whatever has the same state has the same logits."""
    model = build(family)
    if family.name in UNREADABLE:
        with pytest.raises(UnreadableStates, match="the output layer of this model"):
            judged(model)
        return
    memory = GroupMemory(model)
    states: list[mx.array] = []
    tokens = mx.array([[3, 9, 4, 9]])
    views = [cache.source for cache in memory.caches]
    logits, _ = forward(model, tokens, views, (0, mx.array([1, 3])), states=states)
    again: list[mx.array] = []
    memory = GroupMemory(model)
    all_logits, _ = forward(model, tokens, [cache.source for cache in memory.caches], (0, slice(None)), states=again)
    assert states[0].shape[0] == 2 and again[0].shape[0] == 4
    np.testing.assert_allclose(np.array(states[0]), np.array(again[0])[[1, 3]], atol=1e-5)
    np.testing.assert_allclose(np.array(logits), np.array(all_logits)[[1, 3]], atol=1e-4)


@pytest.mark.parametrize(
    "paradigm", [Group(), Interleaved(), Batch(), BatchPositions()], ids=lambda p: type(p).__name__
)
def test_asking_costs_no_forward_and_changes_no_logit(tokenizer: Any, paradigm: Any) -> None:
    model = tiny.random_model(3, len(tokenizer))

    def life(asks: bool) -> tuple[list[Any], tuple[int, int], list[float]]:
        memory = paradigm.open(model)
        memory.write_head = tiny.write_head(1)
        logits, said = [], []
        for read, written in (([4, 5], [6]), ([7], [8, 9]), ([3, 2, 1], [5])):
            memory.read(read)
            if asks:
                found, (logit, _) = memory.judge(written)
                said.append(logit)
            else:
                found = memory.write(written)
            logits.append(np.array(found))
        return logits, (memory.forward_passes, memory.fed_tokens), said

    with_it, cost, said = life(True)
    without, same, _ = life(False)
    assert cost == same
    np.testing.assert_allclose(np.stack(with_it), np.stack(without), atol=1e-5)
    assert len(set(said)) == 3


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_logit_is_float32_whatever_the_model_is_in(tokenizer: Any, dtype: mx.Dtype) -> None:
    model = tiny.random_model(3, len(tokenizer))
    model.set_dtype(dtype)
    session = _session(model, tokenizer, WriteHead([(np.zeros((1, 32), np.float32), np.full(1, 8.001, np.float32))]))
    session.read("the")
    assert session.write_logit() == np.float32(8.001)  # 8.0 in bfloat16


def test_the_state_that_was_judged_is_what_the_head_was_given(tokenizer: Any) -> None:
    head = tiny.write_head(1)
    session = _session(tiny.random_model(3, len(tokenizer)), tokenizer, head)
    session.read("the")
    state = session.judged_state()
    assert head(state[None])[0] == pytest.approx(session.write_logit(), abs=1e-5)
    session.write()
    session.read("dog")
    assert (session.judged_state() != state).any()


def _session(model: Any, tokenizer: Any, head: WriteHead | None) -> Session:
    memory = GroupMemory(model)
    memory.write_head = head
    return Session(memory, PromptTokens(Prompt(target_header="German:"), tokenizer))


def test_what_is_written_after_a_question_costs_nothing_more(tokenizer: Any) -> None:
    model = tiny.random_model(3, len(tokenizer))
    asked, other = (_session(model, tokenizer, tiny.write_head(1)) for _ in range(2))
    for word in ("the", "dog", "runs"):
        asked.read(word)
        other.read(word)
        asked.write_logit()
        asked.write_logit()  # twice is as once
        assert asked.write() == other.write()
        assert asked.forward_passes == other.forward_passes


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(["read", "write", "ask", "draft", "predict", "attend"]), max_size=12), st.integers(0, 99)
)
def test_a_question_at_any_time_gives_what_a_fresh_session_says(
    tokenizer: Any, steps: Sequence[str], seed: int
) -> None:
    """Whatever was asked before; and it changes nothing that is written."""
    model = tiny.Biased(tiny.random_model(seed, len(tokenizer)), tiny.sentence_bias(tokenizer, 0.0))
    session, plain = (_session(model, tokenizer, tiny.write_head(seed)) for _ in range(2))
    for step in ["read", *steps, "ask"]:
        if step == "read":
            session.read("dog")
            plain.read("dog")
        elif step == "write":
            assert session.write() == plain.write()
        elif step == "draft":
            session.draft(2)
        elif step == "predict":
            session.prediction()
        elif step == "attend":
            session.attended([[0, 0]])
        else:
            logit = session.write_logit()
            assert plain.write_logit() == pytest.approx(logit, abs=1e-3)


def test_a_model_without_a_head_says_how_to_train_one(tokenizer: Any) -> None:
    session = _session(tiny.random_model(3, len(tokenizer)), tokenizer, None)
    session.read("the")
    with pytest.raises(NoWriteHead, match=r"the model has no write head.*train one with `streamllm train-head"):
        session.write_logit()


# --- bare units


class Dice:
    """READ and WRITE by chance, the same for each source; units are ``bare``, or whole."""

    def __init__(self, bare: bool):
        self._write = WRITE_BARE if bare else WRITE

    def start(self, example: Example) -> Decide:
        def decide(state: State) -> Any:
            return READ if state.read == 0 else self._write

        return decide


@pytest.mark.parametrize("seed", range(4))
def test_bare_units_one_after_the_other_are_whole_units(tokenizer: Any, seed: int) -> None:
    """The same text and the same units, where nothing is read in between."""
    model = tiny.Biased(tiny.random_model(seed, len(tokenizer)), tiny.sentence_bias(tokenizer, 1.0))
    streaming = StreamingModel(model, PromptTokens(Prompt(target_header="German:"), tokenizer), tokenizer)
    example = [Example("1", "the", "")]
    bare, whole = (next(translate_many(streaming, example, Dice(one), Limits())) for one in (True, False))
    assert bare.prediction == whole.prediction
    assert bare.units == whole.units
    assert bare.stats["forward_passes"] == whole.stats["forward_passes"]


def scripted(tokenizer: Any, says: dict[str, str]) -> Session:
    """A model that says what follows a target, as far as it stands there."""
    model = tiny.Scripted(tokenizer, lambda source, target: says.get(target, "<end>"))
    return Session(GroupMemory(model), PromptTokens(tiny_prompt(), tokenizer))


def tiny_prompt() -> Prompt:
    return Prompt(source_header="", source_footer="", target_header="<mark>")


def test_a_comma_after_a_word_is_a_decision_of_its_own(tokenizer: Any) -> None:
    session = scripted(tokenizer, {"": " dog", " dog": ",", " dog,": " cat", " dog, cat": ":", " dog, cat:": " a"})
    session.read("x")
    assert session.write(bare=True).unit == "dog"
    comma = session.write(bare=True)
    assert (comma.unit, comma.extends) == (",", True)
    assert session.write().unit == "cat:"
    assert session.write(bare=True).unit == "a"


def test_the_comma_is_predicted_anew_once_more_has_been_read(tokenizer: Any) -> None:
    read = ["x"]
    model = tiny.Scripted(tokenizer, lambda source, target: " dog" if not target else "," if len(read) == 1 else " cat")
    session = Session(GroupMemory(model), PromptTokens(tiny_prompt(), tokenizer))
    session.read("x")
    assert session.write(bare=True).unit == "dog"
    read.append("y")
    session.read("y")
    emission = session.write(bare=True)
    assert (emission.unit, emission.extends) == ("cat", False)


@pytest.mark.parametrize(
    ("before", "token", "divides"),
    [
        ([" dog"], ",", True),
        ([" dog"], "ing", False),
        ([" dog"], " a", False),
        ([" <"], ",", False),  # punctuation alone: the word is still to come
        ([" dog", ","], ":", True),
        ([], ",", False),
        ([" end.\n"], ",", False),  # white space has ended the word
    ],
)
def test_what_divides_a_word_from_its_punctuation(tokenizer: Any, before: list[str], token: str, divides: bool) -> None:
    def one(piece: str) -> int:
        return int(tokenizer.get_vocab()["".join(tiny.LETTERS[byte] for byte in piece.encode())])

    prompt = PromptTokens(Prompt(target_header="German:"), tokenizer)
    assert prompt.divides([one(piece) for piece in before], one(token)) == divides
    assert not PromptTokens(Prompt(target_header="German:"), tokenizer, "word", "character").divides([1], one(token))


def test_a_full_stop_waits_for_the_end_of_the_source_as_an_end_token_does(tokenizer: Any) -> None:
    session = scripted(tokenizer, {"": " dog", " dog": ".\n", " dog.\n": "<end>"})
    session.read("x")
    assert session.write(bare=True).unit == "dog"
    assert session.write(bare=True).unit is None
    session.read("y")
    assert session.write(bare=True).unit is None
    session.end_source()
    stop = session.write(bare=True)
    assert (stop.unit, stop.extends) == (".", True)
    assert session.write(bare=True).unit is None


def test_a_whole_unit_ends_a_sentence_whenever_it_is_asked_to(tokenizer: Any) -> None:
    session = scripted(tokenizer, {"": " dog", " dog": ".\n", " dog.\n": "<end>"})
    session.read("x")
    assert session.write().unit == "dog."


def test_the_point_of_an_initial_does_not_wait(tokenizer: Any) -> None:
    session = scripted(tokenizer, {"": " ", " ": "B", " B": ".\n"})
    session.read("x")
    assert session.write(bare=True).unit == "B"
    assert session.write(bare=True).unit == "."


# --- bare units of any policy


def sentence_of(tokenizer: Any, limits: Limits, policy: Any, source: str = "a b c") -> Trace:
    """By a model that says " dog, cat.", the comma once two units are read."""

    def say(source: str, target: str) -> str:
        following = {"": " dog", " dog": ",", " dog,": " cat", " dog cat": ".\n", " dog, cat": ".\n"}
        return following.get(target, "<end>")

    model = tiny.Scripted(tokenizer, say)
    return translate(
        Session(GroupMemory(model), PromptTokens(tiny_prompt(), tokenizer)), Example("1", source, ""), policy, limits
    )


def test_a_limit_makes_the_units_of_every_policy_bare(tokenizer: Any) -> None:
    """The comma is written after another READ; the unit is whole then, and its delay is that: the later one. So bare
    units never make a lag look smaller than what a reader sees."""
    whole, bare = (sentence_of(tokenizer, Limits(bare=one), Bounded(WaitK(1), 1)) for one in (False, True))
    assert whole.units == bare.units == ("dog,", "cat.")
    assert whole.delays == (1, 2)
    assert [event.kind for event in bare.events][:4] == ["read", "write", "read", "extend"]
    assert bare.delays == (2, 3)
    words, delays = as_sent(bare)
    assert (words, delays) == (["dog", ",", "cat", "."], [1, 2, 2, 3]), "SimulEval counts the comma as a word"


def test_a_full_stop_that_waits_is_a_forced_read(tokenizer: Any) -> None:
    class Eager:
        def start(self, example: Example) -> Decide:
            return lambda state: READ if state.read == 0 else WRITE_BARE

    trace = sentence_of(tokenizer, Limits(), Eager())
    assert trace.delays == (1, 3)
    kinds = [event.kind for event in trace.events]
    assert kinds == ["read", "write", "extend", "write", "forced_read", "forced_read", "end", "extend", "stop"]


def test_where_an_end_token_ends_the_sentence_no_full_stop_waits(tokenizer: Any) -> None:
    trace = sentence_of(tokenizer, Limits(early_stop="stop", bare=True), WaitK(1))
    assert trace.units == ("dog,", "cat.")
    assert trace.delays == (1, 2)


def test_tokens_that_a_policy_gives_are_written_as_they_are() -> None:
    assert Limits(bare=True).of_write(Write((3, 4))) == Write((3, 4))
    assert Limits(bare=True).of_write(WRITE) == WRITE_BARE
    assert Limits().of_write(WRITE) == WRITE
    with pytest.raises(ValueError, match="bare is 1; accepted are true and false"):
        Limits(bare=1)  # type: ignore[arg-type]
