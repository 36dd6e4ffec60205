"""Products are those of numpy, whichever library computes them."""

import numpy as np
import pytest

from streamllm.cpu import mkl
from streamllm.cpu.mkl import NUMPYS_ROWS, Floats, Packed, Weight, library, product

pytestmark = pytest.mark.skipif(library() is None, reason="MKL is not what computes here")


@pytest.fixture(params=[True, False], ids=["numpy", "MKL"])
def numpys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mkl, "NUMPYS", request.param)


def numbers(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("rows", [1, 3, NUMPYS_ROWS])
def test_products_of_weights_stand_side_by_side(numpys: None, copies: bool, rows: int) -> None:
    parts, x = [numbers(5, 16), numbers(7, 16)], numbers(rows, 16)
    out = np.full((rows, 12), np.nan, np.float32)
    assert Weight(parts, copies).product(x, out) is out
    np.testing.assert_allclose(out, np.concatenate([x @ part.T for part in parts], axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
def test_either_side_may_lie_transposed(numpys: None, turned: str) -> None:
    a = numbers(8, 3).T if "a" in turned else numbers(3, 8)
    b = numbers(5, 8).T if "b" in turned else numbers(8, 5)
    out = product(a, b, np.empty((3, 5), np.float32))
    np.testing.assert_allclose(out, np.einsum("ij,jk->ik", a, b), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not mkl.packs(), reason="no matrix is packed here")
@pytest.mark.parametrize("rows", [1, 2, 7, 33, 130])
@pytest.mark.parametrize("columns", [320, 481])
def test_a_packed_matrix_gives_the_very_same_products(rows: int, columns: int) -> None:
    matrix, x = numbers(80, columns), numbers(rows, 80)
    plain, out = (np.empty((rows, columns), np.float32) for _ in range(2))
    assert (Packed(matrix).product(x, out) == mkl._by_mkl(x, matrix, plain)).all()


@pytest.mark.skipif(not mkl.packs(), reason="no matrix is packed here")
def test_products_of_packed_weights_stand_side_by_side() -> None:
    parts, x = [numbers(160, 16), numbers(200, 16)], numbers(5, 16)
    out = np.full((5, 360), np.nan, np.float32)
    Weight(parts, copies=True).product(x, out)
    np.testing.assert_allclose(out, np.concatenate([x @ part.T for part in parts], axis=1), rtol=1e-4, atol=1e-5)
