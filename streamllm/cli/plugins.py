"""What comes from outside: configurations and modules of the folder that one works in, and packages that are installed
as plug-ins (entry points of the group ``streamllm``).

Hydra looks for a file in this order: ``conf/`` of the working folder, its own, ``conf/`` of each plug-in, ours. The
first one that is found is taken whole. So a ``run.yaml`` of one's own replaces ours, and nothing of ours is merged
into it. A plug-in replaces nothing: a file that two of them have, or one of them and we, is an error.

    [project.entry-points.streamllm]   # in the pyproject.toml of a plug-in
    shouting = "streamllm_shouting"    # this package has a folder conf/, with files such as conf/policy/shout.yaml
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from streamllm.cli.conf import CONF
from streamllm.cli.namesake import note_the_namesake

GROUP = "streamllm"


@cache
def prepare() -> None:
    """Let Hydra find what comes from outside, in this process and in those that launchers start. Says in one line
    that the folder has configurations of its own. Called by our programs alone: a search path plug-in that were
    installed would act in every program of the environment that uses Hydra.

    Raises:
        ValueError: a plug-in cannot be imported, has no ``conf/``, or has a file that another one has.
    """
    note_the_namesake()
    _take_modules(Path.cwd())
    if own := own_conf():
        whole = sorted(path.name for path in own.glob("*.yaml") if (CONF / path.name).exists())
        replaced = f", and its {' and '.join(whole)} taken whole for streamllm's" if whole else ""
        print(f"conf/ of this folder is searched before streamllm's{replaced}", file=sys.stderr)
    installed()
    Plugins.instance().register(OutsideConfigurations)


class OutsideConfigurations(SearchPathPlugin):
    """Puts what `prepare` has found onto Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for plugin in installed():
            search_path.prepend(f"plug-in {plugin.name}", f"file://{plugin.conf}", anchor="main")
        if own := own_conf():
            search_path.prepend("working folder", f"file://{own}")


def searched() -> list[Path]:
    """The folders of configurations, in the order in which they are searched."""
    return [*filter(None, [own_conf()]), *(plugin.conf for plugin in installed()), CONF]


# --- the working folder


@cache
def own_conf() -> Path | None:
    """``conf/`` of the folder that the program was started in, if it is there and not ours."""
    folder = Path.cwd() / "conf"
    if not folder.is_dir() or folder.samefile(CONF) or next(folder.rglob("*.yaml"), None) is None:
        return None
    return folder


def _take_modules(folder: Path) -> None:
    """Let ``_target_`` name modules of a folder, here and in the processes of launchers."""
    if (folder / "streamllm" / "__init__.py").exists():  # a checkout; other processes would import another package
        return
    here = str(folder)
    if here not in sys.path:
        sys.path.insert(0, here)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *paths])


# --- installed packages


@dataclass(frozen=True)
class Plugin:
    """A package that is installed and brings configurations."""

    name: str
    package: str
    conf: Path


@cache
def installed() -> tuple[Plugin, ...]:
    """The plug-ins of this environment. Raises: ValueError: as `prepare` says."""
    plugins = tuple(_loaded(point) for point in sorted(entry_points(group=GROUP), key=lambda point: point.name))
    _refuse_clashes(plugins)
    return plugins


def _loaded(point: EntryPoint) -> Plugin:
    brought_by = point.dist.name if point.dist else point.module
    who = f"the plug-in {point.name!r} ({brought_by})"
    try:
        module = import_module(point.module)
    except Exception as error:  # whatever a foreign package raises
        message = " ".join(str(error).split())
        raise ValueError(
            f"{who} cannot be imported ({type(error).__name__}: {message}): mend it, or pip uninstall {brought_by}"
        ) from error
    for place in getattr(module, "__path__", ()):
        if (conf := Path(place) / "conf").is_dir():
            return Plugin(point.name, point.module, conf)
    raise ValueError(f"{who} names {point.module}, which is no package with a folder conf/: put its YAML files there")


def _refuse_clashes(plugins: Iterable[Plugin]) -> None:
    owners: dict[str, str] = {}
    for name, conf in [("streamllm", CONF), *((f"the plug-in {plugin.name!r}", plugin.conf) for plugin in plugins)]:
        for path in sorted(conf.rglob("*.yaml")):
            file = path.relative_to(conf).as_posix()
            if file in owners:
                raise ValueError(f"{owners[file]} and {name} both have conf/{file}: rename it in one of them")
            owners[file] = name
