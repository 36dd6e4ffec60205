"""What tuning maximises: the metric within the budget, the excess beyond it."""

from typing import Any

import pytest

from streamllm.evaluation.tuning import Tuning


def test_without_a_budget_it_is_the_metric() -> None:
    assert Tuning()({"bleu": 31.4, "laal": 99.0}) == 31.4
    assert Tuning("chrf")({"bleu": 31.4, "chrf": 56.0}) == 56.0


def test_a_run_within_the_budget_scores_by_its_metric_and_above_any_that_breaks_it() -> None:
    value = Tuning(laal_budget=3)
    kept, worst = value({"bleu": 31.4, "laal": 3.0}), value({"bleu": 0.0, "laal": 2.0})
    slightly, far = value({"bleu": 60.0, "laal": 3.5}), value({"bleu": 60.0, "laal": 9.0})
    assert kept == 31.4
    assert kept > worst > slightly > far
    assert slightly == -0.5


@pytest.mark.parametrize("budget", [0, -1, True, "3"])
def test_a_budget_that_is_no_number_of_units_is_refused(budget: Any) -> None:
    with pytest.raises(ValueError, match=r"tuning\.laal_budget is"):
        Tuning(laal_budget=budget)


@pytest.mark.parametrize(("metrics", "name"), [({"laal": 2.0}, "bleu"), ({"bleu": 3.0, "laal": None}, "laal")])
def test_what_the_run_does_not_have_is_named(metrics: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"as '{name}'"):
        Tuning(laal_budget=3)(metrics)
