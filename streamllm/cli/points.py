"""The points of a sweep. Those that differ in plain values alone are composed once by Hydra, and then copied.

Invariant: a point has the configuration that Hydra composes for it, and an error has Hydra's words; whatever is more
than a plain value is left to Hydra."""

import logging
import pickle
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from streamllm.cli.together import TogetherLauncher

LAUNCHER = "hydra._internal.core_plugins.basic_launcher"  # its log tells each point before anybody knows its state

Shape = tuple[str, ...]
"""What points that are copies of each other share: their words, without the plain values."""


def take(config: DictConfig) -> bool:
    """Let a sweep that Hydra's own sweeper and launcher would make be made by `PointsSweeper`, with nothing said of its
    points.

    Returns: False for any other sweep, which stays as it is: configurations of other launchers cannot be copied.
    """
    name = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"
    launcher = f"{BasicLauncher.__module__}.{BasicLauncher.__qualname__}"
    hydra = config.hydra
    if not (hydra.sweeper and hydra.launcher and hydra.sweeper["_target_"] == name):
        return False
    if hydra.launcher["_target_"] != launcher:
        return False
    # Under Hydra's own name: it makes no sweeper of another package than its own and hydra_plugins.
    Plugins.instance().class_name_to_class[name] = PointsSweeper
    logging.getLogger(LAUNCHER).addFilter(_is_of_no_point)
    return True


def _is_of_no_point(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("\t#")


class PointsSweeper(BasicSweeper):
    """Hydra's own sweeper, with `Points` in place of its loader."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._points = Points(hydra_context.config_loader)
        context = HydraContext(config_loader=self._points, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=context, task_function=task_function, config=config)
        if type(self.launcher) is BasicLauncher:
            self.launcher = TogetherLauncher()
            self.launcher.setup(hydra_context=context, task_function=task_function, config=config)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        assert self.config is not None
        self._points.check(self.config, batch)


class Points(ConfigLoader):
    """Hydra's loader of configurations, which composes points of one shape once."""

    def __init__(self, loader: ConfigLoader):
        self._loader = loader
        self._bases: dict[Shape, bytes | None] = {}  # pickled, of which a copy is cheap; None cannot be copied
        self._parsed = lru_cache(maxsize=None)(OverridesParser.create().parse_override)

    def __reduce__(self) -> tuple[type["Points"], tuple[ConfigLoader]]:
        return Points, (self._loader,)  # launchers send it to other processes

    def check(self, master: DictConfig, batch: Sequence[Sequence[str]]) -> None:
        """Raises: HydraException: one of the points cannot be composed."""
        tried: dict[Shape, DictConfig] = {}
        legal: set[tuple[Shape, str | None]] = set()
        for words in batch:
            shape, values = self._shape(master, words)
            base = self._bases.get(shape)
            if values is None or base is None:
                self.load_sweep_config(master, list(words))
                continue
            if shape not in tried:
                tried[shape] = pickle.loads(base)
            new = [value for value in values if (shape, value.input_line) not in legal]
            if not _put(tried[shape], new):
                self._loader.load_sweep_config(master, list(words))  # raises, in Hydra's words
            legal |= {(shape, value.input_line) for value in new}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        shape, values = self._shape(master_config, sweep_overrides)
        base = self._bases.get(shape)
        if values is not None and base is not None:
            config: DictConfig = pickle.loads(base)
            if _put(config, values):
                OmegaConf.copy_cache(from_config=master_config, to_config=config)
                self._tell(config, sweep_overrides)
                return config
        composed = self._loader.load_sweep_config(master_config, sweep_overrides)
        if shape not in self._bases:
            groups = composed.hydra.runtime.choices
            copied = values is not None and not any(value.key_or_group in groups for value in values)
            self._bases[shape] = pickle.dumps(composed) if copied else None
        return composed

    def _shape(self, master: DictConfig, words: Sequence[str]) -> tuple[Shape, list[Override] | None]:
        """The shape of a point, and its plain values; None where it may be no copy of others."""
        overrides = [self._parsed(word) for word in words]
        keys = sorted(override.key_or_group + "." for override in overrides)
        inside = any(longer.startswith(shorter) for shorter, longer in pairwise(keys))
        if inside or any(override.is_hydra_override() for override in overrides):
            return tuple(words), None
        groups = master.hydra.runtime.choices
        values = [each for each in overrides if _is_plain(each) and each.key_or_group not in groups]
        shape = [f"{each.key_or_group}=" if each in values else str(each.input_line) for each in overrides]
        return tuple(shape), values

    def _tell(self, config: DictConfig, words: Sequence[str]) -> None:
        """Write into a point what its words were, as Hydra does."""
        dirname = config.hydra.job.config.override_dirname
        shown = sorted(word for word in words if self._parsed(word).key_or_group not in dirname.exclude_keys)
        with open_dict(config.hydra):
            config.hydra.overrides.task = list(words)
            config.hydra.job.override_dirname = re.sub("=", lambda _: dirname.kv_sep, dirname.item_sep.join(shown))

    # All else is as it was.

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        return self._loader.load_configuration(*args, **kwargs)

    def get_search_path(self) -> Any:
        return self._loader.get_search_path()

    def get_sources(self) -> Any:
        return self._loader.get_sources()

    def list_groups(self, *args: Any, **kwargs: Any) -> list[str]:
        return self._loader.list_groups(*args, **kwargs)

    def get_group_options(self, *args: Any, **kwargs: Any) -> list[str]:
        return self._loader.get_group_options(*args, **kwargs)

    def compute_defaults_list(self, *args: Any, **kwargs: Any) -> Any:
        return self._loader.compute_defaults_list(*args, **kwargs)


def _is_plain(override: Override) -> bool:
    return (
        override.type == OverrideType.CHANGE
        and override.package is None
        and "/" not in override.key_or_group
        and isinstance(override.value(), str | int | float | None)
    )


def _put(config: DictConfig, values: Sequence[Override]) -> bool:
    """Whether the values could be put into a configuration."""
    try:
        for value in values:
            OmegaConf.update(config, value.key_or_group, value.value(), merge=True)
    except OmegaConfBaseException:
        return False
    return True
