"""Whether sources are too long, known before any is translated: a unit of more tokens than the limits say, a sentence
that a learned table of positions has no room for. Only units that may be too long are tokenised for it."""

from collections.abc import Iterable, Iterator, Sequence

from streamllm.engine.finite import SentenceError
from streamllm.engine.limits import Limits
from streamllm.models.model import StreamingModel
from streamllm.models.positions import beyond_the_table, check_examples
from streamllm.prompt import PromptTokens
from streamllm.records import Example
from streamllm.units import pieces

TOKENS_PER_BYTE = 12
"""More than a tokenizer makes of a byte of UTF-8. The finest vocabulary has a token a byte; the normal form NFKC makes
33 bytes of one letter of 3 (U+FDFA), and no letter grows more. A space before the unit counts as a byte."""

CHARACTERS_PER_TOKEN = 64
"""A unit with more characters than so many for each token that it may have is too long without being tokenised."""

SHOWN = 24  # characters of a unit in an error


class TooLong(SentenceError):
    """A source unit has more tokens than ``limits.source_tokens_per_unit``."""


def fitting(
    model: StreamingModel, examples: Sequence[Example], limits: Limits, data: str = "", skip: bool = False
) -> list[Example]:
    """The examples whose sources are not too long.

    Args:
        data: the name of the data set, for the error.
        skip: leave out what is too long; else it is an error.

    Raises:
        TooLong: a unit is too long. PositionError: as `streamllm.models.positions.check_examples`.
    """
    faults = {i: fault for i, example in enumerate(examples) if (fault := _too_long(model, example, limits))}
    if not skip:
        if faults:
            i, fault = next(iter(faults.items()))
            where = f"sentence {examples[i].id!r}" + (f" of data set {data!r}" if data else "")
            others = f" ({len(faults)} of {len(examples)} sentences have such a unit)" if len(faults) > 1 else ""
            raise TooLong(
                f"{where}: {fault}{others}: correct the data, raise the limit, or leave such sentences out with "
                "dataset.skip_long=true"
            )
        check_examples(model, examples, limits)
        return [*examples]
    short = [example for i, example in enumerate(examples) if i not in faults]
    beyond = beyond_the_table(model, short, limits)
    return [example for i, example in enumerate(short) if i not in beyond]


def all_short(model: StreamingModel, longest_word: int, limits: Limits) -> bool:
    """Whether no source can be too long, the longest word of all having so many bytes. If one takes more rotary
    positions than were trained, that is said when it is translated."""
    most = limits.source_tokens_per_unit
    endless = model.positions.limit is None or model.positions.kind == "rotary"
    words = model.prompt.source_unit == "word"
    return endless and words and (most is None or TOKENS_PER_BYTE * (longest_word + 1) <= most)


def fitting_units(prompt: PromptTokens, units: Iterable[str], limits: Limits) -> Iterator[str]:
    """The units of a sentence as they arrive.

    Raises:
        TooLong: on the way, before a unit that is too long is handed on.
    """
    for i, unit in enumerate(units):
        if fault := unit_fault(prompt, unit, i, limits.source_tokens_per_unit):
            raise TooLong(fault)
        yield unit


def _too_long(model: StreamingModel, example: Example, limits: Limits) -> str | None:
    most = limits.source_tokens_per_unit
    if most is None or _is_short(example.source, most):
        return None
    units = pieces(example.source, model.prompt.source_unit)
    return next((fault for i, unit in enumerate(units) if (fault := unit_fault(model.prompt, unit, i, most))), None)


def _is_short(text: str, most: int) -> bool:
    return TOKENS_PER_BYTE * (len(text.encode()) + 1) <= most


def unit_fault(prompt: PromptTokens, unit: str, number: int, most: int | None) -> str | None:
    """What is wrong with the length of the unit of this number (from 0) in its sentence."""
    if most is None or _is_short(unit, most):
        return None
    shown = repr(unit if len(unit) <= SHOWN else f"{unit[: SHOWN - 1]}…")
    limit = f"limits.source_tokens_per_unit is {most}"
    if len(unit) > CHARACTERS_PER_TOKEN * most:
        return f"its unit {number + 1} ({shown}) has {len(unit)} characters, and {limit}"
    tokens = len(prompt.source_tokens(unit, first=number == 0))
    return f"its unit {number + 1} ({shown}) takes {tokens} tokens, and {limit}" if tokens > most else None
