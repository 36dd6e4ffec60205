"""Products of numpy arrays by the faster of MKL and numpy's own BLAS, and many small ones in one call, which only MKL
offers. Only where `streamllm.cpu.blas` has loaded MKL."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamllm.cpu.blas import loaded, numpys_is_faster

Floats = np.ndarray[Any, np.dtype[np.float32]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]

NUMPYS = numpys_is_faster() and "openblas" in np.__config__.CONFIG["Build Dependencies"]["blas"].get("name", "")
"""Whether numpy's own BLAS multiplies."""

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112
_INT, _POINTER, _FLOAT = ctypes.c_int, ctypes.c_void_p, ctypes.c_float


@cache
def library() -> Any:
    """MKL's functions with their types; None where MKL is not what computes here."""
    path = loaded()
    if path is None or not Path(path).name.startswith("libmkl"):
        return None
    found: Any = ctypes.CDLL(path)
    found.cblas_sgemm.argtypes = [*[_INT] * 6, _FLOAT, _POINTER, _INT, _POINTER, _INT, _FLOAT, _POINTER, _INT]
    found.cblas_sgemm_batch.argtypes = [_INT, *[_POINTER] * 13, _INT, _POINTER]
    found.cblas_sgemm.restype = found.cblas_sgemm_batch.restype = None
    return found


def product(a: Floats, b: Floats, out: Floats) -> Floats:
    """``out`` (M, N) from ``a`` (M, K) and ``b`` (K, N); each of these may be the transpose of an array."""
    return np.matmul(a, b, out=out) if NUMPYS else _by_mkl(a, b, out)


def _by_mkl(a: Floats, b: Floats, out: Floats) -> Floats:
    (rows, inner), columns = a.shape, b.shape[1]
    (turned_a, lda), (turned_b, ldb) = _side(a), _side(b)
    at, by, to = a.ctypes.data, b.ctypes.data, out.ctypes.data
    ldc = max(out.strides[0] // 4, columns)
    sgemm = library().cblas_sgemm
    sgemm(ROW_MAJOR, turned_a, turned_b, rows, columns, inner, 1.0, at, lda, by, ldb, 0.0, to, ldc)
    return out


def _side(x: Floats) -> tuple[int, int]:
    """Whether it lies transposed, and how far its rows (or columns) are apart."""
    if x.strides[1] == 4:
        return PLAIN, max(x.strides[0] // 4, x.shape[1])
    return TRANSPOSED, max(x.strides[1] // 4, x.shape[0])


NUMPYS_ROWS = 64
"""Rows from which numpy's products with a matrix that lies transposed are faster than MKL's, where they are at all."""


class Weight:
    """What activations (M, K) are multiplied by: one matrix, or several whose products stand side by side.

    Args:
        parts: each (N, K), as in ``nn.Linear``.
        copies: lays all parts into one matrix, which is faster and takes their memory once more.
    """

    def __init__(self, parts: list[Floats], copies: bool):
        self.width = sum(len(part) for part in parts)
        self._copied = copies
        joined = [np.ascontiguousarray(np.concatenate(parts).T)] if copies else []
        self._parts = joined or [np.ascontiguousarray(part).T for part in parts]  # (K, N) each

    def product(self, x: Floats, out: Floats) -> Floats:
        """``out`` (M, all N), from ``x`` (M, K)."""
        multiply = product if self._copied or len(x) >= NUMPYS_ROWS else _by_mkl
        end = 0
        for part in self._parts:
            start, end = end, end + part.shape[1]
            multiply(x, part, out[:, start:end])
        return out


class Sizes(NamedTuple):
    """Of products C = A · B, group after group: what all of a group have in common. (groups,) each: rows of A,
    columns of B, columns of A; the strides of rows in A, B and C; and how many products there are."""

    m: Numbers
    n: Numbers
    k: Numbers
    lda: Numbers
    ldb: Numbers
    ldc: Numbers
    many: Numbers


class Batch:
    """Many small products of float32, of different sizes, in one call.

    Args:
        transposed: whether B is given by its rows.
        scale: what all are multiplied by.
        added: whether they are added to what is there, those of each group; None adds none.
        a_transposed: whether A is given by its columns.
    """

    def __init__(
        self, sizes: Sizes, transposed: bool, scale: float = 1.0, added: Any = None, a_transposed: bool = False
    ):
        groups = len(sizes.m)
        self._kept = [
            np.full(groups, TRANSPOSED if a_transposed else PLAIN, np.int32),
            np.full(groups, TRANSPOSED if transposed else PLAIN, np.int32),
            np.full(groups, scale, np.float32),
            np.zeros(groups, np.float32) if added is None else np.ascontiguousarray(added, np.float32),
            *(np.ascontiguousarray(size, np.int32) for size in sizes),
        ]
        plain, turned, alpha, beta, m, n, k, lda, ldb, ldc, count = (array.ctypes.data for array in self._kept)
        self._before = (ROW_MAJOR, plain, turned, m, n, k, alpha)
        self._lda, self._ldb, self._after = lda, (ldb, beta), (ldc, groups, count)
        self._call = library().cblas_sgemm_batch

    def __call__(self, a: Numbers, b: Numbers, c: Numbers) -> None:
        """Addresses of the first numbers of each A, B and C, in the order of the groups."""
        call, lda, (ldb, beta), (ldc, groups, count) = self._call, self._lda, self._ldb, self._after
        call(*self._before, a.ctypes.data, lda, b.ctypes.data, ldb, beta, c.ctypes.data, ldc, groups, count)
