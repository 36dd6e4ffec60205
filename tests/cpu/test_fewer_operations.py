"""Rotary positions and norms of few operations are MLX's own, bit for bit, and a forward takes fewer of them."""

import io
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from tiny import random_model

from streamllm.cpu.enabled import enabled
from streamllm.cpu.fewer_operations import fewer_operations
from streamllm.engine.paradigms.group import GroupMemory

pytestmark = pytest.mark.skipif(not enabled(), reason="STREAMLLM_CPU=plain leaves this off")
on_cpu = pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="a GPU has a kernel for each")


def same(compute: Callable[[], mx.array]) -> bool:
    """Whether ``compute`` gives what it gives without `fewer_operations`, at once and again."""
    expected = compute()
    with fewer_operations():
        return all(mx.array_equal(compute(), expected).item() for _ in range(2))


@pytest.mark.parametrize("width", [8, 40, 128])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 1), (1, 2), (3, 33)])
@pytest.mark.parametrize("offset", [0, 1234, [3, 11, 700]])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_rotations_are_those_of_mlx(width: int, batch: int, length: int, offset: Any, scale: float) -> None:
    x = mx.random.normal((batch, 2, length, width))
    start = mx.array(offset[:batch]) if isinstance(offset, list) else offset
    freqs = mx.random.uniform(1, 1000, (width // 2,))
    for settings in ({"base": 1e6}, {"base": 1e4}, {"base": None, "freqs": freqs}):
        assert same(lambda s=settings: mx.fast.rope(x, width, traditional=False, scale=scale, offset=start, **s))


@pytest.mark.parametrize("unusual", [{"dims": 4}, {"traditional": True}, {"dtype": mx.bfloat16}])
def test_unusual_rotations_are_left_to_mlx(unusual: dict[str, Any]) -> None:
    x = mx.random.normal((1, 2, 3, 8)).astype(unusual.get("dtype", mx.float32))
    dims, traditional = unusual.get("dims", 8), unusual.get("traditional", False)
    assert same(lambda: mx.fast.rope(x, dims, traditional=traditional, base=1e4, scale=1.0, offset=5))


def test_two_offsets_in_one_forward_are_told_apart() -> None:
    x = mx.random.normal((2, 2, 1, 8))

    def both() -> mx.array:
        settings: Any = {"traditional": False, "base": 1e4, "scale": 1.0}
        return mx.stack([mx.fast.rope(x, 8, offset=offset, **settings) for offset in (3, mx.array([4, 9]), 5)])

    assert same(both)


@pytest.mark.parametrize("shape", [(1, 1, 160), (1, 1, 1024), (1, 1, 1), (1, 1, 14, 64), (1, 3, 160), (4, 1, 160)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_norms_are_those_of_mlx(shape: tuple[int, ...], scale: float) -> None:
    whole, weight = mx.random.normal((*shape[:-1], 2 * shape[-1])) * scale, mx.random.normal((shape[-1],))
    for x in (mx.contiguous(whole[..., : shape[-1]]), whole[..., ::2]):
        assert same(lambda x=x: mx.fast.rms_norm(x, weight, 1e-6))
        assert same(lambda x=x: mx.fast.rms_norm(x, None, 1e-5))
        assert same(lambda x=x: mx.fast.rms_norm(x.astype(mx.bfloat16), weight.astype(mx.bfloat16), 1e-5))


@on_cpu
def test_a_written_token_takes_fewer_operations() -> None:
    model = random_model(0, 32)
    ours, plain = begun(model), begun(model)
    views: list[Any] = [cache.target for cache in plain.caches]
    assert operations(ours.write([6])) < 0.65 * operations(model(mx.array([[6]]), cache=views))


def begun(model: Any) -> GroupMemory:
    memory = GroupMemory(model, 0)
    memory.read([5, 6, 7])
    mx.eval(memory.write([5]))
    return memory


def operations(output: mx.array) -> int:
    graph = io.StringIO()
    mx.export_to_dot(graph, output)
    return graph.getvalue().count("shape=rectangle")


@on_cpu
def test_mlx_is_as_before_after_a_forward_that_fails() -> None:
    rope, norm = mx.fast.rope, mx.fast.rms_norm
    with pytest.raises(ZeroDivisionError), fewer_operations():
        1 // (mx.fast.rope is rope)
    assert mx.fast.rope is rope
    assert mx.fast.rms_norm is norm
