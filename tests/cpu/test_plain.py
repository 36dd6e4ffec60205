"""STREAMLLM_CPU=plain leaves off all that makes MLX fast on a CPU: the BLAS, the stand-ins, numpy's exponentials."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from conftest import ROOT

from streamllm.cpu import exponentials
from streamllm.engine.forward import forward
from streamllm.engine.paradigms.group import GroupMemory

PARTS = ("rope", "rms_norm", "scaled_dot_product_attention")  # of mx.fast, for which others stand in
ORIGINALS = [getattr(mx.fast, name) for name in PARTS]


def python(code: str, chosen: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MKL_", "OMP_", "OPENBLAS_"))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=clean | {"STREAMLLM_CPU": chosen}, cwd=ROOT, capture_output=True, text=True)


class Noting:
    """A model that notes what it finds in mx.fast when it is called."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.found: list[Any] = []

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        self.found = [getattr(mx.fast, name) for name in PARTS]
        return mx.zeros((*tokens.shape, 2))


def test_plain_loads_no_blas_and_sets_nothing_for_one() -> None:
    code = "import os, streamllm; print(streamllm.BLAS, 'MKL_THREADING_LAYER' in os.environ)"
    if Path("/proc/self/maps").exists():
        code += "; import mlx.core; print('mkl' in open('/proc/self/maps').read())"
    done = python(code, "plain")
    assert set(done.stdout.split()) == {"None", "False"}, done.stderr


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="on a GPU nothing stands in for MLX")
@pytest.mark.parametrize("chosen", ["plain", "fast"])
def test_plain_leaves_mlx_as_it_is_for_a_forward(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLLM_CPU", chosen)
    model = Noting()
    forward(model, mx.array([[1]]), [], least=0)
    assert [found is original for found, original in zip(model.found, ORIGINALS, strict=True)] == [
        chosen == "plain"
    ] * 3


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="on a GPU numpy takes over nothing")
@pytest.mark.parametrize("chosen", ["plain", "fast"])
def test_plain_leaves_the_exponentials_of_training_to_mlx(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLLM_CPU", chosen)
    assert exponentials.on_cpu(mx.zeros(1)) == (chosen == "fast")


def test_plain_gives_the_logits_of_fast(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def logits() -> np.ndarray:
        memory = GroupMemory(tiny.random_model(1, len(tokenizer)))
        memory.read([5, 6, 7])
        return np.array([memory.write([8, 9]).tolist(), memory.write([10]).tolist()])

    fast = logits()
    monkeypatch.setenv("STREAMLLM_CPU", "plain")
    np.testing.assert_allclose(logits(), fast, atol=1e-4)


@pytest.mark.parametrize("program", ["import streamllm", "import runpy; runpy.run_path('run.py', run_name='__main__')"])
def test_another_choice_is_one_error_that_says_what_is_accepted(program: str) -> None:
    done = python(program, "x")
    assert done.returncode != 0
    assert done.stderr.count("STREAMLLM_CPU is 'x'; accepted are fast and plain") == 1
    assert done.stderr.rstrip().splitlines()[-1].endswith("(plain: correct, only slower)")
