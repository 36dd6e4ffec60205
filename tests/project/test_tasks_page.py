"""The prompts of docs/tasks.md are put together as the page shows it."""

import re
from pathlib import Path
from typing import Any

import tiny
import yaml
from conftest import ROOT

from streamllm.cli.prompt import assembled
from streamllm.models.loading import ModelConfig
from streamllm.prompt import Prompt, PromptTokens

PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
SENTENCE = "two dogs run"


def on_the_page(name: str) -> tuple[dict[str, Any], str]:
    """The values of a prompt, and the assembled text that is shown for it."""
    found = re.search(rf"`conf/prompt/{name}\.yaml`:\n\n```yaml\n(.*?)```.*?```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert found, name
    values = yaml.safe_load(found[1])
    assert values.pop("_target_") == "streamllm.prompt.Prompt"
    return values, found[2]


def text(prompt: PromptTokens) -> str:
    return prompt.vocabulary.text_of([token for _, part in assembled(prompt, SENTENCE) for token in part], special=True)


def test_a_prompt_of_plain_text_reads_as_shown_and_is_glued_without_its_space() -> None:
    values, shown = on_the_page("mine")
    model = ModelConfig("bundled:tiny-en-de").load(Prompt(**values))
    assert text(model.prompt) == shown
    del values["leading_space"]
    glued = text(PromptTokens(Prompt(**values), model.tokenizer))
    assert glued == shown.replace(f"English: {SENTENCE}", f"English:{SENTENCE}") != shown


def test_a_prompt_in_a_chat_template_reads_as_shown(tmp_path: Path) -> None:
    values, shown = on_the_page("mine_chat")
    tiny.byte_level_tokenizer(tmp_path, chat_template=CHATML)
    assert text(PromptTokens(Prompt(**values), tiny.load(tmp_path))) == f"{shown}\n"


CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""That of SmolLM2, which the page shows."""
