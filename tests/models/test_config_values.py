"""Faults in the files of a model folder: one line with file, key, value and what is accepted, before anything large is
made."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import tiny
from families import FAMILIES
from reference import build

from streamllm.models.config_values import check_kinds, check_values
from streamllm.models.families import args_of
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.weights import arrays_of, header_of

CONFIG = "config.json"
FETCH = "fetch it again"


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder of one's own, to break: two layers, four heads of 8, two of keys."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def refused(folder: Path, *words: str) -> str:
    """The message of the one clear error; ``words`` stand in it."""
    with pytest.raises(ModelError) as error:
        ModelConfig(str(folder)).load()
    message = str(error.value)
    assert "\n" not in message
    assert "Error" not in message
    for word in words:
        assert word in message
    return message


WHOLE = "a whole number, at least 1"
OBJECT = "an object in braces, or null"


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("model_type", 5, "a name"),
        ("model_type", ["qwen2"], "a name"),
        ("num_attention_heads", 0, WHOLE),
        ("num_attention_heads", True, WHOLE),
        ("num_hidden_layers", "2", WHOLE),
        ("vocab_size", -5, WHOLE),
        ("hidden_size", 1.5, WHOLE),
        ("max_position_embeddings", "many", WHOLE),
        ("intermediate_size", -1, "at least 0"),
        ("rope_theta", 0, "a number above 0"),
        ("rms_norm_eps", "x", "a number, at least 0"),
        ("rope_scaling", 5, OBJECT),
        ("rope_parameters", [], OBJECT),
        ("text_config", "x", OBJECT),
        ("quantization", 7, OBJECT),
        ("layer_types", "full_attention", "a list of names"),
        ("architectures", 7, "a list of names"),
        ("eos_token_id", "x", "the number of a token"),
        ("tie_word_embeddings", "no", "true or false"),
        ("rope_traditional", "x", "true or false"),
    ],
)
def test_a_value_of_config_json_is_named_with_what_is_accepted(
    folder: Path, key: str, value: object, accepted: str
) -> None:
    edit(folder / CONFIG, **{key: value})
    message = refused(folder, f"{folder / CONFIG}: {key} is {value!r}; it is ", accepted)
    assert "fetch" not in message.lower()  # nothing is wrong with the weights


def test_no_number_of_config_json_is_nan(folder: Path) -> None:
    edit(folder / CONFIG, rms_norm_eps=float("nan"))
    refused(folder, f"{folder / CONFIG} is not JSON: NaN is no number of JSON")


def test_a_value_in_text_config_is_named_with_it() -> None:
    with pytest.raises(ValueError, match=r"^text_config\.vocab_size is 0; it is a whole number, at least 1$"):
        check_values({"model_type": "mistral3", "text_config": {"vocab_size": 0}})


@pytest.mark.parametrize(
    ("settings", "key", "value"), [({"bits": 3}, "group_size", None), ({"bits": 0, "group_size": 32}, "bits", 0)]
)
def test_settings_of_quantisation_are_checked(folder: Path, settings: dict[str, int], key: str, value: object) -> None:
    edit(folder / CONFIG, quantization=settings)
    refused(folder, f"quantization.{key} is {value}; it is {WHOLE}")


@pytest.mark.parametrize("key", ["num_key_value_heads", "rope_theta"])
def test_null_where_a_value_is_needed_names_the_key(folder: Path, key: str) -> None:
    edit(folder / CONFIG, **{key: None})
    refused(folder, f"{folder / CONFIG}: ", f"it has no {key}")


# Sizes, beside the weights


def test_more_layers_than_the_weights_hold(folder: Path) -> None:
    edit(folder / CONFIG, num_hidden_layers=3)
    message = refused(folder, CONFIG, "num_hidden_layers is 3, and the weights hold 2 layers")
    assert "Missing 12 parameters: model.layers.2.input_layernorm.weight" in message


def test_fewer_layers_than_the_weights_hold(folder: Path) -> None:
    edit(folder / CONFIG, num_hidden_layers=1)
    refused(folder, "num_hidden_layers is 1, and the weights hold 2 layers", "Received 12 parameters not in model: ")


@pytest.mark.parametrize("value", [10**9, 10**18, 10**40])
@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads", "head_dim"])
def test_a_size_that_no_array_of_the_weights_has_is_answered_at_once(folder: Path, key: str, value: int) -> None:
    edit(folder / CONFIG, **{key: value})
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    refused(folder, f"{folder / CONFIG}: {key} is {value}, and ", "weights")
    assert mx.get_peak_memory() <= before + 1_000_000  # nothing was made


def test_a_size_that_is_somewhat_wrong_is_compared_with_the_shapes(folder: Path) -> None:
    vocabulary = json.loads((folder / CONFIG).read_text())["vocab_size"]
    edit(folder / CONFIG, vocab_size=vocabulary + 7)
    refused(folder, f"of shape ({vocabulary + 7}, 32) (vocab_size is {vocabulary + 7})", f"it has ({vocabulary}, 32)")


def test_an_embedding_that_is_not_tied_names_the_key(tmp_path: Path) -> None:
    folder = tiny.model_folder(tmp_path / "model", tied=True)
    edit(folder / CONFIG, tie_word_embeddings=False)
    refused(folder, "Missing 1 parameters: lm_head.weight", "tie_word_embeddings is False")


def test_an_absent_shard_is_named(folder: Path) -> None:
    weights = tiny.read_weights(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    mx.save_safetensors(str(folder / first), {name: weights[name] for name in names[:9]})
    places = {name: first if name in names[:9] else second for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    refused(folder, f"{second} of model.safetensors.index.json is not there: fetch it")


# Files


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_json_that_is_nested_without_end_is_one_error(folder: Path, name: str) -> None:
    (folder / name).write_text("[" * 100_000)
    refused(folder, f"{folder / name} is not JSON")


def test_a_header_that_is_none_is_told_from_one_that_was_cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"x" * 1000)
    assert "cut off" not in refused(folder, f"{weights} is no file of weights")
    weights.write_bytes(content[:8] + b"x" * (len(content) - 8))
    assert "cut off" not in refused(folder, f"{weights} is no file of weights")
    weights.write_bytes(content[:-1])
    refused(folder, "was cut off", FETCH)


def test_a_header_has_the_names_and_shapes_of_the_arrays(folder: Path) -> None:
    weights = tiny.read_weights(folder / "model.safetensors")
    assert arrays_of(folder).shapes == {name: array.shape for name, array in weights.items()}
    assert header_of(folder / "model.safetensors").keys() == weights.keys()
    assert arrays_of(folder).layers == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"version": "2.0"}, "version is '2.0', and the library tokenizers"), ({"model": 5}, "did not match any variant")],
)
def test_a_tokenizer_that_does_not_load_names_its_file(folder: Path, changes: dict[str, Any], said: str) -> None:
    edit(folder / "tokenizer.json", **changes)
    message = refused_by_tokenizers(folder, f"{folder / 'tokenizer.json'}: ", said)
    assert "weights" not in message


def refused_by_tokenizers(folder: Path, *words: str) -> str:
    return refused(folder, *words, "Take the tokenizer's files from the model's first publisher")


def test_a_setting_of_the_tokenizer_that_is_none_names_its_file(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token=5)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json or another file of the tokenizer: .*eos_token"):
        ModelConfig(str(folder)).load()


@pytest.mark.parametrize(
    ("content", "said"), [("[]", "a JSON object"), ('{"eos_token_id": "x"}', "eos_token_id is 'x'")]
)
def test_a_generation_config_is_checked(folder: Path, content: str, said: str) -> None:
    (folder / "generation_config.json").write_text(content)
    refused(folder, str(folder / "generation_config.json"), said)


# Adapters


def test_an_adapter_in_another_format_is_told_so(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    with pytest.raises(ModelError, match=r"adapter_config\.json: it has no num_layers, which mlx-lm writes"):
        ModelConfig(str(model_folder), adapter_path=str(tmp_path)).load()


# All families, and any value


def test_configurations_of_all_families_pass() -> None:
    for family in FAMILIES:
        check_values(family.config)
        check_kinds(args_of(family.config), family.config)


@pytest.mark.long
def test_a_forward_that_computes_nothing_is_possible_in_all_families() -> None:
    for family in FAMILIES:
        model = build(family)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        model(mx.array([[0, 0]]))
        assert mx.get_peak_memory() - before < 1_000_000, family.name


VALUES: list[Any] = [None, "x", "", -1, 0, 1, 7, 1.5, True, [], [1], ["x"], {}, {"x": 1}, 10**9, 10**30, float("inf")]


@pytest.mark.long
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_any_value_of_any_key_loads_or_is_one_line(folder: Path, value: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    more = ("head_dim", "rope_scaling", "layer_types", "quantization", "sliding_window", "text_config", "architectures")
    for key in (*config, *more, "bos_token_id", "use_sliding_window", "max_window_layers", "torch_dtype"):
        (folder / CONFIG).write_text(json.dumps(config | {key: value}))
        message = message_of(folder)
        assert message is None or "\n" not in message, key
        assert message is None or str(folder) in message or f"{key} {value!r}" in message, key


def message_of(folder: Path) -> str | None:
    """The one error that a folder gives; None where it loads."""
    try:
        ModelConfig(str(folder)).load()
    except ModelError as error:
        return str(error)
    return None
