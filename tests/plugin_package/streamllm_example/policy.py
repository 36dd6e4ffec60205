"""A policy that reads a share of the source before it writes."""

from dataclasses import dataclass
from math import ceil

from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class ReadShare:
    """Read ``share`` of the source, then write and read in turn."""

    share: float

    def start(self, example: Example) -> Decide:
        first = ceil(self.share * len(example.source.split()))

        def decide(state: State) -> Action:
            return WRITE if state.source_done or state.read >= first + state.written else READ

        return decide
