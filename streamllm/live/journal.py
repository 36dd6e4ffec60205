"""What happens to a service, for programs that read logs: one JSON object a line. Nothing of what clients say or are
told is in it, nor a token.

Each line has ``time`` (UTC), ``event`` and what belongs to it:

- started: address, policy, model
- opened: stream, client, path
- sentence: stream, sentence, reason, read, written, seconds
- closed: stream, seconds, sentences
- refused: code, close, client, path
- stopping: streams
- stopped: sentences
- message: level, logger, message, and error, if there is one: what the program says by itself
"""

import json
import logging
import sys
import threading
import traceback
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self


class Journal:
    """Writes lines, in any thread. None of them is lost by a kill.

    Args:
        path: of the file, to which lines are appended; "-" is standard error; None writes nothing.

    Raises: OSError: it cannot be written.
    """

    def __init__(self, path: str | None = None):
        self._path, self._lock, self._open = path, threading.Lock(), ExitStack()
        self._lines: Any = None
        if path == "-":
            self._lines = sys.stderr.buffer
        elif path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._lines = open(path, "ab", buffering=0)  # noqa: SIM115  closed by `_open`
            self._open.callback(self._lines.close)

    def write(self, event: str, **values: Any) -> None:
        """One line. What cannot be written costs the service nothing."""
        if self._lines is None:
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, "event": event, **values}, ensure_ascii=False).encode("utf-8", "replace")
        with self._lock:
            try:
                self._lines.write(line + b"\n")
                self._lines.flush()
            except (OSError, ValueError):
                self._lines = None
                logging.getLogger(__name__).exception("the log %s is not written any more", self._path)

    def __enter__(self) -> Self:
        """From here on it also has what the program's loggers say."""
        if self._lines is not None:
            handler = _Messages(self)
            root = logging.getLogger()
            root.addHandler(handler)
            self._open.callback(root.removeHandler, handler)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


class _Messages(logging.Handler):
    def __init__(self, journal: Journal):
        super().__init__(logging.INFO)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == __name__:
            return
        values = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            values["error"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        self._journal.write("message", **values)
