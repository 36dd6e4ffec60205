"""What the commands with arguments of their own share: one line for what is wrong, and Hydra's overrides among words.

Hydra is imported only where there are overrides."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from streamllm.cli.reader import for_whoever_reads
from streamllm.cli.user_errors import USER_ERRORS, printable, user_error

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Parser(argparse.ArgumentParser):
    """Says in one line what it does not accept."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message} ({self.prog} --help shows what is accepted)")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """What wrong input raises ends the program with one line, Ctrl-C with none."""
    try:
        with for_whoever_reads():
            yield
    except USER_ERRORS as error:
        sys.exit(f"error: {printable(str(error))}")
    except KeyboardInterrupt:
        sys.exit(130)


def composed(words: Sequence[str], config: str = "run") -> "DictConfig":
    """The configuration that ``streamllm run`` has with these overrides.

    Raises: ValueError: Hydra refuses them; what it says, in one line.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from streamllm.cli.conf import CONF
    from streamllm.cli.errors import refusal

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(config, list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    except Exception as error:  # Hydra also lets through what its grammar and its asserts raise
        raise ValueError(refusal(error, config, list(words))) from error


def checked(words: Sequence[str]) -> "DictConfig":
    """`composed` for ``streamllm run``, with every key checked.

    Raises: ValueError: as `composed`, and as `streamllm.cli.keys.checked`, in one line.
    """
    from streamllm.cli.errors import one_line
    from streamllm.cli.keys import RunKeys
    from streamllm.cli.keys import checked as check

    cfg = composed(words)
    try:
        check(cfg, RunKeys)
    except Exception as error:
        raise ValueError(one_line(error)) from error
    return cfg


def made(node: Any, key: str) -> Any:
    """What a part of a configuration names, with all that it holds; ``key`` is where it stands.

    Raises: ValueError: it cannot be made; what is wrong with a value, or what its constructor or Hydra says, in one
        line.
    """
    from hydra.errors import CompactHydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from streamllm.cli.errors import plain, refusal
    from streamllm.cli.keys import check_part
    from streamllm.cli.keys import made as part

    try:
        check_part(key, plain(node) if isinstance(node, DictConfig) else node)
        return part(node, key)
    except (CompactHydraException, OmegaConfBaseException) as error:
        raise ValueError(refusal(user_error(error), "run", [])) from error
