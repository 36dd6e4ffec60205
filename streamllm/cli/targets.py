"""What is wrong with a ``_target_`` that cannot be imported, in words that name the file of whoever wrote it."""

import difflib
import inspect
import re
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType

FAILED = re.compile(r"Error loading '([^']+)'")
"""How Hydra begins the ImportError of a ``_target_``."""


def not_importable(error: BaseException) -> str | None:
    """One line for Hydra's error about a ``_target_``; None if the error is another one."""
    found = FAILED.match(str(error))
    if found is None:
        return None
    target, cause = found[1], error.__cause__
    if isinstance(cause, SyntaxError):
        return f"_target_ is {target}, and {cause.filename} cannot be read: {cause.msg} (line {cause.lineno})"
    module, _, name = target.rpartition(".")
    loaded = sys.modules.get(module)
    absent = cause.name if isinstance(cause, ModuleNotFoundError) and target.startswith(cause.name or "?") else None
    if loaded is not None and (absent or isinstance(cause, AttributeError)):
        return _no_such_name(target, loaded, name)
    if absent:
        return f"_target_ is {target}, and there is no module {absent}: put {_file(absent)} here, or mend the name"
    if cause is None:
        return None
    frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if Path(frame.filename).exists()]
    place = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return f"_target_ is {target}, and {module} cannot be imported: {type(cause).__name__}: {cause}{place}"


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _no_such_name(target: str, module: ModuleType, name: str) -> str:
    if module.__name__.partition(".")[0] in sys.stdlib_module_names:
        taken = _file(module.__name__)
        return f"_target_ is {target}, and {module.__name__} is a module of Python's own: give {taken} another name"
    file = Path(module.__file__).name if module.__file__ else module.__name__
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    first = difflib.get_close_matches(name, own)
    listed = ", ".join(first + [key for key in own if key not in first]) or "nothing of its own"
    return f"_target_ is {target}, and {file} has {listed}, no {name}"


def taker_of(target: str | None, name: str) -> str | None:
    """The name of the class of a ``_target_``, if its constructor takes an argument ``name``."""
    if target is None:
        return None
    module, _, short = target.rpartition(".")
    try:
        made = getattr(import_module(module), short)
        return short if name in inspect.signature(made).parameters else None
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
