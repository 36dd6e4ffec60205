"""The other project that is called ``streamllm`` on PyPI: where both are installed, its files lie among ours."""

import contextlib
import sys
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import streamllm
from streamllm.cli.conf import PACKAGE
from streamllm.extras import DISTRIBUTION


@cache
def note_the_namesake() -> None:
    """Say in one line that it is installed, too; end the program where its ``__init__`` has replaced ours."""
    if other := _namesake():
        what = (
            f"{other.name} {other.version}, another project, is installed over this one: "
            f"pip uninstall -y {other.name} {DISTRIBUTION}, then install {DISTRIBUTION} again"
        )
        if not hasattr(streamllm, "BLAS"):
            sys.exit(f"error: {what}")
        print(f"warning: {what}", file=sys.stderr)


def _namesake() -> Distribution | None:
    with contextlib.suppress(PackageNotFoundError):
        found = distribution(PACKAGE.name)
        if any(file.parts[0] == PACKAGE.name for file in found.files or ()):
            return found
    return None
