"""What files, folders and code hold, as digests, and what of it has changed. A large file is hashed once and then known
by its path, size, times and inode. Invariant: what is remembered saves time only; without it, all is hashed anew."""

import ast
import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from streamllm.files import open_to_read, read_bytes, read_text, write_atomically

Contents = dict[str, dict[str, str]]
"""What something was made from: parts ("model", "data" …), each with the digests of what it has, by name."""

LARGE = 1 << 20  # bytes; a smaller file is hashed faster than it is looked up
SETTLED = 2.0  # seconds: a file that is younger may be written again within one tick of the file system's clock
REMEMBERED = 1000  # files, the last ones

# --- files


def of_file(path: Path) -> str:
    """The SHA-256 of a file.

    Raises: OSError: it cannot be read.
    """
    state = path.stat()
    if state.st_size < LARGE:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    name, known = str(path.resolve()), _remembered()
    signs = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    if (found := known.get(name)) and found[:-1] == signs:
        return str(found[-1])
    with open_to_read(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - max(state.st_mtime, state.st_ctime) > SETTLED:
        _remember({key: value for key, value in known.items() if key != name} | {name: [*signs, digest]})
    return digest


def of_files(paths: Iterable[Path]) -> dict[str, str]:
    """The digests of files by their names; of two with one name, the second is ``name (2)`` and so on.

    Raises: OSError: one of them cannot be read.
    """
    found: dict[str, str] = {}
    for path in paths:
        name, number = path.name, 2
        while name in found:
            name, number = f"{path.name} ({number})", number + 1
        found[name] = of_file(path)
    return found


def of_folder(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """The digests of the files of a folder that fit one of the patterns; none for a folder that is not there."""
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return {file.relative_to(folder).as_posix(): of_file(file) for file in sorted(found)}


def of_text(*texts: str) -> str:
    """As `of_texts`."""
    return of_texts(texts)


def of_texts(texts: Iterable[str]) -> str:
    """The SHA-256 of texts in their order; where one ends and the next begins counts."""
    digest = hashlib.sha256()
    for text in texts:
        part = text.encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def memory() -> Path:
    """The file in which digests of large files are remembered, in the user's cache folder."""
    mac = Path("~/Library/Caches").expanduser()
    usual = mac if sys.platform == "darwin" else Path("~/.cache").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "streamllm" / "digests.json"


def _remembered() -> dict[str, list[Any]]:
    try:
        found = json.loads(read_text(memory()))
    except (OSError, ValueError, RuntimeError):  # absent, damaged, or nobody's home
        return {}
    return {key: value for key, value in found.items() if isinstance(value, list)} if isinstance(found, dict) else {}


def _remember(known: Mapping[str, list[Any]]) -> None:
    with suppress(OSError, RuntimeError):
        memory().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory(), json.dumps(dict([*known.items()][-REMEMBERED:])))


# --- code

NOT_THEIRS = frozenset({"streamllm", "mlx", "mlx_lm", "builtins"}) | sys.stdlib_module_names
"""Packages whose code is known by its version (env.json)."""

_LOADED: dict[str, tuple[Any, str]] = {}  # module -> what loaded it, and the digest of its source then


def of_code(target: str) -> dict[str, str]:
    """The digests of the source of ``package.module.name``, of its module and of those beside it (in the same folder or
    package) that it imports, by file; of a name in a script or notebook, that of its own source.

    Returns: nothing for code of streamllm, of MLX and of Python itself, and for what has no source.
    """
    if target.partition(".")[0] == "__main__":
        return _of_main(target.partition(".")[2])
    module = _module_of(target)
    if module is None or module.partition(".")[0] in NOT_THEIRS or (file := _file_of(module)) is None:
        return {}
    found: dict[Path, str] = {}
    _follow(module, file, file.parents[module.count(".") + (file.name == "__init__.py")], found)
    base = min((path.parent for path in found), key=lambda path: len(path.parts))
    return {path.relative_to(base).as_posix(): digest for path, digest in sorted(found.items())}


def _module_of(target: str) -> str | None:
    """The longest beginning of a dotted name that is a module."""
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in sys.modules:
            return name
    return parts[0] if len(parts) > 1 and PathFinder.find_spec(parts[0]) else None


def _file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None and module not in sys.modules and (spec := PathFinder.find_spec(module)) is not None:
        file = spec.origin
    return Path(file) if file is not None and Path(file).is_file() else None


def _follow(module: str, file: Path, root: Path, found: dict[Path, str]) -> None:
    """Add a module and those that it imports from the same package, or from the same folder if it is in none."""
    if file in found:
        return
    found[file] = _as_loaded(module, file)
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # compiled
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    top = module.partition(".")[0]
    alone = "." not in module and file.name != "__init__.py"
    for name in _imported(tree, package):
        beside = alone and root.name not in ("site-packages", "dist-packages")
        first = name.partition(".")[0]
        if first in NOT_THEIRS or not (first == top or beside):
            continue
        path = root.joinpath(*name.split("."))
        for place in (path.with_name(path.name + ".py"), path / "__init__.py"):
            if place.is_file():
                _follow(name, place, root, found)


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The full names of all that a module of ``package`` imports, names that may be modules included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*filter(None, above), *filter(None, [node.module])])
            yield from filter(None, [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)])


def _as_loaded(module: str, file: Path) -> str:
    """The digest of a module's source; once this process has loaded and seen it, as it was then: a file that is edited
    afterwards changes nothing here until it is loaded anew."""
    loaded = getattr(sys.modules.get(module), "__spec__", None)
    if loaded is not None and module in _LOADED and _LOADED[module][0] is loaded:
        return _LOADED[module][1]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if loaded is not None:
        _LOADED[module] = loaded, digest
    return digest


def _of_main(name: str) -> dict[str, str]:
    """The source of a class or function of a script or notebook, and of those there that it names; plain values that
    it names count by what they are."""
    module: Any = sys.modules["__main__"]
    found: dict[str, str] = {}
    todo = [name.partition(".")[0]]
    while todo:
        one = todo.pop()
        value: Any = getattr(module, one, None)
        if one in found or value is None:
            continue
        if isinstance(value, bool | int | float | str | tuple | frozenset):
            found[one] = of_text(repr(value))
        elif getattr(value, "__module__", None) == "__main__":
            with suppress(OSError, TypeError, SyntaxError):
                source = inspect.getsource(value)
                found[one] = of_text(source)
                tree = ast.parse(inspect.cleandoc(source) if source[:1].isspace() else source)
                todo += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return found


# --- what has changed


def changes(then: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What is not as it was, one phrase each ("model.safetensors of the model (changed)"). A part counts where both
    have it. Files and code of data do not count where the sentences read from them are the same (`SENTENCES`)."""
    same = {name for name in SENTENCES if name in then and then.get(name) == now.get(name)}
    found: list[str] = []
    for part, before in then.items():
        after = now.get(part)
        if after is None or any(part.startswith(SENTENCES[name]) for name in same):
            continue
        for name in dict.fromkeys((*before, *after)):
            if before.get(name) != after.get(name):
                how = "gone" if name not in after else "changed" if name in before else "new"
                found.append(f"{name} of the {part} ({how})")
    return found


SENTENCES = {
    "sentences": ("data", "code of dataset"),
    "validation sentences": ("validation data", "code of validation"),
}
"""Parts that hold the sentences themselves, each with the beginnings of the parts that they were read from."""


def refuse_changes(
    name: object,
    then: Mapping[str, Mapping[str, str]],
    now: Mapping[str, Mapping[str, str]],
    otherwise: str,
    kind: type[ValueError] = ValueError,
) -> None:
    """Refuse to go on with what was made from something else than is there now.

    Args:
        name: of what was made.
        otherwise: what to do where that cannot be restored.

    Raises:
        ValueError: something has changed, of this ``kind``.
    """
    if changed := changes(then, now):
        raise kind(
            f"{name} was made from something else than is there now: {listed(changed)}. Restore that, and the same "
            f"command goes on; or {otherwise}"
        )


def listed(phrases: Sequence[str], shown: int = 3) -> str:
    """The first phrases, and how many more there are."""
    more = len(phrases) - shown
    return ", ".join(phrases[:shown]) + (f" and {more} more" if more > 0 else "")


def present(made: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What ``made`` gives; nothing where a file of it is not there or cannot be read."""
    try:
        return made()
    except OSError:
        return {}
