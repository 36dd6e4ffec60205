"""Products of numpy arrays by the faster of MKL and numpy's own BLAS, and many small ones in one call, which only MKL
offers. Only where `streamllm.cpu.blas` has loaded MKL."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamllm.cpu import pages
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
    found.cblas_sgemm_pack_get_size.argtypes = [_INT] * 4
    found.cblas_sgemm_pack_get_size.restype = ctypes.c_size_t
    found.cblas_sgemm_pack.argtypes = [*[_INT] * 6, _FLOAT, _POINTER, _INT, _POINTER]
    found.cblas_sgemm_compute.argtypes = [*[_INT] * 6, _POINTER, _INT, _POINTER, _INT, _FLOAT, _POINTER, _INT]
    found.cblas_sgemm.restype = found.cblas_sgemm_batch.restype = None
    found.cblas_sgemm_pack.restype = found.cblas_sgemm_compute.restype = None
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


PACKED_COLUMNS = 320
"""Columns from which a matrix is packed: of narrow ones, padding takes several times their memory."""

_B, _PACKED = 162, 151


class Packed:
    """A matrix (K, N) as MKL's kernels read it. Else each product packs it anew, which takes a tenth of its time. The
    products are the same bit for bit."""

    def __init__(self, matrix: Floats):
        inner, columns = matrix.shape
        # Much more than is written to; pages of the rest are never taken.
        self._room = pages.zeros(-(-library().cblas_sgemm_pack_get_size(_B, 1, columns, inner) // 4))
        self._at = self._room.ctypes.data
        self.shape = inner, columns
        start = matrix.ctypes.data
        library().cblas_sgemm_pack(ROW_MAJOR, _B, PLAIN, 1, columns, inner, 1.0, start, columns, self._at)

    def product(self, x: Floats, out: Floats) -> Floats:
        """``out`` (M, N) from ``x`` (M, K), which both have rows that lie in one piece."""
        inner, columns = self.shape
        at, lda = x.ctypes.data, max(x.strides[0] // 4, inner)
        to, ldc = out.ctypes.data, max(out.strides[0] // 4, columns)
        compute = library().cblas_sgemm_compute
        compute(ROW_MAJOR, PLAIN, _PACKED, len(x), columns, inner, at, lda, self._at, columns, 0.0, to, ldc)
        return out


def packs() -> bool:
    """Whether matrices are packed: by MKL, in one thread, which is how it was tried."""
    return not NUMPYS and library() is not None and library().MKL_Get_Max_Threads() == 1


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
        self._packed = Packed(*joined) if copies and self.width >= PACKED_COLUMNS and packs() else None
        if self._packed is not None:
            return
        self._parts = joined or [np.ascontiguousarray(part).T for part in parts]  # (K, N) each

    def product(self, x: Floats, out: Floats) -> Floats:
        """``out`` (M, all N), from ``x`` (M, K)."""
        if self._packed is not None:
            return self._packed.product(x, out)
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
