"""Re-translation: what is shown and when it was final, and that drafts save forwards and change nothing."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import mlx.core as mx
import pytest
import sessions
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_fixtures import FakeSession

from streamllm.batching.coroutines import run_all
from streamllm.batching.pool import Pool
from streamllm.engine.limits import Limits
from streamllm.engine.living_on import LivingOn, Revision
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.documents import Sentences
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.revised import Revised
from streamllm.engine.recall import RECALLED, Recall
from streamllm.engine.session import Session
from streamllm.metrics.behaviour import displayed, erasure, normalised_erasure
from streamllm.models.model import StreamingModel
from streamllm.policies import Confidence, Full, WaitK
from streamllm.prompt import PromptTokens
from streamllm.records import Emission, Example, Hypothesis, Policy, Trace
from streamllm.units import settled


class Translator(FakeSession):
    """Its translation of a sentence, by how many units of all source are read."""

    def __init__(self, outputs: dict[int, str]):
        super().__init__()
        self.outputs = outputs
        self.output: list[Emission] = []

    def read(self, unit: str) -> None:
        self.calls.append(("read", unit))

    def draft(self, max_units: int = 200, max_tokens: float = math.inf, guess: Any = None) -> Hypothesis:
        self.output = [Emission(word, (7,)) for word in self.outputs[self.count("read")].split()][:max_units]
        return tuple(self.output)

    def write(self, tokens: tuple[int, ...] = ()) -> Emission:
        return self.output.pop(0) if self.output else Emission(None)

    def close_sentence(self) -> None: ...

    def leave_sentence(self, units: int, context: int | None) -> None: ...


def run(
    source: str, outputs: dict[int, str], policy: Policy = WaitK(1), limits: Limits = Limits(), **how: Any
) -> Trace:
    on = LivingOn(True, 1, revision=Revision(**how))
    return translate(Translator(outputs), Example("d", source, ""), policy, limits, living_on=on, clock=lambda: 0.0)


def told(trace: Trace) -> list[tuple[str, str]]:
    return [(event.kind, event.text) for event in trace.events]


def shown(trace: Trace) -> list[str]:
    return [event.text for event in trace.events if event.kind == "shown"]


OUTPUTS = {1: "A man", 2: "A dog sits", 3: "A dog is sitting", 4: "A dog is running off."}


def test_each_unit_is_translated_anew_and_written_once_its_sentence_has_ended() -> None:
    trace = run("Ein Hund ist weg.", OUTPUTS)
    assert told(trace) == [
        *(("read", "Ein"), ("shown", "A man"), ("read", "Hund"), ("shown", "A dog sits")),
        *(("read", "ist"), ("shown", "A dog is sitting"), ("read", "weg."), ("end", "")),
        *(("shown", "A dog is running off."), ("write", "A"), ("write", "dog"), ("write", "is")),
        *(("write", "running"), ("write", "off."), ("sentence", "4"), ("end", ""), ("stop", "end_token")),
    ]
    assert trace.prediction == "A dog is running off."


def test_the_delay_of_a_unit_is_when_it_was_shown_in_its_final_form_for_the_last_time() -> None:
    assert run("Ein Hund ist weg.", OUTPUTS).delays == (1, 2, 3, 4, 4)


def test_a_unit_that_comes_back_is_final_only_since_then() -> None:
    outputs = {1: "A dog is", 2: "The dog is", 3: "A dog is", 4: "A dog is."}
    assert run("Ein Hund ist da.", outputs).delays == (3, 3, 4)


def test_the_mask_hides_the_last_units_until_the_sentence_has_ended() -> None:
    trace = run("Ein Hund ist weg.", OUTPUTS, mask=2)
    assert shown(trace) == ["", "A", "A dog", "A dog is running off."]
    assert trace.delays == (2, 3, 4, 4, 4)


def test_an_output_comes_after_each_chunk_of_source() -> None:
    trace = run("aa bb cc dd ee.", dict.fromkeys(range(1, 6), "x"), chunk=2)
    assert [kind for kind, _ in told(trace)][:6] == ["read", "read", "shown", "read", "read", "shown"]


def test_the_policy_says_when_outputs_begin() -> None:
    outputs = dict.fromkeys(range(1, 5), "x")
    assert len(shown(run("aa bb cc dd.", outputs, WaitK(3)))) == 2
    assert len(shown(run("aa bb cc dd.", outputs, Full()))) == 1


def test_each_sentence_of_a_document_is_revised_by_itself() -> None:
    trace = run("aa bb. cc dd.", {1: "p", 2: "p q.", 3: "r s", 4: "r t."})
    assert shown(trace) == ["p", "p q.", "r s", "r t."]
    assert (trace.units, trace.delays) == (("p", "q.", "r", "t."), (1, 2, 3, 4))
    assert [text for kind, text in told(trace) if kind == "sentence"] == ["2", "4"]


def test_a_sentence_without_an_end_is_ended_when_it_is_too_long() -> None:
    trace = run("aa bb cc dd ee", {i: f"x{i}" for i in range(1, 6)}, longest=2)
    assert trace.units == ("x2", "x4", "x5")


def test_an_output_that_reaches_the_limit_is_cut_and_the_trace_says_so() -> None:
    limits = Limits(length_ratio=1, length_extra=1)
    trace = run("aa bb.", {1: "1 2 3", 2: "1 2 3 4 5"}, limits=limits)
    assert shown(trace) == ["1 2", "1 2 3"]
    assert [text for kind, text in told(trace) if kind == "limit"] == ["max_units"]


def test_a_policy_that_asks_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"asks the model \(prediction\).*choose a policy that counts"):
        run("aa bb.", OUTPUTS, Confidence(0.5))


def test_a_sentence_cannot_stop_before_its_source() -> None:
    with pytest.raises(ValueError, match="leave early_stop at read"):
        run("aa bb.", OUTPUTS, limits=Limits(early_stop="stop"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mask": -1}, r"paradigm\.mask is -1; it is a whole number of units, at least 0"),
        ({"chunk": 0}, r"paradigm\.chunk is 0"),
        ({"longest": 0}, r"paradigm\.longest is 0"),
        ({"drafts": 1}, r"paradigm\.drafts is 1; accepted are true and false"),
        ({"context": -1}, r"paradigm\.context is -1"),
        ({"asks": "no"}, r"paradigm\.asks is 'no'"),
    ],
)
def test_wrong_values_are_named(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Revised(**value)


# --- what is final, and what is erased


outputs_of_a_sentence = st.lists(st.lists(st.sampled_from("ab"), max_size=5), min_size=1, max_size=7)


@settings(max_examples=50)
@given(outputs_of_a_sentence)
def test_settled_is_what_the_formula_says(outputs: list[list[str]]) -> None:
    last = outputs[-1]
    expected = [
        min(i for i in range(len(outputs)) if all(later[: j + 1] == last[: j + 1] for later in outputs[i:]))
        for j in range(len(last))
    ]
    assert settled(outputs, list(range(len(outputs)))) == expected


@settings(max_examples=30)
@given(st.lists(outputs_of_a_sentence, min_size=1, max_size=4))
def test_what_is_erased_of_a_document_is_what_is_erased_of_its_sentences(sentences: list[list[list[str]]]) -> None:
    ends = [sum(map(len, sentences[: i + 1])) for i in range(len(sentences))]
    outputs = [" ".join(output) for sentence in sentences for output in sentence]
    source = " ".join("end." if i + 1 in ends else "w" for i in range(len(outputs)))
    trace = run(source, dict(enumerate(outputs, 1)))
    final = sum(len(sentence[-1]) for sentence in sentences)
    erased = sum(map(erasure, sentences))
    assert erasure(displayed(trace, "word")) == erased
    if final:
        assert normalised_erasure([trace], "word") == erased / final


# --- drafts


def test_what_followed_the_last_tokens_is_recalled() -> None:
    recall = Recall()
    assert list(recall([])) == list(recall([7])) == []
    recall.add([1, 2, 3, 4])
    recall.add([5, 2, 6])
    assert list(recall([])) == [5, 2, 6]
    assert list(recall([9, 1, 2])) == [3, 4]  # after these two
    assert list(recall([9, 2])) == [6]  # after this one, the last time
    assert list(recall([9])) == [2, 6]  # in the place of another
    recall.forget_last()
    assert list(recall([])) == []
    assert list(recall([1])) == [2, 3, 4]


def test_what_is_recalled_is_bounded() -> None:
    recall = Recall()
    for i in range(3 * RECALLED):
        recall.add([2 * i, 2 * i + 1])
    recall.forget_last()
    assert list(recall([0])) == []
    assert list(recall([4 * RECALLED])) == [4 * RECALLED + 1]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.byte_level_tokenizer(folder)
    return tiny.load(folder)


LIMITS = Limits(length_ratio=1, length_extra=4)


def streaming(tokenizer: Any, seed: int, paradigm: Any) -> StreamingModel:
    model = tiny.Biased(tiny.random_model(seed, len(tokenizer)), tiny.sentence_bias(tokenizer, 3.0))
    return StreamingModel(model, PromptTokens(sessions.PROMPT, tokenizer), tokenizer, paradigm=paradigm)


def translated(model: StreamingModel, example: Example, memory: Any = None, k: int = 1) -> Trace:
    session = model.session(memory=memory)
    return translate(session, example, WaitK(k), LIMITS, living_on=model.living_on, clock=lambda: 0.0)


texts = st.lists(
    st.lists(st.sampled_from(sessions.WORDS), min_size=0, max_size=6).map(lambda words: " ".join([*words, "dog."])),
    min_size=1,
    max_size=4,
).map(" ".join)


@settings(max_examples=6)
@given(texts, st.integers(0, 5), st.integers(1, 3), st.integers(0, 2))
def test_drafts_change_nothing_and_save_forwards(tokenizer: Any, text: str, seed: int, k: int, context: int) -> None:
    plain, drafted = (
        translated(streaming(tokenizer, seed, Revised(drafts=drafts, context=context)), Example("d", text, ""), k=k)
        for drafts in (False, True)
    )
    assert drafted.events == plain.events
    assert drafted.delays == plain.delays
    assert drafted.stats["forward_passes"] <= plain.stats["forward_passes"]
    assert drafted.stats["source_tokens"] == plain.stats["source_tokens"]


@settings(max_examples=5)
@given(st.lists(st.sampled_from(sessions.WORDS), min_size=1, max_size=8), st.integers(0, 5))
def test_each_output_is_that_of_a_session_that_reads_and_writes_once(
    tokenizer: Any, words: Sequence[str], seed: int
) -> None:
    trace = translated(streaming(tokenizer, seed, Revised(context=0)), Example("d", " ".join(words), ""))
    expected = []
    whole = streaming(tokenizer, seed, Group())
    for n in range(1, len(words) + 1):
        session = whole.session()
        for word in words[:n]:
            session.read(word)
        if n == len(words):
            expected.append(" ".join(emission.text for emission in session.draft(n + 4, 8 * (n + 4))))
            session.end_source()
        expected.append(" ".join(emission.text for emission in session.draft(n + 4, 8 * (n + 4))))
    assert shown(trace) == expected


class Everywhere(tiny.Scripted):
    """Says what follows each of its tokens, not only the last one."""

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        ids = tokens.astype(mx.float32)[:, None, :, None]
        held, _ = cache[0].update_and_fetch(ids, ids)
        seen = [int(token) for token in held.flatten().tolist()]
        n = tokens.shape[1]
        logits = mx.zeros((1, n, len(self._tokenizer)))
        for i in range(n):
            logits[0, i, self.following(seen[: len(seen) - n + 1 + i])] = 1.0
        return logits


def test_an_output_that_has_not_changed_costs_one_forward(tokenizer: Any) -> None:
    model = Everywhere(tokenizer, sessions.sentence(" a", " dog", " cat"))
    session = Session(Group().open(model), PromptTokens(sessions.SCRIPTED, tokenizer))
    recall = Recall()
    for word in ("ein", "hund"):
        session.read(word)
        before = session.forward_passes
        recall.add([token for emission in session.draft(guess=recall) for token in emission.tokens])
    assert session.forward_passes == before + 1
    assert sessions.units(session.draft()) == ["a", "dog", "cat"]


def in_a_batch_as_alone(tokenizer: Any, texts: list[str], seed: int, paradigm: Revised) -> None:
    model = streaming(tokenizer, seed, paradigm)
    examples = [Example(str(i), text, "") for i, text in enumerate(texts)]
    alone = {example.id: translated(model, example) for example in examples}
    pool = Pool(model.model, len(examples), forgetting=model.forgetting)
    tasks = [lambda row, _, example=example: translated(model, example, row) for example in examples]
    assert {trace.id: trace for trace in run_all(pool, tasks)} == alone


def test_documents_in_a_batch_are_those_alone(tokenizer: Any) -> None:
    texts = ["a dog. the cat, runs dog. Größe: dog. a the a dog.", "dog. cat, the a dog.", "a runs the Größe: dog."]
    in_a_batch_as_alone(tokenizer, texts, 3, Revised(context=1, asks=True, mask=1))


@settings(max_examples=6)
@given(texts, st.integers(0, 5), st.integers(0, 2))
def test_translated_once_each_sentence_is_what_a_memory_of_sentences_gives(
    tokenizer: Any, text: str, seed: int, context: int
) -> None:
    traces = []
    for paradigm in (Revised(context=context), Sentences(context=context)):
        model = streaming(tokenizer, seed, paradigm)
        on, example = model.living_on, Example("d", text, "")
        traces.append(translate(model.session(), example, Full(), LIMITS, living_on=on, clock=lambda: 0.0))
    assert traces[0].units == traces[1].units


def test_a_sentence_without_output_leaves_the_header_where_it_is(tokenizer: Any) -> None:
    """Its end is all that is written of it, and nothing was written before."""
    text = "dog. a a a a a a dog. dog. dog."
    in_a_batch_as_alone(tokenizer, [text], 5, Revised(context=1, chunk=2))


def test_what_was_trimmed_is_not_seen_after_the_target_begins_anew(tokenizer: Any) -> None:
    """Beside a longer row, where attention goes on behind the row's own tokens."""
    texts = ["cat, cat, dog. a dog.", "a a a a a a dog."]
    in_a_batch_as_alone(tokenizer, texts, 5, Revised(context=0, asks=False, chunk=2))


@pytest.mark.long
@settings(max_examples=30)
@given(st.lists(texts, min_size=2, max_size=3), st.integers(0, 5), st.integers(0, 2), st.booleans())
def test_random_documents_in_a_batch_are_those_alone(
    tokenizer: Any, texts: list[str], seed: int, context: int, asks: bool
) -> None:
    in_a_batch_as_alone(tokenizer, texts, seed, Revised(context=context, asks=asks, chunk=2))


@given(texts, st.integers(0, 3))
@settings(max_examples=8)
def test_no_source_token_is_fed_twice(tokenizer: Any, text: str, seed: int) -> None:
    model = streaming(tokenizer, seed, Revised(context=1))
    session = model.session()
    trace = translate(session, Example("d", text, ""), WaitK(1), LIMITS, living_on=model.living_on)
    words = text.split()
    fed = sum(len(model.prompt.source_tokens(word, first=i == 0)) for i, word in enumerate(words))
    sentences = sum(event.kind == "sentence" for event in trace.events)
    assert session.source_tokens == (
        fed + len(model.prompt.source_header) + sentences * len(model.prompt.source_footer)
    )
    assert all(before <= after for before, after in pairwise(trace.delays))
