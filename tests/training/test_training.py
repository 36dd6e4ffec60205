"""Training as streaming sees it: the two forwards agree, and a training can be cut and split exactly."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from ring import run_ring

from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training import checkpoint
from streamllm.training.batch import pad
from streamllm.training.bpe import BPEDropout
from streamllm.training.checkpoint import write
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.dropout import add_dropout
from streamllm.training.fresh import FreshModel
from streamllm.training.loop import Trainer, TrainingConfig
from streamllm.training.loss import cross_entropy, forward
from streamllm.training.masks import arrival_order, visible
from streamllm.units import Unit, pieces

PAIRS = [
    Example("1", "a small dog runs over the green grass", "ein kleiner Hund rennt über die grüne Wiese"),
    Example("2", "two children are playing", "zwei Kinder spielen"),
    Example("3", "the woman who reads a book smiles", "die Frau, die ein Buch liest, lächelt"),
    Example("4", "a man waits", "ein Mann wartet an der Straße auf den Bus"),
    Example("5", "birds", "Vögel"),
    Example("6", "a girl in a red dress is holding a yellow balloon", "ein Mädchen hält einen gelben Ballon"),
]
ARCHITECTURE = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}


def fresh(folder: Path) -> StreamingModel:
    texts = [text for pair in PAIRS for text in (pair.source, pair.reference)]
    FreshModel(ARCHITECTURE, vocab_size=300, seed=3).create(folder, texts)
    return ModelConfig(str(folder)).load()


@pytest.fixture
def model(tmp_path: Path) -> StreamingModel:
    return fresh(tmp_path / "model")


def streamed_logits(
    model: StreamingModel, example: Example, k: int | str | list[int], paradigm: Paradigm = Group()
) -> tuple[list[mx.array], list[int]]:
    """Logits that predict each learned token, by streaming wait-k (or along a path: how many source units each unit
    and the end are predicted from, the footer being one) with the reference forced as output: reads one word at a
    time, re-feeds the last token after a read; and the labels."""
    prompt, units = model.prompt, pieces(example.source, model.prompt.source_unit)
    words = pieces(example.reference, prompt.target_unit)
    target = [prompt.encode(prompt.spaced(word, i == 0, prompt.target_unit)) for i, word in enumerate(words)]
    memory = paradigm.open(model.model, model.target_start)
    lag = len(units) + 1 if k == FULL else k
    read, done, logits, labels = 0, False, [], []
    fed = list(prompt.target_header)
    for i, word in enumerate([*target, [prompt.end_token]]):
        if i > 0:  # the last token of a word is fed once for its look-ahead and again after the reads
            memory.write(fed)
            memory.trim(1)
        path = lag[i] if isinstance(lag, list) else int(lag) + i
        while read < min(path, len(units)):
            header = [] if read else prompt.source_header
            memory.read(header + prompt.source_tokens(units[read], read == 0))
            read += 1
        if path > len(units) and not done:
            memory.read(prompt.source_footer)
            done = True
        for token in word:
            logits.append(memory.write(fed))
            labels.append(token)
            fed = [token]
    return logits, labels


@pytest.mark.parametrize("k", [1, 2, 3, 9, FULL])
@pytest.mark.parametrize("target_start", [0, 5])
def test_streamed_and_trained_forward_agree(model: StreamingModel, k: int | str, target_start: int) -> None:
    model.target_start = target_start
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    pairs = [data.encode(example, k) for example in PAIRS]
    trained = forward(model.model, pad(pairs), target_start)
    for i, (example, one) in enumerate(zip(PAIRS, pairs, strict=True)):
        streamed, labels = streamed_logits(model, example, k)
        rows = [row for row, label in enumerate(one.labels) if label >= 0]
        assert labels == [one.labels[row] for row in rows]
        np.testing.assert_allclose(np.array(trained[i])[rows], np.array(mx.stack(streamed)), atol=2e-5)


CHARACTERS = [
    Example("1", "a small dog runs", "小狗 在跑。"),
    Example("2", "birds", "鸟"),
    Example("3", "two children", "两个孩子正在玩"),
]


@pytest.mark.parametrize("k", [1, 3, FULL])
@pytest.mark.parametrize("swapped", [False, True])
def test_streamed_and_trained_forward_agree_on_characters(
    model: StreamingModel, tmp_path: Path, k: int | str, swapped: bool
) -> None:
    units: tuple[Unit, Unit] = ("character", "word") if swapped else ("word", "character")
    streaming = ModelConfig(str(tmp_path / "model")).load(None, *units)
    examples = [Example(e.id, e.reference, e.source) if swapped else e for e in CHARACTERS]
    pairs = [TrainingData([], streaming.prompt, DataConfig(), seed=0).encode(example, k) for example in examples]
    trained = forward(streaming.model, pad(pairs))
    for i, (example, one) in enumerate(zip(examples, pairs, strict=True)):
        streamed, labels = streamed_logits(streaming, example, k)
        rows = [row for row, label in enumerate(one.labels) if label >= 0]
        assert labels == [one.labels[row] for row in rows]
        np.testing.assert_allclose(np.array(trained[i])[rows], np.array(mx.stack(streamed)), atol=2e-5)


@pytest.mark.parametrize("k", [1, 2, 3, 9, FULL])
def test_streamed_and_trained_forward_agree_where_the_streams_are_interleaved(
    model: StreamingModel, k: int | str
) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    pairs = [data.encode(example, k) for example in PAIRS]
    trained = forward(model.model, pad(pairs), paradigm="interleaved")
    for i, (example, one) in enumerate(zip(PAIRS, pairs, strict=True)):
        streamed, labels = streamed_logits(model, example, k, Interleaved())
        rows = [row for row, label in enumerate(one.labels) if label >= 0]
        assert labels == [one.labels[row] for row in rows]
        np.testing.assert_allclose(np.array(trained[i])[rows], np.array(mx.stack(streamed)), atol=2e-5)


@pytest.mark.parametrize("k", [1, 3, FULL])
def test_gradients_of_streamed_and_trained_forward_agree(model: StreamingModel, k: int | str) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    batch = pad([data.encode(example, k) for example in PAIRS])

    def trained(_: nn.Module) -> mx.array:
        logits = forward(model.model, batch)
        labels = mx.array(batch.labels)
        each = nn.losses.cross_entropy(logits, mx.maximum(labels, 0))
        return mx.where(labels >= 0, each, 0).sum()

    def streamed(_: nn.Module) -> mx.array:
        total = mx.array(0.0)
        for example in PAIRS:
            logits, labels = streamed_logits(model, example, k)
            total = total + nn.losses.cross_entropy(mx.stack(logits), mx.array(labels)).sum()
        return total

    expected = tree_flatten(nn.value_and_grad(model.model, streamed)(model.model)[1])
    found = dict(tree_flatten(nn.value_and_grad(model.model, trained)(model.model)[1]))
    for name, gradient in expected:
        np.testing.assert_allclose(np.array(found[name]), np.array(gradient), atol=2e-4, rtol=1e-3, err_msg=name)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 6), st.integers(0, 2), st.integers(0, 2))
def test_visible_is_the_rule_of_wait_k(k: int, words: int, unit: int, header: int, footer: int) -> None:
    source_units = [-1] * header + list(range(words)) + [words] * footer
    sees = np.array(visible(mx.array([source_units]), mx.array([[unit]]), mx.array([k])))[0, 0]
    shown = min(k + unit, words)
    expected = [True] * header + [i < shown for i in range(words)] + [unit + k > words] * footer
    assert sees.tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.3]))
def test_cross_entropy_and_its_gradient_are_mlx_s(seed: int, smoothing: float) -> None:
    rng = np.random.default_rng(seed)
    logits = mx.array(rng.normal(size=(5, 7)).astype(np.float32) * 10)
    labels = mx.array(rng.integers(-1, 7, size=5))

    def reference(x: mx.array) -> mx.array:
        each = nn.losses.cross_entropy(x, mx.maximum(labels, 0), label_smoothing=smoothing)
        return mx.where(labels >= 0, each, 0).sum() * 1.5

    def ours(x: mx.array) -> mx.array:
        return cross_entropy(x, labels, smoothing) * 1.5

    value, gradient = mx.value_and_grad(reference)(logits)
    own_value, own_gradient = mx.value_and_grad(ours)(logits)
    np.testing.assert_allclose(own_value.item(), value.item(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.array(own_gradient), np.array(gradient), atol=1e-5)


def test_bpe_dropout_of_zero_is_the_tokenizer(model: StreamingModel, tmp_path: Path) -> None:
    dropout = BPEDropout(tmp_path / "model" / "tokenizer.json", 0.0, seed=1)
    for pair in PAIRS:
        for word in f"{pair.source} {pair.reference}".split():
            assert dropout.tokens(f" {word}", random.Random(0)) == model.prompt.encode(f" {word}")


def test_bpe_dropout_needs_bytes(model: StreamingModel, tmp_path: Path) -> None:
    path = tmp_path / "model" / "tokenizer.json"
    for pre_tokenizer in (None, {"type": "Whitespace"}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": pre_tokenizer}))
        with pytest.raises(ValueError, match=r"data\.bpe_dropout needs a byte-level BPE"):
            BPEDropout(path, 0.1, 0)


def test_bpe_dropout_varies_the_segmentation_and_keeps_the_text(model: StreamingModel, tmp_path: Path) -> None:
    path = tmp_path / "model" / "tokenizer.json"
    dropout, again = BPEDropout(path, 0.6, seed=1), BPEDropout(path, 0.6, seed=1)
    seen = set()
    for i in range(20):
        tokens = dropout.tokens(" children", random.Random(i))
        assert tokens == again.tokens(" children", random.Random(i))
        assert model.prompt.decode(tokens).strip() == "children"
        seen.add(tuple(tokens))
    assert len(seen) > 2


def test_an_epoch_holds_every_pair_once_and_depends_on_its_seed_only(model: StreamingModel) -> None:
    config = DataConfig(k=(1, 3, FULL), batch_tokens=60)

    def epoch(seed: int, number: int) -> list[list[int]]:
        batches = TrainingData(PAIRS, model.prompt, config, seed).epoch(number)
        return [row.tolist() for batch, _ in batches for row in batch.source]

    assert epoch(1, 0) == epoch(1, 0)
    assert epoch(1, 0) != epoch(1, 1)
    assert len(epoch(1, 0)) == len(PAIRS)


def test_processes_share_the_rows_of_each_batch(model: StreamingModel) -> None:
    config = DataConfig(k=(2,), batch_tokens=60)
    data = TrainingData(PAIRS, model.prompt, config, seed=1)
    parts = [data.epoch(0, rank, 2) for rank in range(2)]
    for (first, labels), (second, same) in zip(*parts, strict=True):
        assert labels == same == int((first.labels >= 0).sum() + (second.labels >= 0).sum())


def test_dropout_acts_in_training_only_and_keeps_the_parameters(model: StreamingModel) -> None:
    tokens = mx.array([[5, 6, 7]])
    before = np.array(model.model(tokens))
    names = [name for name, _ in tree_flatten(model.model.parameters())]
    add_dropout(model.model, 0.5)
    assert [name for name, _ in tree_flatten(model.model.parameters())] == names
    np.testing.assert_array_equal(np.array(model.model(tokens)), before)
    model.model.train()
    assert not np.allclose(np.array(model.model(tokens)), before)


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + '/training']
from test_training import FULL, PAIRS, DataConfig, ModelConfig, TrainingData
from streamllm.training.loop import Trainer, TrainingConfig
folder = Path(sys.argv[1])
model = ModelConfig(str(folder.parent / "model")).load()
held_out = list(TrainingData(PAIRS[:2], model.prompt, DataConfig(), 5).fixed(3))
{setup}
trainer = Trainer(model.model, data, held_out, config, folder)
if len(sys.argv) > 2:
    def kill(line):
        if line["step"] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    trainer.track = kill
trainer.run()
"""


PLAIN = """
data = TrainingData(PAIRS, model.prompt, DataConfig(k=(1, 3, FULL), batch_tokens=70, source_mask=0.1), 5)
config = TrainingConfig(epochs=6, dropout=0.1, warmup_steps=5, log_every=1, checkpoint_every=1, average=2)
"""
EVERYTHING = """
from streamllm.training.adapters import AdapterConfig
from streamllm.training.sources import Buffered
AdapterConfig(rank=2, dropout=0.2).apply(model.model, seed=1)
config = TrainingConfig(
    steps=16, validate_every=5, accumulate=2, gradient_checkpointing=True, dropout=0.1, warmup_steps=5, log_every=3,
    checkpoint_every=2, average=2,
)
data = TrainingData(Buffered(lambda: iter(PAIRS), 4, 5), model.prompt, DataConfig(batch_tokens=50, source_mask=0.1), 5)
"""


def train_in_process(folder: Path, kill_at: int | None = None, setup: str = PLAIN) -> int:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), setup=setup)
    command = [sys.executable, "-c", script, str(folder), *([str(kill_at)] if kill_at else [])]
    return subprocess.run(command, capture_output=True).returncode


def loss_curve(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "peak_memory_gb")} for line in lines]


def test_a_file_of_weights_does_not_depend_on_the_order_of_its_arrays(tmp_path: Path) -> None:
    arrays = {f"layers.{number}.weight": mx.array([number]) for number in range(50)}
    write(tmp_path / "a", arrays)
    write(tmp_path / "b", dict(reversed(arrays.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.long
def test_a_killed_training_goes_on_bit_for_bit(model: StreamingModel, tmp_path: Path) -> None:
    assert train_in_process(tmp_path / "straight") == 0
    late = PLAIN.replace("checkpoint_every=1", "checkpoint_every=9")
    assert train_in_process(tmp_path / "killed", kill_at=3, setup=late) == -signal.SIGKILL  # before any checkpoint
    for step in (7, 12):
        assert train_in_process(tmp_path / "killed", kill_at=step) == -signal.SIGKILL
    assert train_in_process(tmp_path / "killed") == 0
    assert loss_curve(tmp_path / "killed") == loss_curve(tmp_path / "straight")
    last = "epoch-006.safetensors"
    straight, killed = (mx.load(str(tmp_path / name / last)) for name in ("straight", "killed"))
    assert all(mx.array_equal(straight[name], killed[name]).item() for name in straight)


@pytest.mark.long
def test_a_training_on_a_full_disk_keeps_its_last_checkpoint_and_goes_on_bit_for_bit(
    model: StreamingModel, tmp_path: Path
) -> None:
    assert train_in_process(tmp_path / "straight") == 0
    size = (tmp_path / "straight" / "epoch-001.safetensors").stat().st_size + 1000
    setup = f"from full_disk import full_disk\nfull = full_disk({size})\nfull.__enter__()\n{PLAIN}"
    assert train_in_process(tmp_path / "full", setup=setup) == 1  # the weights fit, a checkpoint does not
    assert not [*(tmp_path / "full").glob("*.part")]
    assert train_in_process(tmp_path / "full") == 0
    assert loss_curve(tmp_path / "full") == loss_curve(tmp_path / "straight")


@pytest.mark.long
def test_a_killed_training_of_an_adapter_on_a_stream_goes_on_bit_for_bit(model: StreamingModel, tmp_path: Path) -> None:
    """With accumulated and recomputed gradients, and dropout everywhere."""
    assert train_in_process(tmp_path / "straight", setup=EVERYTHING) == 0
    for step in (6, 10):
        assert train_in_process(tmp_path / "killed", step, EVERYTHING) == -signal.SIGKILL
    assert train_in_process(tmp_path / "killed", setup=EVERYTHING) == 0
    assert loss_curve(tmp_path / "killed") == loss_curve(tmp_path / "straight")
    straight, killed = (mx.load(str(tmp_path / name / "step-0000016.safetensors")) for name in ("straight", "killed"))
    assert all(".lora_" in name and mx.array_equal(straight[name], killed[name]).item() for name in straight)


def trainer_of(folder: Path, group: mx.distributed.Group) -> Trainer:
    """All processes of a group together learn from the same rows, however many they are."""
    model = ModelConfig(str(folder / "model")).load()
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(3,), batch_tokens=200 // group.size()), 5)
    config = TrainingConfig(epochs=3, dropout=0.0, warmup_steps=1, average=1)
    held_out = list(TrainingData(PAIRS[:2], model.prompt, DataConfig(), 5).fixed(3))
    return Trainer(model.model, data, held_out, config, folder / f"world-{group.size()}", group=group)


RING_SCRIPT = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + '/training']
import streamllm
from test_training import mx, trainer_of
trainer = trainer_of(Path({folder!r}), mx.distributed.init())
{change}
trainer.run()
"""
SLOW_DISK = """
from streamllm.training import checkpoint
write = checkpoint.write
checkpoint.write = lambda *arguments: (time.sleep(0.5), write(*arguments))
"""


def ring_script(folder: Path, change: str = "") -> Path:
    fresh(folder / "model")
    script = folder / "gradients.py"
    script.write_text(RING_SCRIPT.format(tests=str(Path(__file__).parents[1]), folder=str(folder), change=change))
    return script


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_double_batch(tmp_path: Path) -> None:
    """Gradients of two processes, by MLX's ring on this machine, against one process with all rows.

    The first process writes slowly what both read at the end.
    """
    script = ring_script(tmp_path, SLOW_DISK)
    trainer_of(tmp_path, mx.distributed.init()).run()
    for code, output in run_ring(script, tmp_path / "ring"):
        assert code == 0, output
    one, two = (mx.load(str(tmp_path / f"world-{n}" / "epoch-003.safetensors")) for n in (1, 2))
    for name, weights in one.items():
        np.testing.assert_allclose(np.array(two[name]), np.array(weights), atol=1e-4, err_msg=name)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_whose_partner_was_killed_says_so_and_ends(tmp_path: Path, victim: int) -> None:
    change = f"""
step = trainer.train_step
def train_step(batches):
    if trainer.step == 2 and trainer.rank == {victim}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(batches)
trainer.train_step = train_step
"""
    ends = run_ring(ring_script(tmp_path, change), tmp_path / "ring")
    assert ends[victim][0] == -signal.SIGKILL
    code, output = ends[1 - victim]
    assert code == 1, output
    assert f"process {victim} of 2 has ended" in output


@pytest.mark.parametrize(("export", "files"), [("last", [3]), ("best", [2]), ("average", [2, 3])])
def test_training_ends_with_the_weights_that_export_names(
    model: StreamingModel, tmp_path: Path, export: str, files: list[int]
) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(3,)), seed=5)
    held_out = list(TrainingData(PAIRS[:2], model.prompt, DataConfig(), 5).fixed(3))
    config = TrainingConfig(epochs=3, dropout=0.0, score_every=1, average=2, warmup_steps=1, export=export)
    scores = iter([1.0, 3.0, 2.0])
    trainer = Trainer(model.model, data, held_out, config, tmp_path, score=lambda _: {"bleu": next(scores)})
    trainer.run()
    assert trainer.exported == [f"epoch-{number:03d}.safetensors" for number in files]


def test_early_stopping_ends_with_the_best_weights(model: StreamingModel, tmp_path: Path) -> None:
    """Scores fall after the second epoch: training stops at the fourth, and the second's weights are taken."""
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(3,)), seed=5)
    held_out = list(TrainingData(PAIRS[:2], model.prompt, DataConfig(), 5).fixed(3))
    config = TrainingConfig(epochs=9, dropout=0.0, score_every=1, patience=2, average=1, warmup_steps=1)
    scores = iter([10.0, 20.0, 15.0, 19.0, 30.0])
    trainer = Trainer(model.model, data, held_out, config, tmp_path / "run", score=lambda _: {"bleu": next(scores)})
    best = trainer.run()
    assert (trainer.epoch, best["epoch"], best["bleu"]) == (4, 2, 20.0)
    second = mx.load(str(tmp_path / "run" / "epoch-002.safetensors"))
    for name, weights in tree_flatten(model.model.parameters()):
        assert mx.array_equal(weights, second[name]).item(), name


def test_a_checkpoint_of_another_training_and_a_damaged_one_are_refused(model: StreamingModel, tmp_path: Path) -> None:
    def trainer(pairs: list[Example] = PAIRS) -> Trainer:
        data = TrainingData(pairs, model.prompt, DataConfig(), 5)
        held_out = list(TrainingData(PAIRS[:2], model.prompt, DataConfig(), 5).fixed(3))
        return Trainer(model.model, data, held_out, TrainingConfig(epochs=1, dropout=0.0, average=1), tmp_path)

    begun = trainer()
    begun.world = 2
    begun._save()
    with pytest.raises(ValueError, match="begun by 2 processes, and now there are 1"):
        trainer().run()
    begun.world = 1
    begun._save()
    with pytest.raises(ValueError, match="was begun on other data: restore it"):
        trainer(PAIRS[1:]).run()
    trainer()._resume()
    begun.kept = ["epoch-001.safetensors"]
    begun._save()
    with pytest.raises(ValueError, match=r"epoch-001\.safetensors is gone, and training ends with the mean"):
        trainer()._resume()
    begun.kept = []
    begun._save()
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"is damaged.*delete it"):
        trainer().run()


def test_weights_of_a_validation_that_are_damaged_or_of_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "epoch-001.safetensors"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"epoch-001\.safetensors is damaged .*restore it"):
        checkpoint.read(path, {"a": mx.zeros(2)})
    checkpoint.write(path, {"a": mx.zeros(3)})
    with pytest.raises(ValueError, match=r"is damaged \(a is not what this training has\): restore it"):
        checkpoint.read(path, {"a": mx.zeros(2)})


COUNTERS: dict[str, Any] = {
    **dict.fromkeys(("step", "epoch", "block", "batch", "since_best", "validated_at", "lines"), 0),
    "best": {},
    "kept": [],
    "window": {"losses": [1.5], "tokens": 3, "padding": 0},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (None, "it is None; it should be an object"),
        ({"step": ...}, "it has no step"),
        ({"step": -1}, "a count is below 0"),
        ({"step": 1.5}, "step is 1.5; it should be a whole number"),
        ({"kept": ["../../weights.safetensors"]}, "kept has '../../weights.safetensors', which is no file"),
        ({"best": {"bleu": 3.0}}, "best has no bleu or no validation"),
        ({"best": []}, "best is []; it should be an object"),
        ({"window": {"losses": "many"}}, "window.losses is 'many'; it should be a list"),
        ({"contents": {"data": []}}, "a value of contents is not an object"),
    ],
)
def test_counters_of_the_wrong_shape_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    found = {key: value for key, value in {**COUNTERS, **(changes or {})}.items() if value is not ...}
    path, weights = tmp_path / "last.safetensors", {"a": mx.zeros(2)}
    checkpoint.write(path, {"model.a": mx.zeros(2)}, {"counters": json.dumps(found)} if changes is not None else None)
    with pytest.raises(ValueError, match=r"last\.safetensors is damaged \(") as raised:
        checkpoint.load(path, 1, None, weights, {})
    assert message in str(raised.value) and "delete it, and training begins anew" in str(raised.value)


@pytest.mark.parametrize("arrays", [{}, {"model.a": (3,)}, {"model.a": (2,), "model.b": (2,)}, {"optimizer.a": (2,)}])
def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path, arrays: dict[str, tuple[int, ...]]) -> None:
    path, weights = tmp_path / "last.safetensors", {"a": mx.zeros(2)}
    every = {name: mx.zeros(shape) for name, shape in {"model.c": (1,), **arrays}.items()}
    checkpoint.write(path, every, {"counters": json.dumps(COUNTERS)})
    with pytest.raises(ValueError, match=r"is damaged \(.* is not what this training has\): delete it"):
        checkpoint.load(path, 1, None, weights, {})


def test_validation_leaves_out_what_is_too_long_too(model: StreamingModel, caplog: pytest.LogCaptureFixture) -> None:
    whole = TrainingData(PAIRS, model.prompt, DataConfig(), 5)
    lengths = sorted(max(len(one.source), len(one.target)) for one in (whole.encode(pair, 3) for pair in PAIRS))
    limit = lengths[len(lengths) // 2]
    kept = sum(length <= limit for length in lengths)
    held_out = TrainingData(PAIRS, model.prompt, DataConfig(max_tokens=limit), 5)
    with caplog.at_level("INFO", "streamllm"):
        batches = [*held_out.fixed(1, 3)]
    assert sum(len(batch.k) for batch in batches) == 2 * kept < 2 * len(PAIRS)
    assert max(max(batch.source.shape[1], batch.target.shape[1]) for batch in batches) == limit
    (said,) = caplog.messages
    assert said.startswith(
        f"{len(PAIRS) - kept} of the {len(PAIRS)} pairs of the validation data are left out: more than"
    )


def test_validation_data_of_which_nothing_is_left_is_refused(model: StreamingModel) -> None:
    with pytest.raises(ValueError, match=r"validation data is left: see data\.max_tokens"):
        TrainingData(PAIRS, model.prompt, DataConfig(max_tokens=2), 5).fixed(3)


def test_pairs_that_are_too_long_are_left_out_and_counted(
    model: StreamingModel, caplog: pytest.LogCaptureFixture
) -> None:
    whole = TrainingData(PAIRS, model.prompt, DataConfig(k=3), 5)  # one k need not be a list
    longest = max(max(len(one.source), len(one.target)) for one in (whole.encode(pair, 3) for pair in PAIRS))
    with caplog.at_level("INFO", "streamllm"):
        whole.epoch(0)
        assert not caplog.messages
        data = TrainingData(PAIRS, model.prompt, DataConfig(k=3, max_tokens=longest - 1), 5)
        kept = sum(len(batch.k) for batch, _ in data.epoch(0))
    assert kept < len(PAIRS)
    left_out = len(PAIRS) - kept
    assert caplog.messages == [
        f"{left_out} of the first 6 pairs are left out: more than {longest - 1} tokens (data.max_tokens) in a stream"
    ]


def test_interleaved_training_also_shows_where_a_unit_ends_before_the_next_read(model: StreamingModel) -> None:
    """Some last tokens arrive with their own unit, others behind the next source, as they are fed again."""
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    plain = [data.encode(example, 1) for example in PAIRS]
    mixed = [data.encode(example, 1, random.Random(seed)) for seed in range(8) for example in PAIRS]
    assert all(pair.arrival_units == pair.target_units for pair in plain)
    header = len(model.prompt.target_header)
    early = late = 0
    for pair in mixed:
        own = [0] * header + pair.target_units[header - 1 : -1]
        for arrival, mine, predicted in zip(pair.arrival_units, own, pair.target_units, strict=True):
            assert arrival in (mine, predicted)
            early += arrival < predicted
            late += mine < predicted == arrival
    assert early and late
    order, _ = arrival_order(pad(mixed[:2]))
    assert sorted(order[0].tolist()) == list(range(order.shape[1]))
