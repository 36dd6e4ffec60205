"""Streams of many sentences: the loop loses nothing, policies count from each sentence, and memories hold what they
say."""

from dataclasses import replace
from typing import Any

import pytest
import sessions
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_fixtures import FakeSession

from streamllm.batching.coroutines import run_all
from streamllm.batching.pool import Pool
from streamllm.engine.limits import Limits
from streamllm.engine.living_on import LivingOn
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.documents import Continuous, Sentences
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.memory import Paradigm
from streamllm.models.model import StreamingModel
from streamllm.policies import DOA, DST, LSG, AlignAtt, DrFrattn, Full, LocalAgreement, Oracle, WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Action, Decide, Emission, Example, Policy, State, Trace
from streamllm.units import ends_sentence

HELD = LivingOn(held=True, context=1, asks=True)
FREE = LivingOn(held=False, context=None)
lengths = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=5)


class Translator(FakeSession):
    """Writes ``targets[j]`` units for its sentence j and then its end; knows how many units of source each has."""

    def __init__(self, sources: list[int], targets: list[int]):
        super().__init__()
        self.ends = [sum(sources[: j + 1]) for j in range(len(sources))]
        self.targets, self.sentence, self.unit = targets, 0, 0
        self.left: list[tuple[int, int | None]] = []

    def read(self, unit: str) -> None:
        self.calls.append(("read", unit))

    def write(self, tokens: tuple[int, ...] = ()) -> Emission:
        self.calls.append(("write", None))
        if self.sentence >= len(self.targets) or self.unit >= self.targets[self.sentence]:
            return Emission(None)
        self.unit += 1
        self.target_tokens += 1
        return Emission(f"{self.sentence}.{self.unit}")

    def attended(self, heads: Any = None) -> int:
        return min(self.ends[min(self.sentence, len(self.ends) - 1)], self.count("read")) - 1

    def close_sentence(self) -> None:
        self.sentence, self.unit = self.sentence + 1, 0

    def nothing_left(self) -> bool:
        begun = [0, *self.ends][min(self.sentence, len(self.ends))]
        return self.sentence >= len(self.ends) or self.count("read") <= begun

    def leave_sentence(self, units: int, context: int | None) -> None:
        self.left.append((units, context))


def document(sources: list[int], stops: list[bool] | None = None) -> Example:
    stops = stops or [True] * len(sources)
    words = [f"w{i}" + "." * (i == n - 1 and stop) for n, stop in zip(sources, stops, strict=True) for i in range(n)]
    return Example("d", " ".join(words), "")


def run(units: list[tuple[int, int]], policy: Policy, on: LivingOn, **options: Any) -> tuple[Trace, Translator]:
    sources, targets = ([pair[i] for pair in units] for i in (0, 1))
    session = Translator(sources, targets)
    return translate(session, document(sources, options.pop("stops", None)), policy, living_on=on, **options), session


@given(lengths, st.integers(1, 5), st.sampled_from([HELD, FREE, LivingOn(False, None, "attention")]))
def test_every_unit_is_read_once_and_belongs_to_one_sentence(
    units: list[tuple[int, int]], k: int, on: LivingOn
) -> None:
    trace, session = run(units, WaitK(k), on)
    read = [event.text for event in trace.events if event.kind in ("read", "forced_read")]
    assert read == trace.source.split()
    ends = [int(event.text) for event in trace.events if event.kind == "sentence"]
    assert ends == sorted(set(ends)) and ends[-1] == len(read)
    assert ends == session.ends  # each sentence ends where it does
    assert list(trace.units) == [f"{j}.{i + 1}" for j, (_, n) in enumerate(units) for i in range(n)]
    assert sorted(trace.delays) == list(trace.delays)
    assert trace.events[-1].kind == "stop"


@given(lengths, st.integers(1, 5))
def test_a_held_sentence_has_the_delays_that_it_has_alone(units: list[tuple[int, int]], k: int) -> None:
    trace, _ = run(units, WaitK(k), HELD)
    expected, start = [], 0
    for source, target in units:
        expected += [start + min(k + i, source) for i in range(target)]
        start += source
    assert list(trace.delays) == expected


def test_what_is_not_held_reads_on_behind_the_end_of_the_sentence() -> None:
    trace, _ = run([(3, 4), (4, 3)], WaitK(2), FREE)
    assert list(trace.delays) == [2, 3, 4, 5, 6, 6, 7]  # 6 were read when the first ended; then 3 + 3, 3 + 4


def test_two_sentences_that_nothing_tells_apart_are_both_translated() -> None:
    trace, session = run([(3, 2), (2, 2), (2, 1)], WaitK(2), HELD, stops=[False, True, True])
    assert list(trace.units) == ["0.1", "0.2", "1.1", "1.2", "2.1"]
    assert [end for end, _ in session.left] == [5, 7]
    lost, _ = run([(3, 2), (2, 2), (2, 1)], WaitK(2), replace(HELD, asks=False), stops=[False, True, True])
    assert len(lost.units) == 4  # the model is not asked: what it would have written comes one sentence late


def test_a_model_that_always_wants_more_is_ended_by_the_limit() -> None:
    class Insatiable(Translator):
        def nothing_left(self) -> bool:
            return False

    limits = Limits(length_ratio=2, length_extra=2)
    session = Insatiable([3], [2, 2, 2, 2, 2, 2])
    trace = translate(session, document([3]), WaitK(2), limits, living_on=HELD)
    assert len(trace.units) == 8  # of one source sentence, however many target sentences


def test_where_nothing_is_punctuated_a_sentence_ends_where_the_model_looked() -> None:
    units = [(4, 4), (5, 4), (3, 3)]
    trace, session = run(units, WaitK(2), LivingOn(False, None, "attention"), stops=[False, False, False])
    assert list(trace.units) == [f"{j}.{i + 1}" for j, (_, n) in enumerate(units) for i in range(n)]
    assert [end for end, _ in session.left] == [4, 9, 12]


def test_the_limit_counts_from_the_beginning_of_the_sentence_and_ends_it() -> None:
    limits = Limits(length_ratio=1, length_extra=1)
    trace, _ = run([(3, 50), (2, 2)], WaitK(1), HELD, limits=limits)
    assert list(trace.units) == ["0.1", "0.2", "0.3", "0.4", "1.1", "1.2"]
    assert [event.text for event in trace.events if event.kind == "limit"] == ["max_units"]


def test_a_policy_is_started_anew_for_each_sentence_unless_it_counts_from_the_start() -> None:
    started = []

    class Noting(WaitK):
        def start(self, example: Example) -> Any:
            started.append(example.id)
            return super().start(example)

    run([(2, 2), (2, 2)], Noting(1), HELD)
    assert len(started) == 3  # the last finds that nothing follows
    trace, _ = run([(2, 2), (2, 2)], Oracle([1, 2, 4, 4]), HELD)
    assert list(trace.delays) == [1, 2, 4, 4]


def test_full_waits_for_the_sentence_and_not_for_the_document() -> None:
    trace, _ = run([(3, 2), (4, 2)], Full(), HELD)
    assert list(trace.delays) == [3, 3, 7, 7]


def test_alignatt_looks_at_units_of_its_sentence() -> None:
    trace, _ = run([(4, 2), (5, 2)], AlignAtt(1, heads=[[0, 0]]), HELD)
    assert list(trace.delays) == [4, 4, 9, 9]  # it looks at the last unit, until the sentence is whole


@pytest.mark.parametrize(
    ("unit", "ends"),
    [
        ("dog.", True),
        ('dog."', True),
        ("dog?!", True),
        ("(dog.)", True),
        ("。", True),
        ("dog", False),
        ("dog,", False),
        ("Mr.", False),
        ("J.", False),
        ("e.g.", False),
        ("3.5", False),
        ("U.S.", True),
    ],
)
def test_what_ends_a_sentence(unit: str, ends: bool) -> None:
    assert ends_sentence(unit) is ends


# --- with models


PARADIGMS = [
    Sentences(context=0, asks=False),
    Sentences(context=1),
    Sentences(context=2, held=False),
    Continuous(max_source=24, max_target=24),
    Continuous(max_source=16, max_target=12, sinks=5, boundary="attention"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.byte_level_tokenizer(folder)
    return tiny.load(folder)


def streaming(tokenizer: Any, seed: int, paradigm: Paradigm, prompt: Prompt = sessions.PROMPT) -> StreamingModel:
    model = tiny.Biased(tiny.random_model(seed, len(tokenizer)), tiny.sentence_bias(tokenizer, 3.0))
    heads = [[0, 0], [1, 1]]
    return StreamingModel(model, PromptTokens(prompt, tokenizer), tokenizer, paradigm=paradigm, alignment_heads=heads)


def translated(model: StreamingModel, example: Example, policy: Policy, memory: Any = None) -> Trace:
    session = model.session(memory=memory)
    return translate(
        session, example, policy, Limits(length_ratio=1, length_extra=4), living_on=model.living_on, clock=lambda: 0.0
    )


texts = st.lists(
    st.lists(st.sampled_from(sessions.WORDS), min_size=0, max_size=6).map(lambda words: " ".join([*words, "dog."])),
    min_size=1,
    max_size=6,
).map(" ".join)


def in_a_batch_as_alone(tokenizer: Any, examples: list[Example], seed: int, paradigm: Paradigm, policy: Policy) -> None:
    model = streaming(tokenizer, seed, paradigm)
    alone = {example.id: translated(model, example, policy) for example in examples}
    pool = Pool(model.model, len(examples), forgetting=model.forgetting)
    tasks = [lambda row, _, example=example: translated(model, example, policy, row) for example in examples]
    assert {trace.id: trace for trace in run_all(pool, tasks)} == alone


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_documents_in_a_batch_are_those_alone(tokenizer: Any, paradigm: Paradigm) -> None:
    texts = ["a dog. the cat, runs dog. Größe: dog. a the a dog.", "dog. cat, the a dog.", "a runs the Größe: dog."]
    examples = [Example(str(i), text, "") for i, text in enumerate(texts)]
    in_a_batch_as_alone(tokenizer, examples, 3, paradigm, WaitK(2))


ASKING = [WaitK(2), LocalAgreement(), LSG(0.02, 0.3, 1, 3), DST(0.6), DrFrattn(0.3, newest=2), DOA(1)]


class _Noting:
    """Asks how attention is spread before it decides as wait-k."""

    def __init__(self) -> None:
        self.lengths: list[tuple[int, set[int]]] = []
        self.most = 0.0

    def start(self, example: Example) -> Decide:
        decide = WaitK(2).start(example)

        def note(state: State) -> Action:
            if state.read:
                rows = [*state.model.attention(), *state.model.watched_draft(max_tokens=6)[1]]
                self.lengths.append((state.read, {len(row) for row in rows}))
                self.most = max(self.most, *(sum(row) for row in rows))
            return decide(state)

        return note


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_attention_in_a_document_is_that_to_the_units_of_the_sentence_under_way(
    tokenizer: Any, paradigm: Paradigm
) -> None:
    noting = _Noting()
    text = "a dog. the cat, runs dog. Größe: dog. a the a dog."
    translated(streaming(tokenizer, 3, paradigm), Example("1", text, ""), noting)
    assert all(lengths == {read} for read, lengths in noting.lengths)
    assert {1, 2} <= {read for read, _ in noting.lengths}
    assert 0 < noting.most <= 1.0001


@pytest.mark.long
@settings(max_examples=60)
@given(texts, texts, st.integers(0, 5), st.sampled_from(PARADIGMS), st.sampled_from(ASKING))
def test_random_documents_in_a_batch_are_those_alone(
    tokenizer: Any, one: str, other: str, seed: int, paradigm: Paradigm, policy: Policy
) -> None:
    in_a_batch_as_alone(tokenizer, [Example("one", one, ""), Example("other", other, "")], seed, paradigm, policy)


@settings(max_examples=8)
@given(texts, st.integers(0, 5), st.integers(1, 4))
def test_without_context_each_sentence_is_translated_as_if_it_stood_alone(
    tokenizer: Any, text: str, seed: int, k: int
) -> None:
    prompt = replace(sessions.PROMPT, leading_space=True)  # as within a document
    model = streaming(tokenizer, seed, Sentences(context=0, asks=False), prompt)
    whole = translated(model, Example("d", text, ""), WaitK(k))
    alone = streaming(tokenizer, seed, Group(), prompt)
    found: list[str] = []
    for sentence in text.replace("dog.", "dog.\n").split("\n")[:-1]:
        found += translated(alone, Example("s", sentence, ""), WaitK(k)).units
    assert list(whole.units) == found


@given(texts, st.integers(0, 5), st.sampled_from(PARADIGMS))
@settings(max_examples=8)
def test_no_source_token_is_fed_twice_and_what_is_held_is_bounded(
    tokenizer: Any, text: str, seed: int, paradigm: Paradigm
) -> None:
    model = streaming(tokenizer, seed, paradigm)
    session = model.session()
    trace = translate(
        session, Example("d", text, ""), WaitK(2), Limits(length_ratio=1, length_extra=4), living_on=model.living_on
    )
    words = [model.prompt.source_tokens(word, first=i == 0) for i, word in enumerate(text.split())]
    header, footer = len(model.prompt.source_header), len(model.prompt.source_footer)
    fed = header + sum(map(len, words))
    ends = sum(event.kind == "end" for event in trace.events)
    assert session.source_tokens in (fed + footer * ends, fed + footer * (ends - 1))  # nothing is left at the last
    assert trace.events[-1].kind == "stop"
    memory: Any = session.memory
    if isinstance(paradigm, Continuous):
        assert memory.source_held <= max(paradigm.max_source, header)


def test_with_context_the_last_sentence_pairs_are_held(tokenizer: Any) -> None:
    text = "a dog. the cat, dog. a Haus dog. the the the dog."
    prompt = PromptTokens(sessions.PROMPT, tokenizer)
    for context in (1, 2):
        model = streaming(tokenizer, 1, Sentences(context=context))
        session = model.session()
        translate(
            session, Example("d", text, ""), WaitK(9), Limits(length_ratio=1, length_extra=4), living_on=model.living_on
        )
        held = text.replace("dog. ", "dog.\n").split("\n")[-context:]
        tokens = [prompt.source_tokens(word, first=False) for sentence in held for word in sentence.split()]
        frame = len(prompt.source_header) + context * len(prompt.source_footer)
        memory: Any = session.memory
        assert memory.source_held == frame + sum(map(len, tokens))


def test_attention_at_the_boundary_needs_what_is_read_beyond_it() -> None:
    with pytest.raises(ValueError, match=r"set paradigm\.held=false"):
        Sentences(boundary="attention")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sentences(context=-1), r"paradigm\.context is -1"),
        (lambda: Sentences(held="yes"), r"paradigm\.held is 'yes'"),
        (lambda: Sentences(boundary="full stop", held=False), r"paradigm\.boundary is 'full stop'; accepted are"),
        (lambda: Continuous(max_source=0), r"paradigm\.max_source is 0"),
        (lambda: Continuous(sinks=-1), r"paradigm\.sinks is -1"),
    ],
)
def test_wrong_values_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
