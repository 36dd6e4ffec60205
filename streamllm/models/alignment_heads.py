"""Which attention heads of a model follow the source: those that look where the prediction comes from, found
without an aligner by leaving out one source unit at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from streamllm.cache.dual import make_caches
from streamllm.engine.forward import forward
from streamllm.engine.session import Session
from streamllm.models.model import StreamingModel
from streamllm.units import pieces


@dataclass(frozen=True)
class HeadScore:
    """``agreement``: of the target units that one source unit clearly decides, the share for which this head attends
    most to that unit."""

    layer: int
    head: int
    agreement: float


def head_scores(model: StreamingModel, sources: Iterable[str], least_drop: float = 0.5) -> list[HeadScore]:
    """All heads of a model, the best first.

    Each sentence is read whole and translated greedily. Target unit t is said to come from the source unit without
    which the log-probability of its first token falls most (prediction difference, Li et al. 2019, ACL P19-1124);
    units where it falls by less than ``least_drop`` nats are left out.

    Raises:
        ValueError: attention cannot be read out of this model, or no unit is decided by one source unit.
    """
    hits: np.ndarray | float = 0.0
    counted = 0
    heads: list[tuple[int, int]] = []
    for source in sources:
        units = pieces(source, model.prompt.source_unit)
        if not units:
            continue
        session = model.session()
        for unit in units:
            session.read(unit)
        session.end_source()
        looks, firsts, tokens = _translated(session)
        if not firsts:
            continue
        heads = session.heads
        drops = _drops(model, units, tokens, firsts)  # (target units, source units)
        clear = drops.max(axis=1) >= least_drop
        where = np.stack(looks)[clear].argmax(axis=2)  # (clear target units, heads)
        hits = hits + (where == drops[clear].argmax(axis=1)[:, None]).sum(axis=0)
        counted += int(clear.sum())
    if not counted:
        raise ValueError("no target unit depends clearly on one source unit: give more or longer sentences")
    shares = np.asarray(hits) / counted
    scores = [HeadScore(layer, head, float(share)) for (layer, head), share in zip(heads, shares, strict=True)]
    return sorted(scores, key=lambda score: -score.agreement)


def _translated(session: Session, longest: int = 100) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Greedy writing to the end: where all heads look before each unit (heads, units), and all tokens with the place
    of each unit's first among them."""
    looks: list[np.ndarray] = []
    firsts: list[int] = []
    tokens: list[int] = []
    while len(firsts) < longest:
        look = session.unit_attention()
        emission = session.write()
        if emission.unit is None:
            break
        if emission.tokens:
            looks.append(look)
            firsts.append(len(tokens))
            tokens += emission.tokens
    return looks, firsts, tokens


def _drops(model: StreamingModel, units: Sequence[str], tokens: list[int], firsts: list[int]) -> np.ndarray:
    """By how much the log-probability of each unit's first token falls without each source unit."""
    prompt = model.prompt
    source, owner = list(prompt.source_header), [-1] * len(prompt.source_header)
    for i, unit in enumerate(units):
        piece = prompt.source_tokens(unit, first=i == 0)
        source += piece
        owner += [i] * len(piece)
    owner += [-1] * len(prompt.source_footer)
    source += prompt.source_footer
    target = [*prompt.target_header, *tokens[:-1]]
    # Row 0 sees all, row 1 + u all but unit u; the source itself is encoded once, as it was read.
    sees = np.array(owner)[None] != np.arange(-2, len(units))[1:, None]
    sees[0] = True
    phi = 0 if model.target_start == "after_source" else model.target_start
    caches = make_caches(model.model, len(source) if model.target_start == "after_source" else phi)
    forward(model.model, mx.array([source]), [cache.source for cache in caches])
    for cache in caches:
        cache.select([0] * len(sees))
        cache.target.visible = mx.broadcast_to(mx.array(sees)[:, None], (len(sees), len(target), len(source)))
    logits, _ = forward(model.model, mx.array([target] * len(sees)), [cache.target for cache in caches])
    rows = mx.array([len(prompt.target_header) - 1 + first for first in firsts])
    logits = logits[:, rows].astype(mx.float32)
    wanted = mx.array([tokens[first] for first in firsts])[None, :, None]
    chosen = mx.take_along_axis(logits, mx.broadcast_to(wanted, (len(sees), len(firsts), 1)), axis=-1)[..., 0]
    logprobs = np.array(chosen - mx.logsumexp(logits, axis=-1))
    drops: np.ndarray = (logprobs[:1] - logprobs[1:]).T
    return drops
