"""What a training is scored by while it learns: translations of some of the validation sentences."""

import logging
from collections.abc import Sequence
from typing import Any

from streamllm.batching.scheduler import translate_many
from streamllm.engine.limits import Limits
from streamllm.metrics.summary import summarise
from streamllm.models.lengths import fitting
from streamllm.models.model import StreamingModel
from streamllm.policies import Full, WaitK
from streamllm.records import Example, Policy
from streamllm.training.data import FULL
from streamllm.units import Unit

log = logging.getLogger(__name__)

Scores = dict[str, float | None]


def to_be_scored(streaming: StreamingModel, examples: Sequence[Example], corpus: Any) -> list[Example]:
    """Those of the examples of a corpus that are translated for a score.

    Raises: ValueError: all are too long.
    """
    skip = bool(getattr(corpus, "skip_long", False))
    scored = fitting(streaming, examples, Limits(), str(getattr(corpus, "name", "")), skip)
    if len(scored) < len(examples):
        log.info(
            "%d of %d validation sentences are too long and are not scored", len(examples) - len(scored), len(examples)
        )
    if examples and not scored:
        raise ValueError(
            "all validation sentences that are to be scored are too long: give others, or score.sentences=0"
        )
    return scored


def of_wait_k(
    streaming: StreamingModel,
    examples: Sequence[Example],
    ks: Sequence[int | str],
    language: str,
    unit: Unit,
    batch_size: int,
) -> Scores:
    """BLEU and AL of wait-k translations, for each k and on average; an AL is None where nothing was written.

    Args:
        language, unit: of the target.
    """
    limits = Limits().between(streaming.prompt.source_unit, unit, examples)
    each: dict[str, Scores] = {}
    for k in ks:
        policy: Policy = Full() if k == FULL else WaitK(int(k))
        own = of_policy(streaming, examples, policy, limits, batch_size, ("bleu", "al"), language, unit)
        each["full" if k == FULL else f"k{k}"] = own
    return together(each)


def of_policy(
    streaming: StreamingModel,
    examples: Sequence[Example],
    policy: Policy,
    limits: Limits,
    batch_size: int,
    names: Sequence[str],
    language: str,
    unit: Unit,
    tokenizer: str | None = None,
    seed: int = 0,
) -> Scores:
    """Scores of translations by a policy; a lag is None where nothing was written.

    Args:
        names: of the scores, as `streamllm.metrics.summary.summarise` has them.
        language, unit, tokenizer: of the target.
        seed: of sampling.
    """
    found = {trace.id: trace for trace in translate_many(streaming, examples, policy, limits, batch_size, seed)}
    summary = summarise([found[example.id] for example in examples], language, unit, tokenizer=tokenizer)
    return {name: _number(summary[name]) for name in names}


def together(each: dict[str, Scores]) -> Scores:
    """The mean of the scores of several policies, and where there are several, those of each by its name."""
    names = [*next(iter(each.values()))]
    scores = {name: _mean([one[name] for one in each.values()]) for name in names}
    if len(each) > 1:
        scores |= {f"{name}_{policy}": value for policy, own in each.items() for name, value in own.items()}
    return scores


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    """Of all; None if one is not defined, since the mean of the others would be of other policies."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
