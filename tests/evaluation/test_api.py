"""The public functions: what is streamed is what is translated, and what is given names the run."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import streamllm as st
from streamllm.evaluation.describe import describe
from streamllm.policies import Bounded, Full
from streamllm.records import Decide

SOURCE = "a man is riding a bicycle"
EXAMPLES = [st.Example("1", SOURCE, "Ein Mann fährt Fahrrad."), st.Example("2", "two dogs run", "Zwei Hunde laufen.")]


@pytest.fixture(scope="module")
def model() -> Any:
    return st.load_model()


def test_every_name_is_there_and_its_type_is_known_to_checkers() -> None:
    source = (ROOT / "streamllm" / "__init__.py").read_text()
    for name in st.__all__:
        assert getattr(st, name) is not None
        assert f"import {name} as {name}\n" in source
    assert len(st.__all__) <= 22


def test_asking_for_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'streamllm' has no attribute 'translate_all'"):
        st.translate_all  # type: ignore[attr-defined]  # noqa: B018


def test_the_import_loads_no_heavy_library() -> None:
    code = "import sys, streamllm; print({'mlx', 'mlx_lm', 'numpy', 'pandas', 'hydra', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_sentence_is_streamed_event_by_event(model: Any) -> None:
    events = list(st.stream(model, SOURCE, st.WaitK(3)))
    assert [event.kind for event in events[:4]] == ["read", "read", "read", "write"]
    assert [event.text for event in events if event.kind == "read"] == SOURCE.split()
    assert list(st.stream(model, iter(SOURCE.split()), st.WaitK(3)))[-1].text == "end_token"


def test_another_policy_or_parameter_is_another_run_and_the_same_one_is_shown(tmp_path: Path) -> None:
    first = st.evaluate("bundled:tiny-en-de", st.WaitK(1), EXAMPLES, root=tmp_path)
    other = st.evaluate("bundled:tiny-en-de", st.WaitK(5), EXAMPLES, root=tmp_path)
    again = st.evaluate("bundled:tiny-en-de", st.WaitK(1), EXAMPLES, root=tmp_path, batch_size=1)
    assert len({first.folder, other.folder, again.folder}) == 2
    assert again == first
    assert [trace.id for trace in st.load_traces(first.folder)] == ["1", "2"]
    assert set(st.load_runs(tmp_path)["policy.k"]) == {1, 5}


def test_an_object_that_cannot_say_what_it_is_names_no_run(tmp_path: Path) -> None:
    class Moody:
        def start(self, example: st.Example) -> Decide:
            return lambda state: st.READ

    with pytest.raises(ValueError, match=r"policy is a Moody, .*frozen dataclass, or give it a method describe\(\)"):
        st.evaluate("bundled:tiny-en-de", Moody(), EXAMPLES, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_description_tells_apart_what_differs() -> None:
    @dataclass
    class Changing:  # not frozen: it may be another one tomorrow
        k: int = 1

    with pytest.raises(ValueError, match="policy is"):
        describe(Changing(), "policy")
    inner = describe(Bounded(st.WaitK(3), 1, None), "policy")
    assert inner != describe(Bounded(Full(), 1, None), "policy")
    assert inner["policy"] == {"_target_": "streamllm.policies.waitk.WaitK", "k": 3, "catchup": 0}
    assert describe(EXAMPLES, "dataset") != describe(EXAMPLES[::-1], "dataset")
    assert describe({"a": (1, None, Path("x"))}, "it") == {"a": [1, None, "x"]}


def test_an_object_may_describe_itself() -> None:
    class Named:
        def __init__(self, k: int):
            self.k = k

        def describe(self) -> dict[str, Any]:
            return {"k": self.k}

    assert describe(Named(1), "policy")["k"] == 1
    assert describe(Named(1), "policy") != describe(Named(2), "policy")


@pytest.mark.parametrize(
    ("policy", "dataset", "message"),
    [
        ("waitk", EXAMPLES, "policy is 'waitk'; give a policy object such as streamllm.WaitK"),
        (st.WaitK, EXAMPLES, "policy is the class WaitK; give an object of it"),
        (st.WaitK(1), "sample", "dataset is 'sample'; give a data set such as streamllm.Sample"),
    ],
)
def test_a_name_in_place_of_an_object_is_refused_before_anything_is_loaded(
    policy: Any, dataset: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        st.evaluate("no/such/model", policy, dataset, root=tmp_path)


def test_a_loaded_model_is_refused_with_what_to_give_instead(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the path or a ModelConfig"):
        st.evaluate(model, st.WaitK(1), EXAMPLES, root=tmp_path)
