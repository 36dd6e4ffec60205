"""Loading a model: what is accepted, what is refused and how it is said, and that nothing is lost on the way."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten
from mlx_lm.utils import quantize_model, save_config, save_model

from streamllm.engine.loop import translate
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.model import StreamingModel
from streamllm.models.settings import SETTINGS
from streamllm.policies import WaitK
from streamllm.prompt import Prompt
from streamllm.records import Example

PLAIN = Prompt(source_header="a <", source_footer=" =>", target_header="German:", stop="\n", leading_space=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder of one's own, to break."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def logits(model: StreamingModel) -> np.ndarray:
    return np.array(model.model(mx.array([[5, 80, 90, 100, 300]])).astype(mx.float32))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def units(model: StreamingModel) -> tuple[str, ...]:
    return translate(model.session(), Example("1", "the dog runs", ""), WaitK(2)).units


def refused(path: str | Path, *words: str, **settings: Any) -> str:
    """The message of the one clear error; ``words`` stand in it."""
    with pytest.raises(ModelError) as error:
        ModelConfig(str(path), **settings).load()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# What is refused


@pytest.mark.parametrize("path", ["/no/such/folder", "./none", "../none", "~/none", "none", "none/", "a/b/c"])
def test_a_missing_folder(path: str) -> None:
    refused(path, repr(path), "no such folder", "hub id", "bundled:")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    refused(tmp_path, repr(str(tmp_path)), "no config.json")


def test_an_unknown_bundled_model_names_those_there_are() -> None:
    message = refused("bundled:tiny-xx-yy", "'bundled:tiny-xx-yy'")
    for child in (ROOT / "streamllm" / "assets").glob("*/config.json"):
        assert f"bundled:{child.parent.name}" in message


@pytest.mark.parametrize("name", ["../metrics", "", ".", "tiny-en-de/../../policies"])
def test_a_bundled_name_is_no_path(name: str) -> None:
    refused(f"bundled:{name}", "bundled")


def test_a_hub_id_while_offline_fails_at_once() -> None:
    code = """
import time
waits = []  # between attempts; what the clock says depends on the machine
time.sleep = waits.append
from streamllm.model import ModelConfig, ModelError
import huggingface_hub
try:
    ModelConfig("nobody/no-such-model").load()
except ModelError as error:
    print(f"{sum(waits)}|{error}")
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    seconds, message = result.stdout.strip().split("|")
    assert float(seconds) < 5
    assert "'nobody/no-such-model'" in message
    assert "offline" in message
    assert "local folder" in message
    assert "Traceback" not in result.stderr


def test_a_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, str(folder), "no config.json")


def test_a_config_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2", ')
    refused(folder, str(folder / "config.json"), "not JSON")


@pytest.mark.parametrize("content", ["{}", '["qwen2"]', "null"])
def test_a_config_without_model_type(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    refused(folder, str(folder / "config.json"), "model_type")


@pytest.mark.parametrize("model_type", ["mamba", "no_such_family"])
def test_a_family_that_cannot_stream(folder: Path, model_type: str) -> None:
    edit_config(folder, model_type=model_type)
    message = refused(folder, repr(model_type))
    assert "cut off" not in message  # nothing is wrong with the weights


def test_a_model_that_brings_its_own_module_is_refused(folder: Path) -> None:
    edit_config(folder, model_file="own.py")
    refused(folder, str(folder), "needs code of its own (trust_remote_code)")


OWN_TOKENIZER = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}


@pytest.mark.parametrize("own", [OWN_TOKENIZER, OWN_TOKENIZER | {"auto_map": ["own.OwnTokenizer", None]}])
def test_a_tokenizer_that_brings_its_own_module_is_refused(folder: Path, own: dict[str, Any]) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    refused(folder, str(folder), "needs code of its own (trust_remote_code)")


def test_a_folder_whose_code_is_not_needed_is_loaded_without_it(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    known = OWN_TOKENIZER | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(json.loads(path.read_text()) | known))
    (folder / "own.py").write_text("raise SystemExit('this code ran')\n")
    edit_config(folder, auto_map={"AutoConfig": "own.Config"})
    ModelConfig(str(folder)).load()


def test_a_config_that_lacks_a_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, str(folder), "hidden_size")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights(folder: Path, kept: float) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    refused(folder, str(folder), "model.safetensors was cut off", "fetch it again")


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, str(folder), "not a whole model", "safetensors")


def test_weights_of_another_model(folder: Path) -> None:
    edit_config(folder, hidden_size=16)
    refused(folder, str(folder))


def test_a_missing_shard(folder: Path) -> None:
    """The first of two files is there: half the layers would stay random."""
    weights = tiny.read_weights(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = dict(list(weights.items())[: len(weights) // 2])
    mx.save_safetensors(str(folder / "model-00001-of-00002.safetensors"), half)
    message = refused(folder, str(folder))
    missing = sorted(set(weights) - set(half))
    assert f"Missing {len(missing)} parameters: {', '.join(missing[:3])} and {len(missing) - 3} more." in message


def test_a_missing_tokenizer(folder: Path) -> None:
    """transformers would make an empty one up."""
    (folder / "tokenizer.json").unlink()
    refused(folder, str(folder), "no tokenizer", "tokenizer.json")


def test_a_missing_adapter(model_folder: Path, tmp_path: Path) -> None:
    refused(model_folder, str(tmp_path / "none"), "adapter_config.json", adapter_path=str(tmp_path / "none"))


def test_an_adapter_without_weights(model_folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "adapters.safetensors").unlink()
    message = refused(model_folder, str(adapter), adapter_path=str(adapter))
    assert str(model_folder) not in message  # the model is whole


def test_an_adapter_of_another_model(model_folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", hidden=16)
    message = refused(model_folder, str(adapter), "contains incompatible tensors: ", adapter_path=str(adapter))
    assert re.search(r"incompatible tensors: \S+q_proj\.lora_a: adapter shape \(16, 4\) does not match", message)


@pytest.mark.parametrize("dtype", ["float64", "int8", "fp16", ""])
def test_an_unknown_dtype(dtype: str) -> None:
    refused("any", repr(dtype), "float32, bfloat16, float16", dtype=dtype)


@pytest.mark.parametrize(
    "settings",
    [
        {"quantized": "foo"},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"target_start": -1},
        {"target_start": "after"},
    ],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    (name, value), *_ = settings.items()
    refused("any", f"model.{name} is {value!r}; ", **settings)


def test_a_tokenizer_without_chat_template(tmp_path: Path) -> None:
    folder = tiny.model_folder(tmp_path / "model", chat_template=None)
    refused(folder, "no chat template", "prompt.target_header")
    assert ModelConfig(str(folder)).load(PLAIN).prompt.text == PLAIN


def test_a_prompt_that_does_not_fit_the_tokenizer(model_folder: Path) -> None:
    with pytest.raises(ModelError, match="target header is empty"):
        ModelConfig(str(model_folder)).load(Prompt())


@pytest.mark.parametrize("content", ['{"prompt": {"header": "x"}}', '{"prompt": "German:"}', "[1]", "{"])
def test_settings_that_are_broken(folder: Path, content: str) -> None:
    (folder / SETTINGS).write_text(content)
    refused(folder, str(folder / SETTINGS))


# What is loaded


def test_the_prompt_is_the_chat_template_by_default(model_folder: Path) -> None:
    assert ModelConfig(str(model_folder)).load().prompt.text.target_header == "<mark>assistant\n"


def test_every_end_token_of_the_config_is_known(folder: Path) -> None:
    edit_config(folder, eos_token_id=[0, 1])
    assert ModelConfig(str(folder)).load(PLAIN).prompt.end_tokens == {0, 1}


def test_end_tokens_of_the_generation_config_are_known(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    assert ModelConfig(str(folder)).load(PLAIN).prompt.end_tokens == {0, 1}


def test_units_are_those_asked_for(model_folder: Path) -> None:
    prompt = ModelConfig(str(model_folder)).load(PLAIN, source_unit="character", target_unit="character").prompt
    assert (prompt.source_unit, prompt.target_unit) == ("character", "character")


def test_a_loaded_model_translates(model_folder: Path) -> None:
    model = ModelConfig(str(model_folder)).load(PLAIN)
    assert units(model) == units(ModelConfig(str(model_folder)).load(PLAIN))


on_cpu = pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="a rule for CPUs")


@on_cpu
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_weights_become_float32_on_a_cpu(folder: Path, dtype: mx.Dtype) -> None:
    exact = logits(ModelConfig(str(folder)).load(PLAIN))
    weights = {name: value.astype(dtype) for name, value in tiny.read_weights(folder / "model.safetensors").items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    model = ModelConfig(str(folder)).load(PLAIN)
    assert {value.dtype for _, value in tree_flatten(model.model.parameters())} == {mx.float32}
    assert np.abs(logits(model) - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_asked_for_is_used(model_folder: Path, dtype: str) -> None:
    model = ModelConfig(str(model_folder), dtype=dtype).load(PLAIN)
    assert {value.dtype for _, value in tree_flatten(model.model.parameters())} == {getattr(mx, dtype)}
    assert units(model) is not None


def quantised(folder: Path, tied: bool) -> Path:
    """A model folder of 8-bit weights beside ``folder``, the model it came from."""
    tiny.model_folder(folder, hidden=64, tied=tied)
    target = Path(shutil.copytree(folder, folder.parent / "quantised"))
    (target / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    model = tiny.random_model(0, config["vocab_size"], hidden=64, tied=tied)
    model, config = quantize_model(model, config, group_size=32, bits=8)
    save_model(target, model)
    save_config(config, target / "config.json")
    return target


@on_cpu
@pytest.mark.parametrize("tied", [False, True])
def test_quantised_weights_are_unpacked_on_a_cpu(tmp_path: Path, tied: bool) -> None:
    folder = quantised(tmp_path / "model", tied)
    exact, close = (logits(ModelConfig(str(path)).load(PLAIN)) for path in (tmp_path / "model", folder))
    model = ModelConfig(str(folder)).load(PLAIN)
    assert {value.dtype for _, value in tree_flatten(model.model.parameters())} == {mx.float32}
    assert 0 < np.abs(close - exact).max() < 0.2 * np.abs(exact).max()
    assert units(model)


def write_adapter(folder: Path, hidden: int = 32) -> Path:
    """A LoRA adapter of the query projections, in mlx-lm's format."""
    folder.mkdir()
    settings = {
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]},
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    weights = {}
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_a"] = mx.random.normal((hidden, 4), key=mx.random.key(layer))
        weights[f"{name}.lora_b"] = mx.random.normal((4, 32), key=mx.random.key(layer + 10))
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    return folder


def test_an_adapter_is_applied(model_folder: Path, tmp_path: Path) -> None:
    """As the sum of the weights and their low-rank update."""
    adapter = write_adapter(tmp_path / "adapter")
    plain = ModelConfig(str(model_folder)).load(PLAIN)
    adapted = ModelConfig(str(model_folder), adapter_path=str(adapter)).load(PLAIN)
    assert np.abs(logits(adapted) - logits(plain)).max() > 0.1
    weights = tiny.read_weights(adapter / "adapters.safetensors")
    for i, layer in enumerate(plain.model.layers):
        name = f"model.layers.{i}.self_attn.q_proj"
        layer.self_attn.q_proj.weight += 10.0 * (weights[f"{name}.lora_a"] @ weights[f"{name}.lora_b"]).T
    np.testing.assert_allclose(logits(adapted), logits(plain), atol=1e-3, rtol=1e-3)


@on_cpu
def test_an_adapter_on_quantised_weights(tmp_path: Path) -> None:
    folder = quantised(tmp_path / "model", tied=False)
    adapter = write_adapter(tmp_path / "adapter", hidden=64)
    weights = tiny.read_weights(adapter / "adapters.safetensors")
    weights = {name: mx.tile(value, (1, 2)) if name.endswith("b") else value for name, value in weights.items()}
    mx.save_safetensors(str(adapter / "adapters.safetensors"), weights)
    plain, adapted = (ModelConfig(str(folder), adapter_path=path).load(PLAIN) for path in (None, str(adapter)))
    assert np.abs(logits(adapted) - logits(plain)).max() > 0.1


# What a folder that was trained to stream remembers


def test_a_saved_model_is_loaded_as_it_was(folder: Path) -> None:
    """Weights, prompt and target_start, without being told again."""
    model = ModelConfig(str(folder), target_start=7).load(PLAIN)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight *= -1
    model.save(folder)
    again = ModelConfig(str(folder)).load()
    assert again.prompt.text == PLAIN
    assert again.target_start == 7
    np.testing.assert_array_equal(logits(again), logits(model))
    assert units(again) == units(model)


def test_a_chat_prompt_is_saved_as_its_texts(folder: Path) -> None:
    model = ModelConfig(str(folder)).load(Prompt(chat=True, instruction="Translate: "))
    model.save(folder)
    again = ModelConfig(str(folder)).load().prompt
    assert again.text == model.prompt.text
    assert again.text.source_header == "<mark>user\nTranslate: "
    assert (again.source_header, again.target_header) == (model.prompt.source_header, model.prompt.target_header)


def test_a_model_is_saved_in_the_dtype_asked_for(folder: Path) -> None:
    model = ModelConfig(str(folder)).load(PLAIN)
    model.save(folder, dtype=mx.float16)
    assert {value.dtype for value in tiny.read_weights(folder / "model.safetensors").values()} == {mx.float16}
    assert np.abs(logits(ModelConfig(str(folder)).load()) - logits(model)).max() < 0.05


def test_saving_leaves_no_other_files_behind(folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    ModelConfig(str(folder)).load(PLAIN).save(folder)
    assert {path.name for path in folder.iterdir()} == before | {SETTINGS}


def test_a_saved_model_is_one_for_mlx_lm_too(folder: Path) -> None:
    from mlx_lm import load

    model = ModelConfig(str(folder)).load(PLAIN)
    model.save(folder)
    theirs = load(str(folder))[0]
    np.testing.assert_allclose(np.array(theirs(mx.array([[5, 80, 90, 100, 300]]))), logits(model), atol=1e-5, rtol=1e-5)


def test_what_is_asked_for_goes_before_what_the_folder_says(folder: Path) -> None:
    ModelConfig(str(folder), target_start=7).load(PLAIN).save(folder)
    other = Prompt(target_header="dog:")
    model = ModelConfig(str(folder), target_start=0).load(other)
    assert (model.prompt.text, model.target_start) == (other, 0)


def test_a_model_that_was_not_trained_to_stream_starts_its_target_after_its_source(model_folder: Path) -> None:
    assert ModelConfig(str(model_folder)).load(PLAIN).target_start == "after_source"


def test_a_target_after_the_source_is_remembered(folder: Path) -> None:
    ModelConfig(str(folder)).load(PLAIN).save(folder)
    assert ModelConfig(str(folder)).load().target_start == "after_source"


def test_sessions_get_the_target_start(model_folder: Path) -> None:
    session = ModelConfig(str(model_folder), target_start=7).load(PLAIN).session()
    assert [cache.target.offset for cache in session.memory.caches] == [7, 7]
