"""Metrics that a user brings: what is refused before a run, and what is made of their values after it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from test_summary import EARLY, FULL

from streamllm.metrics.own import MetricError, own_scores, own_values
from streamllm.metrics.ter import TER
from streamllm.records import Trace


class Units:
    """How many units were written.

    More of it.
    """

    def __init__(self, key: Any = "units", label: Any = "Units", digits: Any = 1, higher_is_better: Any = None):
        self.key, self.label, self.digits, self.higher_is_better = key, label, digits, higher_is_better

    def __call__(self, traces: Sequence[Trace]) -> float:
        return sum(len(trace.units) for trace in traces)


class Gives:
    key, label, digits, higher_is_better = "gives", "Gives", 0, True

    def __init__(self, value: Any):
        self._value = value

    def __call__(self, traces: Sequence[Trace]) -> Any:
        return self._value


def test_metric_is_called_with_all_traces_and_described_by_its_docstring() -> None:
    (score,) = own_scores([Units()])
    assert (score.key, score.label, score.digits, score.description) == (
        "units",
        "Units",
        1,
        "How many units were written",
    )
    assert own_values([Units()], [FULL, EARLY]) == {"units": 7.0}


@pytest.mark.parametrize("key", ["bleu", "al", "sentences", "bleu_signature", "folder"])
def test_key_that_something_else_has_is_refused(key: str) -> None:
    with pytest.raises(MetricError, match=rf"Units.key is '{key}'.*choose another"):
        own_scores([Units(key)])


@pytest.mark.parametrize("key", ["", "Mine", "my metric", "a/b", "a.b", "_a", 3, None])
def test_key_is_one_word(key: Any) -> None:
    with pytest.raises(MetricError, match="accepted are small letters"):
        own_scores([Units(key)])


def test_key_of_the_configuration_is_refused() -> None:
    with pytest.raises(MetricError, match="column of runs"):
        own_scores([Units("seed")], taken={"seed": 0})


def test_two_metrics_have_two_keys() -> None:
    with pytest.raises(MetricError, match="both have the key 'units'"):
        own_scores([Units(), Units()])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": ""}, "label"),
        ({"digits": -1}, "digits"),
        ({"digits": "2"}, "digits"),
        ({"higher_is_better": "no"}, "better"),
    ],
)
def test_what_is_shown_of_it_is_checked(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        own_scores([Units(**changed)])


def test_what_lacks_an_attribute_or_cannot_be_called_is_no_metric() -> None:
    class Keyless:
        pass

    with pytest.raises(MetricError, match="Keyless has no key"):
        own_scores([Keyless()])  # type: ignore[list-item]
    uncallable = Keyless()
    uncallable.__dict__ |= {"key": "a", "label": "A", "digits": 1, "higher_is_better": True}
    with pytest.raises(MetricError, match="cannot be called"):
        own_scores([uncallable])  # type: ignore[list-item]


@pytest.mark.parametrize(("value", "stored"), [(None, None), (math.nan, None), (3, 3.0), (np.float32(0.5), 0.5)])
def test_value_is_a_number_or_nothing(value: Any, stored: float | None) -> None:
    assert own_values([Gives(value)], [FULL]) == {"gives": stored}


@pytest.mark.parametrize("value", ["12", True, math.inf, [1.0], np.zeros(2)])
def test_value_that_is_no_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(MetricError, match=r"Gives \(metric 'gives'\) gave"):
        own_values([Gives(value)], [FULL])


def test_exception_names_the_metric_and_its_line() -> None:
    class Broken(Units):
        def __call__(self, traces: Sequence[Trace]) -> float:
            return 1 / 0

    with pytest.raises(
        MetricError, match=r"Broken \(metric 'units'\) failed with ZeroDivisionError.*line \d+ of .*test_own.py"
    ):
        own_values([Broken()], [FULL])


def test_ter_counts_edits_over_words_of_the_references() -> None:
    assert TER("de")([FULL]) == 0
    assert TER("de")([EARLY]) == 50  # a b x for a b c d


def test_ter_of_chinese_counts_characters() -> None:
    traces = [FULL.__class__(**{**FULL.__dict__, "prediction": "我喜欢狗", "reference": "我喜欢猫"})]
    assert TER("zh-CN")(traces) == 25
    assert TER("de")(traces) == 100


def test_ter_needs_a_language() -> None:
    with pytest.raises(ValueError, match="needs the target language"):
        TER(None)
