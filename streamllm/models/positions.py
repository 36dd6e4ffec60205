"""Whether sentences fit the positions of a model, known before any is translated: of a learned table an error, since
nothing lies behind it; of rotary positions a warning, since the model was not trained so far."""

import logging
import math
from collections.abc import Generator, Sequence
from contextlib import closing

from streamllm.engine.limits import LONGEST_UNIT, Limits
from streamllm.engine.positions import PositionError
from streamllm.models.model import StreamingModel
from streamllm.records import Example, Trace
from streamllm.units import pieces

log = logging.getLogger(__name__)


def check_examples(model: StreamingModel, examples: Sequence[Example], limits: Limits) -> None:
    """Check all before any is translated. The source is counted; of the target it is the most that ``limits`` allow.

    Raises:
        PositionError: a sentence would need more positions than a learned table has.
    """
    limit = model.positions.limit
    if limit is None:
        return
    sources = [source_tokens(model, example) for example in examples]
    alone = [ends(model, tokens, 0) for tokens in sources]
    if model.positions.kind == "rotary":
        _warn(model, alone)
        return
    units = [_most_units(model, example, limits) for example in examples]
    written = [ends(model, tokens, limits.most_tokens(n)) for tokens, n in zip(sources, units, strict=True)]
    for positions in (alone, written):
        end = max(positions, default=0)
        if end > limit:
            break
    else:
        return
    i = positions.index(end)
    beyond = sum(other > limit for other in positions)
    others = f" ({beyond} of {len(examples)} sentences pass it)" if beyond > 1 else ""
    table = f"the model's table of positions, which was learned, has {limit}{others}"
    name, tokens = examples[i].id, sources[i]
    leave_out = "leave it out (dataset.skip_long=true)"
    if positions is alone:
        raise PositionError(
            f"sentence {name!r} takes {end:.0f} positions with its {tokens} source tokens alone, and {table}: "
            f"{leave_out}, shorten the prompt, or choose a model with rotary positions"
        )
    room = limit - target_begin(model, tokens) - LONGEST_UNIT
    fitting = math.floor(10 * room / units[i]) / 10
    advice = f"set limits.tokens_per_unit={fitting:g}, " if fitting >= 1 else f"{leave_out}, "
    raise PositionError(
        f"sentence {name!r} may take {end:.0f} positions ({tokens} source tokens, and as many of the target as the "
        f"limits allow), and {table}: {advice}lower limits.length_ratio or limits.length_extra, or choose a model with "
        "rotary positions"
    )


def beyond_the_table(model: StreamingModel, examples: Sequence[Example], limits: Limits) -> set[int]:
    """The numbers of the examples that `check_examples` would refuse."""
    limit = model.positions.limit
    if limit is None or model.positions.kind == "rotary":
        return set()
    beyond = set()
    for i, example in enumerate(examples):
        most = limits.most_tokens(_most_units(model, example, limits))
        if ends(model, source_tokens(model, example), most) > limit:
            beyond.add(i)
    return beyond


def _most_units(model: StreamingModel, example: Example, limits: Limits) -> int:
    return limits.most_units(len(pieces(example.source, model.prompt.source_unit)))


def noticing(model: StreamingModel, traces: Generator[Trace, None, None]) -> Generator[Trace, None, None]:
    """The traces; when all have come, a warning if rotary positions were passed in writing."""
    if model.positions.limit is None or model.positions.kind != "rotary":
        yield from traces
        return
    passed = []
    with closing(traces):  # who stops this one stops those who translate
        for trace in traces:
            passed.append(ends(model, int(trace.stats["source_tokens"]), int(trace.stats["target_tokens"])))
            yield trace
    _warn(model, passed)


def source_tokens(model: StreamingModel, example: Example) -> int:
    """Tokens of a source with its header and footer."""
    prompt = model.prompt
    units = pieces(example.source, prompt.source_unit)
    words = sum(len(prompt.source_tokens(unit, first=i == 0)) for i, unit in enumerate(units))
    return len(prompt.source_header) + words + len(prompt.source_footer)


def ends(model: StreamingModel, source: int, target: float) -> float:
    """How many positions a sentence takes that has so many tokens of source, and of target besides its header. With a
    window on a stream, positions go by what it holds."""
    kept = model.retention
    header = len(model.prompt.target_header)
    start = target_begin(model, source) - header
    source = source if kept.max_source is None else min(source, kept.max_source)
    target = target + header if kept.max_target is None else min(target + header, kept.max_target)
    return max(source, start + target)


def target_begin(model: StreamingModel, source: int) -> int:
    """The position of the first target token after the header, with so many tokens of source."""
    start, most = model.target_start, model.retention.max_source
    header = len(model.prompt.target_header)
    if model.paradigm.trained_as != "interleaved" and start != "after_source":
        return start + header
    return (source if most is None else min(source, most)) + header


def _warn(model: StreamingModel, positions: Sequence[float]) -> None:
    """Once for a model: training scores again and again."""
    limit = model.positions.limit
    beyond = [end for end in positions if limit is not None and end > limit]
    if beyond and not model.warned_of_positions:
        model.warned_of_positions = True
        log.warning(
            "%d of %d sentences take more than the %d positions that the model was trained on, up to %.0f: what it "
            "writes there is not to be trusted",
            *(len(beyond), len(positions), limit, max(beyond)),
        )
