"""Delays that are known beforehand: from another system, an alignment, or the trace of another run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamllm.check import whole_number
from streamllm.contents import Contents, of_text
from streamllm.records import READ, WRITE, Action, Decide, Example, State

Delays = Sequence[int]


@dataclass(frozen=True)
class Oracle:
    """Write target unit t once the t-th of ``delays`` source units have been read.

    Unit t is written after g(t) = min(max(delays[:t]), |x|) units. A delay beyond the source, like a unit beyond the
    list, waits for the end of the source, when its footer has been fed; a delay of |x| does not.

    Args:
        delays: how many source units are read before each target unit is written: a list for every sentence alike, or
            a list for each by its id.

    Raises:
        ValueError: a delay is not an integer of at least 0, or a sentence has none (when it starts).
    """

    delays: Delays | Mapping[str, Delays]

    counts_from_start = True  # of a document

    def __post_init__(self) -> None:
        for name, delays in self.delays.items() if isinstance(self.delays, Mapping) else [(None, self.delays)]:
            of = "" if name is None else f" of example {name!r}"
            if not isinstance(delays, Sequence) or isinstance(delays, str | bytes):
                raise ValueError(f"delays{of} are {delays!r}; accepted is a list of numbers of units, such as [1,2,4]")
            for delay in delays:
                whole_number(f"a delay{of}", delay, 0, of="source units")

    def contents(self) -> Contents:
        """The delays, which may come from a file, as a digest."""
        delays = sorted(self.delays.items()) if isinstance(self.delays, Mapping) else list(self.delays)
        return {"policy": {"delays": of_text(repr(delays))}}

    def start(self, example: Example) -> Decide:
        delays = self._of(example)

        def decide(state: State) -> Action:
            due = state.written < len(delays) and state.read >= delays[state.written]
            return WRITE if state.source_done or due else READ

        return decide

    def _of(self, example: Example) -> Delays:
        if not isinstance(self.delays, Mapping):
            return self.delays
        if example.id not in self.delays:
            raise ValueError(
                f"there are no delays for example {example.id!r} (there are for {len(self.delays)} others): "
                "replay a run over the same data set"
            )
        return self.delays[example.id]


class Replay(Oracle):
    """The same with the delays of another run; a class of its own, so that plots and reports tell the two apart."""
