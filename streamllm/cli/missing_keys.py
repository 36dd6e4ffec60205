"""A key that is not there, on a command line: what there is instead, in one line."""

import difflib
import itertools
from collections.abc import Iterable
from contextlib import nullcontext, suppress

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from streamllm.cli.conf import CONF
from streamllm.cli.plugins import searched
from streamllm.cli.targets import taker_of

CHOSEN_BY = {"metrics": "metric"}
"""Keys that hold what another one has chosen: ``metric=ter`` fills ``metrics``."""


def is_chosen_by_another(key: str, given: str) -> str:
    """What to say of a value that was given to one of `CHOSEN_BY`."""
    return f"{key}={given}: {key} holds what is chosen by {CHOSEN_BY[key]}: give {CHOSEN_BY[key]}={given}"


def recomposed(config: str, words: list[str]) -> DictConfig:
    """The configuration with other overrides, inside a Hydra program or outside one, with what Hydra adds."""
    inside = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config, words, return_hydra_config=True)


def choices(group: str) -> list[str]:
    """What a group can be chosen from."""
    return sorted({path.stem for folder in searched() for path in (folder / group).glob("*.yaml")})


def no_such_key(key: str, config: str, words: list[str]) -> str:
    """What there is instead of a key, for the overrides ``words``."""
    refused = _refused_point(config, words)
    others = [word for word in refused if word.lstrip("+~").partition("=")[0] != key]
    try:
        cfg = recomposed(config, others)
    except CompactHydraException:  # something else is wrong as well
        cfg = recomposed(config, [])
    usual = recomposed(config, [])
    chosen = cfg.hydra.runtime.choices
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not parent and isinstance(cfg.get(key), DictConfig):
        of = f"{key}={chosen[key]}" if key in chosen else key
        other = f"; for another class write its lines in conf/{key}/NAME.yaml, and give {key}=NAME"
        return f"{key}={{…}} gives values to the keys of {of}: {_keys_of(cfg, key)}{other if key in chosen else ''}"
    if not parent and key in usual:  # only policies have keys beside their group
        own = ", ".join(f"policy.{item}" for item in cfg.policy if not str(item).startswith("_"))
        instead = f"; it has {own}" if own else f": leave out {key}, or policy={chosen.policy}"
        return f"policy={chosen.policy} has no {key}{instead}"
    if node is None and (near := _near(key, cfg)):
        return near
    if not isinstance(node, DictConfig):
        return f"there is no key {key!r}: {parent} has no keys"
    names = {str(item) for item in node if not str(item).startswith("_")} - {"hydra"}
    names |= {group for group in chosen if "/" not in group and not parent}
    if not parent:
        names = {CHOSEN_BY.get(name, name) for name in names}
    group = chosen.get(parent)
    if group and (taker := taker_of(node.get("_target_"), name)):
        return (
            f"the YAML of {parent}={group} has no {name!r}, which {taker} takes: add {name} to the YAML, or give "
            f"+{next((word for word in words if word.startswith(key + '=')), f'{key}=…')}"
        )
    first = f"{parent}." if parent else ""
    close = [f"{first}{item}" for item in difflib.get_close_matches(name, sorted(names))]
    listed = ", ".join(f"{first}{item}" for item in close_first(name, names))
    where = f"{parent}={group} has no key" if group else "there is no key"
    if not close and (having := _having(parent, name)):
        there = ", ".join(f"{parent}={other}" for other in having)
        return f"{where} {key!r}, but {there} ha{'ve' if having[1:] else 's'} one; " + (
            f"there are {listed}" if listed else "it has none"
        )
    if close:
        return f"{where} {key!r}; did you mean {' or '.join(close)}? There are {listed}"
    return f"{where} {key!r}; " + (f"there are {listed}" if listed else "it has none")


def _having(group: str, key: str) -> list[str]:
    """The files of a group that have a key."""
    found = set()
    for path in (path for folder in searched() for path in (folder / group).glob("*.yaml")) if group else ():
        with suppress(OSError, YAMLError, OmegaConfBaseException):
            config = OmegaConf.load(path)
            if isinstance(config, DictConfig) and key in (config.get(group) or config):
                found.add(path.stem)
    return sorted(found)


def _keys_of(cfg: DictConfig, group: str) -> str:
    keys = cfg[group] if isinstance(cfg.get(group), DictConfig) else ()
    return ", ".join(f"{group}.{key}" for key in keys if not str(key).startswith("_")) or "none"


def _near(key: str, cfg: DictConfig) -> str | None:
    """What ``polic.f`` is near to, of which the first word is no key."""
    first, _, rest = key.partition(".")
    groups = [str(name) for name, value in cfg.items_ex(resolve=False) if isinstance(value, DictConfig)]
    close = [] if first in cfg else difflib.get_close_matches(first, set(groups) - {"hydra"})
    if not close:
        return None
    meant = [f"{group}.{rest}" for group in close if rest in cfg[group]]
    there = "; ".join(f"{group} has {_keys_of(cfg, group)}" for group in close)
    return f"there is no key {key!r}; did you mean {' or '.join(meant or close)}? {there}"


def _refused_point(config: str, words: list[str]) -> list[str]:
    """The overrides of the first point of a sweep that does not compose; of the first, if all do."""
    parsed = OverridesParser.create().parse_overrides(words)
    values = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
        if item.is_discrete_sweep()
        else [str(item.input_line)]
        for item in parsed
        if item.is_discrete_sweep() or not item.is_sweep_override()
    ]
    for point in itertools.product(*values):
        try:
            recomposed(config, list(point))
        except CompactHydraException:
            return list(point)
    return [first for first, *_ in values]


def close_first(name: str, names: Iterable[str]) -> list[str]:
    close = difflib.get_close_matches(name, names := sorted(names))
    return close + [other for other in names if other not in close]
