"""Write heads in files: ``head.safetensors`` beside the weights of a model or an adapter, and a line in `SETTINGS`."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm import contents
from streamllm.engine.write_head import WriteHead
from streamllm.files import open_to_read, replacing, write_atomically
from streamllm.models.settings import SETTINGS, read_settings, settings_of

log = logging.getLogger(__name__)

FILE = "head.safetensors"  # no name that begins with "model", which mlx_lm.load would take for weights
ANEW = "train it anew with `streamllm train-head` (docs/learned.md)"


def trained_on(folder: Path, adapter: Path | None = None) -> str:
    """A digest of the weights whose hidden states a head is given: of a model, or of a model and an adapter."""
    found = [*sorted(contents.of_folder(folder, ("model*.safetensors",)).values())]
    if adapter is not None:
        found += ["adapter", *sorted(contents.of_folder(adapter, ("adapters.safetensors",)).values())]
    return contents.of_text(*found)


def write(folder: Path, head: WriteHead, weights: str, facts: dict[str, Any]) -> None:
    """Put a head into a folder; what else `SETTINGS` says there stays.

    Args:
        weights: what `trained_on` gives of its model.
        facts: how it was trained, for people.
    """
    arrays: dict[str, mx.array] = {}
    for i, (weight, bias) in enumerate(head.layers):
        arrays |= {f"layers.{i}.weight": mx.array(weight), f"layers.{i}.bias": mx.array(bias)}
    with replacing(folder / FILE) as file:
        mx.save_safetensors(file, arrays, {"format": "mlx"})
    path = folder / SETTINGS
    settings = settings_of(path) if path.exists() else {}
    settings["write_head"] = {"trained_on": weights, **facts}
    write_atomically(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def head_of(folder: Path, adapter: Path | None = None, chosen: Path | None = None) -> WriteHead | None:
    """The write head of a model, or of a model and an adapter: that of the folder ``chosen``, else that of the adapter,
    else the model's. None where nobody has one. One that was trained on other weights is left out, which the log says;
    that of a model is taken with an adapter beside it, which the log says as well.

    Raises:
        ValueError: ``chosen`` has none, or the file is missing or damaged.
    """
    if chosen is not None and read_settings(chosen).write_head is None:
        raise ValueError(f"head_path is {str(chosen)!r}, and {SETTINGS} there names no write_head: {ANEW}")
    for place in (chosen, adapter, folder):
        said = None if place is None else read_settings(place).write_head
        if place is None or said is None:
            continue
        if said["trained_on"] == trained_on(folder, adapter):
            return _of(place, said)
        if adapter is not None and said["trained_on"] == trained_on(folder):
            log.warning("the write head in %s was trained without the adapter %s", place, adapter)
            return _of(place, said)
        message = f"the write head in {place} was trained on other weights than those in {adapter or folder} now"
        if chosen is not None:
            raise ValueError(f"{message}: {ANEW}")
        log.warning("%s, so it is left out: %s", message, ANEW)
    return None


def _of(folder: Path, said: Mapping[str, Any]) -> WriteHead:
    return replace(read(folder), latencies=tuple(said.get("latencies") or ()))


def read(folder: Path) -> WriteHead:
    """The head in a folder.

    Raises:
        ValueError: there is no file, or it is damaged.
    """
    path = folder / FILE
    try:
        open_to_read(path).close()  # no FIFO
        loaded: Any = mx.load(str(path))
        arrays = {name: np.array(array.astype(mx.float32)) for name, array in loaded.items()}
    except FileNotFoundError as error:
        raise ValueError(f"{folder / SETTINGS} names a write head, and there is no {FILE}: {ANEW}") from error
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again, or {ANEW}") from error
    layers: list[tuple[Any, Any]] = []
    while (weight := arrays.get(f"layers.{len(layers)}.weight")) is not None:
        bias = arrays.get(f"layers.{len(layers)}.bias")
        width = layers[-1][0].shape[0] if layers else weight.shape[-1]
        if bias is None or weight.ndim != 2 or weight.shape != (len(bias), width):
            raise ValueError(f"{path}: the shapes of layer {len(layers)} do not fit: fetch it again, or {ANEW}")
        layers.append((weight, bias))
    if not layers or layers[-1][0].shape[0] != 1 or len(arrays) != 2 * len(layers):
        raise ValueError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; a head has layers.0.weight and so "
            f"on, the last with one row: fetch it again, or {ANEW}"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"{path} holds numbers that are not finite: {ANEW}")
    return WriteHead(layers)
