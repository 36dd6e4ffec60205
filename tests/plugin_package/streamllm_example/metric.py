"""A metric: how long the sources are."""

from collections.abc import Sequence

from streamllm.records import Trace


class SourceLength:
    """The mean length of a source in units."""

    key, label, digits, higher_is_better = "source_length", "source units", 2, True

    def __call__(self, traces: Sequence[Trace]) -> float | None:
        return sum(trace.source_units for trace in traces) / len(traces) if traces else None
