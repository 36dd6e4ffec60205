"""The Chromium of this machine, driven by Playwright: for pictures of pages, and for their tests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def launched(*arguments: str) -> Iterator[Any]:
    """A browser without a window, started with ``arguments``, until the end of the block.

    Raises: FileNotFoundError: there is none on the PATH.
    """
    from playwright.sync_api import sync_playwright  # type: ignore[import-not-found]

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise FileNotFoundError("there is no chromium on the PATH (Debian: apt-get install chromium)")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*arguments, *sandbox])
        try:
            yield browser
        finally:
            browser.close()
