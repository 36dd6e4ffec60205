"""DualStreamingCache: the seed's API, both views, and equality with a cache that simply concatenates."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mlx_lm.models.cache import (
    can_trim_prompt_cache,
    load_prompt_cache,
    save_prompt_cache,
    trim_prompt_cache,
)

from streamllm.cache.dual import DualStreamingCache

QUICK = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def tokens(
    n: int, seed: int = 0, batch: int = 1, heads: int = 2, widths: tuple[int, int] = (4, 3)
) -> tuple[mx.array, mx.array]:
    """Keys and values of n tokens."""
    draw = np.random.default_rng(seed)
    keys, values = (mx.array(draw.normal(size=(batch, heads, n, width)), mx.float32) for width in widths)
    return keys, values


def values_of(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))


def equal(got: tuple[Any, Any], *parts: tuple[mx.array, mx.array]) -> bool:
    """Whether keys and values are those of the parts, one after the other."""
    return all(
        np.array_equal(values_of(array), np.concatenate([values_of(part[i]) for part in parts], axis=2))
        for i, array in enumerate(got)
    )


def address(array: mx.array | None) -> int:
    """Where in memory the array begins."""
    assert array is not None
    mx.eval(array)
    return int(np.array(array, copy=False).__array_interface__["data"][0])


# The seed's API


def test_an_update_returns_the_whole_stream_at_its_exact_length() -> None:
    cache, first, second = DualStreamingCache(), tokens(3, 1), tokens(2, 2)
    cache.update_source(*first)
    got = cache.update_source(*second)
    assert got[0].shape == (1, 2, 5, 4) and got[1].shape == (1, 2, 5, 3)
    assert equal(got, first, second)


def test_the_streams_are_kept_apart() -> None:
    cache, source, target = DualStreamingCache(), tokens(3, 1), tokens(2, 2)
    cache.update_source(*source)
    assert equal(cache.update_target(*target), target)
    assert equal(cache.get_source(), source)
    assert equal(cache.get_target(), target)


def test_a_read_after_a_write_leaves_the_target_as_it_was() -> None:
    cache, first, target, second = DualStreamingCache(), tokens(3, 1), tokens(2, 2), tokens(4, 3)
    cache.update_source(*first)
    cache.update_target(*target)
    assert equal(cache.update_source(*second), first, second)
    assert equal(cache.get_target(), target)


def test_offsets_count_the_tokens_of_each_stream_and_of_both() -> None:
    cache = DualStreamingCache()
    cache.update_source(*tokens(3))
    cache.update_target(*tokens(2))
    assert (cache.source_offset, cache.target_offset, cache.offset) == (3, 2, 5)


def test_empty_streams_are_none() -> None:
    cache = DualStreamingCache()
    assert cache.get_source() == (None, None)
    assert cache.get_target() == (None, None)
    assert cache.empty() and cache.offset == 0 and cache.nbytes == 0


def test_merged_is_source_then_target() -> None:
    cache, source, target = DualStreamingCache(), tokens(3, 1), tokens(2, 2)
    cache.update_target(*target)
    cache.update_source(*source)
    cache.merge_source_target()
    assert cache.is_merged
    assert equal(cache.get_merged(), source, target)


def test_after_a_reset_the_target_sees_all_that_is_read() -> None:
    """What limited it was of the batch before."""
    cache = DualStreamingCache()
    cache.update_source(*tokens(3))
    cache.target.visible = mx.zeros((1, 2, 3), mx.bool_)
    cache.reset()
    cache.update_source(*tokens(2))
    assert cache.target.visible is None
    assert cache.target.make_mask(2) == "causal"


def test_merging_an_empty_cache_gives_none() -> None:
    cache = DualStreamingCache()
    cache.merge_source_target()
    assert cache.get_merged() == (None, None)


def test_merging_twice_is_merging_once() -> None:
    cache, source = DualStreamingCache(), tokens(3)
    cache.update_source(*source)
    cache.merge_source_target()
    cache.merge_source_target()
    assert equal(cache.get_merged(), source)
    cache.separate_source_target()
    assert not cache.is_merged


def test_separating_twice_is_separating_once() -> None:
    cache, source = DualStreamingCache(), tokens(3)
    cache.separate_source_target()
    cache.update_source(*source)
    cache.separate_source_target()
    assert equal(cache.get_source(), source)


@pytest.mark.parametrize("stream", ["source", "target"])
def test_an_update_while_merged_says_to_separate(stream: str) -> None:
    cache = DualStreamingCache()
    cache.update_source(*tokens(3))
    cache.merge_source_target()
    with pytest.raises(RuntimeError, match=rf"update the {stream} .* call separate_source_target\(\)"):
        getattr(cache, f"update_{stream}")(*tokens(1))
    assert (cache.source_offset, cache.target_offset) == (3, 0)


@pytest.mark.parametrize("stream", ["source", "target"])
def test_a_trim_while_merged_says_to_separate(stream: str) -> None:
    cache = DualStreamingCache()
    cache.update_source(*tokens(3))
    cache.merge_source_target()
    with pytest.raises(RuntimeError, match=rf"trim the {stream} .* call separate_source_target\(\)"):
        getattr(cache, f"trim_{stream}")(1)


def test_get_merged_while_separate_says_to_merge() -> None:
    with pytest.raises(RuntimeError, match=r"call merge_source_target\(\)"):
        DualStreamingCache().get_merged()


def test_reset_target_keeps_the_source_and_separates() -> None:
    cache, source = DualStreamingCache(), tokens(3)
    cache.update_source(*source)
    cache.update_target(*tokens(2))
    cache.merge_source_target()
    cache.reset_target()
    assert not cache.is_merged
    assert cache.get_target() == (None, None)
    assert equal(cache.get_source(), source)


def test_reset_forgets_everything_but_target_start() -> None:
    cache = DualStreamingCache(target_start=7)
    cache.update_source(*tokens(3))
    cache.update_target(*tokens(2))
    cache.merge_source_target()
    cache.reset()
    assert (cache.offset, cache.is_merged, cache.get_source()) == (0, False, (None, None))
    assert cache.target.offset == 7
    other = tokens(2, batch=3, heads=1, widths=(5, 5))  # what it held binds it no more
    assert equal(cache.update_source(*other), other)


def test_repr_shows_both_offsets_and_whether_merged() -> None:
    cache = DualStreamingCache()
    cache.update_source(*tokens(3))
    cache.merge_source_target()
    assert repr(cache) == "DualStreamingCache(source_offset=3, target_offset=0, is_merged=True)"


def test_a_negative_target_start_is_refused() -> None:
    with pytest.raises(ValueError, match="target_start is -1"):
        DualStreamingCache(target_start=-1)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(tokens(2, batch=2), id="batch"),
        pytest.param(tokens(2, heads=1), id="heads"),
        pytest.param(tokens(2, widths=(5, 3)), id="key width"),
        pytest.param(tokens(2, widths=(4, 4)), id="value width"),
        pytest.param(tuple(x.astype(mx.float16) for x in tokens(2)), id="dtype"),
    ],
)
def test_an_update_that_does_not_fit_is_refused_and_changes_nothing(bad: tuple[mx.array, mx.array]) -> None:
    cache, source = DualStreamingCache(), tokens(3)
    cache.update_source(*source)
    for update in (cache.update_source, cache.update_target):
        with pytest.raises(ValueError, match=r"do not fit the cache.*reset\(\)"):
            update(*bad)
    assert cache.offset == 3 and equal(cache.get_source(), source)


def test_keys_and_values_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit together"):
        DualStreamingCache().update_source(tokens(2)[0], tokens(3)[1])


# Rolling back


def test_trim_returns_how_many_it_forgot() -> None:
    cache = DualStreamingCache()
    cache.update_source(*tokens(3))
    cache.update_target(*tokens(2))
    assert (cache.trim_target(1), cache.trim_target(5), cache.trim_target(1)) == (1, 1, 0)
    assert (cache.trim_source(0), cache.trim_source(2), cache.source_offset) == (0, 2, 1)


def test_trimming_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot trim -1 tokens"):
        DualStreamingCache().trim_target(-1)


def test_trimming_the_source_leaves_the_target_as_it_was() -> None:
    cache, source, target = DualStreamingCache(), tokens(3, 1), tokens(5, 2)
    cache.update_source(*source)
    cache.update_target(*target)
    cache.trim_source(2)
    assert equal(cache.get_target(), target)
    assert equal(cache.get_source(), (source[0][..., :1, :], source[1][..., :1, :]))


@pytest.mark.parametrize("step", [1, 2, 256])
def test_arrays_that_were_given_or_taken_never_change_afterwards(step: int) -> None:
    cache, given_ = DualStreamingCache(step=step), tokens(4, 1)
    held = [given_, cache.update_source(*given_), cache.state[:2], cache.get_source()]
    cache.trim_source(2)
    cache.update_source(*tokens(2, 9))
    cache.update_target(*tokens(2, 8))
    cache.trim_source(1)
    assert all(equal(pair, tokens(4, 1)) for pair in held)


# State


def filled(merged: bool = False) -> DualStreamingCache:
    cache = DualStreamingCache(target_start=5)
    cache.update_source(*tokens(3, 1))
    cache.update_target(*tokens(2, 2))
    if merged:
        cache.merge_source_target()
    return cache


CACHES: dict[str, Callable[[], DualStreamingCache]] = {
    "empty": DualStreamingCache,
    "separate": filled,
    "merged": lambda: filled(merged=True),
}


def same(one: DualStreamingCache, other: DualStreamingCache) -> bool:
    """Whether two caches behave the same."""
    pairs = zip(one.state[:2], other.state[:2], strict=True)
    return one.state[2:] == other.state[2:] and all(np.array_equal(values_of(a), values_of(b)) for a, b in pairs)


@pytest.mark.parametrize("kind", CACHES)
def test_state_is_arrays_and_ints_only(kind: str) -> None:
    assert all(type(part) in (mx.array, int) for part in CACHES[kind]().state)


@pytest.mark.parametrize("kind", CACHES)
def test_state_restores_a_cache(kind: str) -> None:
    cache, restored = CACHES[kind](), filled()
    restored.state = cache.state
    assert same(restored, cache)
    assert same(DualStreamingCache.from_state(cache.state), cache)


@pytest.mark.parametrize("kind", CACHES)
def test_state_goes_through_a_prompt_cache_file(kind: str, tmp_path: Path) -> None:
    caches = [CACHES[kind]() for _ in range(11)]  # more than ten layers: their order is not that of their names
    for layer, cache in enumerate(caches):
        cache.target_start = layer
    file = str(tmp_path / "cache.safetensors")
    save_prompt_cache(file, caches, {"model": "tiny"})
    loaded, metadata = load_prompt_cache(file, return_metadata=True)
    assert metadata == {"model": "tiny"}
    assert [type(cache) for cache in loaded] == [DualStreamingCache] * 11
    assert all(same(*pair) for pair in zip(loaded, caches, strict=True))
    assert [cache.target.offset for cache in loaded] == [cache.target.offset for cache in caches]


def test_a_restored_cache_goes_on_as_the_first_one_does(tmp_path: Path) -> None:
    cache, more = filled(), tokens(4, 7)
    save_prompt_cache(str(tmp_path / "cache.safetensors"), [cache])
    [loaded] = load_prompt_cache(str(tmp_path / "cache.safetensors"))
    for each in (cache, loaded):
        each.trim_target(1)
        each.update_source(*more)
        each.update_target(*more)
    assert same(loaded, cache)


@pytest.mark.parametrize("which", ["saved", "restored"])
def test_a_state_does_not_change_when_a_cache_goes_on(which: str) -> None:
    cache = filled()
    state = cache.state
    if which == "restored":
        cache = DualStreamingCache.from_state(state)
    cache.trim_target(2)
    cache.update_target(*tokens(2, 9))
    assert same(DualStreamingCache.from_state(state), filled())


def test_a_state_that_counts_wrong_is_refused() -> None:
    keys, values, *_ = filled().state
    with pytest.raises(ValueError, match="holds 5 tokens but counts 3 source and 3 target"):
        DualStreamingCache().state = (keys, values, 3, 3, 0, 0)


# Rows of a batch, copies, moved keys


@pytest.mark.parametrize("kind", CACHES)
def test_a_copy_is_a_cache_of_its_own(kind: str) -> None:
    """Whichever of the two goes on, the other one stays as it was."""
    for goes_on in (0, 1):
        cache = CACHES[kind]()
        both = cache, cache.copy()
        assert same(*both)
        both[goes_on].separate_source_target()
        both[goes_on].trim_target(1)
        both[goes_on].trim_source(1)
        both[goes_on].update_source(*tokens(2, 8))
        both[goes_on].update_target(*tokens(2, 9))
        both[goes_on].map_target_keys(lambda keys: -keys)
        assert same(both[1 - goes_on], CACHES[kind]())
        assert not same(*both)


def test_a_copy_goes_on_as_the_first_one_does() -> None:
    cache = filled()
    cache.step = 8
    copy = cache.copy()
    for each in (cache, copy):
        each.update_source(*tokens(4, 7))
        each.update_target(*tokens(1, 8))
    assert same(copy, cache)
    assert (copy.step, copy.target.offset) == (8, cache.target.offset)
    held: Any = cache.get_source(), cache.get_target()
    assert equal(copy.target.update_and_fetch(*tokens(1, 9)), *held, tokens(1, 9))


def test_the_views_of_a_copy_see_the_copy() -> None:
    cache = filled()
    copy = cache.copy()
    copy.source.update_and_fetch(*tokens(2, 9))
    assert (cache.source.offset, copy.source.offset) == (3, 5)


def test_the_batch_size_is_that_of_what_is_held() -> None:
    cache = DualStreamingCache()
    assert cache.batch_size == 0
    cache.update_target(*tokens(2, batch=3))
    assert cache.batch_size == 3
    cache.reset_target()
    cache.reset()
    assert cache.batch_size == 0


@pytest.mark.parametrize("rows", [[0], [1, 0], [2, 2, 0, 1], [1] * 5])
@pytest.mark.parametrize("step", [1, 256])
def test_selected_are_these_rows_in_this_order(rows: list[int], step: int) -> None:
    cache, source, target = DualStreamingCache(step=step), tokens(3, 1, batch=3), tokens(2, 2, batch=3)
    cache.update_source(*source)
    cache.update_target(*target)
    held = cache.get_source()
    cache.select(rows)
    assert cache.batch_size == len(rows)
    for stream, fed in ((cache.get_source(), source), (cache.get_target(), target)):
        assert equal(stream, tuple(array[mx.array(rows)] for array in fed))  # type: ignore[arg-type]
    assert equal(held, source), "what was handed out has changed"
    more = tokens(2, 5, batch=len(rows))
    assert equal(cache.update_target(*more), tuple(array[mx.array(rows)] for array in target), more)  # type: ignore[arg-type]


def test_rows_of_one_row_go_apart() -> None:
    cache = filled()
    cache.select([0, 0])
    different = tokens(1, 3, batch=2)
    cache.update_target(*different)
    keys, _ = cache.get_target()
    assert keys is not None and np.array_equal(values_of(keys[:, :, 2:]), values_of(different[0]))
    assert np.array_equal(values_of(keys[:1, :, :2]), values_of(keys[1:, :, :2]))


def test_selecting_from_nothing_is_nothing() -> None:
    cache = DualStreamingCache()
    cache.select([0, 0])
    assert (cache.batch_size, cache.offset) == (0, 0)
    assert equal(cache.update_source(*tokens(3)), tokens(3))


@pytest.mark.parametrize("step", [1, 256])
def test_only_the_keys_of_the_target_are_mapped(step: int) -> None:
    cache, source, target = DualStreamingCache(step=step), tokens(3, 1), tokens(2, 2)
    cache.update_source(*source)
    cache.update_target(*target)
    held = cache.get_target()
    shapes: list[tuple[int, ...]] = []

    def doubled(keys: mx.array) -> mx.array:
        shapes.append(keys.shape)
        return 2 * keys

    cache.map_target_keys(doubled)
    assert equal(cache.get_source(), source)
    assert equal(cache.get_target(), (2 * target[0], target[1]))
    assert equal(held, target), "what was handed out has changed"
    assert shapes == [target[0].shape]
    more = tokens(1, 3)
    assert equal(cache.update_target(*more), (2 * target[0], target[1]), more)


def test_where_there_is_no_target_nothing_is_mapped() -> None:
    def fail(keys: mx.array) -> mx.array:
        raise AssertionError

    DualStreamingCache().map_target_keys(fail)
    cache = filled()
    cache.reset_target()
    cache.map_target_keys(fail)
    assert equal(cache.get_source(), tokens(3, 1))


# Memory


def test_merging_copies_nothing() -> None:
    cache = DualStreamingCache()
    cache.update_source(*tokens(1000, heads=8, widths=(64, 64)))
    cache.update_target(*tokens(1000, heads=8, widths=(64, 64)))
    mx.eval(cache.state[:2])
    begin, memory = address(cache.get_source()[0]), mx.get_active_memory()
    cache.merge_source_target()
    keys, values = cache.get_merged()
    assert keys is not None and values is not None
    assert address(keys) == begin
    mx.eval(keys, values)
    assert mx.get_active_memory() - memory < 1000  # bytes; a copy would take 8 MB


@pytest.mark.parametrize("stream", ["source", "target"])
def test_appending_a_token_does_not_move_the_buffer(stream: str) -> None:
    cache = DualStreamingCache()
    cache.update_source(*tokens(10))
    view = getattr(cache, stream)
    before = address(cache.get_source()[0])
    for seed in range(20):
        keys, values = view.update_and_fetch(*tokens(1, seed))
        mx.eval(keys, values)
        del keys, values  # as a model does when it has attended: held slices would force a copy
    assert address(cache.get_source()[0]) == before


def test_the_buffer_grows_by_whole_steps() -> None:
    cache = DualStreamingCache(step=8)
    sizes = []
    for _ in range(17):
        cache.update_target(*tokens(1))
        sizes.append(cache.nbytes // (2 * (4 + 3) * 4))  # rows
    assert sizes == [8] * 8 + [16] * 8 + [24]


# Random programs against a cache that concatenates


@dataclass
class Concatenating:
    """What the cache must be equal to."""

    source: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # a pair for each token
    target: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    merged: bool = False


DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


class Programs(RuleBasedStateMachine):
    """Random reads, writes, roll-backs, merges, mistakes and state round trips."""

    @initialize(
        batch=st.integers(1, 3),
        heads=st.integers(1, 2),
        widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        dtype=st.sampled_from(sorted(DTYPES)),
        step=st.sampled_from([1, 2, 3, 5, 256]),
        target_start=st.sampled_from([0, 4]),
        hold=st.booleans(),
    )
    def begin(
        self,
        batch: int,
        heads: int,
        widths: tuple[int, int],
        dtype: str,
        step: int,
        target_start: int,
        hold: bool,
    ) -> None:
        self.shape, self.widths, self.dtype = (batch, heads), widths, DTYPES[dtype]
        self.step, self.target_start = step, target_start
        self.cache = DualStreamingCache(target_start, step)
        self.expected = Concatenating()
        self.hold = hold  # a held array makes MLX copy the buffer, a dropped one lets it write in place
        self.held: list[tuple[mx.array, np.ndarray]] = []  # arrays handed out, and what they must remain
        self.left_behind: tuple[DualStreamingCache, Any, list[np.ndarray]] | None = None
        self.draw = np.random.default_rng(0)

    def new(self, n: int) -> list[mx.array]:
        return [
            mx.array(self.draw.normal(size=(*self.shape, n, width)), mx.float32).astype(self.dtype)
            for width in self.widths
        ]

    def check(self, got: Any, expected: list[tuple[np.ndarray, np.ndarray]]) -> None:
        if not expected:
            assert got == (None, None)
            return
        for i, array in enumerate(got):
            whole = np.stack([token[i] for token in expected], axis=2)
            assert array.dtype == self.dtype
            assert array.shape == whole.shape
            assert np.array_equal(values_of(array), whole)
            if self.hold:
                self.held = [*self.held[-23:], (array, whole)]

    def feed(self, stream: str, n: int, through_view: bool) -> None:
        new = self.new(n)
        pairs = [tuple(values_of(x)[:, :, i] for x in new) for i in range(n)]
        view = getattr(self.cache, stream)
        update = view.update_and_fetch if through_view else getattr(self.cache, f"update_{stream}")
        before = len(self.expected.source), len(self.expected.target)
        if self.expected.merged:
            with pytest.raises(RuntimeError, match="separate_source_target"):
                update(*new)
            assert (self.cache.source_offset, self.cache.target_offset) == before
            return
        getattr(self.expected, stream).extend(pairs)
        attends = stream == "target" and through_view
        self.check(
            update(*new), self.expected.source + self.expected.target if attends else getattr(self.expected, stream)
        )

    @rule(n=st.integers(1, 7), through_view=st.booleans())
    def read(self, n: int, through_view: bool) -> None:
        self.feed("source", n, through_view)

    @rule(n=st.integers(1, 7), through_view=st.booleans())
    def write(self, n: int, through_view: bool) -> None:
        self.feed("target", n, through_view)

    @rule(stream=st.sampled_from(["source", "target"]), n=st.integers(0, 5), through_view=st.booleans())
    def trim(self, stream: str, n: int, through_view: bool) -> None:
        trim = getattr(self.cache, stream).trim if through_view else getattr(self.cache, f"trim_{stream}")
        if self.expected.merged:
            with pytest.raises(RuntimeError, match="separate_source_target"):
                trim(n)
            return
        held = getattr(self.expected, stream)
        assert trim(n) == min(n, len(held))
        del held[len(held) - min(n, len(held)) :]

    @rule(stream=st.sampled_from(["source", "target"]), n=st.integers(1, 5), through_view=st.booleans())
    def trim_and_feed_anew(self, stream: str, n: int, through_view: bool) -> None:
        n = min(n, len(getattr(self.expected, stream)))
        self.trim(stream, n, through_view)
        if n:
            self.feed(stream, n, through_view)

    @rule()
    def merge(self) -> None:
        self.cache.merge_source_target()
        self.expected.merged = True

    @rule()
    def separate(self) -> None:
        self.cache.separate_source_target()
        self.expected.merged = False

    @rule()
    def reset_target(self) -> None:
        self.cache.reset_target()
        self.expected.target, self.expected.merged = [], False

    @precondition(lambda self: self.cache.offset > 20)
    @rule()
    def reset(self) -> None:
        self.cache.reset()
        self.expected = Concatenating()

    @rule(fresh=st.booleans())
    def go_through_state(self, fresh: bool) -> None:
        state = self.cache.state
        if fresh:
            self.cache = DualStreamingCache(step=self.step)
        self.cache.state = state

    @rule(keep=st.booleans())
    def copy(self, keep: bool) -> None:
        """Go on with a copy, or with the cache that was copied; nothing that happens changes the other."""
        copy = self.cache.copy()
        other, self.cache = (copy, self.cache) if keep else (self.cache, copy)
        arrays = [array for pair in (other.get_source(), other.get_target()) for array in pair if array is not None]
        self.held += [(array, values_of(array)) for array in arrays]
        self.left_behind = other, other.state[2:], [values_of(array) for array in other.state[:2]]

    @invariant()
    def what_was_left_behind_is_unchanged(self) -> None:
        if self.left_behind:
            cache, numbers, arrays = self.left_behind
            assert cache.state[2:] == numbers
            assert all(np.array_equal(values_of(a), b) for a, b in zip(cache.state[:2], arrays, strict=True))

    @precondition(lambda self: not self.cache.empty())
    @rule(data=st.data())
    def select(self, data: Any) -> None:
        batch = self.shape[0]
        rows = data.draw(st.lists(st.integers(0, batch - 1), min_size=1, max_size=4))
        self.cache.select(rows)
        self.shape = len(rows), self.shape[1]
        for stream in ("source", "target"):
            pairs = [(keys[rows], values[rows]) for keys, values in getattr(self.expected, stream)]
            setattr(self.expected, stream, pairs)
        assert self.cache.batch_size == len(rows)

    @rule()
    def negate_target_keys(self) -> None:
        self.cache.map_target_keys(lambda keys: -keys)
        self.expected.target = [(-keys, values) for keys, values in self.expected.target]

    @invariant()
    def both_hold_the_same(self) -> None:
        cache, expected = self.cache, self.expected
        self.check(cache.get_source(), expected.source)
        self.check(cache.get_target(), expected.target)
        if expected.merged:
            self.check(cache.get_merged(), expected.source + expected.target)
        else:
            with pytest.raises(RuntimeError, match="merge_source_target"):
                cache.get_merged()
        source, target = len(expected.source), len(expected.target)
        assert (cache.source_offset, cache.target_offset, cache.offset) == (source, target, source + target)
        assert (cache.source.offset, cache.target.offset) == (source, self.target_start + target)
        assert cache.is_merged == expected.merged and cache.empty() == (source + target == 0)

    @invariant()
    def what_was_handed_out_is_unchanged(self) -> None:
        for array, whole in self.held:
            assert np.array_equal(values_of(array), whole)


TestPrograms = Programs.TestCase
TestPrograms.settings = settings(
    max_examples=40, stateful_step_count=25, derandomize=True, deadline=None, database=None
)


# The views


def test_positions_of_both_streams_begin_on_their_own() -> None:
    cache = DualStreamingCache(target_start=5)
    cache.source.update_and_fetch(*tokens(3))
    cache.target.update_and_fetch(*tokens(2))
    assert (cache.source.offset, cache.target.offset) == (3, 7)


def test_the_source_attends_to_the_source_and_the_target_to_both() -> None:
    cache, source, target, more = DualStreamingCache(), tokens(3, 1), tokens(2, 2), tokens(1, 3)
    cache.source.update_and_fetch(*source)
    assert equal(cache.target.update_and_fetch(*target), source, target)
    assert equal(cache.source.update_and_fetch(*more), source, more)
    assert equal(cache.target.update_and_fetch(*target), source, more, target, target)


def test_a_layer_that_shares_keys_gets_what_the_last_update_gave() -> None:
    cache = DualStreamingCache()
    read = cache.source.update_and_fetch(*tokens(3, 1))
    assert equal(cache.source.keys_and_values(), read)
    written = cache.target.update_and_fetch(*tokens(2, 2))
    assert equal(cache.target.keys_and_values(), written)
    assert equal(cache.source.keys_and_values(), read)


@pytest.mark.parametrize("stream", ["source", "target"])
@pytest.mark.parametrize("name", ["__len__", "__bool__", "bits"])
def test_a_view_has_nothing_that_mlx_lm_would_take_for_something_else(stream: str, name: str) -> None:
    assert not hasattr(getattr(DualStreamingCache(), stream), name)


def test_mlx_lm_trims_a_view() -> None:
    cache = DualStreamingCache()
    cache.target.update_and_fetch(*tokens(5))
    assert can_trim_prompt_cache([cache.target])
    assert trim_prompt_cache([cache.target], 2) == 2
    assert cache.target_offset == 3


def explicit(mask: mx.array | str | None, n: int, length: int) -> np.ndarray:
    """The bool array that a mask stands for: (n, length) or (B, 1, n, length)."""
    if mask is None:
        return np.ones((n, length), bool)
    if isinstance(mask, str):
        assert mask == "causal"
        return np.tril(np.ones((n, length), bool), k=length - n)  # lower right, as mx.fast has it
    assert mask.dtype == mx.bool_
    return np.array(mask)


def source_sees(n: int, source: int, window: int | None) -> np.ndarray:
    mask = np.zeros((n, source + n), bool)
    for i in range(n):
        for j in range(source + n):
            mask[i, j] = j <= source + i and (window is None or source + i - j < window)
    return mask


def target_sees(n: int, source: int, target: int, window: int | None, visible: np.ndarray) -> np.ndarray:
    """``visible`` (n, source) says what each token may see; a window leaves the last ones of these."""
    mask = np.zeros((n, source + target + n), bool)
    for i in range(n):
        columns = [j for j in range(source) if visible[i, j]]
        mask[i, columns if window is None else columns[-window:]] = True
        own = list(range(target + i + 1))
        mask[i, [source + j for j in (own if window is None else own[-window:])]] = True
    return mask


def holding(source: int, target: int) -> DualStreamingCache:
    cache = DualStreamingCache(target_start=3)
    if source:
        cache.update_source(*tokens(source))
    if target:
        cache.update_target(*tokens(target))
    return cache


counts = st.integers(0, 7)
windows = st.none() | st.integers(1, 9)


@QUICK
@given(n=st.integers(1, 5), source=counts, target=counts, window=windows, return_array=st.booleans())
def test_the_source_mask(n: int, source: int, target: int, window: int | None, return_array: bool) -> None:
    mask = holding(source, target).source.make_mask(n, return_array=return_array, window_size=window)
    assert not return_array or isinstance(mask, mx.array)
    assert np.array_equal(explicit(mask, n, source + n), source_sees(n, source, window))


@QUICK
@given(n=st.integers(1, 5), source=counts, target=counts, window=windows, return_array=st.booleans())
def test_the_target_mask(n: int, source: int, target: int, window: int | None, return_array: bool) -> None:
    mask = holding(source, target).target.make_mask(n, return_array=return_array, window_size=window)
    assert not return_array or isinstance(mask, mx.array)
    expected = target_sees(n, source, target, window, np.ones((n, source), bool))
    assert np.array_equal(explicit(mask, n, source + target + n), expected)


@QUICK
@given(data=st.data(), n=st.integers(1, 4), source=counts, target=counts, window=windows, return_array=st.booleans())
def test_the_target_mask_where_the_source_is_only_visible_in_part(
    data: st.DataObject, n: int, source: int, target: int, window: int | None, return_array: bool
) -> None:
    assume(source)
    bits = data.draw(st.lists(st.booleans(), min_size=2 * n * source, max_size=2 * n * source))
    visible = np.array(bits).reshape(2, n, source)
    cache = holding(source, target)
    cache.target.visible = mx.array(visible)
    mask = cache.target.make_mask(n, return_array=return_array, window_size=window)
    expected = np.stack([target_sees(n, source, target, window, row) for row in visible])[:, None]
    assert np.array_equal(explicit(mask, n, source + target + n), expected)


def test_the_cheap_masks_are_none_and_causal() -> None:
    cache = holding(4, 3)
    assert cache.source.make_mask(1) is None and cache.target.make_mask(1) is None
    assert cache.source.make_mask(2) == "causal" and cache.target.make_mask(2) == "causal"
    assert cache.target.make_mask(1, window_size=4) is None  # nothing has left the window yet
    assert cache.target.make_mask(1, window_size=3) is not None
