"""What a run was made from, kept as digests in its ``contents.json`` and compared before it goes on or is shown.

Invariant: what is recorded is never changed; a run that was begun without it cannot be checked, and the log says so."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from streamllm.contents import Contents, changes, listed, of_code, of_files, of_text, present
from streamllm.files import RunError
from streamllm.records import Example
from streamllm.runs.naming import NOT_IN_DIGEST
from streamllm.runs.stored import CONTENTS, StoredRun

log = logging.getLogger(__name__)


class Rendered(Protocol):
    """What is compared of a prompt (`streamllm.prompt.PromptTokens`)."""

    source_header: list[int]
    source_footer: list[int]
    target_header: list[int]
    text: Any


def of_data(dataset: Any, part: str = "data") -> Contents:
    """The files of a data set, if it has any here (`Dataset.files`)."""
    files = present(lambda: of_files(dataset.files())) if hasattr(dataset, "files") else {}
    return {part: files} if files else {}


def of_sentences(examples: Iterable[Example], part: str = "sentences") -> Contents:
    """The sentences themselves: ids and sources, and references, each in their order."""
    rows = [(example.id, example.source, example.reference) for example in examples]
    sources = of_text(*(text for row in rows for text in row[:2]))
    return {part: {"sources": sources, "references": of_text(*(row[2] for row in rows))}}


def of_prompt(prompt: Rendered) -> Contents:
    """The prompt as it is fed: its texts, and their tokens."""
    texts = {name: str(getattr(prompt.text, name)) for name in ("source_header", "source_footer", "target_header")}
    tokens = repr([list(getattr(prompt, name)) for name in texts])
    return {"prompt": {**texts, "tokens": of_text(tokens)}}


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


def check(folder: StoredRun, now: Contents) -> None:
    """Refuse to go on with, or to show, a run that was made from something else than is there ``now``.

    Raises:
        RunError: something has changed (one line that says what), or ``contents.json`` is damaged.
    """
    then = folder.contents()
    if then is None:
        if folder.begun:
            log.info("%s has no %s, so nobody knows whether its model and data are still the same", folder.path, CONTENTS)
        return
    if changed := changes(then, now):
        raise RunError(f"{folder.path} was made from something else: {hint(changed)}")


def hint(changed: Sequence[str]) -> str:
    return (
        f"{listed(changed)}. Restore that, and the same command goes on; or give rerun=true, which keeps the old "
        "folder beside the new one"
    )
