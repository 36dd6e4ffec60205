"""What a model folder says of itself passes the checks of the command line: one error that names file and key."""

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated, read_or_refused

from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.settings import ADAPTER, SETTINGS, Settings, check_adapter, read_settings
from streamllm.prompt import Prompt

BUNDLED = Path(__file__).parents[2] / "streamllm" / "models" / "assets" / "tiny-en-de"
WHOLE: dict[str, Any] = {**json.loads((BUNDLED / SETTINGS).read_text()), "paradigm": "group", "base_weights": "ab"}
LORA: dict[str, Any] = {
    "fine_tune_type": "lora",
    "num_layers": -1,
    "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]},
}


def written(folder: Path, name: str, content: Any) -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_start": -5}, "target_start is -5; accepted are a position of at least 0"),
        ({"target_start": 1.5}, "target_start is 1.5; accepted"),
        ({"target_start": True}, "target_start is True; accepted"),
        ({"target_start": 2**31}, "target_start is 2147483648; accepted"),
        ({"target_start": "after"}, "target_start is 'after'; accepted"),
        ({"target_start": [0]}, "target_start is [0]; accepted"),
        ({"paradigm": 5}, "paradigm is 5; it is text"),
        ({"alignment_heads": [[-1, 0]]}, "alignment_heads are [[-1, 0]]; accepted are pairs of layer and head"),
        ({"alignment_heads": 3}, "alignment_heads are 3; accepted"),
        ({"alignment_heads": []}, "alignment_heads are []; accepted"),
        ({"base_weights": {}}, "base_weights is {}; it is text"),
        ({"prompt": [1]}, "prompt is [1]; it should be an object with source_header, source_footer"),
        ({"prompt": {"header": "x"}}, "prompt has a key 'header'; accepted are source_header"),
        ({"prompt": {"leading_space": "no"}}, "prompt.leading_space is 'no'; accepted are true and false"),
        ({"prompt": {"instruction": [1]}}, "prompt.instruction is [1]; it is text"),
        ({"prompt": {"stop": 5}}, "prompt.stop is 5; it is text"),
        ({"prompt": {"stop": ""}}, "prompt.stop is empty"),
    ],
)
def test_a_value_that_is_not_accepted_is_named_with_file_and_key(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=SETTINGS) as raised:
        read_settings(written(tmp_path, SETTINGS, WHOLE | changes))
    assert str(raised.value).startswith(f"{tmp_path / SETTINGS}: {message}")


@pytest.mark.parametrize("value", [-5, 1.5, True, "after", 2**31])
def test_the_first_position_is_checked_alike_at_every_door(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^target_start is {value!r}; accepted") as by_file:
        Settings(target_start=value)
    with pytest.raises(ModelError) as by_command:
        ModelConfig("bundled:tiny-en-de", target_start=value)
    assert str(by_command.value) == f"model.{by_file.value}"


def test_settings_of_before_and_of_later_are_read(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings()
    assert read_settings(written(tmp_path, SETTINGS, {"target_start": None, "later": [1]})) == Settings()


def test_an_adapters_settings_count_before_the_models() -> None:
    model, adapter = Settings(Prompt("a"), 3, "group"), Settings(target_start=0, base_weights="ab")
    assert adapter.over(model) == Settings(Prompt("a"), 0, "group", base_weights="ab")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paradigm": "own"}, "paradigm is 'own'; accepted are group and interleaved"),
        ({"alignment_heads": [[99, 0]]}, "alignment_heads has [99, 0], and the model has 5 layers"),
    ],
)
def test_what_does_not_fit_the_model_is_said_when_it_is_loaded(tmp_path: Path, changes: Any, message: str) -> None:
    folder = shutil.copytree(BUNDLED, tmp_path / "model")
    written(folder, SETTINGS, {key: value for key, value in WHOLE.items() if key != "base_weights"} | changes)
    with pytest.raises(ModelError) as raised:
        ModelConfig(str(folder)).load()
    assert f"{SETTINGS} of {folder}: {message}" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "it is []; it should be an object"),
        ({}, "it has no num_layers"),
        (LORA | {"fine_tune_type": "prefix"}, "fine_tune_type is 'prefix'; accepted are lora, dora, full"),
        (LORA | {"fine_tune_type": []}, "fine_tune_type is []; accepted"),
        (LORA | {"num_layers": 1.5}, "num_layers is 1.5; it is a whole number"),
        (LORA | {"lora_parameters": None}, "lora_parameters is None; it should be an object"),
        (LORA | {"lora_parameters": {"rank": 4}}, "lora_parameters is without dropout, scale"),
        (LORA | {"lora_parameters": LORA["lora_parameters"] | {"rank": "4"}}, "lora_parameters.rank is '4'"),
        (LORA | {"lora_parameters": LORA["lora_parameters"] | {"scale": 0}}, "lora_parameters.scale is 0"),
        (
            '{"num_layers": 1, "lora_parameters": {"rank": 1, "scale": 1e999, "dropout": 0}}',
            "lora_parameters.scale is inf",
        ),
        (LORA | {"lora_parameters": LORA["lora_parameters"] | {"dropout": 1}}, "lora_parameters.dropout is 1"),
        (LORA | {"lora_parameters": LORA["lora_parameters"] | {"keys": [1]}}, "lora_parameters.keys: [0] is 1"),
    ],
)
def test_an_adapter_that_mlx_lm_could_not_make_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=ADAPTER) as raised:
        check_adapter(written(tmp_path, ADAPTER, content))
    assert message in str(raised.value)


@settings(max_examples=100)
@given(mutated(WHOLE), mutated(LORA))
def test_any_settings_are_read_or_refused(content: bytes, adapter: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SETTINGS).write_bytes(content)
        (folder / ADAPTER).write_bytes(adapter)
        for read in (read_settings, check_adapter):
            read_or_refused(partial(read, folder), ValueError)


@pytest.fixture(scope="module")
def model_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(BUNDLED, tmp_path_factory.mktemp("settings") / "model")


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(content=st.one_of(mutated(WHOLE["prompt"]).map(lambda prompt: b'{"prompt": ' + prompt + b"}"), mutated(WHOLE)))
def test_a_model_with_any_settings_is_loaded_or_refused_in_one_line(model_of_its_own: Path, content: bytes) -> None:
    (model_of_its_own / SETTINGS).write_bytes(content)
    model = read_or_refused(ModelConfig(str(model_of_its_own)).load, ModelError)
    if model is not None:
        model.session().read("dog")
