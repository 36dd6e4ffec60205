"""Writes docs/configuration.md, every key of every command, from conf/ and the docstrings of what it makes; a test says
when the page is stale, or when a key has no word.

python scripts/make_configuration.py
"""

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from streamllm.cli.calibrate import CalibrateKeys
from streamllm.cli.distill import DistillKeys
from streamllm.cli.keys import CommandKeys, Output, RunKeys, Sweep
from streamllm.cli.live import LiveKeys
from streamllm.cli.serve import ServeKeys
from streamllm.cli.train import TrainKeys
from streamllm.cli.train_head import TrainHeadKeys

ROOT = Path(__file__).parent.parent
CONF, PAGE = ROOT / "conf", ROOT / "docs" / "configuration.md"
HEAD = """# Every key

What can be typed as `key=value` after a command, with its value where nothing is given. `streamllm run --cfg job`
prints the keys of one command as they are at the moment; those of `streamllm train` leave out `model`, `adapter` and
`fresh` until one is chosen (`streamllm train fresh=tiny --cfg job`). A key that a command does not have is an error
that names the nearest ones.

A *group* is chosen by the name of a file, such as `policy=alignatt`; its keys follow with a dot, such as `policy.f=2`.
Files of your own in `conf/` of the folder you work in are found before these. Values are YAML: `null` is nothing, a
list is `[1,3]`, `${k}` is the value of another key (so `k=5` is `policy.k=5`), and a text that YAML would read
otherwise (`on`, `no`, `1e5`) stands in quotes twice: `'name="no"'`. *By file* says that the files of a group differ;
behind it stands what holds in a file of your own that leaves the key out.

<!-- Made by `python scripts/make_configuration.py` from conf/ and the docstrings. Do not edit. -->
"""
COMMANDS: tuple[tuple[str, str, type, type], ...] = (
    ("run", "translates a data set and scores it", RunKeys, CommandKeys),
    ("train", "trains a model or an adapter", TrainKeys, CommandKeys),
    ("train-head", "trains a head that says when to write, for `policy=learned`", TrainHeadKeys, CommandKeys),
    ("live", "translates words as they arrive; besides the keys of `run`", LiveKeys, RunKeys),
    ("serve", "answers SimulEval's remote evaluator; besides the keys of `run`", ServeKeys, RunKeys),
    ("calibrate", "finds attention heads for AlignAtt; besides the keys of `run`", CalibrateKeys, RunKeys),
    ("distill", "writes a teacher's translations; besides the keys of `run`", DistillKeys, RunKeys),
)
PARTS: dict[str, type[Any]] = {"output": Output, "sweep": Sweep}
"""Keys of commands with keys of their own below them."""
GROUPS = {
    "model": "The model",
    "prompt": "The text around the words",
    "policy": "When to read and when to write",
    "paradigm": "How the two streams lie in the memory of the model",
    "dataset": "What is translated, or learned from; `validation` of a training has the same keys",
    "metric": "Metrics beside the usual ones",
    "tracker": "Where a run is recorded besides its folder",
    "labels": "When WRITE is right, for the training of a write head",
    "fresh": "A model to make, for training",
    "adapter": "Low-rank weights beside those of the model, for training",
    "objective": "What a training minimises",
    "optimizer": "How a training moves the weights",
    "training": "How long and how fast to learn",
    "documents": "Streams of several sentences, for training",
}
PREFIX = {"metric": "metrics.NAME", "documents": "data.documents"}
"""How the keys of a group begin, where not as the group is called."""
OF_MLX = {
    "learning_rate": "set by the training from `training.learning_rate`",
    "betas": "how much is kept of the mean of the gradients, and of the mean of their squares",
    "beta_1": "how much is kept of the mean of the gradients; null keeps none",
    "eps": "added where is divided",
    "weight_decay": "by how much a step shrinks the weights, times the learning rate",
    "bias_correction": "whether the means are corrected for their beginning at zero",
    "momentum": "how much is kept of the last steps",
    "dampening": "how much less a gradient counts, with momentum",
    "nesterov": "whether it looks one step ahead",
    "clip_threshold": "the largest root mean square of a step",
    "decay_rate": "how fast the mean of squares follows; it is a power of the step",
    "scale_parameter": "whether a step is in proportion to the weights",
    "relative_step": "whether the optimizer chooses the rate itself, instead of `training.learning_rate`",
    "warmup_init": "whether such a rate begins small",
}
"""Arguments of MLX's optimizers, whose docstrings are not ours."""


@dataclass(frozen=True)
class ByFile:
    """The value of a key that each file sets, with that of its class, if it has one."""

    fallback: Any = "???"


@dataclass(frozen=True)
class Kind:
    """A file of a group: what it makes, and the values that it gives."""

    name: str
    about: str
    target: str
    values: dict[str, Any]


def page() -> str:
    """The whole page, in Markdown."""
    parts = [HEAD, *(_command(*command) for command in COMMANDS), *map(_group, GROUPS), *_of_commands()]
    return "\n".join(parts)


def without_a_word() -> list[str]:
    """Keys that nothing explains, each with the class that takes it."""
    lacking = [
        f"{name}: {keys.__name__}.{key}"
        for name, _, keys, _ in COMMANDS
        for key in (field.name for field in dataclasses.fields(keys))
        if key not in words(keys)
    ]
    targets = {kind.target for group in GROUPS for kind in kinds(group)} | set(_parts_of_commands().values())
    targets |= {value["_target_"] for group in GROUPS for kind in kinds(group) for _, value in _several(kind)}
    for target in sorted(filter(None, targets)):
        lacking += [f"{target}.{key}" for key in arguments(target) if key not in explained(target)]
    for group in GROUPS:
        for kind in kinds(group):
            lacking += [
                f"conf/{group}/{kind.name}.yaml: {key}"
                for key in kind.values
                if kind.target and key not in arguments(kind.target)
            ]
    return lacking


def words(source: Any) -> dict[str, str]:
    """What the ``Args`` of a class (and of those that it goes back to) or of a function say of each argument; of "as
    for `Other`", what that says of it."""
    found: dict[str, str] = {}
    for one in reversed(inspect.getmro(source)) if inspect.isclass(source) else [source]:
        _, begins, rest = inspect.cleandoc(one.__doc__ or "").partition("\nArgs:\n")
        section = re.split(r"\n(?=\S)", rest)[0] if begins else ""
        for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            said = " ".join(text.split()).rstrip(".")
            found |= {name: _elsewhere(one, name, said) for name in names.split(", ")}
    return {name: text for name, text in found.items() if text}


def _elsewhere(source: Any, name: str, text: str) -> str:
    """The words of an argument, found where its own refer to; none where there are none."""
    if not (referred := re.fullmatch(r"as for `([\w.]+)`", text)):
        return text
    other = _imported(referred[1]) if "." in referred[1] else vars(import_module(source.__module__))[referred[1]]
    return words(other).get(name, "")


@cache
def explained(target: str) -> dict[str, str]:
    return OF_MLX if target.startswith("mlx.") else words(_imported(target))


@cache
def arguments(target: str) -> list[str]:
    """The arguments that the class or function takes."""
    return list(inspect.signature(_imported(target)).parameters)


def kinds(group: str) -> list[Kind]:
    """The files of a group."""
    return [_kind(path, group) for path in sorted((CONF / group).glob("*.yaml"))]


def _kind(path: Path, group: str) -> Kind:
    text = path.read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    base: dict[str, Any] = {}
    target = ""
    for other in values.pop("defaults", []):
        below = _kind(path.with_name(f"{other}.yaml"), group)
        base, target = base | below.values, below.target
    if "@package _global_" in text:
        values = (values.get(group) or {}) | {}
    target = values.pop("_target_", target)
    return Kind(path.stem, _about(text) or _said_by(target, values), target, base | values)


def _about(text: str) -> str:
    """The first sentence of the comment that a file begins with."""
    comments = [line[1:] for line in text.splitlines() if line.startswith("#") and "@package" not in line]
    whole = " ".join(line.strip() for line in takewhile(lambda line: not line.startswith("   "), comments))
    return re.split(r"[.:;] (?=[A-Z`]|or from)", whole.rstrip(":."))[0].partition(": streamllm ")[0]


def _said_by(target: str, values: Mapping[str, Any]) -> str:
    """What a file says without a comment: the model that it names, or what its class is."""
    if "path" in values:
        return f"`{values['path']}`"
    return (
        inspect.cleandoc(_imported(target).__doc__ or "").split("\n\n")[0].replace("\n", " ").rstrip(".")
        if target
        else ""
    )


def _imported(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def _command(name: str, about: str, keys: type, base: type) -> str:
    """The keys that the command has beyond those of ``base``; the two first commands have those of all, too."""
    values = yaml.safe_load((CONF / f"{name.replace('-', '_')}.yaml").read_text(encoding="utf-8"))
    own = [field.name for field in dataclasses.fields(keys)]
    if base is RunKeys:
        own = [key for key in own if key not in {field.name for field in dataclasses.fields(base)}]
    chosen = {
        key: value for default in values["defaults"] if isinstance(default, dict) for key, value in default.items()
    }
    rows = []
    for key in own:
        meaning = words(keys).get(key, "")
        part = PARTS.get(key)
        if part is not None:
            rows += [(f"{key}.{sub}", values[key][sub], text) for sub, text in words(part).items()]
        elif key in _parts_of_commands():
            rows.append((key, None, f"{meaning} ([keys](#{key}))"))
        elif key in GROUPS or key in ("validation", "metrics"):
            group = {"validation": "dataset", "metrics": "metric"}.get(key, key)
            default = chosen.get(f"{group}@{key}", chosen.get(group))
            rows.append((key, default or None, f"{meaning} ([group](#{group}))"))
        else:
            rows.append((key, values.get(key), meaning))
    return f"## streamllm {name}\n\n`streamllm {name}` {about}.\n\n{_table(rows)}\n"


def _group(group: str) -> str:
    found = kinds(group)
    prefix = PREFIX.get(group, group)
    lines = [f"## {group}", "", f"{GROUPS[group]}.", "", f"| `{group}=` | |", "| --- | --- |"]
    lines += [f"| `{kind.name}` | {_cell(kind.about)} |" for kind in found]
    targets = list(dict.fromkeys(kind.target for kind in found if kind.target and arguments(kind.target)))
    shared = set.intersection(*(set(arguments(target)) for target in targets)) if len(targets) > 3 else set()
    if shared:
        of = [kind for kind in found if kind.target]
        lines += [
            "",
            "All have",
            "",
            _table(_rows(prefix, sorted(shared, key=arguments(targets[0]).index), of, targets[0])),
        ]
    for target in targets:
        of = [kind for kind in found if kind.target == target]
        keys = [key for key in arguments(target) if key not in shared]
        if keys:
            names = ", ".join(f"`{kind.name}`" for kind in of)
            lines += ["", f"{names} ({target.rpartition('.')[2]}):", "", _table(_rows(prefix, keys, of, target))]
        lines += [
            _nested(f"{prefix}.{key}", value) for kind in of for key, value in kind.values.items() if _makes(value)
        ]
    for kind in found:
        if parts := _several(kind):
            lines += ["", f"`{kind.name}` is several, each with keys of its own:"]
            lines += [_nested(f"{prefix.partition('.')[0]}.{key}", value) for key, value in parts]
    return "\n".join(lines) + "\n"


def _several(kind: Kind) -> list[tuple[str, Mapping[str, Any]]]:
    """What a file makes that makes more than one thing, each with its name."""
    return [] if kind.target else [(key, value) for key, value in kind.values.items() if _makes(value)]


def _rows(prefix: str, keys: Iterable[str], of: list[Kind], target: str) -> list[tuple[str, Any, str]]:
    return [(f"{prefix}.{key}", _value(key, of, target), explained(target).get(key, "")) for key in keys]


def _value(key: str, of: list[Kind], target: str) -> Any:
    """The value of a key where all files give the same; else `ByFile`."""
    source = _imported(target)
    fallback = inspect.signature(source).parameters[key].default
    if fallback is inspect.Parameter.empty:
        fallback = ByFile()
    for field in dataclasses.fields(source) if dataclasses.is_dataclass(source) else ():
        if field.name == key and field.default_factory is not dataclasses.MISSING:
            fallback = field.default_factory()
    values = [kind.values.get(key, fallback) for kind in of]
    if all(repr(value) == repr(values[0]) for value in values):
        return values[0]
    return fallback if isinstance(fallback, ByFile) else ByFile(fallback)


def _makes(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _nested(prefix: str, value: Mapping[str, Any]) -> str:
    target = value["_target_"]
    rows = [(f"{prefix}.{key}", value.get(key), explained(target).get(key, "")) for key in arguments(target)]
    return f"\n`{prefix}` ({target.rpartition('.')[2]}):\n\n{_table(rows)}"


@cache
def _parts_of_commands() -> dict[str, str]:
    """Keys of commands that make something and are no groups, with what they make."""
    return {
        key: value["_target_"]
        for name in ("run", "train", "train_head")
        for key, value in yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")).items()
        if _makes(value)
    }


def _of_commands() -> list[str]:
    values = {
        key: value
        for name in ("run", "train", "train_head")
        for key, value in yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")).items()
    }
    parts = []
    for key, target in _parts_of_commands().items():
        keys = [name for name in arguments(target) if f"{key}.{name}" != "data.documents"]
        of = [Kind(key, "", target, values[key])]
        about = inspect.cleandoc(_imported(target).__doc__ or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"## {key}\n\n{_plain(about)}\n\n{_table(_rows(key, keys, of, target))}\n")
    return parts


def _table(rows: Iterable[tuple[str, Any, str]]) -> str:
    lines = ["| key | value | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{key}` | {_shown(value)} | {_cell(text)} |" for key, value, text in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, ByFile):
        return "by file" if value.fallback == "???" else f"by file; else {_shown(value.fallback)}"
    if isinstance(value, tuple):
        value = list(value)
    if value == "???":
        return "needed"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    text = text.removesuffix("...").strip().replace("|", "\\|")
    return f"`{text}`" if len(text) <= 70 else "by file"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """As Markdown: None is null in a configuration."""
    return re.sub(r"\bNone\b", "null", re.sub(r"\bFalse\b", "false", re.sub(r"\bTrue\b", "true", text))).replace(
        "``", "`"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
