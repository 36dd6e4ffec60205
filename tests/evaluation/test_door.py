"""Scores by programs of other environments: what they are fed, what is kept, what is said when something fails; and, in
the slow test, COMET itself over a tiny encoder that is made there."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_compare import CONFIG, make_run, sentences

from streamllm.cli.score import command, score_run, with_quality
from streamllm.evaluation import environments
from streamllm.evaluation.door import COMET, Comet, Program
from streamllm.metrics.own import MetricError
from streamllm.runs.folder import RunFolder

PROGRAM = """
import json, sys
*_, source, target = sys.argv
with open(source) as given, open(target, "w") as found, open({calls!r}, "a") as calls:
    calls.write("called\\n")
    for line in map(json.loads, given):
        score = {score}
        found.write(json.dumps({{"id": line["id"], "score": score}}) + "\\n")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def program(folder: Path, score: str = 'len(line["mt"].split()) / len(line["ref"].split())') -> str:
    file = folder / "score.py"
    file.write_text(PROGRAM.format(calls=str(folder / "calls"), score=score))
    return shlex.join([sys.executable, str(file)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run-1", sentences(12, 0.3, 2), CONFIG)


def words_of(run: Path, *words: str) -> dict[str, Any]:
    return score_run(run, with_quality(words))[1]


def test_a_program_scores_a_run_by_files(run: Path, tmp_path: Path):
    found = words_of(run, "quality=program", f"quality.command={program(tmp_path)!r}", "quality.key=shortness")
    ratios = [len(t.prediction.split()) / len(t.reference.split()) for t in sentences(12, 0.3, 2)]
    assert found["shortness"] == pytest.approx(sum(ratios) / 12)
    assert RunFolder(run).metrics()["shortness"] == found["shortness"]
    assert found["shortness_signature"].endswith("score.py")
    kept = [json.loads(line) for line in (run / "shortness.jsonl").read_text().splitlines()]
    assert [(one["id"], one["score"]) for one in kept] == [(str(n), pytest.approx(r)) for n, r in enumerate(ratios)]


def test_what_was_scored_is_not_scored_again_and_other_content_is(run: Path, tmp_path: Path):
    metric = Program(program(tmp_path), key="x")
    traces = sentences(12, 0.3, 2)
    calls = tmp_path / "calls"
    assert metric(traces) == Program(program(tmp_path), key="y")(traces)
    assert calls.read_text().count("called") == 1
    metric(sentences(12, 0.4, 2))
    assert calls.read_text().count("called") == 2
    Program(program(tmp_path, "1.0"), key="x")(traces)  # the program has changed
    assert calls.read_text().count("called") == 3


def test_a_stored_run_starts_no_program(run: Path, tmp_path: Path, caplog: Any):
    """A run folder may be a stranger's. Scores that it has stay."""
    words_of(run, "quality=program", f"quality.command={program(tmp_path)!r}", "quality.key=x")
    node = {"_target_": "streamllm.evaluation.door.Program", "command": program(tmp_path, "2.0"), "key": "x"}
    config = {**CONFIG, "metrics": {"x": node}}
    other = make_run(tmp_path / "run-2", sentences(12, 0.3, 2), config)
    (tmp_path / "calls").unlink()
    caplog.set_level("INFO")
    assert "x" not in score_run(other)[1]
    assert not (tmp_path / "calls").exists()
    assert "x stays as it is: quality=x computes it anew" in caplog.text
    assert score_run(run)[1]["x"] == RunFolder(run).metrics()["x"]


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("1 / 0", "ended with 1: ZeroDivisionError: division by zero"),
        ('float("nan")', "the score of '0' is nan, which is no finite number"),
        ('"good"', "line 1 of its scores"),
        ('sys.exit("no licence")', "ended with 1: no licence"),
        ('line.update(id="0") or 1', "1 scores came for 12 sentences; each id needs one"),
    ],
)
def test_a_program_that_fails_is_one_error_and_the_run_stays(run: Path, tmp_path: Path, score: str, said: str):
    before = (run / "metrics.json").read_text()
    for _ in range(2):  # nothing of it is kept
        with pytest.raises(MetricError) as caught:
            words_of(run, "quality=program", f"quality.command={program(tmp_path, score)!r}", "quality.key=x")
        assert said in str(caught.value)
    assert (run / "metrics.json").read_text() == before


def test_words_of_quality_are_those_of_a_metric():
    assert with_quality(["quality=comet", "quality.model=Unbabel/wmt22-comet-da"]) == [
        "metric=[comet]",
        "metrics.comet.model=Unbabel/wmt22-comet-da",
    ]
    assert with_quality(["metric=[ter]", "quality=comet"]) == ["metric=[ter,comet]"]
    assert with_quality(["metric=ter"]) == ["metric=ter"]
    for words in (["quality.model=x"], ["quality=a", "quality=b"], ["quality=[a,b]"]):
        with pytest.raises(ValueError, match="give one name, such as quality=comet"):
            with_quality(words)


def test_comet_without_a_model_or_with_an_absent_one_is_refused(run: Path):
    with pytest.raises(ValueError, match=r"quality=comet needs a model: quality.model=Unbabel/wmt22-comet-da"):
        words_of(run, "quality=comet")
    with pytest.raises(MetricError, match="there is no such checkpoint, and it is no hub id"):
        words_of(run, "quality=comet", "quality.model=model.ckpt")


def test_offline_the_two_commands_are_named(run: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """pip is told of an index that is not there."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(MetricError) as caught:
        words_of(run, "quality=comet", "quality.model=Unbabel/wmt22-comet-da")
    text = str(caught.value)
    folder = next((cache / "environments").glob("comet-*.lock")).with_suffix("")
    assert "comet needs an environment of its own, which cannot be made (ERROR: No matching distribution" in text
    assert f"\n  {sys.executable} -m venv {folder}\n" in text
    assert f"\n  {folder}/bin/python -m pip install " in text
    assert not folder.exists()


def test_an_environment_that_somebody_made_by_hand_is_taken(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environments, "_make", lambda folder, *_: made.append(folder))
    made: list[Path] = []
    with pytest.raises(FileNotFoundError):  # nothing was made, so there is nowhere to say so
        environments.python_of("comet", COMET)
    (made[0] / "lib/python3.11/site-packages/unbabel_comet-2.2.7.dist-info").mkdir(parents=True)
    assert environments.python_of("comet", COMET) == made[0] / "bin" / "python"
    assert len(made) == 1


def test_a_checkpoint_counts_by_its_content(tmp_path: Path):
    file = tmp_path / "checkpoints" / "model.ckpt"
    file.parent.mkdir()
    file.write_bytes(b"one")
    (tmp_path / "hparams.yaml").write_text("a: 1")
    first = Comet(str(tmp_path)).identity()
    assert Comet(str(file)).identity() == first
    file.write_bytes(b"two")
    second = Comet(str(tmp_path)).identity()
    (tmp_path / "hparams.yaml").write_text("a: 2")
    assert len({tuple(one) for one in (first, second, Comet(str(tmp_path)).identity())}) == 3
    assert (
        Comet(str(tmp_path)).signature.startswith("model:") and "unbabel-comet:2.2.7" in Comet(str(tmp_path)).signature
    )


# --- COMET itself

TINY = """
import sys, pathlib, yaml, torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast
from comet.models import RegressionMetric
from pytorch_lightning import Trainer

folder = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\\u2581"] + [chr(c) for c in range(33, 383)]
tokenizer = Tokenizer(models.Unigram([(piece, -float(place)) for place, piece in enumerate(pieces)], unk_id=3))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
fast = XLMRobertaTokenizerFast(tokenizer_object=tokenizer)
encoder = folder / "encoder"
fast.save_pretrained(encoder)
config = XLMRobertaConfig(vocab_size=len(fast), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=130, pad_token_id=fast.pad_token_id)
XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(encoder)
model = RegressionMetric(encoder_model="XLM-RoBERTa", pretrained_model=str(encoder), hidden_sizes=[8], layer="mix")
trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.strategy.connect(model)
(folder / "checkpoints").mkdir()
trainer.save_checkpoint(folder / "checkpoints" / "model.ckpt", weights_only=True)
(folder / "hparams.yaml").write_text(yaml.dump(dict(model.hparams)))
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.simuleval
@pytest.mark.timeout(3600)  # gigabytes are fetched
def test_comet_over_a_tiny_encoder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: Any
):
    """The whole path: an environment that is made by the command (STREAMLLM_COMET_CACHE keeps it), an encoder that is
    made there, scores by files, and the second time out of the cache."""
    if "simuleval" not in request.config.option.markexpr and "STREAMLLM_COMET_CACHE" not in os.environ:
        pytest.skip("installs packages: pytest -m simuleval")
    if kept := os.environ.get("STREAMLLM_COMET_CACHE"):
        monkeypatch.setenv("STREAMLLM_CACHE", kept)
    python = environments.python_of("comet", COMET)
    (tmp_path / "make.py").write_text(TINY)
    (tmp_path / "tiny").mkdir()
    subprocess.run([python, tmp_path / "make.py", tmp_path / "tiny"], check=True, env=environments.own_environment())
    words = ["quality=comet", f"quality.model={tmp_path / 'tiny'}"]
    monkeypatch.setattr(sys, "argv", ["streamllm score", str(run), *words])
    command()
    assert "COMET" in capsys.readouterr().out
    found = RunFolder(run).metrics()
    assert -10 < found["comet"] < 10 and found["comet_signature"].startswith("model:tiny@")
    scores = [json.loads(line)["score"] for line in (run / "comet.jsonl").read_text().splitlines()]
    assert len(scores) == 12 and len(set(scores)) > 6
    assert found["comet"] == pytest.approx(sum(scores) / 12)
    monkeypatch.setattr(Comet, "command", lambda self: pytest.fail("it was scored before"))
    assert words_of(run, *words)["comet"] == found["comet"]
