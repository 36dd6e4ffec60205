"""Translation of words as they arrive: a word is read as soon as its last character is known, and the target is shown
as it is written. A line is a sentence, or all input is one stream that lives on after each."""

import codecs
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from streamllm.check import check_model
from streamllm.engine.limits import Limits
from streamllm.engine.loop import stream, stream_document
from streamllm.models.lengths import fitting_units
from streamllm.models.model import StreamingModel
from streamllm.records import Event, Example, Policy, State
from streamllm.units import Unit

ReadSome = Callable[[], bytes]  # waits for input; b"" at its end


class Lines:
    """Cuts arriving bytes (UTF-8) into lines of units; asks for more only when it has to.

    Iterate over it for lines, each an iterator of units. If the next line is asked for early, the rest of the
    one before is skipped.

    Args:
        endless: line ends are white space as any other, so that all is one line.
    """

    def __init__(self, read_some: ReadSome, unit: Unit = "word", endless: bool = False):
        self._read_some, self._unit = read_some, unit
        self._line_end = "" if endless else "\n"
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._ended = False

    def __iter__(self) -> Iterator[Iterator[str]]:
        while True:
            first = self._next_character(skip=self._line_end)
            if first is None:
                return
            self._text = first + self._text
            units = self._units()
            yield units
            for _ in units:
                pass

    def _units(self) -> Iterator[str]:
        word, space, first = "", "", True
        while (char := self._next_character()) is not None and char != self._line_end:
            if not char.isspace():
                word += char
            if word and self._unit == "character":
                yield word if first else space + word
                word, space, first = "", "", False
            elif word and char.isspace():
                yield word
                word = ""
            elif char.isspace():
                space = " "
        if word:
            yield word

    def _next_character(self, skip: str = "") -> str | None:
        while True:
            while not self._text:
                if self._ended:
                    return None
                some = self._read_some()
                self._ended = not some
                self._text = self._decoder.decode(some, final=self._ended).replace("\r", "")
            char, self._text = self._text[0], self._text[1:]
            if char not in skip:
                return char


def translate_live(
    model: StreamingModel,
    policy: Policy,
    read_some: ReadSome,
    out: TextIO = sys.stdout,
    limits: Limits = Limits(),
    show_source: bool = False,
    lines: bool = False,
) -> None:
    """Translate what comes from ``read_some`` until it ends, writing target units to ``out`` at once.

    Args:
        show_source: print one line an event, source and target side by side, instead of the target alone.
        lines: a line is a sentence, or a document of its own, and nothing is kept of it. So it is for every paradigm
            that does not live on after a sentence.

    Raises:
        ValueError: the policy cannot decide with this model.
        TooLong: a unit has more tokens than the limits say.
    """
    check_model(policy, model)
    lives_on = model.living_on
    for number, line in enumerate(Lines(read_some, model.prompt.source_unit, endless=bool(lives_on) and not lines)):
        session, example = model.session(name=f"live-{number}"), Example(f"live-{number}", "", "")
        units = fitting_units(model.prompt, line, limits)
        if lives_on is None:
            events = stream(session, units, policy.start(example), limits, model.prompt.target_unit)
        else:
            events = stream_document(session, units, policy, example, lives_on, limits, model.prompt.target_unit)
        _show(events, out, show_source, " " if model.prompt.target_unit == "word" else "")
        if lives_on is None:
            out.write("\n")
            out.flush()


def _show(events: Iterator[tuple[Event, State]], out: TextIO, show_source: bool, space: str) -> None:
    """Write events as they happen; a target sentence of a document ends with a line end."""
    first = True
    for event, _ in events:
        if event.kind == "sentence" and not first:
            out.write("\n")
            first = True
        elif show_source and event.kind in ("read", "forced_read"):
            out.write(f"{event.text:>20} |\n")
        elif show_source and event.kind == "shown":
            out.write(f"{'':>20} ~ {event.text}\n")
        elif show_source and event.kind == "write":
            out.write(f"{'':>20} | {event.text}\n")
        elif show_source and event.kind == "extend":
            out.write(f"{'':>20} |  …{event.text}\n")
        elif event.kind == "extend":
            out.write(event.text)
        elif event.kind == "write":
            out.write(event.text if first else space + event.text)
            first = False
        out.flush()
