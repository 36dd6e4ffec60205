"""What live streams were told, on disk: a run folder for each stream, with a trace for each sentence that has ended,
and each event as it happened. So what was told is there up to the last event, also after a kill."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from streamllm.engine.recording import Recording
from streamllm.live.told import Told
from streamllm.records import Example, State
from streamllm.runs.folder import RunFolder
from streamllm.units import Unit, join

log = logging.getLogger(__name__)

EVENTS = "events.jsonl"
"""One event a line: sentence, kind, text, seconds, read, written."""


class Kept:
    """The folder of one stream. It is made with the first event.

    Args:
        config, environment: as for `RunFolder.begin`.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        source_unit: Unit,
        target_unit: Unit,
    ):
        self._folder, self._config, self._environment = RunFolder(path), config, environment
        self._source_unit, self._target_unit = source_unit, target_unit
        self._held: ExitStack | None = None
        self._failed = False
        self._source: list[str] = []
        self._events: list[tuple[Told, State]] = []

    def tell(self, told: Told) -> None:
        """One more event. What cannot be written is logged, once, and costs the stream nothing."""
        if self._failed:
            return
        try:
            self._keep(told)
        except Exception:
            self._failed = True
            log.exception("the traces of %s are not kept any more", self._folder.path)
            self.close()

    def close(self) -> None:
        """The stream is over. A sentence under way stays among the events alone."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def _keep(self, told: Told) -> None:
        if self._held is None:
            with ExitStack() as held:
                held.enter_context(self._folder)
                self._folder.begin(self._config, self._environment)
                self._lines = held.enter_context(open(self._folder.path / EVENTS, "ab", buffering=0))
                self._held = held.pop_all()
        event, state = told.event, told.state
        line = {"sentence": told.name, "kind": event.kind, "text": event.text, "seconds": event.seconds}
        self._lines.write((json.dumps(line | {"read": state.read, "written": state.written}) + "\n").encode())
        # A state grows with the stream's source; its counts do not.
        self._events.append((told, State(state.read, state.written, state.source_done)))
        if event.kind in ("read", "forced_read"):
            self._source.append(event.text)
        elif event.kind == "stop":
            self._append(told)

    def _append(self, last: Told) -> None:
        source, self._source = self._source, []
        events, self._events = self._events, []
        if last.error is not None or not source:
            return
        recording = Recording(Example(last.name, join(source, self._source_unit), ""), self._target_unit)
        for told, state in events:
            recording.add(told.event, state)
        self._folder.append(recording.trace(len(source), dict(last.stats)))


def keeping(
    root: Path, config: Mapping[str, Any], environment: Mapping[str, Any], source_unit: Unit, target_unit: Unit
) -> Callable[[str], Kept]:
    """What opens the folder ``root/NAME`` of each stream, by its name. Folders that are there already are kept: the
    streams of each service have a folder of their own in ``root``, live-1, live-2 and so on.

    Raises: OSError: the root cannot be made.
    """
    number = 1
    while True:
        here = root / f"live-{number}"
        try:
            here.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    return lambda name: Kept(here / name, config, environment, source_unit, target_unit)
