"""Whether a model can take many sentences at a time: it is tried, on two."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.batching.coroutines import Task, run_all
from streamllm.batching.pool import LONG_READ, Pool
from streamllm.cpu.decoder import Decoder
from streamllm.engine.finite import NotFinite
from streamllm.engine.paradigms.forgetting import Forgetting, Window
from streamllm.engine.paradigms.group import GroupMemory, GroupParadigm
from streamllm.engine.paradigms.memory import Memory
from streamllm.models.model import StreamingModel


@dataclass(frozen=True)
class Batching:
    """How sentences of a model go through it together.

    Args:
        why_not: why they must be translated one at a time; None if many can share a memory.
        packs: whether attention takes the tokens of a sentence together (`streamllm.batching.in_model`).
        decoder: what computes in numpy; None leaves it to MLX.
    """

    why_not: str | None
    packs: bool = False
    decoder: Decoder | None = None

    def pool(self, model: StreamingModel, rows: int) -> Pool:
        return Pool(
            model.model,
            rows,
            model.target_start,
            self.packs,
            model.forgetting,
            self.decoder,
            model.prefix,
            model.write_head,
        )


def batching(model: StreamingModel) -> Batching:
    """How sentences of this model can go through it together; each way is tried."""
    if not isinstance(model.paradigm, GroupParadigm):
        return Batching(f"paradigm {type(model.paradigm).__name__} gives each sentence a memory of its own")
    if model.retention.kv_bits is not None:
        return Batching("quantised keys and values need a memory for each sentence")
    decoder = Decoder.of(model.model)
    if decoder is not None and _why_not(model.model, True, model.forgetting, decoder) is None:
        return Batching(None, True, decoder)
    if _why_not(model.model, True, model.forgetting) is None:
        return Batching(None, True)
    return Batching(_why_not(model.model, False, model.forgetting))


def _why_not(
    model: Any, packs: bool, forgetting: Forgetting | None = None, decoder: Decoder | None = None
) -> str | None:
    try:
        difference, tolerance = _difference(model, packs, forgetting, decoder)
    except NotFinite as error:
        return str(error)
    except Exception as error:  # whatever a model file raises that expects one position for all rows
        message = (str(error).strip() or "no message").splitlines()[0]
        return f"the model takes no batch of positions ({type(error).__name__}: {message})"
    if not difference <= tolerance:
        return f"the model gives other logits in a batch (by {difference:.1e} of the largest, {tolerance} is accepted)"
    return None


def _difference(model: Any, packs: bool, forgetting: Forgetting | None, decoder: Decoder | None) -> tuple[float, float]:
    """By how much logits in a batch differ from those of sentences alone, as a share of the largest, and by how much
    they may."""

    if forgetting is not None:  # the same moves, and room for all of the trial
        forgetting = Forgetting(forgetting.moves, Window("source", None, 1), Window("target", None, 1))

    def task(seed: int) -> Task[tuple[int, mx.array]]:
        return lambda row, clock: (seed, _trial(row, seed, forgetting is not None))

    batched = dict(run_all(Pool(model, 2, 3, packs, forgetting, decoder), map(task, range(2))))
    ours = mx.stack([batched[seed] for seed in range(2)])
    alone = mx.stack(
        [_trial(GroupMemory(model, 3, forgetting=forgetting), seed, forgetting is not None) for seed in range(2)]
    )
    differences, largest = np.array(mx.abs(ours - alone).astype(mx.float32)), np.array(mx.abs(alone).astype(mx.float32))
    return float(differences.max() / largest.max()), 1e-3 if alone.dtype == mx.float32 else 0.05


def _trial(memory: Memory, seed: int, forgets: bool) -> mx.array:
    """Logits (3, V) of a sentence with all that a memory does: short and long reads, hidden source, trimming, and
    forgetting, if it ``forgets``."""

    def tokens(n: int) -> list[int]:  # any vocabulary has these
        return [(7 * i + seed + 3) % 32 for i in range(n)]

    memory.read(tokens(3 + seed))
    logits = [mx.array(memory.write(tokens(2 + seed)))]
    memory.trim(1)
    memory.read(tokens(LONG_READ + 2 - 2 * seed))
    logits.append(mx.array(memory.write(tokens(2), hidden=2)))
    memory.trim(2)
    if forgets:
        memory.keep_last(LONG_READ, 0)
    return mx.stack([*logits, mx.array(memory.write(tokens(1)))])
