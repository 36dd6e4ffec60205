"""Every supported model family streams exactly: the same logits as from explicit positions and masks."""

import importlib.util
import re
from pathlib import Path

import pytest
from families import FAMILIES, Family
from reference import (
    BATCH,
    NOTICEABLE,
    TOLERANCE,
    deviation,
    expected,
    fed_tokens,
    mistaken,
    mistakes_of,
    own_forward,
    stream,
    taught,
    teach,
)

from streamllm.models.families import REFUSED, SUPPORTED, check_supported

ROOT = Path(__file__).parents[2]

each_family = pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])


@each_family
def test_streaming_gives_the_logits_of_the_reference(family: Family) -> None:
    for target_start in (0, 7):
        got = stream(family, target_start)
        assert deviation(got, expected(family, target_start)) < TOLERANCE, f"target_start={target_start}"


@each_family
def test_the_reference_of_the_source_is_mlx_lms_own_forward(family: Family) -> None:
    fed = fed_tokens()
    source = [i for i, token in enumerate(fed) if token.stream == "source"]
    own = own_forward(family, [fed[i].token for i in source])
    assert deviation(expected(family, 0)[source], own) < TOLERANCE


@each_family
def test_wrong_positions_and_masks_are_noticed(family: Family) -> None:
    for mistake in mistakes_of(family):
        assert deviation(mistaken(family, mistake), expected(family, 0)) > NOTICEABLE, mistake


@each_family
def test_a_batch_is_taught_with_a_mask_for_each_row(family: Family) -> None:
    assert deviation(teach(family), taught(family)) < TOLERANCE, f"of a batch of {BATCH}"


# The list of what is supported


def test_what_is_supported_is_what_is_proven_here() -> None:
    assert {family.model_type for family in FAMILIES} == SUPPORTED


def test_the_table_in_the_docs_lists_what_is_supported() -> None:
    text = (ROOT / "docs" / "families.md").read_text()
    table = text.split("## Supported")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|.*?\| ([0-9.e+-]+) \|", table, flags=re.MULTILINE)
    assert {name for name, _ in rows} == SUPPORTED
    assert len(rows) == len(FAMILIES)
    assert all(float(largest) < TOLERANCE for _, largest in rows)


def test_nothing_is_both_supported_and_refused() -> None:
    assert not SUPPORTED & set(REFUSED)


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_what_is_refused_exists_in_mlx_lm(model_type: str) -> None:
    assert importlib.util.find_spec(f"mlx_lm.models.{model_type}") is not None


@pytest.mark.parametrize("model_type", ["qwen2", "mistral", "qwen2_5_vl", "kimi_k2", "iquestcoder"])
def test_a_supported_type_or_an_alias_of_one_is_accepted(model_type: str) -> None:
    check_supported(model_type)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("mamba", "recurrent state"),
        ("falcon_mamba", r"\(loaded as 'mamba'\).*recurrent state"),
        ("deepseek_v32", "CacheList"),
        ("llama4", "ChunkedKVCache"),
        ("afm7", "number of keys"),
        ("t5", "has not been proven"),
    ],
)
def test_another_type_is_refused_with_the_reason_and_what_to_do(model_type: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"model_type '{model_type}'.*{reason}.*qwen2, .*tests/families\.py"):
        check_supported(model_type)
