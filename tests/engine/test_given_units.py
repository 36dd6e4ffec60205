"""Units that are given to a session, which the model need not have chosen."""

from typing import Any

import numpy as np
import pytest
import tiny
from sessions import PROMPT, SCRIPTED, Noted, close, fed, scripted, sentence, tokens_of, units, varied_models

from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.memory import Paradigm, TargetStart
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.prompt import PromptTokens
from streamllm.records import Emission


@pytest.fixture(scope="module")
def models(tokenizer: Any) -> list[Any]:
    return varied_models(tokenizer)


@pytest.fixture(scope="module")
def facts(tokenizer: Any) -> PromptTokens:
    return PromptTokens(PROMPT, tokenizer)


def test_a_unit_that_is_given_is_written(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: " cat")
    session.read("x")
    given_ = tokens_of(tokenizer, " run", "ing")
    assert session.write(given_) == Emission("runing", given_)
    assert session.target_tokens == 2
    assert session.write().unit == "cat"
    assert session.write().unit == "cat"


def test_a_given_unit_is_fed_in_one_forward_with_the_next_prediction(tokenizer: Any) -> None:
    """With the header before it and the given units after it, if there was none in between."""
    session = scripted(tokenizer, lambda source, target: " cat")
    session.read("x")
    for pieces in ((" dog",), (" run", "ing")):
        session.write(tokens_of(tokenizer, *pieces))
    assert session.forward_passes == 1
    session.write()
    assert fed(session)[:2] == ["<bos>x", "<mark> dog runing"]


def test_what_is_known_costs_nothing_when_it_is_given(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" run", "ing", " dog", " a", " cat"))
    session.read("x")
    draft, passes = session.draft(), session.forward_passes
    assert [session.write(emission.tokens) for emission in draft[:2]] == list(draft[:2])
    assert session.write() == draft[2]
    assert session.write(draft[3].tokens) == draft[3]
    assert session.write().unit is None
    assert session.forward_passes == passes


def test_what_is_known_is_forgotten_from_where_the_given_unit_takes_another_way(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: " dog" if "er" in target else "ing" if target else " run")
    session.read("x")
    session.draft(1)
    before = fed(session)
    assert session.write(tokens_of(tokenizer, " run", "er")).unit == "runer"
    session.write()
    assert fed(session)[len(before) : len(before) + 1] == ["er"]
    model: Any = session.memory.model  # type: ignore[attr-defined]
    assert model.fed[len(before)][1] == "<bos>x<mark> runer"


@pytest.mark.parametrize("target_start", [0, "after_source"])
@pytest.mark.parametrize("ask", [False, True])
def test_after_given_units_predictions_are_those_of_a_forward_from_scratch(
    models: list[Any], facts: PromptTokens, tokenizer: Any, target_start: TargetStart, ask: bool
) -> None:
    """Tokens see the source that has been read when they are fed; after a read, the last one is fed again."""
    memory = Noted(models[2], target_start)
    session = Session(memory, facts)
    session.read("the")
    early = len(memory.source)
    if ask:
        session.draft(2)
    given_ = [tokens_of(tokenizer, " run", "er"), tokens_of(tokenizer, " dog"), tokens_of(tokenizer, " cat", "ing")]
    session.write(given_[0])
    session.write(given_[1])
    start = early if target_start == "after_source" else 0
    target = [(token, early) for token in (*facts.target_header, *given_[0], *given_[1])]
    close(session.prediction().logits, memory.logits(target, start))
    session.read("cat,")
    late = len(memory.source)
    target[-1] = (target[-1][0], late)
    close(session.prediction().logits, memory.logits(target, start))
    session.write(given_[2])
    session.read("a")
    latest = len(memory.source)
    target += [(token, latest) for token in given_[2]]  # they were not fed before
    close(session.prediction().logits, memory.logits(target, start))
    target += [(token, latest) for token in session.write().tokens]
    close(session.prediction().logits, memory.logits(target, start))


@pytest.mark.parametrize("paradigm", [Group(), Batch(), BatchPositions()], ids=["group", "batch", "batch_positions"])
@pytest.mark.parametrize("before", [0, 1])
def test_after_a_given_unit_a_prediction_with_units_hidden_is_the_same_before_and_after_one_from_all(
    models: list[Any], facts: PromptTokens, tokenizer: Any, paradigm: Paradigm, before: int
) -> None:
    """The last token alone does not see them."""
    found = []
    for ask in (False, True):
        session = Session(paradigm.open(models[2]), facts)
        for word in ("the", "cat,", "runs"):
            session.read(word)
        for _ in range(before):
            session.write()
        session.write(tokens_of(tokenizer, " run", "er", "ing"))
        if ask:
            session.prediction()
        found += [session.prediction(hidden=2).logits, session.prediction().logits]
    close(found[0], np.array(found[2]))
    close(found[1], np.array(found[3]))


def test_a_given_unit_may_extend_the_one_before(tokenizer: Any) -> None:
    """After a read, as one that the model goes on with."""
    session = scripted(tokenizer, lambda source, target: " cat")
    session.read("x")
    assert not session.write().extends
    session.read("x")
    assert session.write(tokens_of(tokenizer, ",")) == Emission(",", tokens_of(tokenizer, ","), extends=True)
    assert not session.write(tokens_of(tokenizer, " dog")).extends


def test_the_model_may_go_on_with_a_unit_that_was_given(tokenizer: Any) -> None:
    """It did not choose to end it there."""
    session = scripted(tokenizer, lambda source, target: "ing" if target.endswith("run") else " cat")
    session.read("x")
    assert session.write(tokens_of(tokenizer, " run")).unit == "run"
    assert session.write() == Emission("ing", tokens_of(tokenizer, "ing"), extends=True)
    assert not session.write().extends


def test_the_first_unit_extends_nothing(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: "ing")
    session.read("x")
    assert session.write(tokens_of(tokenizer, "r", "u", "n")) == Emission("run", tokens_of(tokenizer, "r", "u", "n"))


def test_given_white_space_is_no_unit(tokenizer: Any) -> None:
    """And what follows it does not extend a unit that is not there."""
    session = scripted(tokenizer, lambda source, target: "dog" if target == "  " else " cat")
    session.read("x")
    assert session.write(tokens_of(tokenizer, "  ")).unit is None
    assert session.write() == Emission("dog", tokens_of(tokenizer, "dog"), extends=False)


def test_given_tokens_with_several_words_give_them_one_by_one(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: " cat")
    session.read("x")
    emission = session.write(tokens_of(tokenizer, " of the"))
    assert (emission.unit, len(emission.tokens)) == ("of", 1)
    assert [session.write().unit for _ in range(2)] == ["the", "cat"]


def test_given_characters_are_units(tokenizer: Any) -> None:
    facts = PromptTokens(SCRIPTED, tokenizer, "word", "character")
    session = Session(Group().open(tiny.Scripted(tokenizer, lambda source, target: "好")), facts)
    session.read("x")
    assert session.write(tokens_of(tokenizer, "你好")).unit == "你"
    emissions = [session.write() for _ in range(2)]
    assert units(emissions) == ["好", "好"]
    assert not any(emission.extends for emission in emissions)


def test_a_rewind_past_a_given_unit_is_refused(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: " cat")
    session.read("x")
    session.write()
    mark = session.mark()
    session.write(tokens_of(tokenizer, " dog"))
    with pytest.raises(RuntimeError, match="cannot rewind past a unit that was given: take a new mark after it"):
        session.rewind(mark)
    later = session.mark()
    assert session.write().unit == "cat"
    session.rewind(later)
    assert session.write().unit == "cat"


def test_a_given_unit_that_the_model_would_have_written_can_be_taken_back(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", " cat"))
    session.read("x")
    mark, draft = session.mark(), session.draft()
    session.write(draft[0].tokens)
    session.rewind(mark)
    assert [session.write() for _ in range(2)] == list(draft)
