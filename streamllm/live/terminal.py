"""Translation of words as they arrive: a word is read as soon as its last character is known, and the target is shown
as it is written. A line is a sentence."""

import codecs
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from streamllm.engine.limits import Limits
from streamllm.engine.loop import stream
from streamllm.models.model import StreamingModel
from streamllm.records import Example, Policy
from streamllm.units import Unit

ReadSome = Callable[[], bytes]  # waits for input; b"" at its end


class Sentences:
    """Cuts arriving bytes (UTF-8) into sentences of units; asks for more only when it has to.

    Iterate over it for sentences, each an iterator of units. If the next sentence is asked for early, the rest of the
    one before is skipped.
    """

    def __init__(self, read_some: ReadSome, unit: Unit = "word"):
        self._read_some, self._unit = read_some, unit
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._ended = False

    def __iter__(self) -> Iterator[Iterator[str]]:
        while True:
            first = self._next_character(skip="\n")
            if first is None:
                return
            self._text = first + self._text
            units = self._units()
            yield units
            for _ in units:
                pass

    def _units(self) -> Iterator[str]:
        word, space, first = "", "", True
        while (char := self._next_character()) not in (None, "\n"):
            assert char is not None
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
) -> None:
    """Translate sentences from ``read_some`` until it ends, writing target units to ``out`` at once.

    ``show_source`` prints one line an event, source and target side by side, instead of the target alone.
    """
    space = " " if model.prompt.target_unit == "word" else ""
    for number, sentence in enumerate(Sentences(read_some, model.prompt.source_unit)):
        session = model.session(name=f"live-{number}")
        decide = policy.start(Example(f"live-{number}", "", ""))
        first = True
        for event, _ in stream(session, sentence, decide, limits):
            if show_source and event.kind in ("read", "forced_read"):
                out.write(f"{event.text:>20} |\n")
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
        out.write("\n")
        out.flush()
