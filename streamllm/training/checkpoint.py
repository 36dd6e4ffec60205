"""A checkpoint of a training: what is trained, the optimizer's state and some counters, in one file.

Invariant: a file is replaced as a whole, and what cannot be gone on from is refused before anything is set.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from streamllm.contents import Contents, refuse_changes
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


def load(path: Path, world: int, data: str | None, contents: Contents | None = None) -> Checkpoint:
    """Read a checkpoint that a training by ``world`` processes, on the data with this digest and from ``contents`` (as
    far as somebody knows), goes on from.

    Raises:
        ValueError: the file is damaged, or of a training that this one cannot go on from.
    """
    open_to_read(path).close()  # no FIFO
    try:
        loaded: Any = mx.load(str(path), return_metadata=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and training begins anew") from error
    arrays, metadata = loaded
    counters = json.loads(metadata["counters"])
    if counters.get("world", world) != world:  # what a batch is depends on it
        raise ValueError(
            f"{path.parent} was begun by {counters['world']} processes, and now there are {world}: go on "
            "with as many, or begin anew with rerun=true"
        )
    if counters.get("data") not in (None, data):
        raise ValueError(f"{path.parent} was begun on other data: restore it, or begin anew on this with rerun=true")
    refuse_changes(path.parent, counters.get("contents") or {}, contents or {}, "begin anew with rerun=true")
    return Checkpoint(_under("model.", arrays), tree_unflatten([*_under("optimizer.", arrays).items()]), counters)


def _under(prefix: str, arrays: dict[str, mx.array]) -> dict[str, mx.array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
