"""SIGTERM, by which schedulers and `kill` end a command, ends it as Ctrl-C does: what is known is stored and said."""

import signal
import threading
from types import FrameType
from typing import NoReturn

_ended_by = signal.SIGINT


def end_by_sigterm() -> None:
    """From now on, SIGTERM raises KeyboardInterrupt in the main thread. Where somebody has handled it, that stays."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    global _ended_by
    _ended_by = signal.SIGTERM
    raise KeyboardInterrupt


def status() -> int:
    """The exit status of a command that was interrupted: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + _ended_by
