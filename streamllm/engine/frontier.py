"""Ways through one sentence, found by trying READ and WRITE at each place: what a decision was worth, and how good a
translation could have been for its lag. It needs the whole source, so it is no policy for streaming.

Each place is a session of its own that goes on from another one's (`Session.twin`), so what it writes there is exactly
what it would write in a run that decides so. Places are looked at in the order of the steps that lead to them. Those
with as many units read and as many WRITEs done lie in one *cell*; of a cell, ``width`` places go on.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from streamllm.engine.limits import Limits
from streamllm.engine.stream import SessionLike, Stream
from streamllm.engine.write_head import Floats
from streamllm.records import READ, WRITE, Action, Event, State, Value, Way
from streamllm.units import Unit, join


class Twin(SessionLike, Protocol):
    """What is asked here of a `streamllm.engine.session.Session`."""

    def twin(self) -> Self: ...

    def rest(self) -> None: ...

    def close(self) -> None: ...

    def judged_state(self) -> Floats: ...


MOST_ENDS = 64
"""Ways on from a place that regrets are computed from, at most, but for those that no other beats."""

End = tuple[float, tuple[int, ...]]
"""Quality and delays of a whole way."""


@dataclass(eq=False)
class Place:
    """A place on the way through a sentence, where a policy is asked; or its end.

    Attributes:
        shown, delays: of the units written, with the space before them.
        writes: how often something was written, which is more than units where punctuation comes by itself.
        way: at the end of the sentence, all of it.
        after_read, after_write: the places that the two actions lead to. None where they were not tried; the latter is
            None, too, where WRITE comes to a forced READ.
        whole: where its cell was too full, the way of a place with the same text from which the rest was read at once.
        to_end: that way, if it was gone from here.
        likeness: where this place was left out, one of its cell that was not, and has written the same.
        guess: where it was left out, and there is none: what it would come to if all that is left were read at once.
        state: what a write head would be given here (E,), float32.
    """

    read: int = 0
    writes: int = 0
    decisions: str = ""
    shown: tuple[str, ...] = ()
    delays: tuple[int, ...] = ()
    way: Way | None = None
    after_read: "Place | None" = None
    after_write: "Place | None" = None
    whole: Way | None = None
    to_end: Way | None = None
    left_out: bool = False
    likeness: "Place | None" = None
    guess: End | None = None
    state: Floats | None = None

    @property
    def quality(self) -> float:
        """If all that is left were read at once; 0 where nobody asked."""
        return 0.0 if self.whole is None else self.whole.quality

    @property
    def lateness(self) -> int:
        """Of two places of a cell, what is higher in the one that is later."""
        return sum(self.delays)


@dataclass(eq=False)
class Exploration:
    """What `explore` has found (`records.Explored`).

    Attributes:
        places: all that were asked about, in the order in which they were looked at; those of a cell that were left out
            after the others.
        ways: the ways that were gone to their end, each once.
        fed_tokens: what it has cost.
    """

    units: int
    target_unit: Unit
    places: list[Place] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    fed_tokens: int = 0
    _ends: dict[Place, list[End]] | None = None

    def regrets(self, way: Way, value: Value) -> list[float | None]:
        """See `records.Explored`. A place that was left out is worth what a place of its cell is that was not and has
        written the same, with the delays of its own; else what it comes to if all that is left is read at once."""
        place: Place | None = self.places[0] if self.places else None
        found: list[float | None] = []
        for decision in way.decisions:
            if place is None or place.way is not None:
                found.append(None)
                continue
            found.append(self.regret(place, value))
            place = place.after_read if decision == "R" else place.after_write
        return found

    def regret(self, place: Place, value: Value) -> float | None:
        """Of WRITE at this place: the value after READ less that after WRITE."""
        if place.after_read is None or place.after_write is None:
            return None
        after_read, after_write = (
            max(value(*end) for end in self.ends(after)) for after in (place.after_read, place.after_write)
        )
        return after_read - after_write

    def ends(self, place: Place) -> list[End]:
        """What the ways on from a place come to."""
        if place.way is not None:
            return [(place.way.quality, place.way.delays)]
        if self._ends is None:
            self._ends = {}
            # Later places first; of a cell, those that were left out last.
            for each in sorted(self.places, key=lambda each: (-each.read - each.writes, each.left_out)):
                self._ends[each] = _some(list(dict.fromkeys(self._of(each))))
        return self._ends[place]

    def _of(self, place: Place) -> Iterator[End]:
        if place.to_end is not None:
            yield place.to_end.quality, place.to_end.delays
        if place.likeness is not None:
            same = len(place.delays)
            for quality, delays in self.ends(place.likeness):
                # The last unit may have been extended later.
                extended = delays[same - 1 : same] != place.likeness.delays[-1:]
                kept = same - extended
                yield quality, (*place.delays[:kept], *delays[kept:])
        elif place.guess is not None:
            yield place.guess
        for after in (place.after_read, place.after_write):
            if after is not None:
                yield from self.ends(after)


def _some(ends: list[End]) -> list[End]:
    if len(ends) <= MOST_ENDS:
        return ends
    found, least = [], float("inf")
    for end in sorted(ends, key=lambda end: (-end[0], sum(end[1]))):
        if sum(end[1]) < least:
            found.append(end)
            least = sum(end[1])
    return found


def explore(
    session: Twin,
    source: Sequence[str],
    limits: Limits,
    target_unit: Unit,
    width: int,
    quality: Callable[[str], float],
    judges: bool = False,
    ahead: int | None = None,
) -> Exploration:
    """Try READ and WRITE at each place of a sentence, but for those that a cell has no room for.

    Where more than ``width`` places lie in a cell, each is given the quality that the translation would have if the
    rest were read at once from there; what has the same text has the same. Those go on that no other beats in this
    quality and in the sum of delays, evenly spread if they are too many, then those that these alone beat, and so on.
    With as much width as there are ways, all are gone.

    Args:
        session: a twin that has not begun; it is closed.
        source: all units.
        quality: of a whole translation.
        judges: whether places get their states, for which the model needs a write head.
        ahead: WRITE is not tried where so many units are written and not read; None tries it everywhere.
    """
    return _Search(source, limits, target_unit, width, quality, judges, ahead).found(session)


class _Search:
    def __init__(
        self,
        source: Sequence[str],
        limits: Limits,
        target_unit: Unit,
        width: int,
        quality: Callable[[str], float],
        judges: bool,
        ahead: int | None,
    ):
        self._source, self._limits, self._unit = source, limits, target_unit
        self._width, self._quality_of, self._judges = width, quality, judges
        self._ahead = len(source) + limits.most_units(len(source)) if ahead is None else ahead
        self._exploration = Exploration(len(source), target_unit)
        # Places by the number of steps that lead to them, and in cells; each with what stands there.
        self._next: dict[int, dict[tuple[int, int], list[_Stands]]] = {}
        self._ways: dict[str, Way] = {}
        self._wholes: list[tuple[int, Way]] = []  # read to the end, from a text of so many characters on

    def found(self, session: Twin) -> Exploration:
        first = Stream(session, self._source, self._limits, self._unit, lambda: 0.0)
        begins = _Stands(Place(), first)
        if first.asks():
            self._put(begins)
        else:  # limits that allow nothing
            self._go(begins, READ, to_end=True)
        while self._next:
            cells = self._next.pop(min(self._next))
            for cell in sorted(cells):
                kept, others = self._chosen(cells[cell])
                self._exploration.places += [each.place for each in (*kept, *others)]
                for each in others:
                    self._leave_out(each.place, [other.place for other in kept])
                    each.session.close()
                for each in kept:
                    self._try_both(each)
        self._exploration.ways = list(self._ways.values())
        return self._exploration

    def _put(self, stands: "_Stands") -> None:
        place = stands.place
        stands.session.rest()
        steps = self._next.setdefault(place.read + place.writes, {})
        steps.setdefault((place.read, place.writes), []).append(stands)

    def _try_both(self, stands: "_Stands") -> None:
        place = stands.place
        if place.read and len(place.shown) - place.read < self._ahead:
            if self._judges:
                place.state = stands.session.judged_state()
            place.after_write = self._go(self._twin(stands), WRITE)
        place.after_read = self._go(stands, READ)

    def _twin(self, stands: "_Stands") -> "_Stands":
        stream = stands.stream
        return _Stands(stands.place, stream.twin(stands.session.twin(), self._source[stream.read :]))

    def _go(self, stands: "_Stands", action: Action, to_end: bool = False) -> Place | None:
        """Where an action leads to, or READ to the end; None where a WRITE was forced to be a READ."""
        stream, session, start = stands.stream, stands.session, stands.place
        going, spent, ended = _Going(start), session.fed_tokens, False

        def decide(state: State) -> Action:
            going.decisions += "R" if action == READ else "W"
            return action

        while not ended:
            ended = going.add(stream.step(decide))
            if not ended and action == WRITE and going.writes == start.writes:
                break
            if not to_end and stream.asks():
                break
        self._exploration.fed_tokens += session.fed_tokens - spent
        place = going.place(stream.read)
        if not ended and action == WRITE and place.writes == start.writes:
            session.close()
            return None
        if not ended:
            self._put(_Stands(place, stream))
            return place
        session.close()
        prediction = join(place.shown, self._unit)
        if place.decisions not in self._ways:
            way = Way(place.decisions, prediction, place.delays, self._quality_of(prediction))
            self._ways[place.decisions] = way
        place.way = self._ways[place.decisions]
        return place

    # --- which places go on

    def _chosen(self, here: "list[_Stands]") -> "tuple[list[_Stands], list[_Stands]]":
        if len(here) <= self._width:
            return here, []
        for each in here:
            each.place.whole = self._whole(each)
        kept = set(chosen([each.place for each in here], self._width))
        return [each for each in here if each.place in kept], [each for each in here if each.place not in kept]

    def _whole(self, stands: "_Stands") -> Way:
        """What a place comes to if all that is left is read at once, as far as its text tells."""
        place = stands.place
        text = join(place.shown, self._unit)
        for start, way in self._wholes:
            if start <= len(text) and self._goes_on(text, way.prediction):
                return way
        end = self._go(self._twin(stands), READ, to_end=True)
        assert end is not None and end.way is not None
        place.to_end = end.way
        self._wholes.append((len(text), end.way))
        return end.way

    def _goes_on(self, text: str, whole: str) -> bool:
        """Whether a whole translation goes on from a text, at the end of a word."""
        inside = self._unit == "word" and whole[len(text) :][:1].isalnum() and text[-1:].isalnum()
        return whole.startswith(text) and not inside

    def _leave_out(self, place: Place, kept: list[Place]) -> None:
        alike = [each for each in kept if each.shown == place.shown]
        place.left_out, place.likeness = True, min(alike, key=lambda each: each.lateness, default=None)
        if place.likeness is None and place.to_end is None and place.whole is not None:
            left = len(place.whole.delays) - len(place.delays)
            place.guess = place.whole.quality, (*place.delays, *[len(self._source)] * left)


@dataclass(frozen=True)
class _Stands:
    """A place, and the stream that stands there."""

    place: Place
    stream: Stream

    @property
    def session(self) -> Twin:
        return self.stream.session  # type: ignore[return-value]


class _Going:
    """What happens on from a place."""

    def __init__(self, place: Place):
        self.decisions, self.writes = place.decisions, place.writes
        self._shown, self._delays = list(place.shown), list(place.delays)

    def add(self, steps: Generator[tuple[Event, State], None, bool]) -> bool:
        """All events of a step; returns whether the sentence has ended."""
        while True:
            try:
                event, state = next(steps)
            except StopIteration as ends:
                return bool(ends.value)
            if event.kind == "write":
                self._shown.append(event.text)
                self._delays.append(state.read)
            elif event.kind == "extend":
                self._shown[-1] += event.text
                self._delays[-1] = state.read
            self.writes += event.kind in ("write", "extend")

    def place(self, read: int) -> Place:
        return Place(read, self.writes, self.decisions, tuple(self._shown), tuple(self._delays))


def chosen(places: list[Place], width: int) -> list[Place]:
    """The ``width`` places of a cell that go on, see `explore`."""
    left = sorted(places, key=lambda place: (-place.quality, place.lateness, place.decisions))
    kept: list[Place] = []
    while left and len(kept) < width:
        best, least = [], float("inf")
        for place in left:
            if place.lateness < least:
                best.append(place)
                least = place.lateness
        room = width - len(kept)
        kept += best if len(best) <= room else spread(best, room)
        left = [place for place in left if place not in best]
    return kept


def spread(places: list[Place], room: int) -> list[Place]:
    """Evenly along them, the first and the last among them if there is room."""
    if room == 1:
        return places[:1]
    return [places[i * (len(places) - 1) // (room - 1)] for i in range(room)]
