"""Translate words from standard input as they arrive; it goes on after each sentence, for ever.

    echo "A man is riding a bicycle. A dog runs after him." | streamllm live k=2
    streamllm live k=3 show_source=true        # type; every word is read when you press space
    streamllm live k=3 lines=true < FILE       # a line is a sentence, or a document, of its own

Model, policy and prompt are those of `streamllm run`, with the same keys.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import hydra
from omegaconf import DictConfig

from streamllm.cli.conf import CONF
from streamllm.cli.configured import translator
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import RunKeys, checked
from streamllm.cli.main import as_module
from streamllm.live.terminal import translate_live

log = logging.getLogger(__name__)

ENDS = (
    "this paradigm ends with the first sentence, and the rest of the text gets no translation: give "
    "paradigm=sentences, or lines=true for a sentence a line"
)


@contextlib.contextmanager
def characters_at_once() -> Iterator[None]:
    """Take a terminal's characters as they are typed, not by the line."""
    if not sys.stdin.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(0)
    without_lines = list(before)
    without_lines[3] &= ~termios.ICANON
    termios.tcsetattr(0, termios.TCSADRAIN, without_lines)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def read_some() -> bytes:
    some = os.read(0, 4096)
    return b"" if some == b"\x04" else some  # Ctrl-D, which a terminal by characters hands on


@dataclass(eq=False, repr=False, kw_only=True)
class LiveKeys(RunKeys):
    """Of ``conf/live.yaml``.

    Args:
        show_source: true prints one line an event, source and target side by side; always so in a terminal.
        lines: true takes each line for a sentence or a document of its own, of which nothing is kept.
    """

    show_source: bool
    lines: bool


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="live")
@explained
def main(cfg: DictConfig) -> None:
    try:
        keys = checked(cfg, LiveKeys)[1]
        model, policy, limits = translator(cfg)
        show_source = keys.show_source or sys.stdin.isatty()
        if model.living_on is None and not keys.lines:
            log.warning(ENDS)
        with characters_at_once():
            translate_live(model, policy, read_some, limits=limits, show_source=show_source, lines=keys.lines)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)


def command() -> None:
    launch(main, "live")


if __name__ == "__main__":
    as_module("live")
