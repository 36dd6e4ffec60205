"""How many positions a model has. Beyond a table that was learned, MLX reads whatever lies behind it: invariant: no
forward of ours does so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamllm.engine.finite import SentenceError
from streamllm.engine.head import EMBEDDINGS

LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
"""How configurations call the longest sequence that a model was trained on."""


class PositionError(SentenceError):
    """A token would stand at a position that the model does not have."""


@dataclass(frozen=True)
class Positions:
    """``limit``: how many positions a model has; None where nothing says so. "learned": a table, which ends there;
    "rotary": computed, so that there are more, but it was not trained on them."""

    kind: Literal["learned", "rotary"]
    limit: int | None

    @staticmethod
    def of(model: Any, config: Mapping[str, Any]) -> "Positions":
        """Of a model with this config.json."""
        if (rows := table(model)) is not None:
            return Positions("learned", rows)
        config = config.get("text_config") or config
        known = [config[name] for name in LENGTHS if isinstance(config.get(name), int)]
        scaling = config.get("rope_scaling") or config.get("rope_parameters")
        if known and isinstance(scaling, Mapping):  # YaRN and its like stretch what was trained
            original, factor = (scaling.get(name) for name in ("original_max_position_embeddings", "factor"))
            if isinstance(original, int) and isinstance(factor, int | float):
                known[0] = max(known[0], int(original * factor))
        return Positions("rotary", known[0] if known else None)


def table(model: Any) -> int | None:
    """Rows of a learned table of positions; None where a model has none (GPT-2's and GPT-BigCode's is ``wpe``)."""
    inside = model
    while inside is not None:
        if isinstance(found := getattr(inside, "wpe", None), EMBEDDINGS):
            return int(found.weight.shape[0])
        inside = next(
            (part for name in ("language_model", "model", "transformer") if (part := _part(inside, name))), None
        )
    return None


def _part(module: Any, name: str) -> Any:
    part = getattr(module, name, None)
    return part if part is not module and callable(part) else None


def check_end(limit: int | None, end: int) -> None:
    """Raises: PositionError: ``end`` positions are more than a learned table of ``limit`` has."""
    if limit is not None and end > limit:
        raise PositionError(
            f"a token would take position {end}, and the model's table of positions, which was learned, has "
            f"{limit}: give shorter sentences or a shorter prompt, or choose a model with rotary positions"
        )
