"""Cells of a corpus with what labels measured of them, kept in files like tokens: a stopped computation goes on, and
another head on the same labels takes them as they are."""

import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.check import whole_number
from streamllm.contents import of_text, of_texts
from streamllm.files import replacing
from streamllm.models.model import StreamingModel
from streamllm.prompt import PromptTokens
from streamllm.records import Example
from streamllm.training.data import DataConfig, TrainingData, tags_of
from streamllm.training.heads.cells import Measured, Numbers, Parts, cells_of, drawn_paths, every_path
from streamllm.training.heads.labels.labels import OfCells, OfLinks, OfSentences, check_latencies
from streamllm.training.sources import Tokenized

log = logging.getLogger(__name__)

ALL = "all"
PAIRS = 64
"""Pairs of a file."""


@dataclass(frozen=True)
class CellConfig:
    """Which places of a pair are looked at.

    Args:
        rows: paths of a pair, drawn around those of wait-k; None takes wait-k's with every k.
        ahead: target units that may be written and not read at most.
        behind: the largest k that is drawn.
        jitter: source units by which a drawn path strays from wait-k at each target unit, at most.
        max_tokens: pairs with a longer stream are left out.
        cache: a folder in which what was measured is kept; None is ``labels`` in the run folder.
        latencies: tags for ``{latency}`` in ``prompt.target_header``, one of which is drawn for each pair, so that the
            head knows what it is asked for; "all" are those that the model was trained with. None leaves the prompt's
            own.

    Raises:
        ValueError: a value is not accepted.
    """

    rows: int | None = 6
    ahead: int = 3
    behind: int = 8
    jitter: int = 2
    max_tokens: int = 256
    cache: str | None = None
    latencies: str | Sequence[str | int] | None = None

    def __post_init__(self) -> None:
        whole_number("cells.rows", self.rows, of="paths", null="for all")
        whole_number("cells.ahead", self.ahead, 0, of="units")
        whole_number("cells.behind", self.behind, of="units")
        whole_number("cells.jitter", self.jitter, 0, of="units")
        whole_number("cells.max_tokens", self.max_tokens, of="tokens")
        if self.latencies not in (None, ALL):
            tags_of("cells.latencies", self.latencies, null="for the prompt's own, and all for the model's")

    def tags(self, prompt: PromptTokens) -> list[str]:
        """The tags that are drawn from; none where the prompt's own is the only one.

        Raises: ValueError: the model has no place for tags, does not know one, or does not say which it knows.
        """
        found = list(prompt.latencies) if self.latencies == ALL else tags_of("cells.latencies", self.latencies)
        if self.latencies == ALL and not found:
            raise ValueError(
                "cells.latencies is 'all', and the model names no tags that it was trained with: list them, as in "
                "cells.latencies=[low,high], or leave it at null"
            )
        for tag in found:
            prompt.header_asking(tag, "cells.latencies")
        return found


def measure(
    model: StreamingModel,
    examples: Sequence[Example],
    labels: OfCells | OfSentences,
    config: CellConfig,
    folder: Path,
    made_of: str,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Measured:
    """Measure the cells of sentence pairs, or read what is measured already.

    Args:
        folder: where it is kept; files of other settings beside it do not matter.
        made_of: a digest of the model's weights.
        progress: is told how many pairs are done, and of how many.

    Raises:
        ValueError: no pair is left, a file is damaged, or labels and tags do not fit each other.
    """
    tags = config.tags(model.prompt)
    check_latencies(labels, tags)
    data = TrainingData(examples, model.prompt, DataConfig(), seed)
    tokenized = [data.tokenize(example) for example in examples]
    header = len(model.prompt.source_header) + len(model.prompt.source_footer), len(model.prompt.target_header)
    some = [
        i
        for i, pair in enumerate(tokenized)
        if pair.source
        and pair.target
        and max(header[0] + sum(map(len, pair.source)), header[1] + sum(map(len, pair.target))) <= config.max_tokens
    ]
    pairs = [(examples[i], tokenized[i]) for i in some]
    if not pairs:
        raise ValueError("no sentence pair is left to learn from: see cells.max_tokens and the data set")
    if len(pairs) < len(examples):
        log.info(
            "%d of %d pairs are left out: empty, or above cells.max_tokens", len(examples) - len(pairs), len(examples)
        )
    settings = [labels.measures, config.ahead, _drawn(labels, config), config.max_tokens, seed, model.prompt.rendered]
    if not isinstance(labels, OfSentences) and (heads := labels.attends(model)):
        settings.append(heads)
    needs = labels.needs(examples, some, model.prompt, folder) if isinstance(labels, OfLinks) else None
    if needs is not None:
        settings.append(of_texts(" ".join(map(str, one)) for one in needs))
    if tags:
        settings.append({"latencies": tags})
    if model.prompt.wait_token is not None and not isinstance(labels, OfSentences):
        settings.append("without the wait token")  # which once was one of those that predictions are compared by
    # φ counts; a model that was not trained to stream begins at 0 here, as in training.
    name = of_text(json.dumps([made_of, model.target_start, *settings]), data.source.digest or "")[:16]
    kept = folder / name
    kept.mkdir(parents=True, exist_ok=True)
    # Pairs of similar length stand in one file, so that little is padded; which do depends on no chance.
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][1].source), len(pairs[i][1].target), i))
    found = []
    for start in range(0, len(order), PAIRS):
        path = kept / f"{start // PAIRS:05d}.safetensors"
        if not path.exists():
            rng = random.Random(f"{seed}/{start}")
            here = order[start : start + PAIRS]
            of_words = None if needs is None else [needs[i] for i in here]
            _write(path, _joined(_of_some(model, [pairs[i] for i in here], labels, config, tags, rng, of_words)))
        found.append(_read(path))
        progress(min(start + PAIRS, len(order)), len(order))
    if not len(all_of_them := _joined(found)):
        raise ValueError("no sentence pair has a place where READ and WRITE differ: see the model and the data set")
    return all_of_them


def _drawn(labels: OfCells | OfSentences, config: CellConfig) -> list[int | None]:
    """What the choice of cells follows from."""
    if isinstance(labels, OfSentences):
        return [config.rows, config.behind]
    return [config.rows, config.behind, config.jitter] if config.rows and not labels.every_lag else []


def _of_some(
    model: StreamingModel,
    some: Sequence[tuple[Example, Tokenized]],
    labels: OfCells | OfSentences,
    config: CellConfig,
    tags: Sequence[str],
    rng: random.Random,
    needs: Sequence[Numbers] | None,
) -> Iterator[Measured]:
    if isinstance(labels, OfSentences):
        examples = [example for example, _ in some]
        return labels.of_sentences(model, examples, config.ahead, config.behind, config.rows, rng)
    return _of_pairs(model, some, labels, config, tags, rng, needs)


def _of_pairs(
    model: StreamingModel,
    some: Sequence[tuple[Example, Tokenized]],
    labels: OfCells,
    config: CellConfig,
    tags: Sequence[str],
    rng: random.Random,
    needs: Sequence[Numbers] | None,
) -> Iterator[Measured]:
    pairs = [pair for _, pair in some]
    paths, drawn, headers = [], [], []
    for pair in pairs:
        drawn.append(rng.randrange(len(tags)) if tags else -1)
        headers.append(model.prompt.header_asking(tags[drawn[-1]]) if tags else model.prompt.target_header)
        parts, units = Parts.of(pair, model.prompt), len(pair.source)
        if config.rows is None or labels.every_lag:
            paths.append(every_path(parts, units, config.ahead))
        else:
            how = config.ahead, config.behind, config.jitter, config.rows
            paths.append(drawn_paths(parts, units, *how, rng))
    found = cells_of(model, pairs, paths, labels.attends(model), headers)
    for i, (cells, latency) in enumerate(zip(found, drawn, strict=True)):
        if not len(cells.read):
            continue
        if needs is not None:
            cells = replace(cells, needs=needs[i])
        yield Measured(
            cells.states.astype(np.float16),
            labels.measured(cells),
            cells.read.astype(np.int32),
            cells.written.astype(np.int32),
            np.full(len(cells.read), cells.units, np.int32),
            np.full(len(cells.read), latency, np.int32),
        )


def _joined(parts: Any) -> Measured:
    parts = [part for part in parts if len(part)]
    if not parts:
        return Measured(np.zeros((0, 0), np.float16), *(np.zeros(0, kind) for kind in (np.float32, *[np.int32] * 4)))
    return Measured(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Measured)))


def _write(path: Path, measured: Measured) -> None:
    with replacing(path) as file:
        mx.save_safetensors(file, {one.name: mx.array(getattr(measured, one.name)) for one in fields(Measured)})


def _read(path: Path) -> Measured:
    try:
        arrays: Any = mx.load(str(path))
        found = {name: np.array(array) for name, array in arrays.items()}
        before = {"latency": np.full(len(found["measured"]), -1, np.int32)}  # files of when there was none
        return Measured(**before | found)
    except (RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it is measured again") from error
