"""What names a run: a word, and a digest of its configuration."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from streamllm.files import RunError

# Top-level keys that say where and how a run is made and recorded, not what comes out of it.
NOT_IN_DIGEST = frozenset(
    {
        "hydra",
        "tracker",
        "output",
        "experiment",
        "name",
        "debug",
        "tuning",
        "batch_size",
        "metrics",
        "rerun",
        "sweep",
        "processes",
        "cluster",
    }
)

# Keys that came later, with the value that means "as before" (as `_plain` gives it). There they do not count, so that
# runs which are older than the key keep their names.
AS_BEFORE: dict[str, Any] = {
    "objective": {"_target_": "CrossEntropy"},
    "dataset.bleu_tokenizer": None,
    "dataset.sentences_per_document": None,
    "validation.sentences_per_document": None,
    "data.documents": None,
    "data.latencies": None,
    "training.export": "average",
    "dataset.skip_long": False,
    "validation.skip_long": False,
    "limits.source_tokens_per_unit": 1024,
    "limits.unit_ratio": None,
    "dataset.max_bytes": 268435456,
    "validation.max_bytes": 268435456,
    "model.head_path": None,
    "limits.bare": False,
    "cells.latencies": None,
}
AS_BEFORE_OF_CLASS: dict[str, dict[str, Any]] = {
    "SacrebleuTestSet": {"data_dir": None},
    "Learned": {"latency": None},
}
"""The same for keys that others than this class have had from the beginning."""


LONGEST_NAME = 200
"""Bytes of a name, of the 255 that file systems take: the digest and ``.before-1`` follow it."""


def check_name(name: str) -> None:
    """Raises: RunError: ``name`` is not fit for the name of a run folder."""
    if not re.fullmatch(r"[\w.+=-]+", name) or name.startswith("."):
        raise RunError(f"name is {name!r}; accepted are letters, digits and _ . + = - (not a dot first)")
    if len(name.encode()) > LONGEST_NAME:
        raise RunError(
            f"name is {name[:20]!r}… and {len(name.encode())} bytes long; at most {LONGEST_NAME} are accepted"
        )


def digest(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name the resolved ``config``, whatever the order of its keys.

    Keys of `NOT_IN_DIGEST` do not count, nor values of `AS_BEFORE` and `AS_BEFORE_OF_CLASS`, and 0 is the same as 0.0.
    A ``_target_`` of ours counts by its class name alone, so that no move of a file gives a run another name; a foreign
    one counts whole.
    """
    plain = {key: _plain(value) for key, value in config.items() if key not in NOT_IN_DIGEST}
    for key, value in AS_BEFORE.items():
        _leave_out(plain, key.split("."), value)
    for part in (part for part in plain.values() if isinstance(part, dict)):
        for key, value in AS_BEFORE_OF_CLASS.get(str(part.get("_target_")), {}).items():
            _leave_out(part, [key], value)
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _leave_out(plain: dict[str, Any], path: list[str], value: Any) -> None:
    """Remove what is at ``path``, if it is there and is ``value``."""
    first, *rest = path
    if rest and isinstance(plain.get(first), dict):
        _leave_out(plain[first], rest, value)
    elif not rest and first in plain and plain[first] == value:
        del plain[first]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _class_name(item) if key == "_target_" else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _class_name(target: Any) -> Any:
    ours = isinstance(target, str) and target.startswith("streamllm.")
    return target.rpartition(".")[2] if ours else target
