"""A wait token is asked for and never written; a latency is asked for by the target header."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.batching.scheduler import translate_many
from streamllm.engine.limits import Limits
from streamllm.engine.lookahead import NoWaitToken
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.sampling import Sampling
from streamllm.engine.session import Session
from streamllm.models.model import StreamingModel
from streamllm.policies import RALCP, LocalAgreement, WaitK, WaitToken
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import READ, WRITE, WRITE_BARE, Example, State

MARK = 3  # "<mark>"
TAGGED = Prompt(target_header="German{latency}:", latency="2", wait_token="<mark>")
PLAIN = Prompt(target_header="German2:")
EXAMPLES = [Example(str(i), text, "") for i, text in enumerate(["the dog", "a cat runs the dog", "dog", "a a a a"])]


def model_that_waits(tokenizer: Any, seed: int, bias: float) -> Any:
    """A random model whose logit of the wait token is raised."""
    raised = np.array(tiny.sentence_bias(tokenizer, 1.0))
    raised[MARK] += bias
    return tiny.Biased(tiny.random_model(seed, len(tokenizer)), mx.array(raised))


def session_of(model: Any, tokenizer: Any, prompt: Prompt = TAGGED, sampler: Any = None) -> Session:
    return Session(GroupMemory(model), PromptTokens(prompt, tokenizer), sampler)


def streaming(model: Any, tokenizer: Any, prompt: Prompt, **settings: Any) -> StreamingModel:
    return StreamingModel(model, PromptTokens(prompt, tokenizer), tokenizer, **settings)


@pytest.mark.parametrize(
    "sampling", [{}, pytest.param({"temperature": 0.8}, marks=pytest.mark.long), {"temperature": 0.8, "top_p": 0.5}]
)
@pytest.mark.parametrize(
    "policy", [WaitK(2), LocalAgreement(), RALCP(beam=3, threshold=0.6)], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.long), 4])
def test_what_is_written_is_as_if_the_wait_token_had_no_probability(
    tokenizer: Any, policy: Any, batch_size: int, sampling: dict[str, float]
) -> None:
    likely, ruled_out = (model_that_waits(tokenizer, 5, bias) for bias in (1000.0, -1000.0))
    found, expected = (
        {t.id: (t.prediction, t.delays) for t in translate_many(one, EXAMPLES, policy, Limits(), batch_size)}
        for one in (
            streaming(likely, tokenizer, TAGGED, **sampling),
            streaming(ruled_out, tokenizer, PLAIN, **sampling),
        )
    )
    assert found == expected
    assert any(prediction for prediction, _ in found.values())


def test_a_prediction_leaves_it_out_and_its_probability_is_that_of_the_softmax(tokenizer: Any) -> None:
    model = model_that_waits(tokenizer, 2, 2.0)
    session, plain = session_of(model, tokenizer), session_of(model, tokenizer, PLAIN)
    session.read("the")
    plain.read("the")
    logits = np.array(plain.prediction().logits, np.float64)  # type: ignore[attr-defined]
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    assert session.wait_probability() == pytest.approx(shares[MARK], rel=1e-5)
    prediction = session.prediction()
    assert prediction.probability(MARK) == 0
    others = np.delete(shares, MARK)
    assert prediction.confidence == pytest.approx(others.max() / others.sum(), rel=1e-5)
    assert session.prediction(hidden=1).probability(MARK) == 0


def test_a_sampler_of_ones_own_never_sees_it(tokenizer: Any) -> None:
    seen: list[float] = []

    def sampler(logprobs: mx.array) -> mx.array:
        seen.append(logprobs[0, MARK].item())  # type: ignore[arg-type]
        return mx.argmax(logprobs, axis=-1)

    session = session_of(model_that_waits(tokenizer, 2, 1000.0), tokenizer, sampler=sampler)
    session.read("the")
    session.write()
    assert seen and set(seen) == {-np.inf}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["read", "ask", "draft", "predict", "hide", "attend"]), max_size=6), st.integers(0, 9))
def test_another_latency_is_as_if_the_prompt_had_asked_for_it(tokenizer: Any, steps: Sequence[str], seed: int) -> None:
    """Whatever was asked before, with another header."""
    model = model_that_waits(tokenizer, seed, 1.0)
    session = session_of(model, tokenizer)
    other = session_of(model, tokenizer, Prompt(target_header="German{latency}:", latency="7", wait_token="<mark>"))
    for step in ["read", *steps]:
        if step == "read":
            session.read("dog")
            other.read("dog")
        elif step == "ask":
            session.wait_probability()
        elif step == "draft":
            session.draft(2)
        elif step == "predict":
            session.predict()
        elif step == "hide":
            session.prediction(hidden=1)
        else:
            session.attended([[0, 0]])
    assert session.wait_probability("7") == pytest.approx(other.wait_probability(), rel=1e-4)
    assert session.write() == other.write()
    session.read("runs")
    other.read("runs")
    assert session.wait_probability("2") == pytest.approx(other.wait_probability(), rel=1e-4)  # something is written
    assert session.write() == other.write()
    assert session.memory.target_offset == other.memory.target_offset


@pytest.mark.parametrize("latency", [None, "7"])
def test_a_batch_gives_what_one_by_one_gives(tokenizer: Any, latency: str | None) -> None:
    model = model_that_waits(tokenizer, 4, 4.0)
    one, many = (
        {
            t.id: (t.units, t.delays, t.stats["forward_passes"])
            for t in translate_many(streaming(model, tokenizer, TAGGED), EXAMPLES, WaitToken(0.4, latency), Limits(), n)
        }
        for n in (1, 64)
    )
    assert one == many


def test_a_decision_costs_no_forward_of_its_own(tokenizer: Any) -> None:
    model = model_that_waits(tokenizer, 2, 0.0)
    asked, plain = session_of(model, tokenizer), session_of(model, tokenizer)
    for word in ("the", "dog"):
        asked.read(word)
        plain.read(word)
        asked.wait_probability("5" if word == "the" else "2")
        asked.write()
        plain.write()
    assert asked.forward_passes == plain.forward_passes


def test_without_one_there_is_one_clear_error(tokenizer: Any) -> None:
    session = session_of(tiny.random_model(3, len(tokenizer)), tokenizer, PLAIN)
    session.read("the")
    with pytest.raises(NoWaitToken, match=r"the model has no wait token.*streamllm train experiment=tiny_en_de_wait"):
        session.wait_probability()
    with pytest.raises(ValueError, match=r"latency is '2', which the model cannot be asked for"):
        session.wait_probability("2")


@pytest.mark.parametrize("text", ["German", "mark", "<mark><bos>", "<end>", ""])
def test_a_wait_token_is_a_control_token_that_ends_nothing(tokenizer: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"prompt\.wait_token is .*<mark>"):
        PromptTokens(Prompt(target_header="German:", wait_token=text), tokenizer)


@pytest.mark.parametrize(("header", "latency"), [("German:", "2"), ("German{latency}:", "")])
def test_a_latency_has_its_place(header: str, latency: str) -> None:
    with pytest.raises(ValueError, match=r"prompt\.latency is .* give both or none"):
        Prompt(target_header=header, latency=latency)


def test_all_headers_have_as_many_tokens(tokenizer: Any) -> None:
    prompt = PromptTokens(TAGGED, tokenizer)
    assert prompt.header_asking("2") == prompt.target_header
    assert prompt.rendered.count("German2:") == 1
    with pytest.raises(ValueError, match=r"latency is '10', which makes a target header of"):
        prompt.header_asking("10")


class Says:
    def __init__(self, probability: float):
        self.probability, self.asked = probability, []

    def wait_probability(self, latency: str | None = None) -> float:
        self.asked.append(latency)  # type: ignore[attr-defined]
        return self.probability


def test_the_policy_reads_from_its_threshold_on() -> None:
    decide = WaitToken(0.5, 3).start(EXAMPLES[0])
    assert decide(State(0, 0, False)) == READ
    for probability, action in ((0.49, WRITE_BARE), (0.5, READ), (0.9, READ)):
        model: Any = Says(probability)
        assert decide(State(1, 0, False, model)) == action
        assert model.asked == ["3"]
    assert decide(State(2, 0, True)) == WRITE


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "half"])
def test_a_threshold_that_is_no_probability_is_refused(threshold: Any) -> None:
    with pytest.raises(ValueError, match="threshold is "):
        WaitToken(threshold)


def test_drawn_tokens_are_those_of_the_others_alone() -> None:
    logits = np.array([0.3, -1.0, 2.0, 50.0], np.float32)
    session_logits = logits.copy()
    session_logits[MARK] = -np.inf
    draws = [Sampling(seed, 1.0).draw(session_logits, 1, 0) for seed in range(200)]
    assert MARK not in draws
