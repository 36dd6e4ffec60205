"""The keys of each command, checked in one place before anything is loaded: types by annotations, ranges by
``__post_init__``. Those of a command itself are fields of a dataclass, here and where the command is; those of a part
(model, policy, …) are the arguments of the class that its ``_target_`` names. Invariant: no value is changed, so no run
gets another name."""

import dataclasses
import difflib
import inspect
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from streamllm.check import batch_size, whole_number
from streamllm.cli.annotations import Part, allows, fits, in_words, names_a_class, shown
from streamllm.cli.conf import CONF
from streamllm.cli.errors import REPEATED, check_repeated, plain
from streamllm.cli.missing_keys import CHOSEN_BY, is_chosen_by_another, no_such_key, recomposed
from streamllm.engine.limits import EarlyStop
from streamllm.runs.naming import check_name

OF_HYDRA = ("_target_", "_args_", "_convert_", "_partial_", "_recursive_")
"""Keys of a part that Hydra reads; all others are arguments."""
NEEDED = {
    "model": "load",
    "prompt": "source_header",
    "paradigm": "open",
    "dataset": "load",
    "validation": "load",
    "tracker": "start",
    "limits": "reached",
    "arrival": "measured",
    "tuning": "__call__",
    "objective": "__call__",
    "training": "epochs",
    "optimizer": "update",
    "adapter": "apply",
    "score": "ks",
    "data": "ks",
    "labels": "targets",
    "head": "hidden",
    "cells": "rows",
}
"""What is looked for in each part once it is made; a policy has a check of its own."""

Keys = TypeVar("Keys", bound="CommandKeys")


# Frozen, and with eq and repr, a dataclass takes 3 ms more to make, which every command would pay.
@dataclass(eq=False, repr=False, kw_only=True)
class Output:
    """Where runs are written.

    Args:
        root: the folder of run folders. A number is a name, too.
    """

    root: str | int


@dataclass(eq=False, repr=False, kw_only=True)
class Sweep:
    """How points of a sweep are made (`streamllm.cli.together`).

    Args:
        together: true evaluates the points of ``-m`` in one batch, false one after the other; null does so where all is
            known to fit.
    """

    together: bool | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class CommandKeys:
    """What every command has.

    Args:
        name: how the run folder begins; a number is a name, too.
        seed: what is drawn at random follows from it.
        output: where runs are written.
        rerun: true runs anew, and keeps a folder that is there under another name.
        debug: true shows the stack trace of errors.
        study: a label for the runs of one study, which it gives folders of their own; no file of ours has it, so it
            is given as ``+study=mine``.
    """

    name: str | int
    seed: int
    output: Output
    rerun: bool
    debug: bool
    study: str | int | None = None

    def __post_init__(self) -> None:
        check_name(str(self.name))


@dataclass(eq=False, repr=False, kw_only=True)
class RunKeys(CommandKeys):
    """Of ``conf/run.yaml``.

    Args:
        model: the model that translates.
        prompt: the text around the words; null is the model's own.
        policy: when to read and when to write.
        paradigm: how the two streams lie in the memory of the model.
        dataset: what is translated.
        tracker: where the run is recorded besides its folder.
        metrics: own metrics, chosen by ``metric=[mine,ter]``.
        limits: when a sentence is cut.
        arrival: a clock for latency in seconds.
        tuning: what a sweep maximises.
        batch_size: sentences at a time; null is 64 for each core, 128 on a GPU.
        min_lag: READ while fewer units than this lie between what was read and what was written, whatever the policy;
            null is no bound.
        max_lag: WRITE when as many as this do; null is no bound.
        early_stop: what an end token does while source remains: read, or stop.
        processes: so many share the sentences, each with one thread and a model of its own.
        cluster: where the processes run; null is this machine, auto or HOST:PORT a Ray cluster, local one that ends
            with the run.
        sweep: how the points of a sweep are made.
    """

    model: Part
    prompt: Part | None
    policy: Part
    paradigm: Part | None
    dataset: Part
    tracker: Part | None
    metrics: Mapping[str, Part] | None
    limits: Part
    arrival: Part | None
    tuning: Part
    batch_size: int | None
    min_lag: int | None
    max_lag: int | None
    early_stop: EarlyStop = "read"
    processes: int = 1
    cluster: str | None = None
    sweep: Sweep = Sweep()  # noqa: RUF009  nobody changes it

    def __post_init__(self) -> None:
        super().__post_init__()
        batch_size(self.batch_size)
        whole_number("processes", self.processes, of="")
        whole_number("min_lag", self.min_lag, null="for no bound")
        whole_number("max_lag", self.max_lag, self.min_lag or 1, null="for no bound", hint="not below min_lag")


def checked(cfg: DictConfig, kind: type[Keys]) -> tuple[dict[str, Any], Keys]:
    """The resolved configuration, and of it the keys of a command.

    Raises:
        ValueError: a key is missing or is one that nothing reads, a value is of another type or out of range, or a key
            and its repetition differ.
        MissingMandatoryValue, OmegaConfBaseException: a value is missing, or refers to what is not there.
    """
    values = plain(cfg)
    _refuse_what_nothing_reads(kind)
    _check_fields(kind, values)
    for key, value in values.items():
        check_part(key, value, values)
    check_repeated(values)
    own = {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}
    own["output"] = Output(**own["output"])
    if "sweep" in own:
        own["sweep"] = Sweep(**own["sweep"])
    keys = kind(**own)
    del values["rerun"]  # of this one command, and nothing of what comes out
    return values, keys


def made(node: Any, key: str) -> Any:
    """What the part ``key`` of a configuration names; None where it is null.

    Raises: ValueError: it is no such part; what its constructor raises.
    """
    part, needed = _made(node), NEEDED.get(key)
    if part is not None and needed and not hasattr(part, needed):
        kind = type(part).__name__
        raise ValueError(f"{key} is a {kind}, without {needed}: {key}._target_ names a class for something else")
    return part


def _made(node: Any) -> Any:
    """What Hydra makes of a node. Parts of ours alone need none of its copies and checks, a sixth of a sweep's point
    each; where one of them raises, Hydra is asked all the same, and says it in its words."""
    if isinstance(node, DictConfig):
        with suppress(Exception):
            return _called(OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
    return instantiate(node, _convert_="all")


def _called(value: Any) -> Any:
    """A plain value with its parts made.

    Raises: LookupError: one is not ours, or tells Hydra how to make it.
    """
    if isinstance(value, list):
        return [_called(item) for item in value]
    if not isinstance(value, dict):
        return value
    arguments = {key: _called(item) for key, item in value.items() if key != "_target_"}
    if "_target_" not in value:
        return arguments
    module, _, name = str(value["_target_"]).rpartition(".")
    if not module.startswith("streamllm.") or not arguments.keys().isdisjoint(OF_HYDRA):
        raise LookupError(value["_target_"])
    return getattr(import_module(module), name)(**arguments)


# --- keys of a command


def _check_fields(kind: type[Any], values: Mapping[str, Any], above: str = "") -> None:
    known = _fields(kind)
    for name, parameter in known.items():
        key = above + name
        if name not in values:
            if parameter.default is inspect.Parameter.empty:
                none = f"; for none give {key}=none" if (CONF / key / "none.yaml").exists() else ""
                raise ValueError(f"{key} is missing: leave out ~{key}, or add it to the YAML that lacks it{none}")
        elif inspect.isclass(parameter.annotation) and dataclasses.is_dataclass(parameter.annotation):
            if not isinstance(values[name], Mapping):
                of = ", ".join(f"{key}.{one}" for one in _fields(parameter.annotation))
                raise ValueError(f"{key} is {shown(values[name])}; it is a group of keys: {of}")
            _check_fields(parameter.annotation, values[name], f"{key}.")
        elif not _may_be(values[name], parameter.annotation):
            raise ValueError(_wrong(key, values[name], parameter.annotation))
    if above:
        _refuse_unknown(above, values, known, above.rstrip("."))


def _fields(kind: Any) -> Mapping[str, inspect.Parameter]:
    return _parameters(kind)


@cache
def _parameters(kind: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind, eval_str=True).parameters


def _may_be(value: Any, annotation: Any) -> bool:
    return fits(value, annotation) and (_is_part(annotation) or not names_a_class(value))


def _is_part(annotation: Any) -> bool:
    return annotation is Part or (get_origin(annotation) in (Union, UnionType) and Part in get_args(annotation))


def _wrong(key: str, value: Any, annotation: Any) -> str:
    if _is_part(annotation) and isinstance(value, Mapping):
        return f"{key} is {shown(dict(value))}, which names no class: its YAML needs a line _target_: MODULE.CLASS"
    if _is_part(annotation):
        return f"{key} is {shown(value)}; it is a group of keys: give those, as in {key}.KEY=VALUE, or leave {key} out"
    if key in CHOSEN_BY and isinstance(value, str | list):
        given = value if isinstance(value, str) else f"[{','.join(map(str, value))}]"
        return is_chosen_by_another(key, given)
    text = f"{key} is {shown(value)}; it is {in_words(annotation)}"
    if isinstance(value, float) and value.is_integer() and fits(int(value), annotation):
        return f"{text} (written without a point or exponent, as in {key}={value:.0f})"
    if isinstance(value, bool | int | float) and fits("", annotation):
        return f"{text} (as a text: '{key}=\"{shown(value)}\"')"
    return text


def _refuse_what_nothing_reads(kind: type[Any]) -> None:
    """A key that was added with + has to be one of the command, or of a file that is composed: else it would give the
    run another name, and change nothing."""
    hydra = HydraConfig.get()
    words = list(hydra.overrides.task)
    if not any(word.startswith("+") for word in words):
        return
    parser = OverridesParser.create()
    unsure = {}
    for word in (word for word in words if word.startswith("+")):
        override = parser.parse_override(word)
        chosen = override.get_key_element().lstrip("+") in hydra.runtime.choices
        key = (override.package or ("" if chosen else override.key_or_group)).partition(".")[0]
        if key not in ("", "_global_", *_fields(kind)):
            unsure[word] = key
    if not unsure:
        return
    config, others = str(hydra.job.config_name), [word for word in words if word not in unsure]
    declared = recomposed(config, [*hydra.overrides.hydra, *others])
    for word, key in unsure.items():
        if key not in declared:
            there = no_such_key(key, config, others)
            raise ValueError(f"{word} adds what nothing reads (a label for runs is +study=NAME): {there}")


# --- arguments of a class


def check_part(key: str, value: Any, whole: Mapping[str, Any] = {}) -> None:
    """Check the arguments of the class that a plain value names, and of those within it. What cannot be imported is
    left to Hydra's instantiation.

    Raises: ValueError: an argument is missing, is not taken, or is of another type than is annotated.
    """
    if isinstance(value, list):
        for place, item in enumerate(value):
            check_part(f"{key}[{place}]", item, whole)
    if not isinstance(value, Mapping):
        return
    for name, item in value.items():
        check_part(f"{key}.{name}", item, whole)
    if "_target_" in value and not names_a_class(value):
        raise ValueError(f"{key}._target_ is {shown(value['_target_'])}; it is a text, MODULE.CLASS")
    if not names_a_class(value) or (parameters := arguments_of(value["_target_"])) is None:
        return
    short = value["_target_"].rpartition(".")[2]
    kinds = {parameter.kind for parameter in parameters.values()}
    given = {name: item for name, item in value.items() if name not in OF_HYDRA}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        _refuse_unknown(f"{key}.", given, parameters, short)
    for name, parameter in parameters.items():
        if name not in given:
            required = parameter.default is parameter.empty and parameter.kind in (
                parameter.KEYWORD_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            )
            if required and not value.get("_partial_") and "_args_" not in value:
                raise ValueError(f"{key}.{name} is missing, and {short} needs it: add +{key}.{name}=…")
        elif not allows(parameter, given[name]):
            raise ValueError(_wrong(_typed(key, name, given[name], whole), given[name], parameter.annotation))


def _typed(group: str, name: str, value: Any, whole: Mapping[str, Any]) -> str:
    """The key that a person gives for an argument: ``k`` for ``policy.k``, which repeats it."""
    return name if (name, group) in REPEATED and whole.get(name, ...) == value else f"{group}.{name}"


def _refuse_unknown(above: str, given: Collection[str], known: Collection[str], who: str) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(str(name), known)
            listed = ", ".join(f"{above}{one}" for one in [*close, *(one for one in known if one not in close)])
            hint = f"did you mean {' or '.join(f'{above}{one}' for one in close)}? " if close else ""
            takes = f"it takes {listed}" if listed else "it takes nothing"
            raise ValueError(f"{above}{name} is a key that {who} does not take; {hint}{takes}")


@cache
def arguments_of(target: str) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of what a ``_target_`` names; None if it cannot be imported or has no signature."""
    module, _, name = target.rpartition(".")
    try:
        made = getattr(import_module(module), name)
    except Exception:  # whatever a module of somebody's own raises; instantiation says it in words
        return None
    for evaluated in (True, False):
        try:
            return inspect.signature(made, eval_str=evaluated).parameters
        except Exception:  # an annotation that is for type checkers only; a builtin
            continue
    return None
