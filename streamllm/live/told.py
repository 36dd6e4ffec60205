"""What the streams of `streamllm.live.streams` tell."""

from dataclasses import dataclass, field

from streamllm.records import Event, State


@dataclass(frozen=True)
class Told:
    """What has happened in a stream.

    Args:
        sentence: its number, from 0.
        name: the id that the sentence has in a trace.
        event: with `Event.seconds` since its first unit came. Of kind "stop" where it has ended; ``text`` is "empty"
            where the source ended before anything was read.
        state: after it.
        waited: seconds since what it was made from had come: the unit read last, or the end of the source.
        stats: what the session has cost, with the last event of a sentence.
        error: why the sentence cannot go on. Then ``event`` is of kind "stop", and what follows is another sentence.
    """

    sentence: int
    name: str
    event: Event
    state: State
    waited: float = 0.0
    stats: dict[str, int] = field(default_factory=dict)
    error: Exception | None = None
