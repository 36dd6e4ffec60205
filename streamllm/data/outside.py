"""What is put around libraries that fetch and parse for us: no bars, no warnings, no long wait, one plain error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CONNECT_SECONDS = 5.0


@contextmanager
def quiet_datasets() -> Iterator[Any]:
    """The ``datasets`` module, without progress bars and warnings meanwhile."""
    import datasets
    import huggingface_hub

    bars = [library for library in (datasets, huggingface_hub.utils) if not library.are_progress_bars_disabled()]
    loggers = (datasets.logging, huggingface_hub.logging)
    verbosities = [logger.get_verbosity() for logger in loggers]
    for library in bars:
        library.disable_progress_bars()
    for logger in loggers:
        logger.set_verbosity(logging.CRITICAL)  # an error is raised, so its log line would say it twice
    try:
        yield datasets
    finally:
        for library in bars:
            library.enable_progress_bars()
        for logger, verbosity in zip(loggers, verbosities, strict=True):
            logger.set_verbosity(verbosity)


def innermost(error: BaseException) -> str:
    """The message of the error that began it, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
