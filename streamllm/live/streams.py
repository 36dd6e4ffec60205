"""Live streams that share one pool: each has a policy and a session of its own, and those that have work at a moment go
through one forward together (`streamllm.batching.coroutines`). It knows nothing of sockets.

Source is pushed by any thread, and what happens is told in the thread that calls `LiveStreams.advance`. Invariant: but
for times, a stream is told what `streamllm run` records of its source at batch size 1, whatever the others do.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from queue import Empty, SimpleQueue

from streamllm.batching.coroutines import Clock, Running, Task, Together, wait_for_input
from streamllm.batching.row import Row
from streamllm.batching.trial import Batching, batching
from streamllm.engine.drafts_ahead import DraftsAhead
from streamllm.engine.finite import SentenceError
from streamllm.engine.limits import Limits
from streamllm.engine.loop import counted, stream_document
from streamllm.engine.loop import stream as one_sentence
from streamllm.engine.stream import SessionLike
from streamllm.live.told import Told
from streamllm.models.lengths import fitting_units, unit_fault
from streamllm.models.model import StreamingModel
from streamllm.records import Emission, Event, Example, Policy, State
from streamllm.units import ends_sentence, pieces

log = logging.getLogger(__name__)

Tell = Callable[[Told], None]
"""Takes what has happened in a stream; called in the thread of `LiveStreams.advance`, it has to be quick."""

MOST_EXPECTED = 32
"""Units that are worked on ahead."""

SAMPLES = 4096
"""Times from a word to its translation that are held, the last ones."""


@dataclass(frozen=True)
class _End:
    """Of a source."""


Entry = str | _End | Policy


class LiveStream:
    """A source that arrives, and what is made of it: one sentence after the other, or one document.

    All methods may be called in any thread.
    """

    def __init__(self, streams: "LiveStreams", name: str, policy: Policy, tell: Tell):
        self._streams, self.name, self.policy, self.tell = streams, name, policy, tell
        self._before = ""  # the last of the source so far
        self.arrived: deque[tuple[Entry, float]] = deque()  # and not read yet, with the times
        self.expected: list[str] = []  # units that may come next
        self.sentences = 0  # that have begun
        self.skips = False  # what is left of a source whose translation has ended before it
        self.closed = False
        self.running: Running[None] | None = None
        self.since = 0.0  # when that came which was read last
        self.done = -math.inf  # when the unit before was done
        # Called in the thread of `LiveStreams.advance`: before it waits for source that has not come; the same once all
        # that is expected is worked on, with what is written ahead; and once closed.
        self.on_wait: Callable[[], None] = _nothing
        self.on_rest: Callable[[list[Emission]], None] = _nothing_of
        self.on_close: Callable[[], None] = _nothing

    def expect(self, text: str) -> None:
        """What may come next, in the place of what was expected before. It is read and translated ahead while no stream
        has anything else to do; nothing of that is told before it is pushed, and then it needs no model where it is
        as expected."""
        units = pieces(text, self._streams.model.prompt.source_unit, self._before)[:MOST_EXPECTED] if text else []
        if units != self.expected and not self.closed and self._streams.drafts:
            self.expected = units
            self._streams.notice(self)

    def push(self, text: str) -> int:
        """More source, whole units; returns how many these are."""
        units = pieces(text, self._streams.model.prompt.source_unit, self._before)
        self._before = (self._before + text)[-2:]
        self._arrive(*units)
        return len(units)

    def end(self) -> None:
        """No more will come of this sentence (or document). What comes then is another one's."""
        self._before = ""
        self._arrive(_End())

    def choose(self, policy: Policy) -> None:
        """Take another policy from the next sentence on."""
        self._arrive(policy)

    def close(self) -> None:
        """Give up what is under way. Nothing is told any more."""
        self.closed = True
        self._streams.notice(self)

    @property
    def unread(self) -> int:
        """Units that have come and were not read yet; ends count, too."""
        return len(self.arrived)

    def _arrive(self, *entries: Entry) -> None:
        if entries and not self.closed:
            now = self._streams.clock()
            self.arrived.extend((entry, now) for entry in entries)
            self._streams.notice(self)


def _nothing_of(drafted: list[Emission]) -> None:
    pass


def _nothing() -> None:
    """Stands for what nobody wants to know."""


@dataclass
class Counts:
    """What streams have come to by now; ``waited`` are the last `SAMPLES` times of `Told.waited`, of units written."""

    sentences: int = 0
    read: int = 0
    written: int = 0
    errors: int = 0
    steps: int = 0  # forwards
    rows: int = 0  # that took part in them, all added up
    seconds: float = 0.0  # in forwards
    waited: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))


class LiveStreams:
    """Streams of one model.

    Args:
        model: its prompt says what units are. If its sentences cannot share a pool (`batching` says why), they take
            turns, each with a memory of its own.
        rows: sentences at a time; more wait until one has ended.
        most: streams in a forward; those go first whose unit under way came first. None takes all.
        seed: of sampling, with the name of each sentence.
        clock: seconds.
        way: what `batching` says of the model, where that is known.
    """

    def __init__(
        self,
        model: StreamingModel,
        limits: Limits = Limits(),
        rows: int = 256,
        most: int | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
        way: Batching | None = None,
    ):
        self.model, self.limits, self.clock = model, limits, clock
        self._most, self._seed = rows if most is None else most, seed
        way = batching(model) if way is None else way
        if way.why_not is not None:
            log.info("streams take turns: %s", way.why_not)
        model.prefix  # noqa: B018  fed here, before the first stream asks for it
        self._pool = None if way.why_not is not None else way.pool(model, rows)
        self._together: Together[None] = Together(self._pool)
        self._of: dict[Running[None], LiveStream] = {}
        self._noticed: SimpleQueue[LiveStream | None] = SimpleQueue()
        self._in_line: deque[LiveStream] = deque()  # for a row
        self._rows = rows
        self._idle: dict[LiveStream, None] = {}  # those that have something to do ahead, once nobody has anything else
        self._open_streams: set[LiveStream] = set()
        self.counts = Counts()

    @property
    def drafts(self) -> bool:
        """Whether what is expected is worked on ahead: not where outputs are revised anyway."""
        return self.model.living_on is None or self.model.living_on.revision is None

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values of all streams in the pool."""
        return 0 if self._pool is None else self._pool.nbytes

    @property
    def under_way(self) -> int:
        """Sentences that have begun and have not ended."""
        return len(self._of)

    def open(self, name: str, policy: Policy, tell: Tell) -> LiveStream:
        """A new stream; it costs nothing until something is pushed. Names differ. May be called in any thread."""
        stream = LiveStream(self, name, policy, tell)
        self._open_streams.add(stream)
        return stream

    def notice(self, stream: LiveStream | None = None) -> None:
        """Something has come, or is expected, for a stream; without one, `advance` returns soon. May be called in any
        thread."""
        self._noticed.put(stream)

    def advance(self, seconds: float | None = 0.0) -> None:
        """Let streams go on: those whose input has come, and those that the last forward has answered; then make the
        next forward. Where nobody has anything to do, work on what is expected, or else wait for input, so many seconds
        or (None) for ever."""
        self._take_noticed(0 if self._together.waiting or self._together.ready or self._idle else seconds)
        self._admit()
        self._let_go_on()
        if self._idle and not self._together.waiting:
            for stream in self._idle:
                if stream.running is not None:
                    self._together.wake(stream.running)
            self._idle.clear()
            self._let_go_on()
        if waiting := len(self._together.waiting):
            started = time.perf_counter()
            try:
                self._together.step(self._most)
            except Exception:  # each stream of the forward is told when it goes on
                log.exception("a forward of %d streams failed", min(waiting, self._most))
            self.counts.steps += 1
            self.counts.rows += min(waiting, self._most)
            self.counts.seconds += time.perf_counter() - started

    def _let_go_on(self) -> None:
        for ended in self._together.ended():
            self._sentence_over(ended)
            self._admit()

    def close(self) -> None:
        """Give up all streams."""
        self._together.close()
        self._of.clear()
        self._idle.clear()
        self._in_line.clear()

    # What has come

    def _take_noticed(self, seconds: float | None) -> None:
        """All that has been noticed; the first is waited for, so many seconds."""
        noticed: dict[LiveStream, None] = {}
        try:
            while True:
                waits = not noticed and seconds != 0
                if (stream := self._noticed.get(waits, seconds if waits else None)) is not None:
                    noticed[stream] = None
                else:
                    seconds = 0
        except Empty:
            pass
        for stream in noticed:
            self._go_on(stream)

    def _admit(self) -> None:
        while self._in_line and len(self._of) < self._rows:
            self._go_on(self._in_line.popleft(), first=True)

    def _go_on(self, stream: LiveStream, first: bool = False) -> None:
        """Let a stream take what has come for it, as soon as it can; ``first`` in line for a row, or behind all."""
        if stream.closed:
            self._open_streams.discard(stream)
            self._idle.pop(stream, None)
            if stream.running is not None:
                self._together.remove(stream.running)
                del self._of[stream.running]
                stream.running = None
            on_close, stream.on_close = stream.on_close, _nothing
            on_close()
        elif stream.running is not None:
            if stream.arrived:
                self._together.wake(stream.running)
            elif stream.running.awaits_input:
                self._idle[stream] = None
            return
        while stream.arrived and not stream.closed:
            entry, _ = stream.arrived[0]
            if isinstance(entry, str) and not stream.skips:
                if len(self._of) < self._rows and (first or not self._in_line):
                    self._begin(stream)
                elif stream not in self._in_line:
                    self._in_line.append(stream)
                return
            stream.arrived.popleft()
            if isinstance(entry, _End):
                if not stream.skips:
                    name = f"{stream.name}-{stream.sentences}"
                    stream.tell(Told(stream.sentences, name, Event("stop", "empty"), State(0, 0, True)))
                    stream.sentences += 1
                stream.skips = False
            elif not isinstance(entry, str):
                stream.policy = entry
        # A sentence that is only expected takes a row where there is one for every stream.
        if stream.expected and not stream.closed and not stream.skips and len(self._open_streams) <= self._rows:
            self._begin(stream)

    # Sentences

    def _begin(self, stream: LiveStream) -> None:
        stream.running = self._together.begin(self._task(stream, stream.sentences))
        stream.sentences += 1
        self._of[stream.running] = stream

    def _sentence_over(self, ended: Running[None]) -> None:
        stream = self._of.pop(ended)
        self._idle.pop(stream, None)
        stream.running, stream.done = None, self.clock()
        self.counts.sentences += 1
        self._go_on(stream)

    def _task(self, stream: LiveStream, number: int) -> Task[None]:
        def task(row: Row, clock: Clock) -> None:
            name, state = f"{stream.name}-{number}", State(0, 0, False)
            try:
                memory = () if self._pool is None else (row,)
                alone = self.model.session(self._seed, name, *memory)
                ahead = DraftsAhead(alone, self.limits) if self.drafts else None
                session: SessionLike = alone if ahead is None else ahead
                if ahead is not None:
                    ahead.begin(stream.policy, Example(name, "", ""))
                source = self._source(stream, ahead)
                if (first := next(source, None)) is None:
                    self._tell(stream, Told(number, name, Event("stop", "empty"), State(0, 0, True)))
                    return
                stream.skips = True  # until the end of its source has been read
                for event, state in self._events(stream, session, chain([first], source), name):
                    stats = counted(session) if event.kind == "stop" else {}
                    self._tell(stream, Told(number, name, event, state, self.clock() - stream.since, stats))
            except Exception as error:  # whatever a model or a policy raises: it costs this sentence
                if not isinstance(error, SentenceError):
                    log.exception("sentence %s failed", name)
                self.counts.errors += 1
                stream.tell(Told(number, name, Event("stop", "error"), state, error=error))

        return task

    def _events(
        self, stream: LiveStream, session: SessionLike, source: Iterator[str], name: str
    ) -> Iterator[tuple[Event, State]]:
        model, limits = self.model, self.limits
        example, unit, policy = Example(name, "", ""), model.prompt.target_unit, stream.policy
        if isinstance(session, DraftsAhead):
            policy = session.of(policy)
        source = fitting_units(model.prompt, source, limits)
        if model.living_on is None:
            return one_sentence(session, source, policy.start(example), limits, unit, self.clock)
        return stream_document(session, source, policy, example, model.living_on, limits, unit, self.clock)

    def _source(self, stream: LiveStream, ahead: DraftsAhead | None) -> Iterator[str]:
        """The units of one sentence, as they come. In a task."""
        while True:
            while not stream.arrived:
                stream.on_wait()
                self._wait(stream, ahead)
            entry, stream.since = stream.arrived.popleft()
            if stream.running is not None:
                # Of what was sent at once, a unit is due since the one before is done: who sends much is not late.
                stream.running.due = max(stream.since, stream.done)
            if isinstance(entry, str):
                yield entry
                stream.done = self.clock()
            elif isinstance(entry, _End):
                stream.skips = False
                return
            else:
                stream.policy = entry

    def _wait(self, stream: LiveStream, ahead: DraftsAhead | None) -> None:
        """Until something has come, or until a unit that is expected has been worked on. In a task."""
        if ahead is None:
            wait_for_input()
            return
        units = self._workable(stream.expected)
        ahead.expect(units)
        if ahead.next(units) is None:
            stream.on_rest(ahead.drafted)
        else:
            self._idle[stream] = None
        wait_for_input()
        if stream.arrived:
            return
        units = self._workable(stream.expected)
        ahead.expect(units)
        if (unit := ahead.next(units)) is not None:
            assert stream.running is not None
            stream.running.due = math.inf  # behind all that have come
            ahead.work(unit)

    def _workable(self, expected: list[str]) -> list[str]:
        """Up to a unit that is too long, and to the end of a sentence, where other rules begin."""
        found = []
        for unit in expected:
            if unit_fault(self.model.prompt, unit, 1, self.limits.source_tokens_per_unit):
                break
            found.append(unit)
            if self.model.living_on is not None and ends_sentence(unit):
                break
        return found

    def _tell(self, stream: LiveStream, told: Told) -> None:
        if told.event.kind in ("read", "forced_read"):
            self.counts.read += 1
        elif told.event.kind == "write":
            self.counts.written += 1
            self.counts.waited.append(told.waited)
        stream.tell(told)
