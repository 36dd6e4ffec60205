"""A model saved by transformers 5 is computed as one in the old form, for every supported type, or refused."""

import importlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from families import FAMILIES, Family
from mlx.utils import tree_flatten
from mlx_lm.utils import save_model
from reference import build, deviation
from saved_configs import BASE, as_saved, configuration, old_form, text_of
from tiny import CHAT, byte_level_tokenizer, load

from streamllm.models.families import SUPPORTED
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.model_configs import as_mlx_lm_reads
from streamllm.models.rotary_scaling import mend

ROOT = Path(__file__).parents[2]
TOKENS = mx.array([[1, 5, 9, 2, 7, 30, 11, 4, 17, 3]])

REFUSED = {
    "minimax": "layer_types holds 'linear_attention'",
    "phixtral": "rope_theta is 123456, and mlx-lm's file of type 'phixtral' has 10000 written into it",
    "qwen": "rope_theta is 123456, and mlx-lm's file of type 'qwen' has 10000 written into it",
}
FIXED = {"gpt2", "gpt_bigcode", "gptj"}  # a table of positions, or a base that no configuration sets

TRANSLATED = [family for family in FAMILIES if family.model_type not in REFUSED]
BY_NAME = {family.name: family for family in FAMILIES}


def model_of(config: Mapping[str, Any], model_type: str) -> nn.Module:
    module = importlib.import_module(f"mlx_lm.models.{model_type}")
    model: nn.Module = module.Model(module.ModelArgs.from_dict(json.loads(json.dumps(config))))
    model.eval()
    return model


def logits(config: Mapping[str, Any], family: Family) -> np.ndarray:
    """Of a model with this configuration and the weights of ``family``, which must fit exactly."""
    weights = build(replace(family, config=configuration(family))).parameters()
    model = model_of(config, family.model_type)
    shapes = {name: array.shape for name, array in tree_flatten(model.parameters())}
    assert shapes == {name: array.shape for name, array in tree_flatten(weights)}
    model.update(weights)
    mend(model, config)
    return np.array(model(TOKENS))


@pytest.mark.parametrize("family", TRANSLATED, ids=[family.name for family in TRANSLATED])
def test_what_transformers_5_saves_gives_the_logits_of_the_old_form(family: Family) -> None:
    saved = logits(as_mlx_lm_reads(as_saved(family)), family)
    assert deviation(saved, logits(as_mlx_lm_reads(old_form(family)), family)) < 1e-5
    if family.model_type not in FIXED:
        assert deviation(saved, logits(configuration(family), family)) > 0.01, "the base makes no difference"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_mlx_lm_cannot_compute_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[name]) as error:
        as_mlx_lm_reads(as_saved(BY_NAME[name]))
    assert "hoose " in str(error.value)  # what to do


LONGROPE = ("phi3-longrope", "phimoe", "minicpm3")
OTHERWISE = (*LONGROPE, "mimo_v2_flash")  # what mlx-lm computes otherwise than the model was trained, in either form


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name not in OTHERWISE], ids=lambda family: family.name)
def test_the_old_form_is_left_as_it_is(family: Family) -> None:
    changed = as_mlx_lm_reads(old := old_form(family))
    for part, was in ((changed, old), (text_of(changed), text_of(old))):
        named = {key for key in was if part[key] != was[key] and key != "text_config"}
        assert named <= {"rope_parameters", "sliding_window_pattern"}  # in other words
    if "rope_parameters" in text_of(old):
        assert deviation(logits(changed, family), logits(old, family)) < 1e-6


@pytest.mark.parametrize("name", LONGROPE)
def test_longrope_takes_the_short_factors_where_sentences_lie(name: str) -> None:
    read = as_mlx_lm_reads(as_saved(BY_NAME[name]))
    assert read["rope_scaling"]["long_factor"] == read["rope_scaling"]["short_factor"] == [1.0] * 4
    assert as_mlx_lm_reads(old_form(BY_NAME[name]))["rope_scaling"]["long_factor"] == [1.0] * 4


def test_the_window_of_mimo_counts_the_token_itself() -> None:
    saved, old = as_saved(BY_NAME["mimo_v2_flash"]), old_form(BY_NAME["mimo_v2_flash"])
    assert (saved["sliding_window"], old["sliding_window_size"]) == (5, 4)
    assert {as_mlx_lm_reads(config)["sliding_window_size"] for config in (saved, old)} == {5}


def test_glm_rotates_the_part_of_a_head_that_it_was_trained_with() -> None:
    config = as_mlx_lm_reads(as_saved(BY_NAME["glm"]))
    half = model_of(config, "glm")
    mend(half, config)
    assert {layer.self_attn.rope.dims for layer in half.layers} == {4}
    whole = {key: value for key, value in config.items() if key != "partial_rotary_factor"}
    assert deviation(logits(config, BY_NAME["glm"]), logits(whole, BY_NAME["glm"])) > 0.01


# Rotary settings, on Llama's file where not said otherwise


def llama(parameters: dict[str, Any], **settings: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": BASE} | parameters,
    }
    return config | settings


def test_the_base_in_rope_parameters_counts_before_a_flat_one() -> None:
    assert as_mlx_lm_reads(llama({}, rope_theta=10_000.0))["rope_theta"] == BASE


@pytest.mark.parametrize(
    ("parameters", "settings", "message"),
    [
        ({"wavelength": 7}, {}, r"rope_parameters\.wavelength is 7, and nothing is known .*remove it"),
        ({"rope_type": "spiral"}, {}, r"rope_parameters\.rope_type is 'spiral'.*it computes default, linear"),
        ({"rope_theta": None}, {}, r"rope_parameters has no rope_theta: add the base"),
        ({"partial_rotary_factor": 0.5}, {}, r"partial_rotary_factor is 0\.5.*rotates whole heads"),
        ({"rope_type": "linear", "factor": 2.0}, {"model_type": "cohere"}, r"'linear', which .* 'cohere' does not"),
        ({"rope_type": "linear", "factor": 2.0}, {"rope_scaling": {"factor": 4.0}}, r"rope_scaling says factor=4\.0"),
        ({"full_attention": {"rope_theta": 1.0}}, {}, r"rope_parameters holds layer types and rope_theta, rope_type="),
        ({}, {"rope_parameters": "default"}, r"rope_parameters is 'default'; a JSON object is needed"),
        ({}, {"per_layer_config": {"1": {"head_dim": 4}}}, r"per_layer_config is .*layers of one kind"),
    ],
)
def test_rotary_settings_that_are_refused(parameters: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_mlx_lm_reads(llama(parameters, **settings))


def test_layer_types_with_bases_of_their_own_are_refused_where_the_file_has_one() -> None:
    both = {kind: {"rope_theta": base} for kind, base in (("full_attention", 5e5), ("sliding_attention", 1e4))}
    config = llama({}, layer_types=list(both), sliding_window=4) | {"rope_parameters": both}
    with pytest.raises(ValueError, match="full_attention and sliding_attention, and mlx-lm's file of type 'llama'"):
        as_mlx_lm_reads(config)
    both["sliding_attention"] = both["full_attention"]
    assert as_mlx_lm_reads(config)["rope_theta"] == 5e5


def test_pictures_axes_make_no_difference_to_text() -> None:
    read = as_mlx_lm_reads(llama({"mrope_section": [1, 1, 2], "type": "mrope"}))
    assert read["rope_theta"] == BASE and read["rope_scaling"] is None


YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        ({}, 1 + 0.1 * log(8)),
        ({"attention_factor": 1.5}, 1.5),
        ({"mscale_all_dim": 1.0}, 1 + 0.1 * log(8)),  # transformers: only both together count
        ({"mscale": 2.0, "mscale_all_dim": 1.0}, (1 + 0.2 * log(8)) / (1 + 0.1 * log(8))),
    ],
)
def test_yarn_multiplies_by_what_transformers_does(given: dict[str, float], factor: float) -> None:
    from mlx_lm.models.rope_utils import initialize_rope

    scaling = as_mlx_lm_reads(llama(YARN | given))["rope_scaling"]
    assert initialize_rope(8, BASE, False, scaling).mscale == pytest.approx(factor, rel=1e-9)
    old = llama({}, rope_theta=BASE, rope_scaling=YARN | given) | {"rope_parameters": None}
    assert initialize_rope(8, BASE, False, as_mlx_lm_reads(old)["rope_scaling"]).mscale == pytest.approx(factor)


def test_yarn_that_is_not_rounded_has_the_frequencies_of_transformers() -> None:
    """transformers 5.24, `_compute_yarn_parameters` of GptOssConfig(head_dim=16)."""
    wanted = [1.0, 0.225418, 0.0508133, 0.00679496, 0.000456484, 1.81883e-05, 4.09998e-06, 9.24209e-07]
    scaling = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}
    said = {"rope_parameters": scaling | {"rope_theta": 150_000.0}, "head_dim": 16}
    read = as_mlx_lm_reads(configuration(BY_NAME["gpt_oss"]) | said | {"rope_scaling": None})
    model = model_of(read, "gpt_oss")
    mend(model, read)
    for layer in model.layers:
        np.testing.assert_allclose(1 / np.array(layer.self_attn.rope["_freqs"]), wanted, rtol=1e-5)
    with pytest.raises(ValueError, match=r"truncate is False, and .* 'llama' rounds"):
        as_mlx_lm_reads(llama(YARN | {"truncate": False}))


def test_a_scaling_in_the_old_form_that_the_file_would_leave_out_is_refused() -> None:
    config = llama({}, model_type="qwen3_moe", rope_scaling=YARN, rope_theta=BASE) | {"rope_parameters": None}
    with pytest.raises(ValueError, match=r"rope_scaling is of type 'yarn'.*'qwen3_moe' leaves out without a word"):
        as_mlx_lm_reads(config)


# Layers and other keys


def cohere2(types: list[str]) -> dict[str, Any]:
    return llama({}, model_type="cohere2", layer_types=types, num_hidden_layers=len(types), sliding_window=4)


def test_layer_types_become_a_period() -> None:
    assert as_mlx_lm_reads(cohere2(["sliding_attention", "full_attention"] * 2))["sliding_window_pattern"] == 2
    with pytest.raises(ValueError, match=r"takes only a period"):
        as_mlx_lm_reads(cohere2(["full_attention", "sliding_attention", "full_attention"]))
    with pytest.raises(ValueError, match=r"layer_types has 1 entries for num_hidden_layers=2"):
        as_mlx_lm_reads(llama({}, layer_types=["full_attention"]))


@pytest.mark.parametrize("types", [None, ["sliding_attention"] * 2])
def test_a_window_that_the_file_does_not_have_is_warned_about(
    types: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    config = llama({}, model_type="qwen2", sliding_window=64) | ({"layer_types": types} if types else {})
    with caplog.at_level(logging.WARNING):
        as_mlx_lm_reads(config)
    assert "sliding_window=64" in caplog.text and "up to 64 tokens" in caplog.text


def test_a_window_that_is_not_used_is_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        as_mlx_lm_reads(llama({}, model_type="qwen2", sliding_window=64, use_sliding_window=False))
        as_mlx_lm_reads(llama({}, model_type="qwen2", sliding_window=512))
        as_mlx_lm_reads(llama({}, model_type="qwen2", sliding_window=64, layer_types=["full_attention"] * 2))
    assert not caplog.records


def test_probabilities_of_experts_that_are_normalised_are_refused_for_qwen2_moe() -> None:
    with pytest.raises(ValueError, match="norm_topk_prob is True"):
        as_mlx_lm_reads(as_saved(BY_NAME["qwen2_moe"]) | {"norm_topk_prob": True})


@pytest.mark.parametrize("model_type", ["mistral", "minimax_m2"])
def test_types_under_other_names_are_translated(model_type: str) -> None:
    from transformers import CONFIG_MAPPING

    saved = json.loads(
        CONFIG_MAPPING[model_type](rope_parameters={"rope_type": "default", "rope_theta": BASE}).to_json_string()
    )
    assert as_mlx_lm_reads(saved)["rope_theta"] == BASE


# From a folder


def folder_of(name: str, folder: Path) -> Family:
    """Write a model as `save_pretrained` does: weights, config.json, a tokenizer.

    Returns: the family, with as many rows as the tokenizer has tokens.
    """
    byte_level_tokenizer(folder, chat_template=CHAT)
    family = BY_NAME[name]
    family = replace(family, config=family.config | {"vocab_size": len(load(folder))})
    save_model(folder, build(replace(family, config=configuration(family))))
    (folder / "config.json").write_text(json.dumps(as_saved(family) | {"eos_token_id": 0}))
    return family


@pytest.mark.parametrize("name", ["llama", "olmo3", "gemma3_text"])
def test_a_folder_is_loaded_as_trained_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    family = folder_of(name, tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    got = np.array(ModelConfig(str(tmp_path)).load().model(TOKENS))
    assert deviation(got, logits(old_form(family), family)) < 1e-5
    assert (tmp_path / "config.json").read_bytes() == before


def test_the_error_of_a_folder_names_its_configuration(tmp_path: Path) -> None:
    folder_of("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"]["rope_type"] = "spiral"
    (tmp_path / "config.json").write_text(json.dumps(config))
    where = re.escape(str(tmp_path / "config.json"))
    with pytest.raises(ModelError, match=rf"^{where}: rope_parameters\.rope_type is 'spiral'"):
        ModelConfig(str(tmp_path)).load()


def test_a_configuration_that_lacks_what_is_needed_is_one_error(tmp_path: Path) -> None:
    folder_of("llama", tmp_path)
    config = {"model_type": "qwen3_moe", "hidden_size": 32, "rope_parameters": {"rope_theta": BASE}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config\.json is not what mlx-lm reads: no 'num_attention_heads'"):
        ModelConfig(str(tmp_path)).load()


def test_weights_that_are_whole_are_not_called_cut_off(tmp_path: Path) -> None:
    folder_of("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    with pytest.raises(ModelError, match="num_hidden_layers is 7, and the weights hold 3 layers") as error:
        ModelConfig(str(tmp_path)).load()
    assert "cut off" not in str(error.value)


# The list in the docs


def test_the_table_in_the_docs_says_what_is_translated_and_what_is_refused() -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| (\w+)", (ROOT / "docs" / "configs.md").read_text(), flags=re.MULTILINE))
    assert rows.keys() == SUPPORTED
    assert {name for name, what in rows.items() if what == "refused"} == REFUSED.keys()
