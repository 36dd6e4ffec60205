"""Headers and footer out of a chat template. Nothing that depends on the clock enters them, and no thoughts stand
before the translation."""

import logging
from datetime import datetime
from typing import Any

from streamllm.prompt.template import TemplateError, render

log = logging.getLogger(__name__)

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
        ValueError: the template refuses a user's turn, takes more than it may (`streamllm.prompt.template.Bounds`), or
            its text cannot be cut around the source.
    """
    try:
        text, with_end = _render(tokenizer, instruction, True), _render(tokenizer, instruction, False)
    except Exception as error:  # jinja's, and whatever a template raises
        of = f" of {name}" if (name := getattr(tokenizer, "name_or_path", "")) else ""
        raise ValueError(f"the chat template{of} refuses a user's turn ({error}): {BY_HAND}") from error
    if text.count(SOURCE) != 1:
        raise ValueError(f"the chat template does not show the user's text exactly once: {BY_HAND}")
    header, rest = text.split(SOURCE)
    footer = with_end.partition(SOURCE)[2]
    if not rest.startswith(footer):
        raise ValueError(f"the chat template's generation prompt does not follow the user's turn: {BY_HAND}")
    return header, footer, _without_thoughts(rest[len(footer) :], tokenizer)


def after_target(tokenizer: Any, instruction: str = "") -> str:
    """What the chat template writes after the assistant's text; "" where it cannot be told."""
    try:
        text = _render(tokenizer, instruction)
    except Exception as error:  # a template without an assistant's turn
        log.debug("the chat template writes no assistant's turn: %s", error)
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


def _render(tokenizer: Any, instruction: str, add_generation_prompt: bool | None = None) -> str:
    """A user's turn as the chat template writes it; with None for the generation prompt, the assistant's after it."""
    user = {"role": "user", "content": instruction + SOURCE}
    cases: dict[bool | None, dict[str, Any]] = {
        True: {"messages": [user], "add_generation_prompt": True},
        False: {"messages": [user], "add_generation_prompt": False},
        None: {"messages": [user, {"role": "assistant", "content": TARGET}], "add_generation_prompt": False},
    }
    pinned: dict[str, Any] = {"date_string": DAY.strftime("%d %b %Y")}  # where Llama 3's template takes the day from
    settings: dict[str, Any] = {"enable_thinking": False}
    template = _template(tokenizer)
    if template is None:  # written in Python, by mlx-lm or transformers: it takes no more than it names
        case = dict(cases[add_generation_prompt])
        turns = case.pop("messages")
        try:
            return str(tokenizer.apply_chat_template(turns, tokenize=False, **case, **settings, **pinned))
        except TypeError:
            return str(tokenizer.apply_chat_template(turns, tokenize=False, **case, **settings))
    shown = {"tools": None, "documents": None, **settings, **tokenizer.special_tokens_map, **pinned}
    if "strftime_now" in template:  # Mistral, gpt-oss, Granite, SmolLM3
        template, shown["stopped_clock"] = STOPPED_CLOCK + template, _parts_of_the_day()
    # All cases at once: what is asked for next is known then.
    texts = dict(zip(cases, render(template, [{**case, **shown} for case in cases.values()]), strict=True))
    text = texts[add_generation_prompt]
    if isinstance(text, TemplateError):
        raise text
    return text


def _template(tokenizer: Any) -> str | None:
    """A tokenizer's template; None where there is only a function."""
    from transformers import PreTrainedTokenizerBase

    inner = getattr(tokenizer, "_tokenizer", tokenizer)  # of mlx-lm's wrapper
    own = getattr(type(inner), "apply_chat_template", None) is not PreTrainedTokenizerBase.apply_chat_template
    if own or getattr(tokenizer, "_chat_template", None) is not None or inner.chat_template is None:
        return None
    return str(inner.get_chat_template())


def _parts_of_the_day() -> list[list[str]]:
    """What each directive of strftime writes on `DAY`, those without leading zeros first."""
    plain = [[f"%-{letter}", DAY.strftime(f"%{letter}").lstrip("0") or "0"] for letter in "dmyHIMSj"]
    return [*plain, *([f"%{letter}", DAY.strftime(f"%{letter}")] for letter in "aAwdbBmyYHIpMSfjUWcxXuVG"), ["%%", "%"]]
