"""A source of several sentences in sentence mode: its target ends with the first, and each read after that costs one
forward with the prediction that follows, alone and in a batch; nothing else is different."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from streamllm.batching.scheduler import translate_many
from streamllm.data.sample import Sample
from streamllm.engine import session as sessions
from streamllm.engine.limits import Limits
from streamllm.engine.loop import stream
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.models.loading import ModelConfig
from streamllm.policies import AlignAtt, LocalAgreement, WaitK
from streamllm.records import Policy, Trace

POLICIES: dict[str, Callable[[], Policy]] = {
    "wait-k": lambda: WaitK(3),
    "AlignAtt, which asks where the model looks": lambda: AlignAtt(2),
    "local agreement, which asks for a draft": LocalAgreement,
}
policies = pytest.mark.parametrize(
    "policy",
    [pytest.param(of, id=name, marks=pytest.mark.long if name != "wait-k" else ()) for name, of in POLICIES.items()],
)
TALKS = Sample(sentences_per_document=6, limit=2).load()


@pytest.fixture(scope="module")
def model() -> Any:
    return ModelConfig("bundled:tiny-en-de").load()


def after_the_last_unit(model: Any, policy: Policy) -> tuple[int, int]:
    """Reads, and forward passes."""
    session, reads, passes = model.session(), 0, 0
    for event, _ in stream(session, TALKS[0].source.split(), policy.start(TALKS[0])):
        if event.kind == "write":
            reads, passes = 0, session.forward_passes
        reads += event.kind in ("read", "forced_read")
    return reads, session.forward_passes - passes


@policies
def test_a_read_of_a_finished_sentence_costs_at_most_one_and_a_fifth_forwards_with_its_prediction(
    model: Any, policy: Callable[[], Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, passes = after_the_last_unit(model, policy())
    assert reads > 40, "the target goes on: the test needs another source"
    assert passes <= 1.2 * reads
    monkeypatch.setattr(sessions, "ENDED_READS", 10**9)
    assert after_the_last_unit(model, policy())[1] >= 2 * reads, "what was saved"


def outcomes(traces: Any) -> list[tuple[Any, ...]]:
    """All but times and counts of forwards."""

    def outcome(trace: Trace) -> tuple[Any, ...]:
        return trace.id, trace.units, trace.delays, [(event.kind, event.text) for event in trace.events]

    return sorted(map(outcome, traces))


@policies
def test_reads_that_wait_change_no_event_and_are_counted_alike_in_a_batch(
    model: Any, policy: Callable[[], Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, batched = (list(translate_many(model, TALKS, policy(), Limits(), size, 0)) for size in (1, 2))
    monkeypatch.setattr(sessions, "ENDED_READS", 10**9)
    at_once = list(translate_many(model, TALKS, policy(), Limits(), 1, 0))
    assert outcomes(alone) == outcomes(batched) == outcomes(at_once)
    counts = [{trace.id: trace.stats | {"seconds": 0} for trace in traces} for traces in (alone, batched)]
    assert counts[0] == counts[1]


@pytest.mark.long
def test_reads_wait_where_both_streams_are_one_sequence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelConfig("bundled:tiny-en-de").load(paradigm=Interleaved())
    waiting = list(translate_many(model, TALKS, WaitK(3), Limits(), 1, 0))
    monkeypatch.setattr(sessions, "ENDED_READS", 10**9)
    at_once = list(translate_many(model, TALKS, WaitK(3), Limits(), 1, 0))
    assert outcomes(waiting) == outcomes(at_once)
    assert waiting[0].stats["forward_passes"] < 0.75 * at_once[0].stats["forward_passes"]


def test_the_reads_of_a_short_sentence_are_fed_at_once(model: Any) -> None:
    """So that they are done while the next unit is awaited."""
    session = model.session()
    costs = []
    for event, _ in stream(session, TALKS[0].source.split(), WaitK(3).start(TALKS[0])):
        if event.kind == "forced_read":
            costs.append(session.forward_passes)
    steps = [after - before for before, after in pairwise(costs)]
    assert steps[: sessions.ENDED_READS - 2] == [2] * (sessions.ENDED_READS - 2)
    assert set(steps[sessions.ENDED_READS + 1 :]) == {1}
