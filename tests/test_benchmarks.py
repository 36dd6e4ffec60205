"""The benchmarks compare like with like, and their tables can be pasted."""

import importlib
import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import pytest
from conftest import ROOT

from streamllm.cache import DualStreamingCache


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


@pytest.mark.slow
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


def test_designs_of_reading_and_writing_are_put_back(script: Any):
    bench = script("bench_forwards")
    usual = bench.batch.SHORT, bench.batch.FEW, bench.batch.logits_at
    model = bench.ModelConfig("bundled:tiny-en-de").load()
    rows = bench.compare_designs(model, bench.load_dataset(None, 3).load(), 3, 2, rounds=1)
    own, short, together, everything = (row["forward_passes"] for row in rows)
    assert own > short == everything >= together
    assert (bench.batch.SHORT, bench.batch.FEW, bench.batch.logits_at) == usual
