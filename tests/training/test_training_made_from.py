"""A training, an adapter and a distillation belong to what they were made from."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import tiny

from streamllm.data.text import ParallelText
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.settings import SETTINGS
from streamllm.runs.stored import CONTENTS, METRICS
from streamllm.tracking.tracker import NullTracker
from streamllm.training.adapters import AdapterConfig
from streamllm.training.data import DataConfig
from streamllm.training.distill import distill
from streamllm.training.loop import TrainingConfig
from streamllm.training.train import ValidationConfig, train

PAIRS = [("the dog runs", "der Hund rennt"), ("a cat jumps", "eine Katze springt"), ("the house", "das Haus")]


class Kills(NullTracker):
    """Ends a training at a step, as a kill does: nothing is stored afterwards. 0 ends none."""

    def __init__(self, at: int):
        self.at = at

    def log(self, values: Any, step: int) -> None:
        if step == self.at:
            raise KeyboardInterrupt


@dataclass
class Bench:
    """A base model, data to train on and to validate with, and the training of them."""

    folder: Path
    buffer: int | None = None
    adapter: AdapterConfig | None = None

    def text(self, name: str) -> ParallelText:
        return ParallelText(source=self.folder / f"{name}.en", target=self.folder / f"{name}.de")

    @property
    def run_folder(self) -> Path:
        (run,) = (path for path in (self.folder / "outputs").iterdir() if ".before-" not in path.name)
        return run

    def train(self, kill_at: int = 0, **options: Any) -> dict[str, Any]:
        config = {"buffer": self.buffer, "adapter": str(self.adapter)}
        steps = TrainingConfig(
            steps=6, learning_rate=1e-2, warmup_steps=0, dropout=0.0, average=1, checkpoint_every=1, log_every=1
        )
        return train(
            config,
            "test",
            ModelConfig(str(self.folder / "model")),
            self.text("train"),
            self.text("val"),
            DataConfig(k=(1, 3), batch_tokens=30, buffer=self.buffer),
            steps,
            ValidationConfig(sentences=0),
            Kills(kill_at),
            root=self.folder / "outputs",
            adapter=self.adapter,
            **options,
        )

    def killed(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.train(kill_at=3)
        assert (self.run_folder / "last.safetensors").exists()
        assert not (self.run_folder / METRICS).exists()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tiny.model_folder(tmp_path / "model", hidden=64, tied=True)
    for name in ("train", "val"):
        for side, language in enumerate(("en", "de")):
            (tmp_path / f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    return Bench(tmp_path)


def other_weights(bench: Bench) -> None:
    tiny.model_folder(bench.folder / "other", seed=1, hidden=64, tied=True)
    shutil.copy(bench.folder / "other" / "model.safetensors", bench.folder / "model")


def edited(name: str) -> Callable[[Bench], None]:
    def edit(bench: Bench) -> None:
        file = bench.folder / name
        file.write_text(file.read_text().replace("Hund", "Hase"))

    return edit


CASES = [
    pytest.param(edited("train.de"), {"buffer": 2}, r"train\.de of the data", id="buffered-targets"),
    pytest.param(edited("train.de"), {}, r"train\.de of the data", id="targets"),
    pytest.param(edited("val.de"), {}, r"val\.de of the validation data", id="validation"),
    pytest.param(other_weights, {}, r"model\.safetensors of the model", id="base"),
    pytest.param(other_weights, {"adapter": AdapterConfig(rank=2)}, r"model\.safetensors of the model", id="lora-base"),
]


@pytest.mark.parametrize(("change", "settings", "says"), CASES)
@pytest.mark.parametrize("finished", [False, True], ids=["killed", "finished"])
def test_a_training_is_refused_where_what_it_was_begun_with_has_changed(
    bench: Bench, change: Callable[[Bench], None], settings: dict[str, Any], says: str, finished: bool
) -> None:
    bench = Bench(bench.folder, **settings)
    if finished:
        bench.train()
    else:
        bench.killed()
    change(bench)
    with pytest.raises(ValueError, match=rf"{says} \(changed\).*rerun=true"):
        bench.train()


def test_a_training_goes_on_where_all_is_as_it_was(bench: Bench) -> None:
    bench.killed()
    assert bench.train()["steps"] == 6


def test_a_checkpoint_knows_what_it_was_made_from(bench: Bench) -> None:
    """It may lie in another folder than the record of its run."""
    bench.killed()
    _, metadata = mx.load(str(bench.run_folder / "last.safetensors"), return_metadata=True)  # type: ignore[misc]
    counters = json.loads(metadata["counters"])
    assert counters["contents"] == json.loads((bench.run_folder / CONTENTS).read_text())
    assert {"model", "prompt", "sentences", "validation sentences"} <= counters["contents"].keys()
    other_weights(bench)
    made = json.loads((bench.run_folder / CONTENTS).read_text())
    made.pop("model")
    (bench.run_folder / CONTENTS).write_text(json.dumps(made))
    with pytest.raises(ValueError, match=r"model\.safetensors of the model \(changed\)"):
        bench.train()


def test_a_training_is_made_anew_beside_the_old_folder(bench: Bench) -> None:
    bench.killed()
    edited("val.de")(bench)
    assert bench.train(rerun=True)["steps"] == 6
    assert (bench.run_folder.with_name(f"{bench.run_folder.name}.before-1") / "last.safetensors").exists()


def test_a_training_from_before_digests_goes_on_and_says_that_it_cannot_be_checked(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.killed()
    (bench.run_folder / CONTENTS).unlink()
    caplog.set_level("INFO")
    assert bench.train()["steps"] == 6
    assert "nobody can check" in caplog.text


# --- adapters


@pytest.fixture
def adapter(bench: Bench) -> Path:
    bench.adapter = AdapterConfig(rank=2)
    bench.train()
    return bench.run_folder / "adapter"


def test_an_adapter_on_another_base_is_refused(bench: Bench, adapter: Path) -> None:
    model = ModelConfig(str(bench.folder / "model"), adapter_path=str(adapter))
    model.load()
    other_weights(bench)
    with pytest.raises(ModelError, match=r"trained on other weights.*give model\.path"):
        model.load()


def test_an_adapter_knows_its_base_under_any_name(bench: Bench, adapter: Path) -> None:
    (bench.folder / "model").rename(bench.folder / "renamed")
    (bench.folder / "renamed" / "model.safetensors").rename(bench.folder / "renamed" / "model-00001.safetensors")
    ModelConfig(str(bench.folder / "renamed"), adapter_path=str(adapter)).load()


def test_an_adapter_that_does_not_name_its_base_loads_and_the_log_says_so(
    bench: Bench, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = json.loads((adapter / SETTINGS).read_text())
    del settings["base_weights"]
    (adapter / SETTINGS).write_text(json.dumps(settings))
    other_weights(bench)
    caplog.set_level("INFO")
    ModelConfig(str(bench.folder / "model"), adapter_path=str(adapter)).load()
    assert "does not say on which weights it was trained" in caplog.text


def test_an_adapter_with_weights_for_some_of_its_layers_is_refused(bench: Bench, adapter: Path) -> None:
    file = adapter / "adapters.safetensors"
    weights: Any = mx.load(str(file))
    mx.save_safetensors(str(file), {name: value for name, value in weights.items() if ".layers.1." in name})
    with pytest.raises(ModelError, match=r"lacks 14 of the 28 weights that adapter_config\.json names"):
        ModelConfig(str(bench.folder / "model"), adapter_path=str(adapter)).load()


# --- distillation


def distilled(bench: Bench, stop_after: int | None = None, stream: bool = False) -> list[int]:
    config = ModelConfig(str(bench.folder / "model"))
    to = bench.folder / "distilled.jsonl"
    pairs = distill(config.load(), bench.text("train"), to, {"a": 1}, stream=stream, teacher=config.contents())
    return list(islice(pairs, stop_after))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [(other_weights, r"model\.safetensors of the model"), (edited("train.de"), r"train\.de of the data")],
)
def test_distillation_is_refused_with_another_teacher_or_corpus(
    bench: Bench, change: Callable[[Bench], None], says: str, stream: bool
) -> None:
    assert distilled(bench, stop_after=1, stream=stream) == [1]
    change(bench)
    with pytest.raises(ValueError, match=says):
        distilled(bench, stream=stream)


def test_distillation_from_before_digests_goes_on_and_the_log_says_that_it_cannot_be_checked(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    distilled(bench, stop_after=1)
    begun = bench.folder / "distilled.jsonl.config.json"
    begun.write_text(json.dumps({"a": 1}))
    caplog.set_level("INFO")
    assert distilled(bench)
    assert "nobody can check" in caplog.text
