"""A metric: a function of the traces of a run, with a name and a direction."""

from collections.abc import Sequence
from dataclasses import dataclass

from streamllm.records import Trace


@dataclass(frozen=True)
class Early:
    """The share of target units (in percent) that were written before the whole source had been read."""

    key: str = "early"
    label: str = "written early [%]"
    digits: int = 1
    higher_is_better: bool = True

    def __call__(self, traces: Sequence[Trace]) -> float | None:
        early = [delay < trace.source_units for trace in traces for delay in trace.delays]
        return 100 * sum(early) / len(early) if early else None
