"""Chat templates are rendered as transformers renders them, and within bounds."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
from jinja2 import TemplateError as TemplateRefused

from streamllm.prompt import Prompt, PromptTokens
from streamllm.prompt.template import Bounds, TemplateError
from streamllm.prompt.template import render as render_all

TURNS = [{"role": "user", "content": "Grüße <b>"}, {"role": "assistant", "content": "x\n"}]
LOOP = "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}done"


def render(template: str, variables: dict[str, Any], bounds: Bounds = Bounds()) -> str:
    (text,) = render_all(template, [variables], bounds)
    if isinstance(text, TemplateError):
        raise text
    return text


@pytest.mark.parametrize(
    "template",
    [
        tiny.CHAT,
        "{{ bos_token }}{% for m in messages %}{{ m | tojson }}{{ m | tojson(indent=2) }}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{% for m in messages %}{% if loop.index0 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}\n  {% generation %}\n{{ m['content'] }}{% endgeneration %}\n{% endfor %}\nend\n",
        "{{ dict(a=1) }}{{ dict.fromkeys([1]) }}{{ messages[0].items() | list }}{{ tools is none }}{{ documents }}",
        "{% macro two(x) %}{{ x }}{{ x }}{% endmacro %}{{ two('a') }}{{ 'a,b'.split(',') }}{{ messages[-1].none }}",
    ],
)
def test_a_template_is_rendered_as_transformers_renders_it(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    settings: dict[str, Any] = {"add_generation_prompt": True, "bos_token": "<bos>"}
    (expected,), _ = render_jinja_template([TURNS], chat_template=template, **settings)
    assert render(template, {"messages": TURNS, "tools": None, "documents": None, **settings}) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('needs a system turn') }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1] }}",
        "{% set ns = namespace(_x=1) %}",
        "{% if %}",
        "{{ [].__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'] }}",
    ],
)
def test_what_transformers_refuses_is_refused(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    with pytest.raises((TemplateRefused, TypeError)):
        render_jinja_template([TURNS], chat_template=template)
    with pytest.raises(TemplateError):
        render(template, {"messages": TURNS})


def test_a_template_that_writes_too_much_is_refused() -> None:
    bounds = Bounds(length=20)
    assert render("{% for i in range(20) %}x{% endfor %}", {}, bounds) == "x" * 20
    with pytest.raises(TemplateError, match=r"^it writes more than 20 characters$"):
        render("{% for i in range(21) %}x{% endfor %}", {}, bounds)


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such bound")
def test_a_template_that_computes_too_long_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"^it takes more than 0\.02 seconds of computing$"):
        render(LOOP, {}, Bounds(seconds=0.02))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the bound")
def test_a_template_that_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"^it takes more than 256 MiB of memory$"):
        render("{{ ('x' * n) | length }}", {"n": 300 << 20}, Bounds(memory=256 << 20))


def test_templates_are_rendered_in_threads() -> None:
    with ThreadPoolExecutor(3) as threads:
        found = threads.map(lambda n: render("{{ n + 1 }}", {"n": n}), range(3))
    assert [*found] == ["1", "2", "3"]


def test_a_tokenizer_whose_template_does_not_end_is_one_error_that_names_it(tmp_path: Path) -> None:
    endless = "{% for i in range(1000) %}{{ 'x' * 300 }}{% endfor %}"
    tiny.byte_level_tokenizer(tmp_path, chat_template=endless + tiny.CHAT)
    expected = (
        rf"^the chat template of {tmp_path} refuses a user's turn \(it writes more than 200000 characters\): give"
    )
    with pytest.raises(ValueError, match=expected):
        PromptTokens(Prompt(chat=True), tiny.load(tmp_path))


def test_headers_by_hand_need_no_template_that_works(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path, chat_template="{{ raise_exception('never') }}")
    by_hand = Prompt(target_header="German:")
    assert PromptTokens(by_hand, tiny.load(tmp_path)).text == by_hand
