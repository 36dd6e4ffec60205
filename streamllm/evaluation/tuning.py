"""What tuning maximises: one metric of a run, with a budget for its latency. Invariant: no run that breaks the budget
ever scores above one that keeps it."""

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tuning:
    """The value of a run, larger is better: its ``metric`` where its LAAL is within the budget, else how far it is
    over, as a negative number.

    These are the feasibility rules of Deb (2000, doi 10.1016/S0045-7825(99)00389-8): what keeps the budget is compared
    by the metric, what breaks it by how much, and the former always wins. No weight has to be chosen, and no point is
    bought with a little too much latency.

    Args:
        metric: a key of ``metrics.json`` where larger is better and nothing is negative: bleu, chrf.
        laal_budget: in units; None is no budget.

    Raises:
        ValueError: the budget is not positive.
    """

    metric: str = "bleu"
    laal_budget: float | None = None

    def __post_init__(self) -> None:
        budget = self.laal_budget
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int | float) or not budget > 0):
            raise ValueError(
                f"tuning.laal_budget is {budget!r}; accepted are a number of units above 0 and null (no budget)"
            )

    def check(self, known: Collection[str]) -> None:
        """Before a run: Raises: ValueError: none of the scores that it will have is ``metric``."""
        if self.metric not in known:
            close = difflib.get_close_matches(self.metric, known)
            meant = f"did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(f"tuning.metric is {self.metric!r}; {meant}accepted are {', '.join(known)}")

    def __call__(self, metrics: Mapping[str, Any]) -> float:
        """The value of a run.

        Raises:
            ValueError: the run has no such metric, or a budget is set and its LAAL is undefined.
        """
        value = self._number(metrics, self.metric)
        if self.laal_budget is None:
            return value
        over = self._number(metrics, "laal") - self.laal_budget
        return -over if over > 0 else value

    @staticmethod
    def _number(metrics: Mapping[str, Any], key: str) -> float:
        value = metrics.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            numbers = ", ".join(name for name, other in metrics.items() if isinstance(other, int | float))
            raise ValueError(f"the run has {value!r} as {key!r}, so it cannot be tuned; what it has: {numbers}")
        return float(value)
