"""A tracker that keeps a run's scores in a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamllm.tracking.tracker import NullTracker


class FileTracker(NullTracker):
    """Writes what a run scores to a file of JSON."""

    def __init__(self, path: str):
        self._path = Path(path)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._path.write_text(json.dumps({"bleu": values["bleu"]}), encoding="utf-8")
