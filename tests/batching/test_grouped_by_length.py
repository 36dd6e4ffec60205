"""Sentences that are far longer than the others have a memory of their own, where rows are as long as the longest."""

from itertools import pairwise
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from streamllm.batching import trial
from streamllm.batching.lengths import by_length
from streamllm.batching.pool import Pool
from streamllm.batching.scheduler import Job, by_policy, jobs_together, translate_many
from streamllm.engine.limits import Limits
from streamllm.models.model import StreamingModel
from streamllm.policies import Full
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example

SHORT = [Example(str(i), "the dog a", "") for i in range(7)]
LONG = Example("long", " ".join(["the dog"] * 60), "")


def test_groups_by_hand() -> None:
    """The middle of 1, 2, 3, 8, 100 is 3: 100 alone is more than four times that."""
    assert by_length([3, 100, 1, 8, 2], int, 0) == [[100], [3, 1, 8, 2]]
    assert by_length([1] * 12 + [5], int, 0) == [[5], [1] * 12]
    assert by_length([5, 300, 20, 1, 1, 1, 1, 1], int, 0) == [[300], [5, 20], [1] * 5]
    assert by_length([], int, 0) == []


@given(st.lists(st.integers(1, 500)))
def test_each_is_in_one_group_in_its_order_and_groups_are_disjoint_in_length(lengths: list[int]) -> None:
    groups = by_length([*enumerate(lengths)], lambda item: item[1], 20)
    assert sorted(item for group in groups for item in group) == [*enumerate(lengths)]
    for group in groups:
        assert group == sorted(group)
    for longer, shorter in pairwise(groups):
        assert min(length for _, length in longer) > max(length for _, length in shorter)


@pytest.mark.parametrize("jobs", [False, True])
def test_short_rows_are_not_as_long_as_the_longest(tokenizer: Any, monkeypatch: pytest.MonkeyPatch, jobs: bool) -> None:
    monkeypatch.setattr(trial.Decoder, "of", lambda model: None)  # MLX computes
    model = StreamingModel(
        tiny.Biased(tiny.random_model(3, len(tokenizer)), tiny.sentence_bias(tokenizer, 2.0)),
        PromptTokens(Prompt(target_header="German:"), tokenizer),
        tokenizer,
    )
    pools: list[tuple[int, Pool]] = []
    open_pool = trial.Batching.pool

    def noted(self: trial.Batching, model: StreamingModel, rows: int) -> Pool:
        pools.append((rows, open_pool(self, model, rows)))
        return pools[-1][1]

    examples = [*SHORT[:4], LONG, *SHORT[4:]]
    alone = {trace.id: trace.prediction for trace in translate_many(model, examples, Full(), Limits(), 1)}
    monkeypatch.setattr(trial.Batching, "pool", noted)
    if jobs:
        job = Job(examples, by_policy(model, Full(), Limits()))
        outcomes: list[Any] = [outcome for _, outcome in jobs_together(model, [job], 8)]
    else:
        outcomes = [*translate_many(model, examples, Full(), Limits(), 8)]
    assert {trace.id: trace.prediction for trace in outcomes} == alone
    (one, of_long), (rows, of_short) = pools
    assert (one, rows) == (1, 7)
    assert of_short.columns * 2 < of_long.columns
