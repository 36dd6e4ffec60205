"""What stands in the headers of .safetensors files: names and shapes. Nothing here reads an array.

The format: 8 bytes for the length of the header, the header (JSON, with the place of each array), the arrays."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.contents import listed

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
LONGEST_HEADER = 100_000_000  # bytes, as the library safetensors has it
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Arrays:
    """The shape of each array of a model's weights, by its name in the files."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def layers(self) -> int:
        """How many layers have arrays."""
        return len({found[1] for name in self.shapes if (found := LAYER.search(name))})


def arrays_of(folder: Path, pattern: str = "model*.safetensors") -> Arrays:
    """The arrays that mlx-lm finds in a folder.

    Raises:
        ValueError: a file was cut off or is none of this format (one line with what to do).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob(pattern)):
        shapes |= {name: tuple(entry["shape"]) for name, entry in header_of(file).items()}
    return Arrays(shapes)


def header_of(file: Path) -> dict[str, dict[str, Any]]:
    """The header of a file: ``dtype``, ``shape`` and ``data_offsets`` of each array.

    Raises:
        ValueError: the file is not as long as its header says, or the header is none.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"{file} is no file of weights: its header would have {length} bytes. Fetch it again")
        if size < 8 or length > size - 8:
            raise ValueError(_cut_off(file, f"has {size} bytes, and its header alone ends after {8 + length}"))
        text = opened.read(length)
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        whole = all(type(side) is int for entry in entries.values() for side in entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        whole, end, entries = False, 0, {}
    if not whole:
        raise ValueError(f"{file} is no file of weights: its header cannot be read. Fetch it again")
    if size != end:
        raise ValueError(_cut_off(file, f"has {size} bytes, and {end} by its header"))
    return entries


def _cut_off(file: Path, what: str) -> str:
    return f"{file.name} was cut off while copying or downloading ({file} {what}): fetch it again"


# Why weights do not fit a model


def misfit(error: BaseException, folder: Path, config: Mapping[str, Any], layers: Sequence[str]) -> str | None:
    """What MLX says where weights and model differ, in one line with the cause in config.json, if one is seen; None if
    that is not what it says.

    Args:
        layers: keys of config.json that may say how many layers there are.
    """
    text = str(error)
    if found := re.match(r"(Missing|Received) (\d+) parameters(?: not in model)?: *\n(.*)\.\s*$", text, re.DOTALL):
        names = [name.strip() for name in found[3].split(",\n")]
        missing = found[1] == "Missing"
        said = f"{found[1]} {found[2]} parameters{'' if missing else ' not in model'}: {listed(names)}"
        cause = _absent_shards(folder, names) if missing else ""
        return f"{said}. {cause or _count_of_layers(folder, config, layers) or _tied(config, names)}".strip()
    if found := re.match(r"Expected shape (\(.*?\)) but received shape (\(.*?\)) for parameter (\S+)", text):
        keys = _keys_with(config, set(_numbers(found[1])) - set(_numbers(found[2]))) or _widths(config)
        cause = f" ({', '.join(keys)})" if keys else ""
        return f"config.json makes {found[3]} of shape {found[1]}{cause}, and in the weights it has {found[2]}"
    return None


def _absent_shards(folder: Path, names: Sequence[str]) -> str:
    try:
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        absent = sorted(
            {str(places[name]) for name in names if name in places and not (folder / places[name]).exists()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        absent = []
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    return f"{listed(absent)} of {INDEX} {verb} not there: fetch {'it' if verb == 'is' else 'them'}"


def _count_of_layers(folder: Path, config: Mapping[str, Any], layers: Sequence[str]) -> str:
    held = arrays_of(folder).layers
    for before, part in (("", config), ("text_config.", config.get("text_config") or {})):
        for key in layers:
            if held and isinstance(part.get(key), int) and part[key] != held:
                return f"{before}{key} is {part[key]}, and the weights hold {held} layers"
    return ""


def _tied(config: Mapping[str, Any], names: Sequence[str]) -> str:
    if any(name.endswith("lm_head.weight") for name in names):
        return f"tie_word_embeddings is {config.get('tie_word_embeddings')}"
    return ""


def _numbers(shape: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", shape)]


def _keys_with(config: Mapping[str, Any], values: set[int]) -> list[str]:
    found = []
    for before, part in (("", config), ("text_config.", config.get("text_config") or {})):
        found += [f"{before}{key} is {value}" for key, value in part.items() if type(value) is int and value in values]
    return found


def _widths(config: Mapping[str, Any]) -> list[str]:
    part = config.get("text_config") or config
    names = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    return [f"{name} is {part[name]}" for name in names if part.get(name) is not None]
