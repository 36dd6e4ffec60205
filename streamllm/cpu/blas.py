"""Loads a fast BLAS into the process before mlx (Linux only).

The Linux wheel of MLX computes with a reference BLAS. A library that exports an unprefixed
``cblas_sgemm`` and is loaded globally *before* ``mlx.core`` takes its place. Elsewhere this is a no-op.
"""

import ctypes
import ctypes.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from streamllm.cpu.enabled import enabled

log = logging.getLogger(__name__)


def load(threads: int | None = None) -> str | None:
    """Load MKL, else OpenBLAS, globally; return the name of the library, or None if there is none.

    ``threads`` defaults to ``$STREAMLLM_THREADS``, else 1: a step waits for its slowest thread, so two
    threads on a machine with one busy core are ten times slower than one; set it where cores are idle.
    """
    if sys.platform != "linux" or not enabled():
        return None
    if "mlx.core" in sys.modules:
        log.warning("mlx was imported before streamllm and computes with its slow BLAS: import streamllm first")
        return None
    threads = threads or _threads()
    os.environ.setdefault("MKL_THREADING_LAYER", "SEQUENTIAL" if threads == 1 else "INTEL")
    for variable in ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
    for candidate in _candidates():
        try:
            if hasattr(ctypes.CDLL(candidate, ctypes.RTLD_GLOBAL), "cblas_sgemm"):
                return Path(candidate).name
        except OSError as error:
            log.warning("cannot load %s: %s", candidate, error)
    log.warning("no fast BLAS found, products run about 20 times slower: pip install mkl (or libopenblas)")
    return None


def _candidates() -> Iterator[str]:
    yield from map(str, sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*")))
    if name := ctypes.util.find_library("openblas"):  # slow: asks other programs
        yield name


def _threads() -> int:
    value = os.environ.get("STREAMLLM_THREADS", "1")
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"STREAMLLM_THREADS is {value!r}; it is a number of threads, at least 1")
    return int(value)
