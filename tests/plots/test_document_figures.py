"""Figures of documents: what stands on the axes, and what is refused."""

import dataclasses
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from document_traces import alone, document_trace, documents
from matplotlib.axes import Axes
from matplotlib.text import Text
from test_compare import make_run

from streamllm.metrics.behaviour import lags_of_document, sentence_ends
from streamllm.plots import delay_histogram, document_path, drift, path_png, quality_latency, read_write_path
from streamllm.plots.documents import MOST_LINES, MOST_NUMBERS, document_lags
from streamllm.records import Event, Trace
from streamllm.runs import load_runs


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


def points(ax: Axes, name: str) -> list[tuple[float, float]]:
    (found,) = [line for line in ax.lines if line.get_label() == name]
    return [(float(x), float(y)) for x, y in found.get_xydata()]  # type: ignore[union-attr]


def lag_axes(ax: Axes) -> Axes:
    return ax.get_figure(root=True).axes[-1]  # type: ignore[union-attr]


def numbers(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.child_axes[0].get_xticklabels()]


DOCUMENT = document_trace("talk", [4, 3, 5])


def test_ends_are_source_and_target_units_at_the_end_of_each_sentence():
    assert sentence_ends(DOCUMENT) == [(4, 4), (7, 7), (12, 12)]


def test_lag_is_what_was_read_less_what_was_translated():
    """wait-2 in each sentence: one unit behind at the last, whose source has been read."""
    assert lags_of_document(DOCUMENT, sentence_ends(DOCUMENT)) == [2, 2, 2, 1, 2, 2, 1, 2, 2, 2, 2, 1]


def test_source_counts_as_translated_evenly_between_ends():
    one = dataclasses.replace(DOCUMENT, units=("a", "b"), delays=(3, 12), elapsed=(0.0, 0.0))
    assert lags_of_document(one, []) == [3, 6]
    assert lags_of_document(one, [(4, 1), (8, 1)]) == [3, 4]  # a sentence for which nothing was written


def test_path_of_a_document_has_its_lag_below():
    ax = read_write_path(DOCUMENT)
    assert points(ax, "_translated ") == [(0, 0), (4, 4), (7, 7), (12, 12), (12, 12)]
    assert points(ax, "_ends ") == [(4, 4), (7, 7), (12, 12)]
    assert ax.get_xlim() == lag_axes(ax).get_xlim() == (0, 12)
    assert [y for _, y in points(lag_axes(ax), "_lag ")] == document_lags(DOCUMENT)
    assert numbers(ax) == ["1", "2", "3"]


def test_end_that_the_reference_does_not_have_is_hollow():
    events = tuple(Event("sentence", "6") if event.text == "7" else event for event in DOCUMENT.events)
    ax = document_path(dataclasses.replace(DOCUMENT, events=events))
    assert points(ax, "_ends ") == [(4, 4), (12, 12)]
    assert points(ax, "_elsewhere ") == [(6, 7)]


def test_where_no_account_is_kept_sentences_are_cut_at_the_reference():
    untold = document_trace("talk", [4, 3, 5], told=False)
    assert document_lags(untold) == document_lags(DOCUMENT)
    assert not [line for line in document_path(untold).lines if line.get_label() == "_ends "]


@pytest.mark.parametrize("count", [1, 20, 500])
def test_lines_and_numbers_of_sentences_are_as_many_as_can_be_read(count: int):
    ax = document_path(document_trace("talk", [1 + place % 11 for place in range(count)]))
    (grid,) = ax.collections
    assert 1 <= len(grid.get_paths()) <= MOST_LINES  # type: ignore[arg-type]
    assert 1 <= len(numbers(ax)) <= MOST_NUMBERS
    ax.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    boxes = [Text.get_window_extent(text) for text in ax.child_axes[0].get_xticklabels()]
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_path_takes_most_of_its_place_and_lag_the_rest():
    """Also as one of several axes, and as axes that no grid has made."""
    _, (left, _) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    free = plt.figure(figsize=(8, 6)).add_axes((0.1, 0.1, 0.8, 0.8))
    for ax in (document_path(DOCUMENT), document_path(DOCUMENT, left), document_path(DOCUMENT, free)):
        figure: Any = ax.get_figure(root=True)
        figure.draw_without_rendering()
        path, lag = ax.get_position(), lag_axes(ax).get_position()
        assert path.height > 0.4 and lag.height > 0.12
        assert lag.y1 < path.y0 and lag.x0 == pytest.approx(path.x0)


def test_several_runs_have_their_colours_and_names():
    ax = document_path({"early": DOCUMENT, "late": document_trace("talk", [4, 3, 5], k=4)})
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][:2] == ["early", "late"]
    assert len({line.get_color() for line in ax.lines if str(line.get_label()).startswith("_path")}) == 2


def test_key_stands_where_no_path_is():
    early = dataclasses.replace(DOCUMENT, units=("a", "b"), delays=(1, 2), elapsed=(0.0, 0.0), events=())
    for trace, right in ((DOCUMENT, False), (early, True)):
        ax = document_path(trace)
        figure: Any = ax.get_figure(root=True)
        figure.draw_without_rendering()
        legend = ax.get_legend()
        assert legend is not None
        box, frame = legend.get_window_extent(), ax.get_window_extent()
        assert (box.x0 > frame.x0 + frame.width / 2) == right


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ({}, "0 traces; give that of a document"),
        ({"a": alone()[0]}, "'s0' is no document"),
        ({"a": DOCUMENT, "b": document_trace("other", [4, 3])}, "traces of different documents"),
    ],
)
def test_what_is_no_document_is_refused(traces: dict[str, Trace], message: str):
    with pytest.raises(ValueError, match=message):
        document_path(traces)


def test_document_without_output_is_drawn():
    events = tuple(event for event in DOCUMENT.events if event.kind not in ("write", "sentence"))
    silent = dataclasses.replace(DOCUMENT, units=(), delays=(), elapsed=(), events=events, prediction="")
    assert path_png(silent).startswith(b"\x89PNG")


def test_lags_of_documents_are_those_behind_what_was_translated():
    ax = delay_histogram([DOCUMENT])
    assert ax.texts[0].get_text() == f"{sum(document_lags(DOCUMENT)) / 12:.1f}"


# --- position


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    made = {f"wait-{k}": make_run(tmp_path / f"run-{k}", documents(k=k, noise=0.3)) for k in (1, 4)}
    return made | {"by sentence": make_run(tmp_path / "alone-1", alone(k=4, noise=0.3))}


def test_each_run_has_a_line_of_quality_and_one_of_latency(runs: dict[str, Path]):
    quality, lag = drift(runs, samples=10)
    for ax in (quality, lag):
        assert [line.get_label() for line in ax.lines] == list(runs)
        assert len(points(ax, "wait-1")) == 4
    assert lag.get_ylabel() == "LongLAAL (source units)"
    assert "drawn of sentences" in quality.get_title("left")


def test_names_of_lines_stand_apart_however_close_the_lines_are(runs: dict[str, Path]):
    same = dict.fromkeys("abcde", runs["wait-4"])
    quality, _ = drift(same, samples=0)
    quality.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    boxes = [Text.get_window_extent(text) for text in quality.texts]
    assert len(boxes) == 5
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_runs_of_a_table_go_by_policy_and_setting(tmp_path: Path):
    for k in (1, 4):
        policy = {"_target_": "streamllm.policies.waitk.WaitK", "k": k}
        config = {"dataset": {"target_language": "de"}, "policy": policy}
        make_run(tmp_path / f"run-{k}", documents(k=k), config)
    table = load_runs(tmp_path)
    quality, _ = drift(table, samples=0)
    assert [line.get_label() for line in quality.lines] == ["waitk k=1", "waitk k=4"]
    assert len(quality_latency(table, x="long_yaal").lines) == 1
    with pytest.raises(ValueError, match="runs over documents have x='long_yaal'"):
        quality_latency(table)


def test_drift_needs_two_axes(runs: dict[str, Path]):
    with pytest.raises(ValueError, match="1 axes; give two"):
        drift(runs, [plt.subplots()[1]], samples=0)
