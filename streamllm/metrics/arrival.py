"""Latency in seconds on a simulated clock: source units arrive at a steady rate, and compute takes time, too.

Deterministic with a cost model; with recorded times it depends on the machine.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from streamllm.metrics.behaviour import READS
from streamllm.metrics.latency import Metric, average_lagging, latency, length_adaptive_average_lagging
from streamllm.records import Event, Trace
from streamllm.units import Unit, common_prefix, settled, split

KEYS = ("al_seconds", "laal_seconds", "al_ca", "laal_ca")
_LAGGING: dict[str, Metric] = {"al": average_lagging, "laal": length_adaptive_average_lagging}


@dataclass(frozen=True)
class ArrivalClock:
    """When source units arrive, and what compute costs.

    Args:
        words_per_second: source unit j (from 1) is there at ``j / words_per_second`` seconds. Characters per second
            where the unit of the source is a character.
        seconds_per_read, seconds_per_write: the cost model: the compute time of one READ (the one that finds the end
            of the source included) and of one target unit. A draft costs what its units cost, and writing them before
            the next READ is then free. An output that is revised costs what its units cost that were not shown before,
            and at least one. Give both, or neither: then the recorded times are taken.
    """

    words_per_second: float
    seconds_per_read: float | None = None
    seconds_per_write: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.words_per_second < math.inf:
            raise ValueError(f"words_per_second is {self.words_per_second}; accepted are finite numbers above 0")
        costs = {"seconds_per_read": self.seconds_per_read, "seconds_per_write": self.seconds_per_write}
        given = {name: cost for name, cost in costs.items() if cost is not None}
        if len(given) == 1:
            raise ValueError(
                f"{costs} is half a cost model; give both times, or null for both to take the recorded ones"
            )
        for name, cost in given.items():
            if not 0 <= cost < math.inf:
                raise ValueError(f"{name} is {cost}; accepted are finite numbers of 0 or more, or null")

    @property
    def measured(self) -> bool:
        """Whether compute times are those of this machine, not of the cost model."""
        return self.seconds_per_read is None or self.seconds_per_write is None

    def arrival(self, unit: int) -> float:
        """Seconds at which source unit ``unit`` (from 1) is there, and with it all before it."""
        return unit / self.words_per_second

    def compute(self, trace: Trace, unit: Unit) -> list[float] | None:
        """Seconds of compute of each event; ``unit`` is that of the target. None where no times were recorded."""
        if self.seconds_per_read is not None and self.seconds_per_write is not None:
            return _modelled(trace.events, unit, self.seconds_per_read, self.seconds_per_write)
        times = [0.0, *(event.seconds for event in trace.events)]
        if not any(times):
            return None
        return [after - before for before, after in pairwise(times)]


def arrival_clock(
    words_per_second: float | None = None,
    seconds_per_read: float | None = None,
    seconds_per_write: float | None = None,
) -> ArrivalClock | None:
    """The clock of a configuration; None, so no clock, while ``words_per_second`` is null.

    Args:
        words_per_second: how fast the source is spoken; None is no clock.
        seconds_per_read: what a READ costs; None takes the times of this machine.
        seconds_per_write: what a WRITE costs; None takes the times of this machine.

    Raises: ValueError: costs without a rate, or as `ArrivalClock`.
    """
    if words_per_second is not None:
        return ArrivalClock(words_per_second, seconds_per_read, seconds_per_write)
    if seconds_per_read is not None or seconds_per_write is not None:
        raise ValueError(
            f"words_per_second is null but seconds_per_read is {seconds_per_read} and seconds_per_write "
            f"{seconds_per_write}; costs need a clock: set words_per_second (2.5, say) too"
        )
    return None


def ideal_delays(trace: Trace, clock: ArrivalClock) -> list[float]:
    """Seconds at which each target unit could have been written if compute took no time: the arrival of the last
    source unit read by then."""
    return [clock.arrival(delay) for delay in trace.delays]


def computation_aware_delays(trace: Trace, clock: ArrivalClock, unit: Unit) -> list[float] | None:
    """Seconds at which each target unit was whole, replaying the events of the trace on the clock.

    The clock starts at 0 when the source does. A READ of source unit j begins at max(clock, arrival of j); every
    other event begins at once, the end of the source being known with its last unit. Each then takes its compute
    time, and a recorded one includes what was computed since the event before: to decide, or to meet an end token.
    ``unit`` is that of the target.

    A unit of an output that is revised was whole when it was shown for the last time in its final form.

    Returns: one time for each target unit; None where the times are to be the recorded ones and none were.
    Raises: ValueError: the events are not those of the delays.
    """
    seconds = clock.compute(trace, unit)
    if seconds is None:
        return None
    now, read = 0.0, 0
    delays: list[float] = []
    outputs: list[list[str]] = []  # that may be revised, and when each was shown
    shown: list[float] = []
    final: list[float] = []  # of the units that are to be written
    for event, taken in zip(trace.events, seconds, strict=True):
        if event.kind in READS:
            read += 1
            now = max(now, clock.arrival(read))
        now += taken
        if event.kind == "shown":
            outputs.append(split(event.text, unit))
            shown.append(now)
        elif event.kind == "write":
            if outputs:
                final, outputs, shown = settled(outputs, shown), [], []
            delays.append(final.pop(0) if final else now)
        elif event.kind == "extend":  # the unit is whole only now
            delays[-1] = now
    if len(delays) != len(trace.delays):
        raise ValueError(
            f"the trace {trace.id!r} has {len(trace.delays)} delays but {len(delays)} write events; "
            "give traces as streamllm.translate makes them"
        )
    return delays


def arrival_latency(trace: Trace, clock: ArrivalClock, unit: Unit) -> dict[str, float]:
    """AL and LAAL of one sentence in seconds, |x| being ``source_units / words_per_second``.

    Returns: ``al_seconds`` and ``laal_seconds`` of ``ideal_delays``, ``al_ca`` and ``laal_ca`` of
        ``computation_aware_delays``; nan without output, and for the last two without times.
    Raises: ValueError: an unknown unit, or as ``computation_aware_delays``.
    """
    source_seconds = clock.arrival(trace.source_units)
    ideal = latency(ideal_delays(trace, clock), source_seconds, trace.reference, unit, _LAGGING)
    delays = computation_aware_delays(trace, clock, unit)
    aware = latency(delays or (), source_seconds, trace.reference, unit, _LAGGING)
    return {f"{name}_seconds": lag for name, lag in ideal.items()} | {f"{name}_ca": lag for name, lag in aware.items()}


def _modelled(events: tuple[Event, ...], unit: Unit, read: float, write: float) -> list[float]:
    seconds: list[float] = []
    drafted: list[str] = []  # what the last draft has that is not written yet
    shown: list[str] = []  # the last output that may be revised
    for event in events:
        cost = 0.0
        if event.kind in READS or event.kind == "end":
            cost, drafted = read, []
        elif event.kind == "draft":
            drafted = split(event.text, unit)
            cost = write * len(drafted)
        elif event.kind == "shown":
            output = split(event.text, unit)
            cost = write * max(1, len(output) - common_prefix(output, shown))
            drafted = shown = output
        elif event.kind == "extend":  # the text of a draft leaves it out; the draft itself may hold it
            cost = 0.0 if drafted else write
        elif event.kind == "write":
            shown = []
            if drafted[:1] == [event.text]:
                drafted = drafted[1:]
            else:
                cost, drafted = write, []
        seconds.append(cost)
    return seconds
