"""Many live streams behind asyncio: one thread lets them go on (`streamllm.live.streams`), and hands what it is told to
the event loop once a forward. It knows nothing of sockets.

Invariant: the model is touched in that thread alone, and mailboxes in the event loop alone.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from streamllm.check import check_model
from streamllm.engine.limits import Limits
from streamllm.live.journal import Journal
from streamllm.live.protocol import ProtocolFault
from streamllm.live.quotas import Quotas
from streamllm.live.streams import LiveStream, LiveStreams
from streamllm.live.told import Told
from streamllm.models.model import StreamingModel
from streamllm.records import Example, Policy

log = logging.getLogger(__name__)

WAIT = 1.0
"""Seconds after which the thread looks whether it is to end, where nobody has anything to do."""


@dataclass(frozen=True)
class Choice:
    """A policy that a client may choose.

    Args:
        make: makes it of its numbers.
        ranges: the least and the most that each number may be; whole numbers where both are.
        values: what each number is if a client does not say.
    """

    make: Callable[..., Policy]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class Choices:
    """The policies that clients may choose, by name; the first is what a stream begins with.

    Raises: ValueError: there is none, or one needs to know the sentence (`policies.Oracle`).
    """

    def __init__(self, choices: Mapping[str, Choice]):
        if not choices:
            raise ValueError("no policy may be chosen: name at least one")
        self._choices = dict(choices)
        for choice in self._choices.values():
            choice.make(**choice.values).start(Example("", "", ""))  # which says what it needs
        self.first = next(iter(self._choices))

    def check_model(self, model: StreamingModel) -> None:
        """Raises: ValueError: a policy that may be chosen cannot decide with this model, at the ends of a range."""
        for choice in self._choices.values():
            for number, value in [(number, bound) for number, ends in choice.ranges.items() for bound in ends]:
                check_model(choice.make(**{**choice.values, number: value}), model)
            check_model(choice.make(**choice.values), model)

    @property
    def ranges(self) -> dict[str, dict[str, tuple[float, float]]]:
        return {name: dict(choice.ranges) for name, choice in self._choices.items()}

    def named(self, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], Policy]:
        """The policy that a client wants, as ``{"name": …, number: value}``, with all of its numbers.

        Raises: ProtocolFault: it is none that may be chosen.
        """
        name = wanted.get("name", self.first)
        if name not in self._choices:
            raise _wrong(f"policy.name is {name!r:.40}; accepted are {', '.join(self._choices)}")
        choice = self._choices[str(name)]
        numbers = dict(choice.values)
        for key, value in wanted.items():
            if key == "name":
                continue
            if key not in choice.ranges:
                known = ", ".join(choice.ranges) or "none"
                raise _wrong(f"policy.{key:.40} is no number of {name}; accepted are {known}")
            least, most = choice.ranges[key]
            whole = isinstance(least, int) and isinstance(most, int)
            if isinstance(value, str) or (whole and value != int(value)) or not least <= value <= most:
                kind = "a whole number" if whole else "a number"
                raise _wrong(f"policy.{key} is {value!r:.40}; accepted is {kind} from {least} to {most}")
            numbers[key] = int(value) if whole else value
        return {"name": name, **numbers}, choice.make(**numbers)


def _wrong(message: str) -> ProtocolFault:
    return ProtocolFault("wrong_choice", message, close=None)


class Keeper(Protocol):
    """Keeps what streams are told (`streamllm.live.traces`); called in the service's thread."""

    def tell(self, told: Told) -> None: ...

    def close(self) -> None: ...


class Mailbox:
    """What one client is told, in the event loop. Full, it takes no more and says so."""

    def __init__(self, most: int):
        self._most = most
        self._told: deque[Told] = deque()
        self._there = asyncio.Event()
        self.overflows = self.closed = False

    def put(self, told: Told) -> None:
        if len(self._told) >= self._most:
            self.overflows = True
        else:
            self._told.append(told)
        self._there.set()

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        self._there.set()

    async def some(self) -> list[Told]:
        """All that has come, at least one; none where it is closed or full."""
        while not (self._told or self.closed or self.overflows):
            self._there.clear()
            await self._there.wait()
        told = list(self._told)
        self._told.clear()
        return [] if self.overflows else told


class Service:
    """Streams of one model, for as long as it runs.

    Args:
        keep: opens what keeps a stream's traces, by the stream's name; None keeps none.
        most: streams in a forward, as for `LiveStreams`.
        journal: that is told what happens.
    """

    def __init__(
        self,
        model: StreamingModel,
        choices: Choices,
        limits: Limits = Limits(),
        quotas: Quotas = Quotas(),
        seed: int = 0,
        keep: Callable[[str], Keeper] | None = None,
        most: int | None = None,
        journal: Journal = Journal(),
    ):
        choices.check_model(model)
        self.model, self.choices, self.quotas, self.journal = model, choices, quotas, journal
        self._keep = keep
        self.streams = LiveStreams(model, limits, rows=quotas.streams, most=most, seed=seed)
        self.open_streams: dict[str, LiveStream] = {}
        self._mailboxes: dict[str, Mailbox] = {}
        self._since: dict[str, float] = {}
        self.refused = 0
        self.opened = itertools.count(1)
        self._outbox: list[tuple[Mailbox, Told]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = threading.Event()
        self._device = mx.default_device()
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
        self.failed: BaseException | None = None

    def start(self) -> None:
        """Begin, in the event loop that mailboxes are read in."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for that."""
        self._stops.set()
        self.streams.notice()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        mx.set_default_device(self._device)  # type: ignore[arg-type]
        try:
            while not self._stops.is_set():
                self.streams.advance(WAIT)
                if self._outbox:
                    batch, self._outbox = self._outbox, []
                    assert self._loop is not None
                    self._loop.call_soon_threadsafe(_deliver, batch)
        except BaseException as error:
            log.exception("the service's thread has failed")
            self.failed = error
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._close_mailboxes)
        finally:
            self.streams.close()

    @property
    def over(self) -> bool:
        """Whether nobody is told anything any more."""
        return self._stops.is_set() or self.failed is not None

    def _close_mailboxes(self) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.close()

    # Streams

    def open(
        self,
        policy: Policy,
        mailbox: Mailbox | None = None,
        tell: Callable[[Told], None] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> LiveStream:
        """A new stream, whose mailbox is told, or ``tell`` in the service's thread. ``about``: its client, for the
        journal.

        Raises: ProtocolFault: there are too many already, or they hold too much; or the policy cannot decide with this
            model.
        """
        if self.over:
            raise ProtocolFault("stopping", "the service is about to end: connect again later", 1001)
        try:
            check_model(policy, self.model)
        except ValueError as error:  # a number between the ends of its range
            raise _wrong(str(error)) from error
        if (count := len(self.open_streams)) >= self.quotas.streams:
            self.refused += 1
            raise ProtocolFault("full", f"there are {count} streams, which is all: try again later", 1013)
        if self.streams.nbytes >= self.quotas.memory:
            self.refused += 1
            raise ProtocolFault("full", "the memory for streams is all taken: try again later", 1013)
        name = f"stream-{next(self.opened)}"
        keeper = None if self._keep is None else self._keep(name)

        def told(what: Told) -> None:
            if what.event.kind == "stop":
                read, written, seconds = what.state.read, what.state.written, round(what.event.seconds, 3)
                ended = {"sentence": what.sentence, "reason": what.event.text, "read": read, "written": written}
                self.journal.write("sentence", stream=name, **ended, seconds=seconds)
            if keeper is not None:
                keeper.tell(what)
            if mailbox is not None:
                self._outbox.append((mailbox, what))
            if tell is not None:
                tell(what)

        stream = self.streams.open(name, policy, told)
        if keeper is not None:
            stream.on_close = keeper.close
        self.open_streams[name] = stream
        self._since[name] = time.monotonic()
        self.journal.write("opened", stream=name, **(about or {}))
        if mailbox is not None:
            self._mailboxes[name] = mailbox
        return stream

    def close(self, stream: LiveStream) -> None:
        """Give a stream up. Idempotent."""
        if self.open_streams.pop(stream.name, None) is not None:
            seconds = round(time.monotonic() - self._since.pop(stream.name), 3)
            self.journal.write("closed", stream=stream.name, seconds=seconds, sentences=stream.sentences)
        self._mailboxes.pop(stream.name, None)
        stream.close()

    # What it has come to

    def metrics(self) -> str:
        """In Prometheus' text format."""
        counts = self.streams.counts
        waited = np.array(list(counts.waited) or [np.nan])
        found: list[tuple[str, str, str, float]] = [
            ("streams", "gauge", "Streams that are open.", len(self.open_streams)),
            ("sentences_under_way", "gauge", "Sentences that have begun and have not ended.", self.streams.under_way),
            ("refused_total", "counter", "Streams that found no room.", self.refused),
            ("sentences_total", "counter", "Sentences that have ended.", counts.sentences),
            ("sentence_errors_total", "counter", "Sentences that ended with an error.", counts.errors),
            ("source_units_total", "counter", "Units read.", counts.read),
            ("target_units_total", "counter", "Units written.", counts.written),
            ("forwards_total", "counter", "Forwards that were shared by all who had work.", counts.steps),
            ("forward_rows_total", "counter", "Streams that took part in these forwards, added up.", counts.rows),
            ("forward_seconds_total", "counter", "Seconds in these forwards.", counts.seconds),
            ("memory_bytes", "gauge", "Keys and values of all streams.", self.streams.nbytes),
        ]
        lines = []
        for name, kind, text, value in found:
            lines += [
                f"# HELP streamllm_{name} {text}",
                f"# TYPE streamllm_{name} {kind}",
                f"streamllm_{name} {value:g}",
            ]
        name = "streamllm_delay_seconds"
        lines += [
            f"# HELP {name} From the last source unit that a target unit waited for to that unit, of the last ones.",
            f"# TYPE {name} summary",
            *(f'{name}{{quantile="{q}"}} {np.quantile(waited, q):g}' for q in (0.5, 0.95, 0.99)),
            f"{name}_count {counts.written}",
        ]
        return "\n".join(lines) + "\n"


def _deliver(batch: list[tuple[Mailbox, Told]]) -> None:
    for mailbox, told in batch:
        mailbox.put(told)
