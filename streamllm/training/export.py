"""What a training leaves: a model's folder, or an adapter's, of the weights at its end or of any checkpoint."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from streamllm.engine.paradigms.memory import Paradigm
from streamllm.files import write_atomically, writing
from streamllm.models.languages import Languages
from streamllm.models.loading import ModelConfig, base_weights, find_model
from streamllm.models.model import StreamingModel
from streamllm.models.precision import dtype_of, fitted
from streamllm.prompt import Prompt
from streamllm.training import checkpoint
from streamllm.training.adapters import AdapterConfig, save_adapter
from streamllm.training.masters import Masters
from streamllm.units import Unit

log = logging.getLogger(__name__)

ENDING = ".safetensors"


def export_checkpoint(
    run: Path,
    name: str,
    model: ModelConfig,
    prompt: Prompt | None,
    units: tuple[Unit, Unit],
    languages: tuple[str, str],
    paradigm: Paradigm,
    adapter: AdapterConfig | None,
    documents: bool,
    latencies: Sequence[str],
    seed: int,
) -> Path:
    """Write the weights that a validation kept as a folder in that of the training, ``RUN/epoch-004``: of a model, or
    of an adapter.

    Args:
        run: the folder of the training, finished or not.
        name: of the checkpoint, such as "epoch-004" or "step-0000200".
        model: what the training began with; of a fresh model, its folder ``start``.
        prompt, units, languages, paradigm, adapter, documents, latencies, seed: those of the training.

    Raises: ValueError: there is no such checkpoint, or it is not of this training.
    """
    file = run / f"{name.removesuffix(ENDING)}{ENDING}"
    found = sorted(path.name.removesuffix(ENDING) for path in run.glob(f"*-*{ENDING}"))
    if file.name.removesuffix(ENDING) not in found:
        there = f"there are {', '.join(found)}" if found else "there are none yet"
        raise ValueError(f"{run} has no checkpoint {name!r}; {there}")
    start = find_model(model.path)
    began = replace(model, path=str(start), quantized=adapter is not None and model.quantized is not False)
    streaming = began.load(prompt, *units, paradigm, latencies)
    streaming.documents |= documents
    streaming.languages = Languages(languages, run, ordered=True)
    settings = adapter.apply(streaming.model, seed) if adapter else None
    if streaming.target_start == "after_source":
        streaming.target_start = 0
    masters = Masters(streaming.model)
    masters.set(tree_unflatten([*checkpoint.read(file, masters.weights).items()]))
    streaming.model.eval()
    folder = file.with_suffix("")
    if settings:
        write_adapter(streaming, settings, model.path, start, folder)
    else:
        write_model(streaming, start, folder)
    return folder


def write_adapter(streaming: StreamingModel, settings: dict[str, Any], base: str, start: Path, folder: Path) -> None:
    """Write what an adapter has learned; ``base`` is what the model of the folder ``start`` was called."""
    save_adapter(streaming.model, settings, base, folder)
    streaming.save_settings(folder, base_weights(start))


def write_model(streaming: StreamingModel, start: Path, folder: Path) -> None:
    """Write the trained model in the dtype of the model it started from, with its config and tokenizer; as float32
    where some weights have become too large for that."""
    folder.mkdir(exist_ok=True)
    for file in start.iterdir():
        if file.suffix in (".json", ".model", ".txt", ".jinja") and not file.name.endswith(".index.json"):
            with writing(folder / file.name):
                shutil.copyfile(file, folder / file.name)  # without its mode: it may be read-only
    config = json.loads((folder / "config.json").read_text())
    for key in ("quantization", "quantization_config"):  # the weights are whole now
        config.pop(key, None)
    dtype = dtype_of(start)
    try:
        fitted(dict(tree_flatten(streaming.model.parameters())), dtype)
    except ValueError as error:
        log.warning("the model is written as float32: %s", error)
        dtype = mx.float32
    kind = str(dtype).removeprefix("mlx.core.")
    names = {"torch_dtype", *({"dtype"} & config.keys())}  # the latter since transformers 5
    write_atomically(folder / "config.json", json.dumps(config | dict.fromkeys(names, kind), indent=2) + "\n")
    streaming.save(folder, dtype)
