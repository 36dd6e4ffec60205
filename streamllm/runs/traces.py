"""The traces of a run folder, each read from its two lines when it is asked for.

Invariant: of a trace, memory holds its id and where its lines begin, so a run of any length can be gone through."""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, overload

from streamllm.checked import read_line
from streamllm.files import open_to_read
from streamllm.records import Trace
from streamllm.runs.lines import PredictionLine, TimingLine, from_lines, json_line, matching, to_timing
from streamllm.runs.quick import quick_prediction, quick_timing

NOWHERE = -1  # of a trace without times


class StoredTraces(Sequence[Trace]):
    """The traces of a folder, in the order of the file, or in another one (`ordered`). Going through them once takes
    some 50 µs for each; asking for one opens the files.

    Attributes:
        ids: of the traces.
    """

    def __init__(self, predictions: Path, timings: Path) -> None:
        self._paths = predictions, timings
        self.ids: list[str] = []
        self._lines = array("q")  # where they begin
        self._times = array("q")

    def append(self, id: str, line: int, times: int) -> None:
        """One more trace: where its line begins, and that with its times, or `NOWHERE`."""
        self.ids.append(id)
        self._lines.append(line)
        self._times.append(times)

    def ordered(self, ids: Sequence[str]) -> "StoredTraces":
        """Those of these ids, in their order."""
        places = {id: place for place, id in enumerate(self.ids)}
        return self._taken([places[id] for id in ids])

    def _taken(self, places: Sequence[int]) -> "StoredTraces":
        taken = StoredTraces(*self._paths)
        for place in places:
            taken.append(self.ids[place], self._lines[place], self._times[place])
        return taken

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Trace: ...

    @overload
    def __getitem__(self, index: slice) -> "StoredTraces": ...

    def __getitem__(self, index: int | slice) -> "Trace | StoredTraces":
        places = range(len(self))[index]
        if isinstance(places, range):
            return self._taken(places)
        (trace,) = self._taken([places])
        return trace

    def __iter__(self) -> Iterator[Trace]:
        for _, _, prediction, timing in self.lines():
            yield from_lines(prediction, timing)

    def lines(self) -> Iterator[tuple[bytes, bytes, PredictionLine, TimingLine | None]]:
        """The two lines of each trace as they are in the files, and what they hold; times that are lost are zero.

        Raises: ValueError: a file is not what it was when its lines were looked up.
        """
        with ExitStack() as opened:
            files: list[BinaryIO | None] = [
                opened.enter_context(open_to_read(path)) if path.exists() else None for path in self._paths
            ]
            for begin, times in zip(self._lines, self._times, strict=True):
                line = _line(files[0], begin)
                prediction = read_line(line, PredictionLine, quick_prediction)
                timing = None
                if times != NOWHERE:
                    of_times = _line(files[1], times)
                    timing = matching(prediction, read_line(of_times, TimingLine, quick_timing))
                if timing is None:
                    of_times = json_line(to_timing(from_lines(prediction, None)))
                yield line, of_times, prediction, timing


def _line(file: BinaryIO | None, begin: int) -> bytes:
    if file is None:
        return b""
    if file.tell() != begin:
        file.seek(begin)
    return file.readline()
