"""Fixtures of all tests. Tests that need ../shared skip, with a reason, where it is absent."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

import streamllm  # noqa: F401  before any test imports mlx: it loads the BLAS

pytest_plugins = ["tiny_fixtures"]

ROOT = Path(__file__).parent.parent

settings.register_profile("streamllm", deadline=None)  # a busy machine is no failure
settings.register_profile("long", deadline=None, max_examples=3000)  # pytest --hypothesis-profile=long
settings.load_profile("streamllm")

# A job that was started in the background ignores SIGINT, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with recorded reference values and real data."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"reference values are not here: {folder} is absent")
    return folder
