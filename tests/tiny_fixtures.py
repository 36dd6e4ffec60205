"""Fixtures and doubles that several test files share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamllm.records import Emission

Answer = Callable[[int, int, bool], str | None]  # units read, units written, source ended -> unit or end token


class FakeSession:
    """A session without a model: ``answer`` says what each write gives; ``calls`` is what was asked, in order."""

    def __init__(self, answer: Answer):
        self._answer = answer
        self.calls: list[tuple[str, str | None]] = []
        self.forward_passes = self.source_tokens = self.target_tokens = 0

    def count(self, kind: str) -> int:
        return sum(name == kind for name, _ in self.calls)

    def read(self, unit: str) -> None:
        assert not self.count("end_source"), "a read after the end of the source"
        self.calls.append(("read", unit))

    def end_source(self) -> None:
        self.calls.append(("end_source", None))

    def write(self) -> Emission:
        written = sum(name == "write" and unit is not None for name, unit in self.calls)
        unit = self._answer(self.count("read"), written, bool(self.count("end_source")))
        self.calls.append(("write", unit))
        return Emission(unit)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny byte-level tokenizer, with the end token <end>."""
    import tiny

    folder: Path = tmp_path_factory.mktemp("byte-level")
    tiny.byte_level_tokenizer(folder)
    return tiny.load(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model and a chat template; to be read only."""
    import tiny

    return tiny.model_folder(tmp_path_factory.mktemp("model"))
