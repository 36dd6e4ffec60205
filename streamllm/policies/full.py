"""Offline translation: the quality to aim at, at the highest latency."""

from dataclasses import dataclass

from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class Full:
    """Read the whole source, then write."""

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        return WRITE if state.source_done else READ
