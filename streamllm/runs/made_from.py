"""What a run was made from, kept as digests in its ``contents.json`` and compared before it goes on or is shown.

Invariant: what is recorded is never changed; a run that was begun without it cannot be checked, and says so."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from streamllm.contents import (
    SENTENCES,
    Contents,
    changes,
    of_code,
    of_files,
    of_text,
    of_texts,
    present,
    refuse_changes,
)
from streamllm.files import RunError
from streamllm.records import Example
from streamllm.runs.naming import NOT_IN_DIGEST
from streamllm.runs.stored import CONTENTS, StoredRun


def of_part(part: Any) -> Contents:
    """What a model, loaded or not, or a policy says that it is made of (``contents()``)."""
    found: Contents = getattr(part, "contents", dict)()
    return found


def of_data(dataset: Any, part: str = "data") -> Contents:
    """The files of a data set, if it has any here (`Dataset.files`)."""
    files = present(lambda: of_files(dataset.files())) if hasattr(dataset, "files") else {}
    return {part: files} if files else {}


def of_sentences(examples: Sequence[Example], part: str = "sentences") -> Contents:
    """The sentences themselves: ids and sources, and references, each in their order; where there are documents,
    their sentences and where each begins, too."""
    found = {
        "sources": of_texts(text for example in examples for text in (example.id, example.source)),
        "references": of_texts(example.reference for example in examples),
    }
    if any(example.segments for example in examples):
        found["boundaries"] = of_texts(text for example in examples for text in _of_segments(example))
    return {part: found}


def _of_segments(example: Example) -> Iterator[str]:
    yield str(len(example.segments))
    for segment in example.segments:
        yield from (str(segment.start), str(segment.units), segment.source, segment.reference)


def of_own_code(config: Mapping[str, Any]) -> Contents:
    """The source of every ``_target_`` of a configuration that is not ours, but for what changes no result."""
    found: Contents = {}
    for key, value in config.items():
        for target in _targets(value) if key not in NOT_IN_DIGEST else ():
            if code := of_code(target):
                found[f"code of {key} {target}"] = code
    return found


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(target := value.get("_target_"), str):
            yield target
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _targets(item)


def of_metrics(metrics: Sequence[Any], config: Mapping[str, Any]) -> Contents:
    """The source of own metrics, the files that they say they read (``contents()``), and what the configuration sets
    them to, if it names them."""
    found: Contents = {}
    settings = list((config.get("metrics") or {}).values())
    for number, metric in enumerate(metrics):
        names = of_code(f"{type(metric).__module__}.{type(metric).__qualname__}")
        if len(settings) == len(metrics) and isinstance(setting := settings[number], Mapping):
            plain = {key: value for key, value in setting.items() if key != "_target_"}
            names["settings"] = of_text(json.dumps(plain, sort_keys=True, default=str))
        names |= getattr(metric, "contents", dict)()
        if names:
            found[f"metric {metric.key}"] = names
    return found


def check(folder: StoredRun, now: Contents, read: Mapping[str, Callable[[], Sequence[Example]]] | None = None) -> None:
    """Refuse to go on with, or to show, a run that was made from something else than is there ``now``. Parts that are
    not known now, such as a model that has been removed, are not compared.

    Args:
        read: what reads the sentences of "sentences" or "validation sentences", if only they can tell whether a file
            that has changed holds other ones.

    Raises:
        RunError: something has changed (one line that says what), or ``contents.json`` is damaged.
    """
    then = folder.contents() or {}
    for part, load in (read or {}).items():
        files = {name: names for name, names in then.items() if name.startswith(SENTENCES[part])}
        if part in then and part not in now and changes(files, now):
            with suppress(ValueError, OSError):  # what cannot be read is not what was read
                now = {**now, **of_sentences(load(), part)}
    otherwise = f"give rerun=true, which keeps that folder as {folder.name_aside} and runs anew"
    refuse_changes(folder.path, then, now, otherwise, RunError)


def unchecked(folder: StoredRun) -> str:
    """Words for a run of which nobody knows what it was made from; none where that was recorded."""
    if not folder.begun or folder.contents() is not None:
        return ""
    return f"there is no {CONTENTS}, so nobody can check that model, data and code are still those of then"
