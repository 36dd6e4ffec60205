"""The mismatches one at a time: neither is group, both are interleaved, and each alone is neither; and the study's own
configurations, which are searched beside ours."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from experiments.mismatch.paradigm import Mismatched
from experiments.mismatch.run import DECODED, MODELS, OWN
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm

STEPS = [("read", [5, 6, 7]), ("write", [8, 9]), ("read", [10]), ("write", [11]), ("trim", 1), ("read", [12, 13])]
STEPS += [("write", [11]), ("write", [14])]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return tiny.random_model(3, len(tokenizer))


def logits_of(model: Any, paradigm: Paradigm, steps: list[tuple[str, Any]] = STEPS) -> np.ndarray:
    memory = paradigm.open(model)
    found = []
    for kind, what in steps:
        if kind == "write":
            found.append(memory.write(what))
        else:
            getattr(memory, kind)(what)
    return np.array(mx.stack(found))


@pytest.mark.parametrize(
    ("switches", "same"),
    [(Mismatched(), Group()), (Mismatched(source_sees_target=True, arrival_positions=True), Interleaved())],
)
def test_with_none_it_is_group_and_with_both_interleaved(model: Any, switches: Mismatched, same: Paradigm) -> None:
    np.testing.assert_allclose(logits_of(model, switches), logits_of(model, same), atol=1e-5)


def test_each_alone_changes_what_is_predicted_after_a_write_and_a_read(model: Any) -> None:
    ways: list[Paradigm] = [Group(), Mismatched(True, False), Mismatched(False, True), Interleaved()]
    found = [logits_of(model, way) for way in ways]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.abs(one[-1] - other[-1]).max() > 1e-3


def test_the_source_sees_the_target_only_where_that_is_switched_on(model: Any) -> None:
    """Another target before a read changes that source's keys, and so what the same target predicts after it."""

    def after(paradigm: Paradigm, target: int) -> np.ndarray:
        memory: Any = paradigm.open(model)
        memory.read([5])
        memory.write([target])
        memory.read([6])
        keys = memory.caches[-1].get_source()[0]
        return np.array(keys)[..., -1, :]

    assert np.abs(after(Mismatched(True), 8) - after(Mismatched(True), 9)).max() > 1e-4
    np.testing.assert_array_equal(after(Mismatched(), 8), after(Mismatched(), 9))


def test_a_hidden_source_stays_hidden(model: Any) -> None:
    memories = [paradigm.open(model) for paradigm in (Group(), Mismatched())]
    for memory in memories:
        memory.read([5, 6, 7])
    first, second = (np.array(memory.write([8], hidden=2)) for memory in memories)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_sliding_window_is_refused(model: Any) -> None:
    memory: Any = Mismatched().open(model)
    with pytest.raises(ValueError, match="choose paradigm=group"):
        memory._sources[0].make_mask(5, window_size=4)


# The study's own configurations


def composed(program: str, *overrides: str) -> Any:
    path = f"hydra.searchpath=[file://{ROOT / OWN[1]}]"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(program, [path, *overrides])


@pytest.mark.parametrize("name", MODELS)
def test_each_model_of_the_study_is_made_anew_with_the_recipe_of_the_study(name: str) -> None:
    cfg = composed("train", "experiment=mismatch", *MODELS[name])
    assert cfg.get("model") is None
    assert cfg.fresh.architecture.num_attention_heads == 4
    for part in ("fresh", "data", "training", "optimizer", "score", "paradigm"):
        instantiate(cfg[part], _convert_="all")


@pytest.mark.parametrize("name", DECODED)
def test_each_decoding_of_the_study_composes(name: str) -> None:
    paradigm = instantiate(composed("run", *DECODED[name][1]).paradigm, _convert_="all")
    assert isinstance(paradigm, Mismatched) == (name in ("source sees target", "positions by arrival"))


def test_the_command_of_the_readme_runs_and_the_library_offers_no_such_paradigm(tmp_path: Path) -> None:
    lines = (ROOT / "experiments/mismatch/README.md").read_text("utf-8").splitlines()
    (command,) = [line.split()[1:] for line in lines if line.startswith("python run.py ")]
    few = ["dataset.limit=1", "tracker=none", f"output.root={tmp_path}"]
    done = subprocess.run([sys.executable, *command, *few], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "BLEU" in done.stdout
    without = [word for word in command if word not in OWN]
    refused = subprocess.run([sys.executable, *without, *few], cwd=ROOT, capture_output=True, text=True)
    assert "paradigm=mismatched does not exist" in refused.stderr
