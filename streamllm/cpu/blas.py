"""Loads a fast BLAS into the process before mlx (Linux only).

The Linux wheel of MLX computes with a reference BLAS. A library that exports an unprefixed
``cblas_sgemm`` and is loaded globally *before* ``mlx.core`` takes its place. Elsewhere this is a no-op.

MKL takes AVX-512 on Intel's processors alone. On others the OpenBLAS of numpy is faster, twice where they have
AVX-512.
"""

import ctypes
import ctypes.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamllm.cpu.enabled import enabled

log = logging.getLogger(__name__)
_loaded: list[str] = []
_numpys: list[bool] = []


def loaded() -> str | None:
    """The path of the library that `load` has loaded; None if there is none."""
    return _loaded[0] if _loaded else None


def numpys_is_faster() -> bool:
    """Whether numpy's own products are faster than those of what `load` has loaded."""
    return bool(_numpys)


def load_first() -> str | None:
    """As `load`, for the first import of the package: a wrong environment that nobody catches is one line, because
    no command could say it later."""
    try:
        return load()
    except ValueError as wrong:
        error, usual = wrong, sys.excepthook

        def in_one_line(kind: type[BaseException], value: BaseException, *rest: Any) -> None:
            if value is error:
                print(f"error: {value}", file=sys.stderr)
            else:
                usual(kind, value, *rest)

        sys.excepthook = in_one_line
        raise


def load(threads: int | None = None) -> str | None:
    """Load MKL, else OpenBLAS, globally; return the name of the library, or None if there is none.

    Raises: ValueError: ``$STREAMLLM_THREADS`` or ``$STREAMLLM_CPU`` is wrong.

    ``threads`` defaults to ``$STREAMLLM_THREADS``, else 1: a step waits for its slowest thread, so two
    threads on a machine with one busy core are ten times slower than one; set it where cores are idle.
    """
    threads = threads or _threads()
    if not enabled() or sys.platform != "linux":
        return None
    if "mlx.core" in sys.modules:
        log.warning("mlx was imported before streamllm and computes with its slow BLAS: import streamllm first")
        return None
    os.environ.setdefault("MKL_THREADING_LAYER", "SEQUENTIAL" if threads == 1 else "INTEL")
    for variable in ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
    # numpy's takes its number of threads when it is imported.
    _numpys[:] = [True] if "numpy" not in sys.modules and vendor() not in (None, "GenuineIntel") else []
    for candidate in _candidates():
        try:
            if hasattr(ctypes.CDLL(candidate, ctypes.RTLD_GLOBAL), "cblas_sgemm"):
                _loaded[:] = [candidate]
                return Path(candidate).name
        except OSError as error:
            log.warning("cannot load %s: %s", candidate, error)
    log.warning("no fast BLAS found, products run about 20 times slower: pip install mkl (or libopenblas)")
    return None


def vendor(path: str = "/proc/cpuinfo") -> str | None:
    """Of the processor, as x86 tells it; None where that is not told."""
    try:
        with open(path) as file:
            lines = file.read(1024).splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), None)


def _candidates() -> Iterator[str]:
    yield from sorted(map(str, Path(sys.prefix, "lib").glob("libmkl_rt.so*"))) or _of_the_distribution()
    if name := ctypes.util.find_library("openblas"):  # slow: asks other programs
        yield name


def _of_the_distribution() -> list[str]:
    """MKL where pip has put it outside of ``sys.prefix``: of a user, or of the interpreter that an environment is
    made from."""
    import importlib.metadata  # takes a third of the import of the package

    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return sorted(str(Path(str(file.locate())).resolve()) for file in files if file.name.startswith("libmkl_rt.so"))


def _threads() -> int:
    value = os.environ.get("STREAMLLM_THREADS", "1")
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"STREAMLLM_THREADS is {value!r}; it is a number of threads, at least 1")
    return int(value)
