"""Headers and footer out of a chat template. Nothing that depends on the clock enters them, and no thoughts stand
before the translation."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

SOURCE, TARGET = "⟦source⟧", "⟦target⟧"
# The day on which every prompt is written. Llama 3's template falls back on it, too.
DAY = datetime(2024, 7, 26)
# transformers hands templates no function, so the clock is one of the template's own.
STOPPED_CLOCK = (
    "{%- macro strftime_now(format) -%}{%- set text = namespace(value=format) -%}"
    "{%- for sign, value in stopped_clock -%}{%- set text.value = text.value | replace(sign, value) -%}{%- endfor -%}"
    "{{- text.value -}}{%- endmacro -%}"
)
BY_HAND = "give the headers by hand: prompt.chat=false and prompt.source_header, source_footer, target_header"
THINKING = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<|think:start|>", "<|think:end|>"))


def has_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "has_chat_template", getattr(tokenizer, "chat_template", None) is not None))


def around_source(tokenizer: Any, instruction: str) -> tuple[str, str, str]:
    """Source header, source footer and target header as the chat template writes them.

    Raises:
        ValueError: the template refuses a user's turn, or its text cannot be cut around the source.
    """
    user = {"role": "user", "content": instruction + SOURCE}
    try:
        text, with_end = _render(tokenizer, [user], True), _render(tokenizer, [user], False)
    except Exception as error:  # jinja's, and whatever a template raises
        raise ValueError(f"the chat template refuses a user's turn ({error}): {BY_HAND}") from error
    if text.count(SOURCE) != 1:
        raise ValueError(f"the chat template does not show the user's text exactly once: {BY_HAND}")
    header, rest = text.split(SOURCE)
    footer = with_end.partition(SOURCE)[2]
    if not rest.startswith(footer):
        raise ValueError(f"the chat template's generation prompt does not follow the user's turn: {BY_HAND}")
    return header, footer, _without_thoughts(rest[len(footer) :], tokenizer)


def after_target(tokenizer: Any) -> str:
    """What the chat template writes after the assistant's text; "" where it cannot be told."""
    turns = [{"role": "user", "content": SOURCE}, {"role": "assistant", "content": TARGET}]
    try:
        text = _render(tokenizer, turns, False)
    except Exception:  # a template without an assistant's turn
        return ""
    return text.split(TARGET)[1].lstrip() if text.count(TARGET) == 1 else ""


def _without_thoughts(target_header: str, tokenizer: Any) -> str:
    """Close the thoughts that a template opens although it is asked not to (DeepSeek-R1, QwQ)."""
    own = getattr(tokenizer, "think_start", None), getattr(tokenizer, "think_end", None)
    for start, end in (own, *THINKING):
        if start and end and target_header.count(start) > target_header.count(end):
            line_break = "" if target_header.endswith("\n") else "\n"
            return f"{target_header}{line_break}\n{end}\n\n"  # as Qwen3 writes no thoughts
    return target_header


def _render(tokenizer: Any, turns: list[dict[str, str]], add_generation_prompt: bool) -> str:
    render: Callable[..., Any] = tokenizer.apply_chat_template
    settings = {"tokenize": False, "add_generation_prompt": add_generation_prompt, "enable_thinking": False}
    pinned: dict[str, Any] = {"date_string": DAY.strftime("%d %b %Y")}  # where Llama 3's template takes the day from
    template = _template(tokenizer)
    if "strftime_now" in template:  # Mistral, gpt-oss, Granite, SmolLM3
        pinned |= {"chat_template": STOPPED_CLOCK + template, "stopped_clock": _parts_of_the_day()}
        return str(render(turns, **settings, **pinned))
    try:
        return str(render(turns, **settings, **pinned))
    except TypeError:  # one of mlx-lm's own in Python, which takes no more than it names
        return str(render(turns, **settings))


def _template(tokenizer: Any) -> str:
    if getattr(tokenizer, "chat_template", None) is None:
        return ""
    return str(tokenizer.get_chat_template())


def _parts_of_the_day() -> list[list[str]]:
    """What each directive of strftime writes on `DAY`, those without leading zeros first."""
    plain = [[f"%-{letter}", DAY.strftime(f"%{letter}").lstrip("0") or "0"] for letter in "dmyHIMSj"]
    return [*plain, *([f"%{letter}", DAY.strftime(f"%{letter}")] for letter in "aAwdbBmyYHIpMSfjUWcxXuVG"), ["%%", "%"]]
