"""Many sentences at a time: the traces are those of one at a time, whatever ends, fails or cannot be batched."""

import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from conftest import ROOT
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import build

from streamllm import policies
from streamllm.batching import threads
from streamllm.batching.coroutines import Clock, run_all
from streamllm.batching.pool import Pool
from streamllm.batching.scheduler import in_sessions, translate_many
from streamllm.batching.sizes import threads_for
from streamllm.batching.trial import batching
from streamllm.data.sample import Sample
from streamllm.engine.limits import Limits
from streamllm.engine.lookahead import beam_search, logprobs
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import RALCP, Confidence, Full, HoldN, LocalAgreement, WaitK
from streamllm.policies.bounded import bounded
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import READ, WRITE, Decide, Example, Policy, State, Trace

LIMITS = Limits(length_extra=4)
TIE = 1e-3  # top-2 margin under which float32 may decide either way
BEAM_TIE = 1e-4  # the same of log-probabilities, between more candidates
PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
WORDS = ["the", "dog", "cats", "Größe", "你好", "<run>", "a,", "jumping."]
SENTENCES = ["a cat, the Größe: 你好.", "the", "", "dog dog dog dog dog dog", "the <run> a", "cats", "the dog runs"]


class RandomPolicy:
    """READ and WRITE as a die says."""

    def start(self, example: Example) -> Decide:
        dice = random.Random(example.id)

        def decide(state: State) -> Any:
            return dice.choice([READ, WRITE])

        return decide


class Watched(GroupMemory):
    """Notes the smallest margin between the likeliest token and the next, and between what a write head says and a
    threshold of these tests."""

    margin = float("inf")

    def likeliest(self, logits: mx.array) -> int:
        second, first = mx.sort(logits)[-2:].tolist()  # type: ignore[misc]
        self.margin = min(self.margin, first - second)
        return super().likeliest(logits)

    def judge(self, tokens: Sequence[int]) -> Any:
        logits, said = super().judge(tokens)
        self.margin = min([self.margin, *(abs(said.logit - np.log(p / (1 - p))) for p in (0.3, 0.5, 0.7))])
        return logits, said


class Margins:
    """Stands for `lookahead.beam_search`; notes the smallest difference of scores that a search hung on."""

    smallest = float("inf")

    def __call__(self, first: mx.array, step: Any, is_end: Any, size: int, max_tokens: int) -> list[list[int]]:
        ended: list[float] = []
        scores = logprobs(first[None])

        def note(length: int) -> None:
            best = np.argsort(-scores, axis=None)[: 2 * size + 1]
            self._take(scores.flat[best])
            tokens = best[:size] % scores.shape[1]
            ended.extend(scores.flat[i] / length for i, token in zip(best, tokens, strict=False) if is_end(int(token)))

        def noted(parents: list[int], tokens: list[int]) -> mx.array:
            nonlocal scores, length
            length += 1
            logits = step(parents, tokens)
            scores = scores[parents, tokens][:, None] + logprobs(logits)
            note(length)
            return logits

        length = 1
        note(length)
        found = beam_search(first, noted, is_end, size, max_tokens)
        self._take(np.sort(ended)[::-1])
        return found

    def _take(self, best_first: Any) -> None:
        self.smallest = min([self.smallest, *(-np.diff(best_first)).tolist()])


def examples_of(sentences: Sequence[str]) -> list[Example]:
    return [Example(str(i), sentence, "") for i, sentence in enumerate(sentences)]


def streaming(tokenizer: Any, seed: int = 2, end: float = 4.0, unit: Any = "word", **settings: Any) -> StreamingModel:
    model = tiny.Biased(tiny.random_model(seed, len(tokenizer)), tiny.sentence_bias(tokenizer, end))
    return StreamingModel(model, PromptTokens(PROMPT, tokenizer, "word", unit), tokenizer, **settings)


def run(
    model: StreamingModel, examples: Sequence[Example], policy: Policy, batch_size: int | None, limits: Limits = LIMITS
) -> Iterator[Trace]:
    return translate_many(model, examples, policy, limits, batch_size)


def without_times(trace: Trace) -> Trace:
    events = tuple(replace(event, seconds=0.0) for event in trace.events)
    return replace(trace, events=events, elapsed=(), stats=trace.stats | {"seconds": 0})


def outcomes(traces: Iterator[Trace]) -> dict[str, Trace]:
    found = [without_times(trace) for trace in traces]
    by_id = {trace.id: trace for trace in found}
    assert len(by_id) == len(found)
    return by_id


def near_ties(model: StreamingModel, examples: Sequence[Example], policy: Policy, limits: Limits) -> set[str]:
    """Examples that float32 may decide either way."""
    found = set()
    for example in examples:
        memory, beams = Watched(model.model, model.target_start), Margins()
        memory.write_head = model.write_head
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("streamllm.engine.session.beam_search", beams)
            translate(
                model.session(0, example.id, memory),
                example,
                policy,
                limits,
                target_unit=model.prompt.target_unit,
            )
        if memory.margin < TIE or beams.smallest < BEAM_TIE:
            found.add(example.id)
    return found


def compare(
    model: StreamingModel, examples: Sequence[Example], policy: Policy, batch_size: int, limits: Limits = LIMITS
) -> int:
    """Holds traces in batches against those one by one; returns how many could be compared."""
    alone = outcomes(run(model, examples, policy, 1, limits))
    together = outcomes(run(model, examples, policy, batch_size, limits))
    assert together.keys() == alone.keys()
    sure = alone.keys() - near_ties(model, examples, policy, limits)
    assert {name: together[name] for name in sure} == {name: alone[name] for name in sure}
    return len(sure)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(10, 10**6),
    sentences=st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=2, max_size=6),
    policy=st.sampled_from(
        [WaitK(1), WaitK(3), Full(), RandomPolicy(), RALCP(2, 0.6), HoldN(1, beam=3), policies.Learned(0.5)]
    ),
    batch_size=st.integers(2, 7),
    end=st.floats(0, 7),
    unit=st.sampled_from(["word", "character"]),
    target_start=st.sampled_from([0, 7, "after_source"]),
)
def test_traces_do_not_depend_on_the_batch_size(
    tokenizer: Any,
    seed: int,
    sentences: list[str],
    policy: Policy,
    batch_size: int,
    end: float,
    unit: str,
    target_start: Any,
) -> None:
    model = streaming(tokenizer, seed, end, unit, target_start=target_start, write_head=tiny.write_head(seed))
    compare(model, examples_of(sentences), policy, batch_size)


@pytest.mark.long
@pytest.mark.parametrize(
    "policy",
    [
        Confidence(0.2),
        policies.Entropy(3.0),
        policies.MultiK(1, 4, 0.1, 0.3),
        policies.WaitIfDiff(2),
        policies.WaitIfWorse(2),
        LocalAgreement(),
        policies.AlignAtt(1, heads=[[0, 1], [1, 2]]),
        policies.LSG(0.05, 0.3, 1, 3),
        policies.DST(0.6),
        policies.DrFrattn(0.3),
        policies.DOA(1),
        policies.Learned(0.3),
        policies.Learned(0.7),
        bounded(policies.Learned(0.5), 1, 3),
        LocalAgreement(beam=2),
        HoldN(1, beam=3),
        RALCP(3, 0.6),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_policies_that_ask_the_model_decide_the_same_in_a_batch(tokenizer: Any, policy: Policy) -> None:
    examples = examples_of(SENTENCES)
    models = [streaming(tokenizer, seed, 5.0, write_head=tiny.write_head(seed)) for seed in (1, 2)]
    sure = sum(compare(model, examples, policy, 4) for model in models)
    assert sure >= len(examples)


@pytest.mark.parametrize(
    "policy",
    [
        policies.Stride(2, 3),
        policies.Oracle([1, 1, 3, 4]),
        policies.Oracle({str(i): [i % 3 + 1, 2, 4] for i in range(len(SENTENCES))}),  # as policy=replay has them
    ],
    ids=["stride", "oracle", "replay"],
)
def test_policies_that_know_their_delays_write_the_same_in_a_batch(tokenizer: Any, policy: Policy) -> None:
    assert compare(streaming(tokenizer, 2, 5.0), examples_of(SENTENCES), policy, 4) >= len(SENTENCES) - 2


@pytest.mark.long
@pytest.mark.parametrize("policy", [WaitK(1), LocalAgreement()], ids=["waitk", "local_agreement"])
def test_an_endless_word_is_cut_in_a_batch_as_alone(tokenizer: Any, policy: Policy) -> None:
    letters = mx.array([0.0 if text.isalpha() else -1e9 for text in tiny.token_bytes(tokenizer)])
    endless = tiny.Biased(tiny.random_model(4, len(tokenizer)), letters)
    model = StreamingModel(endless, PromptTokens(PROMPT, tokenizer), tokenizer)
    examples, limits = examples_of(["the dog", "", "cats"]), Limits(length_ratio=2, length_extra=10, tokens_per_unit=5)
    assert compare(model, examples, policy, 2, limits) == len(examples)
    for trace in run(model, examples, policy, 2, limits):
        assert trace.events[-1].text == "max_tokens"
        limit = 5 * (2 * trace.source_units + 10)
        assert limit <= trace.stats["target_tokens"] < limit + 64  # after which a unit is cut


@pytest.mark.long
@pytest.mark.parametrize("policy", [WaitK(3), Full(), bounded(RALCP(3, 0.6, 2), 3)], ids=["waitk", "full", "ralcp"])
def test_the_bundled_model_translates_the_same_in_a_batch(policy: Policy) -> None:
    model = ModelConfig("bundled:tiny-en-de").load()
    assert compare(model, Sample(limit=12).load(), policy, 5) >= 11


def test_sampling_does_not_depend_on_the_batch(tokenizer: Any) -> None:
    model = streaming(tokenizer, end=2.0, temperature=1.0, top_p=0.9)
    examples = examples_of(SENTENCES)
    alone = outcomes(run(model, examples, WaitK(2), 1))
    assert outcomes(run(model, examples, WaitK(2), 3)) == alone
    assert outcomes(run(model, examples[::-1], WaitK(2), 5)) == alone


def test_times_are_shares_that_add_up_to_that_of_the_run(tokenizer: Any) -> None:
    started = time.perf_counter()
    traces = list(run(streaming(tokenizer, end=0.0), examples_of(SENTENCES), WaitK(2), len(SENTENCES)))
    assert 0 < sum(trace.stats["seconds"] for trace in traces) <= time.perf_counter() - started
    for trace in traces:
        times = [event.seconds for event in trace.events]
        assert times == sorted(times)


def test_a_sentence_is_yielded_when_it_ends_and_the_next_one_begins(tokenizer: Any) -> None:
    begun: list[str] = []

    class Noting(WaitK):
        def start(self, example: Example) -> Decide:
            begun.append(example.id)
            return super().start(example)

    sentences = ["the dog runs " * 3, "the", "a", "a"]
    seen = [(trace.id, len(begun)) for trace in run(streaming(tokenizer), examples_of(sentences), Noting(1), 2)]
    assert begun == ["0", "1", "2", "3"]
    assert seen[0][1] == 2  # none waited for others to end


def test_long_sentences_go_first(tokenizer: Any) -> None:
    begun: list[int] = []

    class Noting(WaitK):
        def start(self, example: Example) -> Decide:
            begun.append(len(example.source))
            return super().start(example)

    sentences = ["the dog", "a", "the dog runs and runs", "the", "the dog runs"]
    list(run(streaming(tokenizer), examples_of(sentences), Noting(1), 2))
    assert begun == sorted(map(len, sentences), reverse=True)


# What goes wrong


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_interrupt_loses_only_the_sentences_under_way_and_says_how_many(
    tokenizer: Any, batch_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    begun: list[str] = []

    class Interrupted(WaitK):
        def start(self, example: Example) -> Decide:
            begun.append(example.id)
            if example.id == "4":
                raise KeyboardInterrupt
            return super().start(example)

    examples = examples_of(["the"] * 8)
    traces: list[Trace] = []
    with pytest.raises(KeyboardInterrupt):
        traces.extend(run(streaming(tokenizer), examples, Interrupted(1), batch_size))
    assert {"0", "1"} <= {trace.id for trace in traces} <= {"0", "1", "2", "3"}
    lost = len(begun) - len(traces)
    assert 1 <= lost <= batch_size
    assert caplog.messages == [f"translations that were under way, and begin anew: {lost}"]


def test_who_stops_a_run_is_told_what_was_under_way(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = streaming(tokenizer)
    list(run(model, examples_of(["the"] * 4), WaitK(1), 3))
    assert caplog.messages == []  # all have ended
    traces = run(model, examples_of(["the", *["the dog runs and runs"] * 2]), WaitK(1), 3)
    next(traces)
    traces.close()  # type: ignore[attr-defined]
    assert caplog.messages == ["translations that were under way, and begin anew: 2"]


@pytest.mark.parametrize("how", ["closed", "failed", "interrupted in the model"])
def test_no_coroutine_outlives_its_run(tokenizer: Any, how: str) -> None:
    ended: list[int] = []
    model = tiny.random_model(3, len(tokenizer))

    def task(i: int) -> Any:
        def live(row: Any, clock: Clock) -> int:
            try:
                for step in range(5):
                    row.read([1])
                    row.write([2])
                    if i == 1 and step == 2 and how == "failed":
                        raise LookupError("what the policy raised")
                    if i == 0 and step == 3:
                        return i
                return i
            finally:
                ended.append(i)

        return live

    class Interrupting(Pool):
        steps = 0

        def step(self, rows: Any) -> None:
            self.steps += 1
            if how == "interrupted in the model" and self.steps == 3:
                raise KeyboardInterrupt
            super().step(rows)

    pool = Interrupting(model, 3)
    results = run_all(pool, [task(i) for i in range(5)])
    if how == "closed":
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(LookupError if how == "failed" else KeyboardInterrupt):
            list(results)
    assert sorted(ended) == [0, 1, 2]
    assert [pool.open() for _ in range(3)]
    assert not pool.has_room


# What cannot be batched


@pytest.mark.parametrize("paradigm", [Interleaved(), Batch(), BatchPositions()])
def test_other_paradigms_are_translated_one_by_one(
    tokenizer: Any, paradigm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, examples = streaming(tokenizer, paradigm=paradigm), examples_of(SENTENCES[:3])
    with caplog.at_level(logging.INFO, "streamllm"):
        together = list(run(model, examples, WaitK(2), 3))
    assert [trace.id for trace in together] == ["0", "1", "2"]
    assert type(paradigm).__name__ in caplog.text


@pytest.mark.parametrize(("batch_size", "said"), [(None, False), (3, True)])
def test_batch_size_is_named_only_to_who_gave_one(
    tokenizer: Any, batch_size: int | None, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "streamllm"):
        list(run(streaming(tokenizer, paradigm=Batch()), examples_of(["the", "a"]), WaitK(1), batch_size))
    assert "sentences are translated one by one" in caplog.text
    assert ("batch_size is 3, but" in caplog.text, "batch_size" in caplog.text) == (said, said)


@pytest.mark.parametrize(
    ("position", "reason"),
    [(int, "takes no batch of positions"), (lambda offset: int(offset[0].item()), "gives other logits in a batch")],
    ids=["fails", "is wrong"],
)
def test_a_model_that_takes_one_position_for_all_rows_is_found_out(tokenizer: Any, position: Any, reason: str) -> None:
    class View:
        """A cache as such a model sees it."""

        def __init__(self, cache: Any):
            self._cache = cache

        @property
        def offset(self) -> Any:
            offset = self._cache.offset
            return offset if isinstance(offset, int) else position(offset)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._cache, name)

    class OnePosition(tiny.Biased):
        def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
            return super().__call__(tokens, [View(each) for each in cache])

    model = streaming(tokenizer)
    assert batching(model).why_not is None
    model.model = OnePosition(model.model.model, model.model.bias)
    assert reason in str(batching(model).why_not)


def test_without_a_batch_size_it_is_one_that_suits_the_device(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    class Noting(Pool):
        def __init__(self, model: Any, rows_: int, *args: Any, **kwargs: Any):
            rows.append(rows_)
            super().__init__(model, rows_, *args, **kwargs)

    monkeypatch.setattr("streamllm.batching.trial.Pool", Noting)
    examples = [Example(str(i), "the", "") for i in range(130)]
    monkeypatch.setattr("streamllm.batching.sizes.cores", lambda: 2)
    monkeypatch.delenv("STREAMLLM_THREADS", raising=False)
    for device in (mx.cpu, mx.gpu):
        monkeypatch.setattr("streamllm.batching.sizes.on_cpu", lambda device=device: device == mx.cpu)
        next(run(streaming(tokenizer), examples, WaitK(1), None))
    assert rows == [2, 64, 64, 2, 128]  # one is tried on two sentences


@pytest.mark.parametrize(
    ("sentences", "variable", "in_numpy", "threads"),
    [
        (64, None, None, 4),
        (17, None, None, 2),
        (3, None, None, 1),
        (64, "1", None, 1),
        (64, None, 1 << 20, 1),
        (64, None, 1 << 30, 4),
    ],
)
def test_threads_share_a_batch_where_that_pays(
    sentences: int, variable: str | None, in_numpy: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamllm.batching.sizes.cores", lambda: 4)
    monkeypatch.delenv("STREAMLLM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("STREAMLLM_THREADS", variable)
    assert threads_for(sentences, in_numpy) == (threads if mx.default_device() == mx.Device(mx.cpu) else 1)


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamllm.batching.scheduler.threads_for", lambda *batch: 3)


@pytest.mark.long
@pytest.mark.parametrize("policy", [WaitK(2), Full(), LocalAgreement(), RALCP(2, 0.6), Confidence(0.5)])
def test_threads_give_the_traces_of_one(three_threads: None, tokenizer: Any, policy: Policy) -> None:
    sentences = [" ".join(SENTENCES[j % 7] for j in range(i, i + 1 + i % 3)) for i in range(24)]
    assert compare(streaming(tokenizer), examples_of(sentences), policy, 9) >= 8


def test_the_times_of_sentences_in_threads_add_up_to_that_of_the_run(three_threads: None, tokenizer: Any) -> None:
    started = time.perf_counter()
    traces = list(run(streaming(tokenizer), examples_of(SENTENCES * 4), WaitK(2), 9))
    assert sum(float(trace.stats["seconds"]) for trace in traces) < 1.05 * (time.perf_counter() - started)


ENDLESS = Limits(length_ratio=0, length_extra=10**6, tokens_per_unit=None)


class Writes:
    """Writes on and on, by a model that never ends, but for the first sentences, which have one word."""

    def start(self, example: Example) -> Decide:
        return lambda state: READ if state.read == 0 else WRITE


def many_endless(model: StreamingModel, stop: Any) -> Iterator[Trace]:
    """Three that end at once among those that do not, which call ``stop`` at some point."""

    def translate_one(session: Session, example: Example, clock: Clock) -> Trace:
        stop(example)
        limits = LIMITS if int(example.id) < 3 else ENDLESS
        return translate(session, example, Writes(), limits, clock=clock)

    return in_sessions(model, examples_of(["the dog"] * 30), translate_one, 9)


def test_what_fails_in_a_thread_is_raised_without_waiting_for_sentences(three_threads: None, tokenizer: Any) -> None:
    def stop(example: Example) -> None:
        if example.id == "8":
            raise ValueError("eight")

    with pytest.raises(ValueError, match="eight"):
        list(many_endless(streaming(tokenizer, end=-1e9), stop))


def test_a_run_in_threads_can_be_closed_at_any_time(three_threads: None, tokenizer: Any) -> None:
    traces = many_endless(streaming(tokenizer, end=-1e9), lambda example: None)
    next(traces)
    traces.close()  # type: ignore[attr-defined]


def test_a_thread_that_cannot_begin_ends_the_run_and_not_the_process(
    three_threads: None, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is waited for those that never began, nor are those that did left behind."""
    monkeypatch.setattr("streamllm.batching.threads._workers", threads._Workers())
    begin, begun = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        begin(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            list(many_endless(streaming(tokenizer, end=-1e9), lambda example: None))
    assert len(list(run(streaming(tokenizer), examples_of(["the dog"] * 9), WaitK(1), 9))) == 9


def test_threads_are_used_again(three_threads: None, tokenizer: Any) -> None:
    model = streaming(tokenizer)
    counts = []
    for _ in range(3):
        assert len(list(run(model, examples_of(["the dog"] * 9), WaitK(1), 9))) == 9
        counts.append(threading.active_count())
    assert len(set(counts)) == 1


def test_ctrl_c_gives_what_was_found_and_ends(
    three_threads: None, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(SimpleQueue):  # type: ignore[type-arg]
        calls = 0

        def get(self, *arguments: Any) -> Any:
            Interrupted.calls += 1
            if Interrupted.calls == 2:
                raise KeyboardInterrupt
            return super().get(*arguments)

    found: list[Trace] = []
    model = streaming(tokenizer)
    list(run(model, examples_of(["the dog"] * 9), WaitK(1), 9))  # the threads are there
    monkeypatch.setattr("streamllm.batching.threads.SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.extend(run(model, examples_of(["the dog"] * 300), WaitK(1), 9))
    assert 1 <= len(found) < 300


ONE_LEFT = """
import sys, threading
from streamllm.batching import threads

gone = threading.Event()

def part(team, number):
    if number:
        yield number  # and this one ends
        gone.set()
        return
    while not team.stopped:
        gone.wait(0.01)

found = threads.in_threads(2, part)
next(found)
gone.wait(30)
while not threads._workers._idle:
    gone.wait(0.01)
sys.exit(3)
"""


AT_EXIT = """
import sys
from pathlib import Path
import tiny
import test_scheduler as t
from streamllm.batching import scheduler

scheduler.threads_for = lambda *batch: 3
tiny.byte_level_tokenizer(Path(sys.argv[1]))
traces = t.many_endless(t.streaming(tiny.load(Path(sys.argv[1])), end=-1e9), lambda example: None)
next(traces)
sys.exit(3)
"""


@pytest.mark.parametrize("code", ["AT_EXIT", "ONE_LEFT"])
def test_a_process_ends_while_its_threads_translate(tmp_path: Path, code: str) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
    ended = subprocess.run(
        [sys.executable, "-c", globals()[code], str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 3, ended.stderr


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family.name in ("deepseek_v3", "llama", "gpt_bigcode")]
)
def test_how_sentences_are_batched_is_found_out(family: Any, tokenizer: Any) -> None:
    model = streaming(tokenizer)
    model.model = build(family)
    way = batching(model)
    assert (way.why_not is None, way.packs) == {
        "deepseek_v3": (True, False),
        "llama": (True, True),
        "gpt_bigcode": (False, False),
    }[family.name]


def test_a_batch_of_no_sentences_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        list(run(streaming(tokenizer), examples_of(["the"]), WaitK(1), 0))


def test_a_run_is_the_same_in_batches(model_folder: Path, tmp_path: Path) -> None:
    from streamllm.evaluation.runner import run_experiment
    from streamllm.runs.load import load_traces

    runs = []
    for batch_size in (1, 4):
        root = tmp_path / str(batch_size)
        run_experiment(
            config={"batch_size": batch_size},
            name="run",
            root=root,
            model=ModelConfig(str(model_folder)),
            prompt=PROMPT,
            policy=WaitK(2),
            dataset=Sample(limit=6),
            limits=Limits(length_extra=4),
            batch_size=batch_size,
        )
        (folder,) = root.iterdir()
        runs.append((folder.name, [without_times(trace) for trace in load_traces(folder)]))
    one, many = runs
    assert one == many
