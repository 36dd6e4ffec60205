"""Whoever reads what the command prints, and may stop before its end."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def for_whoever_reads() -> Iterator[None]:
    """End without a word where whoever reads the output has had enough, as ``head`` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end of Python
        sys.exit(1)
