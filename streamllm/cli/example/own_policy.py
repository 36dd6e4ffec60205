"""A read/write policy: it writes once a clause has been read."""

from dataclasses import dataclass

from streamllm.records import READ, WRITE, Action, Decide, Example, State


@dataclass(frozen=True)
class Clauses:
    """Read to the end of a clause, but at most ``patience`` units ahead of what is written; then write."""

    patience: int

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"patience is {self.patience}; it is a number of units, at least 1")

    def start(self, example: Example) -> Decide:
        def decide(state: State) -> Action:
            ahead = state.read - state.written
            at_clause_end = ahead > 0 and state.source[-1].endswith((",", ";", ":", "."))
            return WRITE if at_clause_end or ahead >= self.patience else READ

        return decide
