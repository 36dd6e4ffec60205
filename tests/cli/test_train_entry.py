"""train.py from the command line: a small model from nothing, and what it leaves is a model for run.py."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from test_training import PAIRS

from streamllm.runs.naming import digest

SMALL = [
    "fresh=tiny",
    "fresh.vocab_size=300",
    "fresh.architecture={model_type: qwen2, hidden_size: 32, num_hidden_layers: 1, intermediate_size: 32, "
    "num_attention_heads: 2, num_key_value_heads: 2, rms_norm_eps: 1.0e-6, tie_word_embeddings: true}",
    "training.epochs=2",
    "training.warmup_steps=2",
    "score.sentences=2",
    "tracker=none",
    "name=small",
]


def train(folder: Path, *overrides: str, start: Sequence[str] = SMALL) -> subprocess.CompletedProcess[str]:
    files = [f"{key}.{side}={folder / f'pairs.{code}'}" for key in ("dataset", "validation")
             for side, code in (("source", "en"), ("target", "de"))]  # fmt: skip
    command = [sys.executable, "train.py", "dataset=files", "dataset@validation=files", *files, *start]
    command += [f"output.root={folder / 'outputs'}", *overrides]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pairs.en").write_text("".join(f"{pair.source}\n" for pair in PAIRS), encoding="utf-8")
    (tmp_path / "pairs.de").write_text("".join(f"{pair.reference}\n" for pair in PAIRS), encoding="utf-8")
    return tmp_path


@pytest.mark.long
def test_a_new_model_is_trained_and_can_be_run(folder: Path) -> None:
    done = train(folder)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs").glob("small-*")
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2
    again = train(folder)
    assert "finished" in again.stderr + again.stdout
    command = [
        sys.executable,
        "run.py",
        "model=folder",
        f"model.path={run / 'model'}",
        "dataset.limit=2",
        "tracker=none",
    ]
    ran = subprocess.run([*command, f"output.root={folder}"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "BLEU" in ran.stdout


def test_a_short_training_tells_what_it_did_and_where_it_is(folder: Path) -> None:
    """On files alone: some pairs are held out, and every number is on the screen, in train.jsonl or both."""
    files = [f"dataset.{side}={folder / f'pairs.{code}'}" for side, code in (("source", "en"), ("target", "de"))]
    words = ["dataset=files", *files, *SMALL, "training.warmup_steps=50", f"output.root={folder}"]

    def said(*more: str) -> str:
        command = [sys.executable, "train.py", *words, "training.export=best", *more]
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
        assert done.returncode == 0 or more, done.stderr
        return done.stderr

    told = said()
    (run,) = folder.glob("small-*")
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    metrics = json.loads((run / "metrics.json").read_text())
    assert sum("loss" in line for line in lines) == 1, "the steps are fewer than training.log_every"
    assert metrics["best_validation_loss"] == min(line["validation_loss"] for line in lines[:-1] if "loss" not in line)
    assert metrics["best_bleu"] == max(line.get("bleu", 0) for line in lines)
    assert told.count("training.warmup_steps is 50") == 1
    assert "bleu and al are of wait-k with k = 5 (score.k)" in told
    assert f"(the best by BLEU); to evaluate {run / 'model'}: streamllm run model=folder model.path=" in told
    held_out = len(PAIRS) // min(20, len(PAIRS))
    assert f"{len(PAIRS) - held_out} sentence pairs, {held_out} for validation" in told
    assert f"epoch-001 is in {run / 'epoch-001'}; to evaluate" in said("--export", "epoch-001")
    assert (run / "epoch-001" / "model.safetensors").exists()
    assert "no checkpoint 'epoch-009'; there are epoch-001, epoch-002" in said("--export=epoch-009")


@pytest.mark.long
def test_an_adapter_is_trained_and_can_be_run(folder: Path) -> None:
    start = ["model=tiny-en-de", "adapter=lora", "training.epochs=1", "score.sentences=0", "tracker=none", "name=lora"]
    done = train(folder, start=start)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs").glob("lora-*")
    command = [sys.executable, "run.py", f"model.adapter_path={run / 'adapter'}", "dataset.limit=2", "tracker=none"]
    ran = subprocess.run([*command, f"output.root={folder}"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "BLEU" in ran.stdout


@pytest.mark.long
def test_an_objective_of_ones_own_is_one_file_and_one_yaml(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of docs/training.md, as printed."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").split("## An objective of your own")[1]
    code, configuration = (page.split(f"```{language}\n")[1].split("```")[0] for language in ("python", "yaml"))
    (folder / "focal.py").write_text(code)
    (folder / "conf" / "objective").mkdir(parents=True)
    (folder / "conf" / "objective" / "focal.yaml").write_text(configuration)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    steps = ["training.steps=2", "training.log_every=1", "score.sentences=0"]
    focal = [f"hydra.searchpath=[file://{folder / 'conf'}]", "objective=focal"]
    for objective in ([], [*focal, "objective.gamma=0"], focal):
        done = train(folder, *steps, *objective)
        assert done.returncode == 0, done.stderr
    losses: dict[float | None, list[float]] = {}
    for run in (folder / "outputs").glob("small-*"):
        gamma = yaml.safe_load((run / "run.yaml").read_text())["objective"].get("gamma")
        lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
        losses[gamma] = [line["loss"] for line in lines if "loss" in line]
    assert {gamma: len(each) for gamma, each in losses.items()} == {None: 2, 0: 2, 2: 2}
    assert losses[0] == pytest.approx(losses[None], rel=1e-3)
    assert losses[2][0] < losses[0][0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=tiny-en-de"], "give one of model"),
        (["data.k=[0]"], "data.k"),
        (["training.epochs=0"], "training.epochs"),
        (["training.dropout=1.5"], "dropout"),
        (["adapter=lora", "adapter.rank=0"], "adapter.rank"),
        (["validation.source=nowhere.en"], "there is no validation data"),
        (["prompt=chat", "dataset.source_language=sv"], "prompt=chat names both languages"),
    ],
)
def test_wrong_input_gets_one_line(folder: Path, overrides: list[str], says: str) -> None:
    done = train(folder, *overrides)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


GIVEN = {
    "tiny_en_de_on": ["model.path=outputs/mine/model"],
    "tiny_en_de_documents": ["fresh.path=outputs/mine/model"],
    "tiny_en_de_partial": ["model.path=outputs/mine/model"],
    "tiny_en_de_wait": ["model.path=outputs/mine/model"],
}


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
                                  if "streamllm train" in path.read_text(encoding="utf-8")])  # fmt: skip
def test_every_training_preset_composes_and_makes_what_it_names(name: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"experiment={name}", *GIVEN.get(name, [])])
    assert (cfg.get("model") is None) != (cfg.get("fresh") is None)
    parts = ["model", "fresh", "adapter", "prompt", "dataset", "validation", "data", "training", "objective"]
    parts += ["optimizer", "score"]
    for key in (key for key in parts if cfg.get(key) is not None):
        assert isinstance(instantiate(cfg[key], _convert_="all"), get_class(cfg[key]._target_))


def test_latencies_are_a_key_that_older_trainings_do_without() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        plain, tagged = (compose("train", ["fresh=tiny", *words]) for words in ([], ["data.latencies=[low,high]"]))
    assert instantiate(tagged.data, _convert_="all").tags == ["low", "high"]
    with_it, without = ({"data": OmegaConf.to_container(plain.data)} for _ in range(2))
    del without["data"]["latencies"]
    assert digest(with_it) == digest(without)


@pytest.mark.parametrize("experiment", [None, "tiny_en_de", "lora_en_de"])
def test_validation_follows_the_data_or_is_what_it_is_said_to_be(experiment: str | None) -> None:
    files = ["dataset@validation=files", "validation.source=b.en", "validation.target=b.fr"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        both = [f"experiment={experiment}"] if experiment else []
        both += ["fresh=tiny", "dataset.target_language=fr"]
        follows = instantiate(compose("train", [*both, "dataset.data_dir=FOLDER"]).validation, _convert_="all")
        own = instantiate(compose("train", [*both, *files]).validation, _convert_="all")
    assert (follows.data_dir, follows.split, follows.target_language) == ("FOLDER", "val", "fr")
    assert (own.target, own.target_language) == ("b.fr", "fr")


PARTS = [f"{path.parent.name}={path.stem}" for group in ("adapter", "objective", "optimizer")
         for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_part_makes_what_it_names_and_shows_every_argument(part: str) -> None:
    group = part.partition("=")[0]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [part])
        with pytest.raises(ConfigCompositionException, match="Could not override"):
            compose("train", [part, f"{group}.no_such_key=1"])
    made, target = instantiate(cfg[group], _convert_="all"), get_class(cfg[group]._target_)
    assert isinstance(made, target)
    assert set(inspect.signature(target).parameters) <= set(cfg[group])
