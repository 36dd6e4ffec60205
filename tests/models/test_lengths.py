"""Units that are too long: one error before anything is computed, or left out and counted. Limits here are low."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from streamllm.batching.scheduler import translate_many
from streamllm.data.given import Given
from streamllm.engine.limits import Limits
from streamllm.evaluation.api import evaluate, stream
from streamllm.models.lengths import CHARACTERS_PER_TOKEN, TOKENS_PER_BYTE, TooLong, all_short, fitting, fitting_units
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example
from streamllm.runs.naming import digest

PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
WORD = "Donaudampfschifffahrtsgesellschaft"  # 34 tokens by bytes
EXAMPLES = (
    Example("t-1", "the dog", "der Hund"),
    Example("t-2", f"the {WORD} runs", "die Gesellschaft läuft"),
    Example("t-3", f"a cat {WORD}{WORD}", "eine Katze"),
    Example("t-4", "a cat", "eine Katze"),
)
LIMITS = Limits(length_ratio=0, length_extra=2, source_tokens_per_unit=20)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StreamingModel:
    return StreamingModel(tiny.random_model(1, len(tokenizer)), PromptTokens(PROMPT, tokenizer), tokenizer)


def test_a_unit_over_the_limit_is_refused_before_anything_is_computed(model: StreamingModel) -> None:
    expected = rf"^sentence 't-2': its unit 2 \('{WORD[:23]}…'\) takes 3\d tokens, and .*unit is 20 \(2 of 4 sentences"
    with pytest.raises(TooLong, match=expected):
        translate_many(model, EXAMPLES, WaitK(2), LIMITS)  # at the call, not at the first sentence


def test_what_is_too_long_is_left_out_where_that_is_asked_for(model: StreamingModel) -> None:
    assert [example.id for example in fitting(model, EXAMPLES, LIMITS, skip=True)] == ["t-1", "t-4"]


def test_the_longest_word_of_all_tells_where_none_need_be_looked_at(model: StreamingModel) -> None:
    bytes_at_most = 20 // TOKENS_PER_BYTE - 1
    assert [all_short(model, length, LIMITS) for length in (bytes_at_most, bytes_at_most + 1)] == [True, False]
    assert all_short(model, 10**6, Limits(source_tokens_per_unit=None))


def test_without_a_limit_all_units_pass(model: StreamingModel) -> None:
    assert fitting(model, EXAMPLES, Limits(source_tokens_per_unit=None)) == [*EXAMPLES]


def test_the_error_names_the_data_set(model: StreamingModel) -> None:
    with pytest.raises(TooLong, match="sentence 't-2' of data set 'talks': its unit 2"):
        fitting(model, EXAMPLES, LIMITS, "talks")


def test_units_that_are_short_in_bytes_and_those_that_are_very_long_are_not_tokenised(model: StreamingModel) -> None:
    class Refusing:
        source_unit = "word"

        def source_tokens(self, unit: str, first: bool) -> list[int]:
            raise AssertionError(f"{unit} was tokenised")

    prompt: Any = Refusing()
    short = Limits(source_tokens_per_unit=TOKENS_PER_BYTE * 6)
    assert [*fitting_units(prompt, ["short", "words"], short)] == ["short", "words"]
    with pytest.raises(TooLong, match=f"has {CHARACTERS_PER_TOKEN + 1} characters, and .*unit is 1"):
        [*fitting_units(prompt, ["a" * (CHARACTERS_PER_TOKEN + 1)], Limits(source_tokens_per_unit=1))]


def test_no_letter_becomes_more_tokens_than_its_bytes_are_counted_as(tmp_path: Path) -> None:
    import unicodedata

    grown = max(
        range(0x110000),
        key=lambda code: (
            0
            if 0xD800 <= code < 0xE000
            else len(unicodedata.normalize("NFKC", chr(code)).encode()) / len(chr(code).encode())
        ),
    )
    assert len(unicodedata.normalize("NFKC", chr(grown)).encode()) < TOKENS_PER_BYTE * len(chr(grown).encode())


def test_words_that_arrive_are_read_until_one_is_too_long(model: StreamingModel) -> None:
    arrived: list[str] = []

    def source() -> Iterator[str]:
        for unit in ("the", "dog", WORD, "runs"):
            arrived.append(unit)
            yield unit

    with pytest.raises(TooLong, match="its unit 3 "):
        [*stream(model, source(), WaitK(1), LIMITS)]
    assert arrived[-1] == WORD


# Runs


def run(folder: Path, model_folder: Path, examples: tuple[Example, ...] = EXAMPLES, skip: bool = True) -> Any:
    data = Given(examples=examples, source_language="en", target_language="de", skip_long=skip)
    return evaluate(ModelConfig(str(model_folder)), WaitK(2), data, root=folder, prompt=PROMPT, limits=LIMITS)


def test_a_run_counts_what_it_left_out_and_says_so(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(tmp_path, model_folder)
    assert found.metrics["sentences"] == 2
    assert json.loads((found.folder / "metrics.json").read_text())["sentences_left_out"] == 2
    assert "2 sentences" in (said := capsys.readouterr().out)
    assert "2 left out, too long (dataset.skip_long)" in said
    ids = [json.loads(line)["id"] for line in (found.folder / "predictions.jsonl").read_text().splitlines()]
    assert ids == ["t-1", "t-4"]


def test_a_run_that_was_stopped_counts_the_same(tmp_path: Path, model_folder: Path) -> None:
    whole = run(tmp_path / "whole", model_folder)
    found = run(tmp_path / "stopped", model_folder)
    (found.folder / "metrics.json").unlink()
    predictions = (found.folder / "predictions.jsonl").read_text().splitlines(True)
    (found.folder / "predictions.jsonl").write_text(predictions[0])
    again = run(tmp_path / "stopped", model_folder)
    assert again.metrics["sentences_left_out"] == 2
    assert (again.folder / "predictions.jsonl").read_bytes() == (whole.folder / "predictions.jsonl").read_bytes()


def test_a_run_in_which_all_is_too_long_is_one_error(tmp_path: Path, model_folder: Path) -> None:
    with pytest.raises(ValueError, match="all 2 sentences are too long"):
        run(tmp_path, model_folder, EXAMPLES[1:3])


def test_a_run_without_skip_long_counts_nothing(tmp_path: Path, model_folder: Path) -> None:
    assert "sentences_left_out" not in run(tmp_path, model_folder, EXAMPLES[:1], skip=False).metrics


@pytest.mark.parametrize("key", ["dataset.skip_long", "validation.skip_long", "limits.source_tokens_per_unit"])
def test_the_usual_value_of_a_later_key_changes_no_digest(key: str) -> None:
    usual = {"skip_long": False, "source_tokens_per_unit": Limits().source_tokens_per_unit}
    part, name = key.split(".")
    before: dict[str, Any] = {part: {"other": 1}}
    assert digest({part: {"other": 1, name: usual[name]}}) == digest(before)
    assert digest({part: {"other": 1, name: 7}}) != digest(before)


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
def test_a_limit_that_is_no_number_of_tokens_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"source_tokens_per_unit is .*whole number of tokens, at least 1, or null"):
        Limits(source_tokens_per_unit=value)
