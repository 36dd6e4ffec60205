"""A fast BLAS takes the place of mlx's before mlx is loaded; where there is none, one line says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamllm.cpu import blas

GFLOPS = """
import time
{first}
import mlx.core as mx
a = mx.random.normal((512, 512)); mx.eval(a)
mx.eval(a @ a)
start = time.process_time()
for _ in range(5): mx.eval(a @ a)
print(5 * 2 * 512**3 / (time.process_time() - start) / 1e9)
"""


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("MKL_", "OMP_", "OPENBLAS_", "STREAMLLM_CPU"))
    }
    return subprocess.run([sys.executable, "-c", code], env=inherited | env, capture_output=True, text=True)


linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere mlx brings a fast BLAS")


@linux
def test_products_are_several_times_faster() -> None:
    import streamllm

    if streamllm.BLAS is None:
        pytest.skip("no fast BLAS is installed")
    shipped = float(python(GFLOPS.format(first="")).stdout)
    loaded = float(python(GFLOPS.format(first="import streamllm")).stdout)
    assert loaded > 3 * shipped


@linux
def test_one_line_says_what_to_install() -> None:
    code = "import sys; sys.prefix = '/nowhere'\nimport ctypes.util\nctypes.util.find_library = lambda name: None\n"
    code += "import importlib.metadata\nimportlib.metadata.files = lambda name: None\n"
    done = python(code + "import streamllm; print(streamllm.BLAS)")
    assert done.stdout == "None\n"
    assert len(done.stderr.splitlines()) == 1
    assert "pip install mkl" in done.stderr


@linux
def test_one_line_says_that_mlx_came_first() -> None:
    done = python("import mlx.core\nimport streamllm")
    assert "import streamllm first" in done.stderr


@linux
def test_one_thread_unless_asked_for_more() -> None:
    show = "import os, streamllm; print(os.environ['MKL_NUM_THREADS'], os.environ['MKL_THREADING_LAYER'])"
    assert python(show).stdout.split() == ["1", "SEQUENTIAL"]
    assert python(show, STREAMLLM_THREADS="2").stdout.split() == ["2", "INTEL"]


@pytest.mark.parametrize(
    ("told", "vendor"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\n", "AuthenticAMD"),
        ("vendor_id : GenuineIntel\nflags: a b\n", "GenuineIntel"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", None),
    ],
)
def test_the_vendor_of_the_processor_is_read(told: str, vendor: str | None, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    assert blas.vendor(str(tmp_path / "cpuinfo")) == vendor


def test_a_system_that_tells_nothing_has_no_vendor(tmp_path: Path) -> None:
    assert blas.vendor(str(tmp_path / "cpuinfo")) is None


@linux
def test_numpy_that_came_first_has_its_own_threads_and_does_not_multiply() -> None:
    show = "from streamllm.cpu import blas; print(blas.numpys_is_faster())"
    foreign = blas.vendor() not in (None, "GenuineIntel")
    assert python(show).stdout.split() == [str(foreign)]
    assert python("import numpy\n" + show).stdout.split() == ["False"]


@linux
def test_a_wrong_number_of_threads_is_named() -> None:
    assert "STREAMLLM_THREADS is 'many'" in python("import streamllm", STREAMLLM_THREADS="many").stderr


@linux
def test_mkl_is_found_where_pip_has_put_it() -> None:
    import streamllm

    if streamllm.BLAS is None or "mkl" not in streamllm.BLAS:
        pytest.skip("MKL is not installed")
    assert "mkl" in python("import sys; sys.prefix = '/nowhere'\nimport streamllm; print(streamllm.BLAS)").stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("STREAMLLM_THREADS", "error: STREAMLLM_THREADS is 'x'; it is a number of threads, at least 1\n"),
        (
            "STREAMLLM_CPU",
            "error: STREAMLLM_CPU is 'x'; accepted are fast and plain (plain: correct, only slower)\n",
        ),
    ],
)
def test_a_wrong_environment_that_nobody_catches_is_one_line(name: str, message: str) -> None:
    done = python("import streamllm", **{name: "x"})
    assert (done.returncode, done.stderr) == (1, message)


def test_a_wrong_environment_can_be_caught_and_other_errors_show_their_stack() -> None:
    code = "try:\n import streamllm\nexcept ValueError:\n pass\nraise KeyError('another')"
    assert "Traceback" in python(code, STREAMLLM_THREADS="x").stderr
