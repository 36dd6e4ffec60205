"""What the benchmarks share: Markdown tables that can be pasted into docs/speed.md, and the same rows as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """A table. ``columns``: for each key of a row its heading and its format; a key that a row lacks is left blank."""
    lines = ["| " + " | ".join(heading for heading, _ in columns.values()) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = (format(row[key], how) if key in row else "" for key, (_, how) in columns.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(path: Path | None, about: Mapping[str, Any], **tables: Any) -> None:
    """Write ``tables`` and what they were measured with (`streamllm.runs.environment`) to ``path`` if there is one."""
    if path is None:
        return
    from streamllm.runs.environment import environment

    content = {"about": environment() | dict(about), **tables}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
