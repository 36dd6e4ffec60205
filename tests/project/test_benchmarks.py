"""The benchmarks compare like with like, and their tables can be pasted."""

import importlib
import json
import shutil
import statistics
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import ROOT
from mlx.utils import tree_flatten, tree_map
from test_training import PAIRS, fresh

from streamllm.cache.dual import DualStreamingCache
from streamllm.training.data import DataConfig, TrainingData


def mkl() -> Any:
    return next(Path(sys.prefix, "lib").glob("libmkl_rt.so*"), None)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark by name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_table_is_markdown(script: Any):
    rows = [{"name": "a", "ms": 1234.567}, {"name": "b"}]
    table = script("benchmark").markdown(rows, {"name": ("which", ""), "ms": ("ms", ",.1f")})
    assert table.splitlines() == ["| which | ms |", "| --- | --- |", "| a | 1,234.6 |", "| b |  |"]


def test_rows_are_saved_with_what_they_were_measured_with(script: Any, tmp_path: Path):
    script("benchmark").save(tmp_path / "rows.json", {"rounds": 3}, rows=[{"ms": 1.5}])
    saved = json.loads((tmp_path / "rows.json").read_text())
    assert saved["rows"] == [{"ms": 1.5}]
    assert saved["about"]["rounds"] == 3
    assert "mlx" in saved["about"]["versions"]


def test_concatenating_cache_computes_what_the_dual_one_does(script: Any):
    bench = script("bench_decode")
    model = bench.random_model(2, 64)
    dual, apart = ([kind() for _ in model.layers] for kind in (DualStreamingCache, bench.Concatenating))
    for read, written in (([1, 2, 3], [4, 5]), ([6], [7]), ([8, 9], [10])):
        logits = []
        for caches in (dual, apart):
            model(mx.array([read]), cache=[cache.source for cache in caches])
            views = [cache.target for cache in dual] if caches is dual else apart
            logits.append(model(mx.array([written]), cache=views))
            for view in views:
                view.trim(1)
        assert mx.allclose(*logits, atol=1e-5)


def test_rows_of_start_up_are_medians_of_rounds_but_the_first(script: Any):
    bench, times = script("bench_start"), iter([(9.0, 9.0), (1.0, 0.1), (3.0, 0.5), (2.0, 0.2)])
    (row,) = bench.rows(bench.in_turn({"import": lambda: next(times)}, rounds=3))
    assert row == {"what": "import", "wall_s": 2.0, "cpu_s": statistics.median([0.1, 0.5, 0.2])}


@pytest.mark.long
def test_stages_of_a_run_add_up(script: Any):
    stages = script("bench_start").measure_stages(["tracker=none", "dataset.limit=2"])
    assert next(iter(stages)) == "interpreter"
    assert {"mlx", "transformers", "hydra", "loading the model", "first word", "scoring"} < set(stages)
    *parts, whole = stages.values()
    for i in range(2):
        assert sum(part[i] for part in parts) == pytest.approx(whole[i])
    assert all(wall >= 0 for wall, _ in parts)


def test_plain_pytorch_loop_computes_the_same(script: Any):
    torch = pytest.importorskip("torch", reason="pip install -e '.[torch]'")
    bench = script("bench_pytorch")
    model = bench.random_model(2, 64)
    with torch.inference_mode():
        found = bench.difference(bench.GroupMemory(model, 0), bench.TorchLoop(bench.in_torch(model)), 8192)
    assert found < 1e-5


@pytest.mark.long
def test_forwards_are_counted_of_sentences_that_come_out_the_same(script: Any):
    """And a loop that forgets its look-ahead needs more of them, one that reads and writes at once fewer."""
    bench = script("bench_forwards")
    dataset = bench.load_dataset(None, 5)
    model = bench.ModelConfig("bundled:tiny-en-de").load()
    forgetful, session, one, many = bench.compare_schemes(model, dataset.load(), 5, 4)
    assert [row["different"] for row in (forgetful, session, one, many)] == [0] * 4
    passes = [row["per_target_token"] for row in (forgetful, session, one, many)]
    assert passes == sorted(passes, reverse=True) and len(set(passes)) == 4
    assert one["tokens_per_target_token"] == pytest.approx(session["tokens_per_target_token"])


@pytest.mark.long
def test_reads_after_the_end_of_a_target_are_counted_with_the_prediction_after_each(script: Any):
    bench = script("bench_forwards")
    dataset = bench.load_dataset(None, 6)
    documents = [*bench.joined(dataset.load(), 6, "joined", "word", "word")]
    usual = bench.sessions.ENDED_READS
    at_once, waiting = bench.compare_ends(bench.ModelConfig("bundled:tiny-en-de").load(), documents, 3)
    assert at_once["reads"] == waiting["reads"] > 40
    assert at_once["per_read"] >= 2 > 1.2 >= waiting["per_read"]
    assert waiting["different"] == 0
    assert usual == bench.sessions.ENDED_READS


def test_designs_of_reading_and_writing_are_put_back(script: Any):
    bench = script("bench_forwards")
    usual = bench.pool.LONG_READ, bench.pool.AVERAGE_READ
    model = bench.ModelConfig("bundled:tiny-en-de").load()
    rows = bench.compare_designs(model, bench.load_dataset(None, 3).load(), 3, 2, rounds=1)
    own, short, together, everything = (row["forward_passes"] for row in rows)
    assert own > short == everything >= together
    assert usual == (bench.pool.LONG_READ, bench.pool.AVERAGE_READ)


def test_every_way_to_take_a_step_learns_the_same(script: Any, tmp_path: Path):
    bench = script("bench_train")
    model = fresh(tmp_path / "model")
    data = TrainingData(PAIRS, model.prompt, DataConfig(batch_tokens=120), seed=0)
    trainer = bench.Trainer(model.model, data, [], bench.TrainingConfig(dropout=0.0), tmp_path)
    work = data.epoch(0)[:2]
    before, weights = dict(tree_flatten(model.model.parameters())), trainer.masters.weights
    untrained = tree_map(lambda leaf: leaf, trainer.optimizer.state)

    def steps() -> list[tuple[float, float]]:
        """Losses and gradients of two steps; what they learn is forgotten."""
        found = [trainer.train_step([one]) for one in work]
        trainer.masters.set(weights)
        trainer.optimizer.state = tree_map(lambda leaf: leaf, untrained)
        return found

    expected = steps()
    ways = bench.ways_of(trainer)
    if shutil.which("g++") is None:  # MLX compiles with it on a CPU
        del ways["all by MLX, `mx.compile`"]
    for name, way in ways.items():
        with way():
            wall, cpu = bench.take(trainer, work)
            after = dict(tree_flatten(model.model.parameters()))
            assert all(mx.array_equal(after[weight], value) for weight, value in before.items()), name
            np.testing.assert_allclose(steps(), expected, rtol=1e-4, err_msg=name)
        assert wall > 0
        assert cpu > 0


def test_pairs_in_any_order_are_those_of_an_epoch(script: Any, tmp_path: Path):
    bench, model = script("bench_train"), fresh(tmp_path / "model")
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(3,), batch_tokens=60), seed=0)
    similar, mixed = data.epoch(0), bench.in_any_order(data)

    def rows(work: list[Any]) -> list[list[int]]:
        return sorted([*row[row > 0].tolist()] for batch, _ in work for row in batch.source)

    assert rows(similar) == rows(mixed)
    assert sum(labels for _, labels in similar) == sum(labels for _, labels in mixed)
    assert all(batch.tokens <= 60 or len(batch.k) == 1 for batch, _ in mixed)
    (row,) = bench.padding({"mixed": mixed}, 60)
    assert row["padding"] == sum(batch.padding for batch, _ in mixed) / sum(batch.tokens for batch, _ in mixed)


@pytest.mark.skipif(mkl() is None, reason="no MKL, so that MLX computes a step")
def test_a_profile_has_every_part_of_a_step(script: Any, tmp_path: Path):
    bench, model = script("bench_train"), fresh(tmp_path / "model")
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(3,)), seed=0)
    trainer = bench.Trainer(model.model, data, [], bench.TrainingConfig(dropout=0.1), tmp_path)
    rows = {row["what"]: row for row in bench.profile(trainer, data.epoch(0), rounds=1)}
    assert rows.keys() == {*bench.TIMED, "optimizer", "all else", "the step"}
    assert sum(row["share"] for row in rows.values()) == pytest.approx(2)  # the parts, and the step


def test_a_ratio_is_the_median_of_its_rounds_within_its_interval(script: Any) -> None:
    ratio = script("bench_beside").ratio
    assert ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == (2.0, 2.0, 2.0)
    middle, low, high = ratio([1.0] * 5, [0.9, 1.0, 1.1, 1.2, 9.0])
    assert middle == pytest.approx(1.1)
    assert low < middle < high


def test_samples_of_a_process_are_grouped_by_operation_and_thread(script: Any) -> None:
    bench = script("bench_profile")
    printed = """
    7/7      7f00 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)
    7/8      7f01 mkl_blas_avx512_sgemm_kernel_0_b0 (/venv/lib/libmkl_avx512.so.3)
    7/8      7f02 mkl_blas_avx512_sgemm_scopy_right48_ea (/venv/lib/libmkl_avx512.so.3)
    7/8      7f03 mkl_blas_avx512_sgemm_kernel_nocopy_tn_b0 (/venv/lib/libmkl_avx512.so.3)
    7/8      7f04 void mlx::core::scatter<float, long, mlx::core::None>(mlx::core::array const&) (/venv/lib/libmlx.so)
    7/9      7f05 _PyObject_Malloc (/usr/lib/libpython3.11.so.1.0)
    7/9      7f06 simd_exp_FLOAT (/venv/lib/_multiarray_umath.cpython-311-x86_64-linux-gnu.so)
    """
    whole = bench.by_operation(bench.parse_samples(printed))
    assert whole == {
        ("Python", "main"): 1,
        ("matrix products", "mlx"): 2,
        ("packing for products", "mlx"): 1,
        ("writing keys and values (scatter)", "mlx"): 1,
        ("Python", "python"): 1,
        ("softmax and sigmoid, by numpy", "python"): 1,
    }
    start = bench.by_operation(bench.parse_samples(printed.strip().splitlines()[0]))
    *rows, every = bench.operations(whole, start)
    shares = {row["what"]: row["share"] for row in rows if row["share"]}
    assert shares["matrix products"] == pytest.approx(2 / 6)
    assert shares["Python"] == pytest.approx(1 / 6)
    assert every["share"] == pytest.approx(1)
    assert every["main"] == 0


def test_what_is_built_in_is_charged_to_the_file_that_calls_it(script: Any) -> None:
    bench = script("bench_profile")
    profiler = bench.cProfile.Profile()
    profiler.runcall(bench.markdown, [{"n": i} for i in range(50)], {"n": ("n", "d")})
    rows = bench.by_file(bench.pstats.Stats(profiler), 2)
    (row,) = [row for row in rows if row["file"].endswith("benchmark.py`")]
    assert row["share"] == pytest.approx(1)
    assert row["ms"] > 0


def test_sides_take_turns_and_those_who_have_no_batches_only_one_by_one(script: Any) -> None:
    bench = script("bench_peers")
    full, other = "streamllm full", bench.SIMULEVAL
    turns = bench.turns([full, other], [1, 32], 1000, 100)
    assert turns == {(full, 1): 100, (other, 1): 100, (full, 32): 1000}


def test_a_peer_is_compared_in_cpu_time_with_the_base_of_its_batch_size(script: Any) -> None:
    bench = script("bench_peers")
    found = {
        (bench.BASE, 32): bench.Times(10, wall=[1.0], cpu=[0.5], written=[[1], [2]]),
        ("streamllm full", 32): bench.Times(20, wall=[4.0, 2.0, 3.0], cpu=[3.0, 2.0, 9.0]),
        (bench.MLX_LM, 1): bench.Times(2, wall=[1.0], cpu=[1.0], written=[[1], [3]]),
    }
    base, full, alone = bench.rows(found)
    assert base["ratio"] == 1
    assert full["cpu_ms"] == pytest.approx(150)
    assert full["sentences_per_second"] == pytest.approx(20 / 3)
    assert full["ratio"] == pytest.approx(3)
    assert "ratio" not in alone
    (said,) = bench.agreements(found)
    assert said == f"{bench.BASE} writes the same as {bench.MLX_LM} in 1 of 2 sentences."


@pytest.mark.parametrize("wrong", ["--few=0", "--few=100", "--batch-sizes=0", "--rounds=0", "--sides=nobody"])
def test_what_cannot_be_measured_beside_peers_is_refused(script: Any, wrong: str) -> None:
    with pytest.raises(SystemExit):
        script("bench_peers").parse([wrong])


def test_peers_get_the_prompts_that_full_has_fed_and_its_number_of_tokens(script: Any) -> None:
    bench = script("bench_peers")
    read = [{"kind": "read", "text": word} for word in ("A", "dog.")]
    stats = {"source_tokens": 6, "target_tokens": 3}
    line = {
        "source": "A dog.",
        "reference": "Ein Hund.",
        "events": [*read, {"kind": "end", "text": ""}],
        "stats": stats,
    }
    work = bench.work_of([line])
    (prompt,) = work.prompts
    assert prompt[: len(work.source_header)] == work.source_header
    assert prompt[-2:] == [*work.source_footer, *work.target_header]
    assert work.lengths == [4]
    assert work.first(0).prompts == []


def test_a_head_that_is_asked_before_each_write_costs_no_forward(script: Any, tmp_path: Path):
    bench = script("bench_head")
    model = fresh(tmp_path / "model")
    model.write_head = bench.head_of(model)
    never, writes, decisions = bench.compare(model, PAIRS[:3], 2, 1, 2)
    assert writes["forward_passes"] == never["forward_passes"] < decisions["forward_passes"]
    assert {"ratio", "low", "high"} <= set(writes) - set(never)
