"""A model that says which tags it was trained with is asked for no other, at any door."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

import streamllm as st
from streamllm.batching.scheduler import translate_many
from streamllm.data.text import ParallelText
from streamllm.engine.paradigms.group import Group
from streamllm.evaluation.runner import run_experiment
from streamllm.live.protocol import ProtocolFault
from streamllm.live.service import Choice, Choices, Service
from streamllm.live.simuleval import agent_server
from streamllm.live.terminal import translate_live
from streamllm.models.loading import ASSETS, ModelConfig, ModelError
from streamllm.models.model import StreamingModel
from streamllm.models.settings import SETTINGS, read_settings
from streamllm.policies import WaitToken
from streamllm.policies.bounded import bounded
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example
from streamllm.tracking.tracker import NullTracker
from streamllm.training.data import DataConfig
from streamllm.training.export import export_checkpoint
from streamllm.training.loop import TrainingConfig
from streamllm.training.train import ValidationConfig, train

BUNDLED = "bundled:tiny-en-de-wait"
EXAMPLES = [Example("0", "A dog runs.", "Ein Hund rennt.")]
SAYS = (
    r"policy\.latency is '9'; the tags that the model is trained with are 1, 2, 3, 4, 5: give one \(the nearest is 5\)"
)


@pytest.fixture(scope="module")
def model() -> StreamingModel:
    return ModelConfig(BUNDLED).load()


@pytest.fixture
def without_a_list(tmp_path: Path) -> Path:
    folder = shutil.copytree(ASSETS / "tiny-en-de-wait", tmp_path / "model")
    settings = json.loads((folder / SETTINGS).read_text())
    del settings["latencies"]
    (folder / SETTINGS).write_text(json.dumps(settings))
    return folder


def by_run(model: StreamingModel, policy: Any, folder: Path) -> None:
    data = st.Sample(limit=1)
    run_experiment(config={}, name="run", model=ModelConfig(BUNDLED), policy=policy, dataset=data, root=folder)


DOORS: dict[str, Callable[[StreamingModel, Any, Path], Any]] = {
    "run": by_run,
    "batch": lambda model, policy, _: [*translate_many(model, EXAMPLES * 2, policy, batch_size=2)],
    "stream": lambda model, policy, _: [*st.stream(model, "A dog runs.", policy)],
    "live": lambda model, policy, _: translate_live(model, policy, io.BytesIO(b"A dog runs.").read, io.StringIO()),
    "SimulEval": lambda model, policy, _: agent_server(model, policy, port=0).server_close(),
    "service": lambda model, policy, _: Service(model, Choices({"wait_token": Choice(lambda: policy)})),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("max_lag", [None, 1])
def test_a_tag_that_was_not_trained_is_refused_before_anything_is_translated(
    model: StreamingModel, door: str, max_lag: int | None, tmp_path: Path
) -> None:
    """Also where a bound decides everything, and the policy is never asked."""
    with pytest.raises(ValueError, match=SAYS):
        DOORS[door](model, bounded(WaitToken(latency=9), max_lag=max_lag), tmp_path)
    assert not [*tmp_path.rglob("*.jsonl")]


def test_a_session_refuses_it_and_takes_one_that_was_trained(model: StreamingModel) -> None:
    session = model.session()
    session.read("A")
    with pytest.raises(ValueError, match=r"^latency is '0'; .* \(the nearest is 1\)$"):
        session.wait_probability("0")
    assert 0 < session.wait_probability("5") < 1


def test_clients_of_a_service_may_choose_no_other(model: StreamingModel) -> None:
    def choices(*ends: int) -> Choices:
        return Choices({"wait_token": Choice(WaitToken, {"latency": ends}, {"threshold": 0.5})})  # type: ignore[dict-item]

    with pytest.raises(ValueError, match=SAYS):
        Service(model, choices(1, 9))
    service = Service(model, choices(1, 5))
    model.prompt.latencies = ("1", "5")
    try:
        with pytest.raises(ProtocolFault, match=r"policy\.latency is '3'; .* 1, 5") as fault:
            service.open(service.choices.named({"latency": 3})[1])
        assert fault.value.close is None
    finally:
        model.prompt.latencies = ("1", "2", "3", "4", "5")


@pytest.mark.parametrize(("latency", "near"), [("4.4", "4"), ("60", "5"), ("-1", "1")])
def test_a_prompt_that_asks_for_another_is_refused(latency: str, near: str) -> None:
    own = read_settings(ASSETS / "tiny-en-de-wait").prompt
    assert own is not None
    with pytest.raises(ModelError, match=rf"^prompt\.latency is '{latency}'; .*\(the nearest is {near}\)$"):
        ModelConfig(BUNDLED).load(replace(own, latency=latency))


@pytest.mark.parametrize(("latency", "near"), [("hihg", r" \(the nearest is high\)"), ("soon", "")])
def test_of_words_the_likest_is_named_if_there_is_one(tokenizer: Any, latency: str, near: str) -> None:
    prompt = Prompt(target_header="German{latency}:", latency="low")
    with pytest.raises(ValueError, match=rf"are low, high: give one{near}$"):
        PromptTokens(prompt, tokenizer, latencies=("low", "high")).header_asking(latency)


def test_a_model_without_the_list_takes_each_of_as_many_tokens(without_a_list: Path) -> None:
    model = ModelConfig(str(without_a_list)).load()
    assert model.prompt.latencies == ()
    assert [*translate_many(model, EXAMPLES, WaitToken(latency=9))]
    with pytest.raises(ValueError, match="latency is '999', which makes a target header of"):
        [*translate_many(model, EXAMPLES, WaitToken(latency=999))]


def test_a_prompt_without_a_place_for_it_has_none() -> None:
    model = ModelConfig(BUNDLED).load(Prompt("<|source|>", "<|end|>", "<|target|>", True))
    assert model.prompt.latencies == ()


@pytest.mark.parametrize("tags", [[], "12", [1], [""], {"1": 2}])
def test_the_list_in_a_folder_is_one_of_tags(tmp_path: Path, tags: Any) -> None:
    (tmp_path / SETTINGS).write_text(json.dumps({"latencies": tags}))
    with pytest.raises(ValueError, match=rf"{SETTINGS}: latencies is .*; it is a list of tags in quotes"):
        read_settings(tmp_path)


PROMPT = Prompt(target_header="German{latency}:", latency="2")
STEPS = TrainingConfig(steps=2, learning_rate=1e-2, warmup_steps=0, dropout=0.0, average=1, checkpoint_every=1)


def trained(
    folder: Path, latencies: Sequence[str] | None, prompt: Prompt | None = PROMPT, model: str = "model"
) -> Path:
    """Train for two steps, and return the run folder."""
    if not (folder / "model").exists():
        tiny.model_folder(folder / "model", hidden=64, tied=True)
    for language, line in (("en", "the dog runs\n"), ("de", "der Hund rennt\n")):
        (folder / f"text.{language}").write_text(line)
    text = ParallelText(source=folder / "text.en", target=folder / "text.de")
    data, root = DataConfig(k=(1, 3), latencies=latencies), folder / f"outputs-{model.count('/')}"
    score = ValidationConfig(sentences=0)
    start = ModelConfig(str(folder / model))
    train({}, "run", start, text, text, data, STEPS, score, NullTracker(), root=root, prompt=prompt)
    (run,) = root.iterdir()
    return run


def test_what_a_training_leaves_names_its_tags(tmp_path: Path) -> None:
    run = trained(tmp_path, ["1", "2"])
    assert read_settings(run / "model").latencies == ["1", "2"]
    (checkpoint,) = run.glob("epoch-*.safetensors")
    model, units, languages = ModelConfig(str(tmp_path / "model")), ("word", "word"), ("en", "de")
    exported = export_checkpoint(
        run, checkpoint.stem, model, PROMPT, units, languages, Group(), None, False, ["1", "2"], 0
    )
    assert read_settings(exported).latencies == ["1", "2"]
    again = trained(tmp_path, None, None, str(Path(run.parent.name, run.name, "model")))
    assert read_settings(again / "model").latencies == ["1", "2"], "going on without other tags keeps them"


def test_a_training_of_other_tags_names_those(tmp_path: Path) -> None:
    run = trained(tmp_path, ["1", "2"])
    again = trained(tmp_path, ["2", "7"], None, str(Path(run.parent.name, run.name, "model")))
    assert read_settings(again / "model").latencies == ["2", "7"]


def test_a_training_without_tags_names_none_and_one_without_its_own_is_refused(tmp_path: Path) -> None:
    assert "latencies" not in json.loads((trained(tmp_path, None) / "model" / SETTINGS).read_text())
    with pytest.raises(ModelError, match=r"prompt\.latency is '2'; the tags that the model is trained with are 1, 3"):
        trained(tmp_path, ["1", "3"], PROMPT, "model/../model")
