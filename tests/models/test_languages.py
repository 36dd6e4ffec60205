"""Which languages a model was made for, and which data sets are others."""

from pathlib import Path

import pytest

from streamllm.models.languages import Languages, languages_of
from streamllm.models.loading import ModelConfig


@pytest.mark.parametrize(
    ("head", "codes"),
    [
        ("---\nlanguage: [en, de]\nlicense: mit\n---\n# A model", ("en", "de")),
        ("---\nlanguage: zh\n---\n", ("zh",)),
        ("---\nlanguage:\n- en\n- 3\n---\n", ("en",)),
        ("---\nlicense: mit\n---\n", None),
        ("# A model", None),
        ("---\nlanguage: [en", None),
    ],
)
def test_languages_are_those_of_the_card(tmp_path: Path, head: str, codes: tuple[str, ...] | None):
    (tmp_path / "README.md").write_text(head)
    found = languages_of(tmp_path, None)
    assert (found.codes if found else None) == codes


def test_languages_of_a_training_come_first_and_in_order(tmp_path: Path):
    (tmp_path / "README.md").write_text("---\nlanguage: [en, de]\n---\n")
    found = languages_of(tmp_path, ["en", "de"])
    assert found is not None and found.ordered
    assert found.unlike("en", "de-AT") == ""
    assert "de to en, and the model was made for en to de" in found.unlike("de", "en")


@pytest.mark.parametrize(
    ("codes", "pair", "said"),
    [
        (("en", "de"), ("de", "en"), False),
        (("en", "de"), ("en", "fr"), True),
        (("en", "de"), ("eng", "fra"), False),  # which nobody can compare
        (("multilingual",), ("en", "fr"), False),
        (("zh-Hans", "en"), ("en", "zh_TW"), False),
    ],
)
def test_a_data_set_in_another_language_is_said(codes: tuple[str, ...], pair: tuple[str, str], said: bool):
    assert bool(Languages(codes, Path("README.md")).unlike(*pair)) is said


def test_the_bundled_model_says_its_languages():
    found = ModelConfig("bundled:tiny-en-de").load().languages
    assert found is not None and found.codes == ("en", "de")
