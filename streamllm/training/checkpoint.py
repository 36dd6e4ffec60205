"""A checkpoint of a training: what is trained, the optimizer's state and some counters, in one file.

Invariant: a file is replaced as a whole, and what cannot be gone on from is refused before anything is set.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from streamllm.checked import fit, parse
from streamllm.contents import Contents, listed, refuse_changes
from streamllm.files import open_to_read, replacing


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Args:
        weights: by name, those that are trained.
        optimizer: its state, a tree of arrays.
        counters: by name; ``world``, ``data`` and ``contents`` say by how many processes, on what data and from what
            files the training was begun.
    """

    weights: dict[str, mx.array]
    optimizer: Any
    counters: dict[str, Any]


def write(path: Path, arrays: dict[str, mx.array], metadata: dict[str, str] | None = None) -> None:
    """Replace a file of safetensors. The same arrays give the same bytes, in whatever order they come: MLX writes them
    as its map was filled, which is otherwise after a resume."""
    with replacing(path) as file:
        mx.save_safetensors(file, dict(sorted(arrays.items())), metadata or {})


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file of a checkpoint."""
    arrays = {f"model.{name}": value for name, value in checkpoint.weights.items()}
    arrays |= {f"optimizer.{name}": value for name, value in tree_flatten(checkpoint.optimizer)}
    write(path, arrays, {"counters": json.dumps(checkpoint.counters)})


@dataclass(frozen=True)
class Window:
    """What has been learned since the last logged line."""

    losses: list[float]
    tokens: int
    padding: int
    tokens_since_start: int = 0


@dataclass(frozen=True)
class Counters:
    """The counters of a `Checkpoint`, as they are read back. One that comes later gets a default here.

    Raises: ValueError: one is negative, or a name is not that of a file beside it.
    """

    step: int
    epoch: int
    block: int
    batch: int
    best: dict[str, int | float | None]
    since_best: int
    validated_at: int
    kept: list[str]
    lines: int
    window: Window
    world: int | None = None
    data: str | None = None
    contents: Contents | None = None

    def __post_init__(self) -> None:
        window = self.window
        counts = (self.step, self.epoch, self.block, self.batch, self.since_best, self.validated_at, self.lines)
        if min(*counts, window.tokens, window.padding, window.tokens_since_start) < 0:
            raise ValueError("a count is below 0")
        if wrong := [name for name in self.kept if not re.fullmatch(r"(epoch|step)-\d+\.safetensors", name)]:
            raise ValueError(f"kept has {wrong[0]!r}, which is no file of a validation")
        if self.best and None in (self.best.get("bleu"), self.best.get("validation")):
            raise ValueError("best has no bleu or no validation")


def load(
    path: Path, world: int, data: str | None, weights: Any, optimizer: Any, contents: Contents | None = None
) -> Checkpoint:
    """Read a checkpoint that a training by ``world`` processes, on the data with this digest and from ``contents`` (as
    far as somebody knows), goes on from. ``weights`` and the state of the ``optimizer`` are this training's own, with
    the names and shapes that the file must have.

    Raises:
        ValueError: the file is damaged, or of a training that this one cannot go on from.
    """
    open_to_read(path).close()  # no FIFO
    try:
        loaded: Any = mx.load(str(path), return_metadata=True)
        arrays, metadata = loaded
        counters = fit(parse(metadata.get("counters", "null").encode()), Counters)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and training begins anew") from error
    if counters.world not in (None, world):  # what a batch is depends on it
        raise ValueError(
            f"{path.parent} was begun by {counters.world} processes, and now there are {world}: go on "
            "with as many, or begin anew with rerun=true"
        )
    if counters.data not in (None, data):
        raise ValueError(f"{path.parent} was begun on other data: restore it, or begin anew on this with rerun=true")
    refuse_changes(path.parent, counters.contents or {}, contents or {}, "begin anew with rerun=true")
    found, state = _under("model.", arrays), _under("optimizer.", arrays)
    _check_fits(path, found, weights, "delete it, and training begins anew")
    _check_fits(path, state, optimizer, "delete it, and training begins anew")
    return Checkpoint(found, tree_unflatten([*state.items()]), asdict(counters))


def read(path: Path, weights: Any) -> dict[str, mx.array]:
    """The weights that a validation kept; ``weights`` are this training's own, with the names and shapes of them.

    Raises: ValueError: the file is damaged.
    """
    otherwise = "restore it, or begin anew with rerun=true"
    try:
        arrays: Any = mx.load(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged ({error}): {otherwise}") from error
    _check_fits(path, arrays, weights, otherwise)
    found: dict[str, mx.array] = arrays
    return found


def _check_fits(path: Path, arrays: dict[str, mx.array], tree: Any, otherwise: str) -> None:
    expected = dict(tree_flatten(tree))
    if wrong := [name for name in {**expected, **arrays} if _shape(expected, name) != _shape(arrays, name)]:
        raise ValueError(f"{path} is damaged ({listed(wrong)} is not what this training has): {otherwise}")


def _shape(arrays: dict[str, mx.array], name: str) -> tuple[int, ...] | None:
    return arrays[name].shape if name in arrays else None


def _under(prefix: str, arrays: dict[str, mx.array]) -> dict[str, mx.array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
