"""How much clients may ask of the service."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Quotas:
    """Limits of the service; a client that passes one is told so, and its socket is closed.

    Args:
        streams: sockets at a time.
        memory: bytes of keys and values of all streams, beyond which no new sentence of a new stream is taken.
        message_bytes: of one message.
        bytes_per_second, words_per_second: what a stream may send, on average.
        burst: seconds' worth of both that may come at once.
        unread: units of a stream that may wait to be read.
        unsent: messages to a client that may wait to be sent.
        idle: seconds without a message from a client.
        send: seconds that sending may take.
        token: seconds in which a client has to send its token, where one is wanted.

    Raises: ValueError: a number is not above 0.
    """

    streams: int = 256
    memory: float = 4e9
    message_bytes: int = 65536
    bytes_per_second: float = 4000.0
    words_per_second: float = 50.0
    burst: float = 30.0
    unread: int = 2000
    unsent: int = 10000
    idle: float = 600.0
    send: float = 20.0
    token: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"quotas.{field.name} is {value!r}; accepted is a number above 0")


class Rate:
    """A bucket that fills by ``per_second``, up to ``burst`` seconds' worth; what is taken may not be more than is in
    it."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]):
        self._per_second, self._clock = per_second, clock
        self._most = self._left = per_second * burst
        self._at = clock()

    def take(self, amount: float) -> bool:
        """Whether so much was there; then it is taken."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
