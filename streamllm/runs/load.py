"""Reading runs back: their table, their sentences, their delays."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamllm.check import text
from streamllm.checked import fit, parse_yaml, shown
from streamllm.files import RunError, read_bytes
from streamllm.metrics.arrival import ArrivalClock, arrival_clock
from streamllm.records import Trace
from streamllm.runs.stored import CONFIG, PREDICTIONS, StoredRun
from streamllm.units import Unit, check_unit, unit_of

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

LAG_BOUNDS = ("min_lag", "max_lag")  # keys at the top that bound any policy

RUN, TRAINING = KINDS = "run", "training"
"""What a folder may hold the results of."""

MOVED = {
    "HubDataset": "hub",
    "ParallelText": "text",
    "Sample": "sample",
    "SacrebleuTestSet": "sacrebleu_set",
    "Table": "table",
}
"""Where data sets of `streamllm.corpora`, which runs of before 0.2 name, are in the room of data."""


def load_traces(run: str | os.PathLike[str]) -> list[Trace]:
    """The traces of a run folder, finished or not, times included.

    Raises:
        FileNotFoundError: there is no run in this folder.
    """
    return stored_run(run).traces()


def stored_run(run: str | os.PathLike[str]) -> StoredRun:
    """The folder of a run with traces, finished or not. Raises: as `load_traces`."""
    folder = StoredRun(run)
    if not (folder.path / PREDICTIONS).exists():
        if is_training(folder.path):
            raise FileNotFoundError(f"{run} is a training, which has no sentences: give a run of its model")
        raise FileNotFoundError(f"{run} has no {PREDICTIONS}: give the folder of one run (outputs/<name>-<digest>)")
    return folder


def load_delays(run: str | os.PathLike[str]) -> dict[str, list[int]]:
    """After how many units each unit of each sentence of a run was written, to replay it (`policies.Oracle`).

    For a unit written after the end of the source it is one more than the source has units, since its end was read,
    too.

    Args:
        run: the folder of a finished run over the same sentences.

    Raises: as `load_traces`.
    """
    return {trace.id: _delays(trace) for trace in load_traces(run)}


def _delays(trace: Trace) -> list[int]:
    kinds = {event.kind for event in trace.events}
    if "shown" in kinds or "sentence" in kinds:  # written later than delayed; ends of sentences are none of the stream
        return list(trace.delays)
    written = 0
    for event in trace.events:
        if event.kind == "end":
            break
        written += event.kind == "write"
    return [*trace.delays[:written], *[trace.source_units + 1] * (len(trace.delays) - written)]


def load_fronts(run: str | os.PathLike[str] | None) -> dict[str, dict[str, Any]] | None:
    """What a run of `policies.Frontier` has found of each sentence, for another run to choose from; None for None.

    Raises: as `load_traces`. ValueError: it is a run of another policy.
    """
    if run is None:
        return None
    found = {trace.id: trace.notes.get("front") for trace in load_traces(run)}
    if missing := [id for id, front in found.items() if not front]:
        raise ValueError(f"{run} has no front of sentence {missing[0]!r}: give a run of policy=frontier")
    return found  # type: ignore[return-value]


def load_runs(root: str | os.PathLike[str] = "outputs", set_aside: bool = False, kind: str = RUN) -> "pandas.DataFrame":
    """One row for each finished run in ``root``: ``folder``, ``name`` and ``digest``, its configuration with
    dots between keys (``policy.k``), and its metrics. A run whose files are damaged is left out, with a warning.

    Args:
        set_aside: also what was made anew since, with ``rerun=true`` (``NAME.before-1`` and so on).
        kind: "run" for what has translated a data set, "training" for what ``streamllm train`` has left there (its
            metrics are those of its end, such as ``best_bleu``).

    Raises:
        FileNotFoundError: ``root`` is not a folder. ValueError: another ``kind``.
    """
    import pandas

    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; accepted are {' and '.join(map(repr, KINDS))}")
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give the folder that holds the runs (output.root)")
    rows = []
    for path in sorted(Path(root).iterdir()):
        folder = StoredRun(path)
        if path.name.startswith(".") or not folder.finished or (folder.was_set_aside and not set_aside):
            continue
        try:
            metrics, config = folder.metrics(), read_config(path)
        except (RunError, OSError) as error:
            log.warning("left out: %s", error)
            continue
        if kind_of(config) != kind:
            continue
        name, _, digits = path.name.rpartition("-")
        rows.append({"folder": str(path), **flat_config(config), **metrics, "name": name, "digest": digits})
    return pandas.DataFrame(rows)


def kind_of(config: Mapping[str, Any]) -> str:
    """Whether a configuration is that of a run, which has a policy, or of a training."""
    return TRAINING if config.get("training") and not config.get("policy") else RUN


def is_training(run: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of a training. Raises: RunError: its configuration is damaged."""
    path = Path(run)
    if not (path / CONFIG).exists() or (path / PREDICTIONS).exists():
        return False
    return kind_of(read_config(path)) == TRAINING


def trainings_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The trainings in a folder, finished or not."""
    return [path for path in sorted(Path(folder).iterdir()) if path.name[0] != "." and is_training(path)]


def runs_in(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """The runs in a folder, without trainings and without those that were set aside: finished ones, and others."""
    inside = [run for run in sorted(Path(folder).iterdir()) if (run / CONFIG).exists() and run.name[0] != "."]
    inside = [run for run in inside if not StoredRun(run).was_set_aside and not is_training(run)]
    finished = [run for run in inside if StoredRun(run).finished]
    return finished, [run for run in inside if run not in finished]


def read_config(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The resolved configuration of a run folder.

    Raises:
        FileNotFoundError: there is no run in this folder.
        RunError: the file is damaged.
    """
    path = Path(run) / CONFIG
    try:
        config: dict[str, Any] = parse_yaml(read_bytes(path), most=100_000)
        _check_keys(config)
        fit(config, _Groups)
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or give rerun=true to its command") from error
    return config


@dataclass(frozen=True)
class _Groups:
    """What is read of ``run.yaml``; it holds more."""

    policy: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    arrival: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None


def _check_keys(value: Any) -> None:
    """Raises: ValueError: a key is no text, or a ``_target_`` names nothing."""
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if not isinstance(key, str) or (key == "_target_" and not isinstance(item, str)):
            raise ValueError(f"{shown(key)} is {shown(item)}; keys are text, and so is what a _target_ names")
        _check_keys(item)
    for item in value if isinstance(value, list) else ():
        _check_keys(item)


def target_of(run: str | os.PathLike[str]) -> tuple[str, Unit, str | None]:
    """Language and unit of the target, as the data set of the run had them, and the tokenizer of BLEU if it chose one.

    Raises: ValueError: its configuration does not tell the language.
    """
    dataset = read_config(run).get("dataset") or {}
    language, unit = dataset.get("target_language"), dataset.get("target_unit")
    otherwise = "add dataset.target_language to it"
    if language is None and "_target_" in dataset:  # the data set itself knows, e.g. by the names of its files
        try:
            made = _made(dataset)
            language, unit = made.target_language, made.target_unit
        except (ValueError, TypeError, ImportError, AttributeError, OSError) as error:
            raise ValueError(
                f"{Path(run) / CONFIG} has a dataset that cannot be made ({error}): {otherwise}"
            ) from error
    if language is None:
        raise ValueError(f"{Path(run) / CONFIG} does not tell the target language: {otherwise}")
    try:
        text("dataset.target_language", language)
        text("dataset.bleu_tokenizer", tokenizer := dataset.get("bleu_tokenizer"), null="for that of the language")
        check_unit(unit := unit or unit_of(language))
    except ValueError as error:
        raise ValueError(f"{Path(run) / CONFIG}: {error}") from error
    return language, unit, tokenizer


def clock_of(run: str | os.PathLike[str]) -> ArrivalClock | None:
    """The clock by which a run has latencies in seconds; None where it has none, or one that is not ours."""
    arrival = dict(read_config(run).get("arrival") or {})
    if str(arrival.pop("_target_", "")).rpartition(".")[2] != arrival_clock.__name__:
        return None
    try:
        return arrival_clock(**arrival)
    except (TypeError, ValueError):  # then it has no such latency
        return None


def _made(dataset: Mapping[str, Any]) -> Any:
    """The data set of a stored configuration; nothing is called that is not the class of one."""
    module, _, name = dataset["_target_"].rpartition(".")
    if module == "streamllm.corpora":
        module = f"streamllm.data.{MOVED.get(name, name)}"
    kind = getattr(import_module(module), name)
    if not (isinstance(kind, type) and hasattr(kind, "load")):
        raise ValueError(f"{dataset['_target_']} is no class of data sets")
    return kind(**{key: value for key, value in dataset.items() if key != "_target_"})


def flat_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with dots between keys. A data set of files that was given neither name nor languages has those
    of the files' names, as it had in the run."""
    flat = flatten(config)
    for side in ("source", "target"):
        if not isinstance(file := flat.get(f"dataset.{side}"), str):
            continue
        path = Path(Path(file).name.removesuffix(".gz"))
        if side == "source" and flat.get("dataset.name") is None:
            flat["dataset.name"] = path.stem
        if flat.get(f"dataset.{side}_language") is None and re.fullmatch(r"\.[a-z]{2}", path.suffix):
            flat[f"dataset.{side}_language"] = path.suffix[1:]
    return flat


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


FULL = "full"
"""The policy of full-sentence translation."""


def curve_name(policy: str, max_lag: Any) -> str:
    """The curve of a policy's run: a ``full`` that ``max_lag`` hurries does not wait for the end of the source, and is
    no full-sentence translation."""
    bounded = policy == FULL and max_lag is not None and max_lag == max_lag  # nan where a table has none
    return f"{policy}, bounded" if bounded else policy


def policy_name(target: str) -> str:
    """The short name of a policy by its class: "waitk" for ``streamllm.policies.waitk.WaitK``, and
    "local_agreement" for ``my.own.LocalAgreement``."""
    module, _, name = target.rpartition(".")
    file = module.rpartition(".")[2]
    if file.replace("_", "") == name.lower():
        return file
    return "".join(
        "_" + c.lower() if c.isupper() and i and not name[i - 1].isupper() else c.lower() for i, c in enumerate(name)
    )
