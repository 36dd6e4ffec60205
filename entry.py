"""What run.py, train.py and scripts/live.py share: wrong input ends in one line that says what to do."""

import atexit
import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from streamllm.experiment import USER_ERRORS, user_error

# Else the interpreter looks for garbage among all objects of all libraries before it ends, a tenth of a short run.
atexit.register(gc.freeze)


def explained(main: Callable[[DictConfig], float]) -> Callable[[DictConfig], float]:
    """Decorate a Hydra entry point: one line for what users do wrong, the whole stack with ``debug=true``."""

    @functools.wraps(main)
    def wrapped(cfg: DictConfig) -> float:
        try:
            return main(cfg)
        except KeyboardInterrupt:
            sys.exit(130)
        except (*USER_ERRORS, InstantiationException, OmegaConfBaseException) as error:
            cause = user_error(error)
            if cfg.debug:
                raise cause from cause.__cause__
            # OmegaConf adds lines of its own.
            message = " ".join(str(cause).split("\n    object_type")[0].split())
            if HydraConfig.get().mode == RunMode.RUN:
                sys.exit(f"error: {message} (debug=true shows the stack)")
            print(f"error: {message}", file=sys.stderr)
            raise CompactHydraException(message) from error  # a sweep goes on, and fails at its end

    return wrapped


def launch(main: Callable[[], Any]) -> None:
    """Run an entry point. Ctrl-C ends it without a stack also in a launcher that waits for other processes."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(130)


REPEATED = (("k", "policy"), ("early_stop", "limits"))
"""Keys at the top, each with the group that repeats it."""


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The whole configuration as plain values.

    Raises:
        MissingMandatoryValue: a value is missing.
        ValueError: a key and its repetition in a group differ: one run would have two folders, and two values of k.
    """
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for key, group in REPEATED:
        repeated = (values.get(group) or {}).get(key)
        if key in values and repeated is not None and repeated != values[key]:
            raise ValueError(f"{key} is {values[key]} and {group}.{key} is {repeated}: give {key}={repeated} alone")
    return values
