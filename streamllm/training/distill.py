"""Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947): a teacher's translations as the targets to learn
from. A file of them is written pair by pair, so that nothing is lost by a stop; the same call goes on."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from streamllm.batching.scheduler import translate_many
from streamllm.batching.sizes import batch_size_of
from streamllm.checked import fit, read_json, read_json_lines
from streamllm.contents import Contents, refuse_changes
from streamllm.data.dataset import Dataset
from streamllm.data.joined import each_alone
from streamllm.engine.limits import Limits
from streamllm.files import RunError, open_for_append, write_atomically
from streamllm.models.lengths import fitting
from streamllm.models.model import StreamingModel
from streamllm.policies import Full
from streamllm.records import Example
from streamllm.runs import made_from
from streamllm.runs.naming import digest

log = logging.getLogger(__name__)

CONTENTS = "contents"  # the key, in the file beside the pairs, of what they are made from
BLOCK = 64  # times the batch size: pairs that are held at a time


def distill(
    model: StreamingModel,
    corpus: Dataset,
    to: Path,
    config: Mapping[str, Any],
    batch_size: int | None = 1,
    limits: Limits = Limits(),
    seed: int = 0,
    stream: bool = False,
    teacher: Contents | None = None,
) -> Iterator[int]:
    """Translate the sources of a corpus, each read whole (policy=full), into a file of JSON Lines that
    ``dataset=table dataset.path=…`` takes: ``id``, and source and target by their language codes.

    In the end its lines are in the order of the corpus. Sources that get no translation are left out, with a warning;
    so are those that are too long, where ``corpus.skip_long`` says so.

    Args:
        config: of model and corpus; kept beside the file, which goes on only where it is the same.
        batch_size: sentences at a time, None for `default_batch_size`.
        stream: read the corpus one by one instead of holding it.
        teacher: what the model is made of (`ModelConfig.contents`), to go on with the same one only.

    Yields: the number of pairs in the file, after each.

    Raises:
        ValueError: the file was begun with another configuration, teacher or corpus, or is damaged, its languages are
            one, or batch_size is not positive.
    """
    batch_size = batch_size_of(batch_size)
    source, target = corpus.source_language, corpus.target_language
    if source == target:
        raise ValueError(f"source and target language are both {source!r}, and name the columns of {to}")
    begun = to.with_name(f"{to.name}.config.json")
    contents: Contents = {**(teacher or {}), **made_from.of_part(model), **made_from.of_data(corpus)}
    if stream:
        read: Callable[[], Iterable[Example]] = corpus.stream
    else:
        examples = corpus.load()
        read, contents = partial(iter, examples), {**contents, **made_from.of_sentences(examples)}

    def corpus_again() -> Iterator[Example]:
        return each_alone(read())  # the sentences of a document, too: a teacher reads one whole

    limits = limits.between(corpus.source_unit, corpus.target_unit, corpus_again())
    _check_begun(to, begun, config, contents)
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        record = {**config, CONTENTS: contents}
        write_atomically(begun, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    done: dict[str, str] = {}  # lines by id
    empty: set[str] = set()
    too_long = 0
    with open_for_append(to) as file:
        done |= {row["id"]: json.dumps(row, ensure_ascii=False) for row in _rows(to, (source, target))}
        pairs = corpus_again()
        while block := list(islice(pairs, BLOCK * batch_size)):
            todo = [pair for pair in block if pair.id not in done]
            short = fitting(model, todo, limits, corpus.name, corpus.skip_long)
            too_long += len(todo) - len(short)
            for trace in translate_many(model, short, Full(), limits, batch_size, seed):
                if not trace.prediction.strip():
                    empty.add(trace.id)
                    continue
                row = {"id": trace.id, source: trace.source, target: trace.prediction.strip()}
                done[trace.id] = json.dumps(row, ensure_ascii=False)
                file.write(f"{done[trace.id]}\n".encode())
                file.flush()
                yield len(done)
    ordered = [done[pair.id] for pair in corpus_again() if pair.id in done]
    write_atomically(to, "".join(f"{line}\n" for line in ordered))
    if too_long:
        log.warning("%d sources are too long and were left out (dataset.skip_long)", too_long)
    if empty:
        log.warning("%d sources got no translation and were left out, e.g. %s", len(empty), min(empty))


def _rows(to: Path, languages: Sequence[str]) -> Iterator[dict[str, str]]:
    """What is in the file already.

    Raises: RunError: a line is damaged.
    """

    def damaged(number: int, error: ValueError) -> None:
        raise RunError(
            f"{to}, line {number} is damaged ({error}): remove that line, and the same command translates its sentence "
            "again"
        ) from error

    for number, _, row in read_json_lines(to, dict[str, str], damaged):
        for key in ("id", *languages):
            if key not in row:
                damaged(number, ValueError(f"it has no {key}"))
        yield row


def _contents(made: Any, begun: Path) -> Contents:
    try:
        return fit(made, Contents)
    except ValueError as error:
        raise RunError(f"{begun} is damaged ({CONTENTS}: {error}): give another file, or delete both") from error


def _check_begun(to: Path, begun: Path, config: Mapping[str, Any], contents: Contents) -> None:
    """Raises: ValueError: what is in ``to`` was made with another configuration, teacher or corpus."""
    if not to.exists():
        return
    otherwise = "give another file, or delete both"
    then = read_json(begun, dict[str, Any], otherwise) if begun.exists() else None
    made = then.pop(CONTENTS, None) if then is not None else None
    if then is None or digest(then) != digest(config):
        raise ValueError(f"{to} was made with another configuration, see {begun}: give another file, or delete it")
    if made is None:
        log.info(
            "%s does not say what it was made from, so nobody can check that teacher and corpus are the same", begun
        )
    else:
        refuse_changes(to, _contents(made, begun), contents, "give another file")
