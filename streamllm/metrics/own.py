"""Metrics that a user brings: an object with a name that takes all traces of a run and gives one number.

Invariant: whatever such a metric does, what was translated stays, and its error names it."""

import math
import traceback
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Protocol

from streamllm.metrics.scores import TEXTS, Score, own_score, scores
from streamllm.records import Trace

RESERVED = frozenset({"folder", "name", "digest", "env", "undefined", *TEXTS})
"""Keys of other columns that stand beside the scores of a run (`load_runs`, W&B)."""


class Metric(Protocol):
    """A metric of a whole run. ``metric=mine`` chooses that of ``conf/metric/mine.yaml``:

        # @package metrics.mine
        _target_: mine.Mine

    ``key`` is its name in metrics.json, ``label`` the one in tables and on axes, ``digits`` how many it has there after
    the point; ``higher_is_better`` is None where neither way is. The first line of the docstring of its class explains
    it in the report. A text ``signature``, if it has one, stands beside the value as ``KEY_signature``, and
    ``of_sentences``, the scores of the sentences by id, are kept in the file ``KEY.jsonl`` of the run. A value that is
    no mean of them may say ``formula`` and ``sums``, as `streamllm.metrics.asked.OfCorpus` does.
    """

    key: str
    label: str
    digits: int
    higher_is_better: bool | None

    def __call__(self, traces: Sequence[Trace]) -> float | None:
        """The value over all traces of a run, in the order of the data set; None or nan where it is not defined."""
        ...


class MetricError(ValueError):
    """An own metric that cannot be used, or that failed; the message names it."""


def own_scores(metrics: Sequence[Metric], taken: Iterable[str] = ()) -> list[Score]:
    """What is shown of own metrics.

    Args:
        taken: further keys that they may not have, such as those of the run's configuration.

    Raises: MetricError: one of them lacks something, or has a key that something else has.
    """
    known = scores(documents=True)
    used: dict[str, Metric] = {}
    found: list[Score] = []
    for metric in metrics:
        name = _name(metric)
        key = _attribute(metric, "key", "text such as 'ter'")
        score = _score(metric, key)
        if key in known:
            raise MetricError(
                f"{name}.key is {key!r}, which is a score of streamllm ({known[key].label}): choose another"
            )
        if key in RESERVED or key in set(taken):
            raise MetricError(f"{name}.key is {key!r}, which names a column of runs already: choose another")
        if key in used:
            raise MetricError(f"{name} and {_name(used[key])} both have the key {key!r}: give each its own")
        used[key] = metric
        found.append(score)
    return found


def own_values(metrics: Sequence[Metric], traces: Sequence[Trace]) -> dict[str, float | None]:
    """The value of each metric over ``traces``, by its key.

    Raises: MetricError: one of them failed, or gave what is no number; or one raised it itself.
    """
    values: dict[str, float | None] = {}
    for metric in metrics:
        try:
            value: Any = metric(traces)
        except MetricError:
            raise
        except Exception as error:  # whatever somebody's code may raise
            frames = traceback.extract_tb(error.__traceback__)
            place = [frame for frame in frames if "site-packages" not in frame.filename][-1]
            raise MetricError(
                f"{_name(metric)} (metric {metric.key!r}) failed with {type(error).__name__}: {error} (line "
                f"{place.lineno} of {place.filename}); every translation is kept, so mend it and start the same "
                "command again"
            ) from error
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool) or math.isinf(value)):
            raise MetricError(
                f"{_name(metric)} (metric {metric.key!r}) gave {value!r:.80}; a finite number is needed, or None where "
                "it is not defined; every translation is kept, so mend it and start the same command again"
            )
        values[metric.key] = None if value is None or math.isnan(value) else float(value)
    return values


def signatures(metrics: Sequence[Metric]) -> dict[str, str]:
    """``KEY_signature`` of each metric that has a signature."""
    found = {metric.key: getattr(metric, "signature", None) for metric in metrics}
    return {f"{key}_signature": text for key, text in found.items() if isinstance(text, str)}


def _score(metric: Metric, key: Any) -> Score:
    label = _attribute(metric, "label", "text for tables and axes")
    digits = _attribute(metric, "digits", "how many stand after the point")
    better = _attribute(metric, "higher_is_better", "True, False or None")
    name = _name(metric)
    first, *_ = (type(metric).__doc__ or "").strip().split("\n")
    if not callable(metric):
        raise MetricError(f"{name} cannot be called: it needs __call__(traces), which returns a number or None")
    try:
        return own_score(key, label, digits, better, first.rstrip("."))
    except ValueError as error:
        raise MetricError(f"{name}.{error}") from error


def _attribute(metric: Any, name: str, what: str) -> Any:
    try:
        return getattr(metric, name)
    except AttributeError as error:
        raise MetricError(
            f"{_name(metric)} has no {name} ({what}); a metric has key, label, digits, "
            "higher_is_better and __call__(traces)"
        ) from error


def _name(metric: object) -> str:
    kind = metric if isinstance(metric, type) else type(metric)
    return f"{kind.__module__}.{kind.__qualname__}"
