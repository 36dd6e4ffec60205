"""policy=learned in documents: batches give what one document at a time gives, and a sentence that is held keeps its
full stop."""

from typing import Any

import pytest
import tiny

from streamllm.batching.scheduler import translate_many
from streamllm.data.sample import Sample
from streamllm.engine.limits import Limits
from streamllm.engine.paradigms.documents import Continuous, Sentences
from streamllm.models.loading import ModelConfig
from streamllm.policies import Learned
from streamllm.records import Trace

TALKS = Sample(sentences_per_document=2, limit=3).load()


def outcome(trace: Trace) -> tuple[Any, ...]:
    return trace.id, trace.units, trace.delays, [(event.kind, event.text) for event in trace.events]


@pytest.mark.parametrize("paradigm", [Sentences(), Continuous()], ids=["sentences", "continuous"])
def test_documents_do_not_depend_on_the_batch_size(paradigm: Any) -> None:
    model = ModelConfig("bundled:tiny-en-de").load(paradigm=paradigm)
    model.write_head = tiny.write_head(0, 160)
    alone, batched = (list(translate_many(model, TALKS, Learned(0.5), Limits(), size)) for size in (1, 3))
    assert sorted(map(outcome, alone)) == sorted(map(outcome, batched))
    assert all(any(event.kind == "sentence" for event in trace.events) for trace in alone)
    if isinstance(paradigm, Sentences):
        for trace in alone:
            assert sum(unit.endswith(".") for unit in trace.units) == 2
