"""Plots: what stands on the axes, that no label covers another, and what is refused. Pixels are for the eye."""

import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
from conftest import ROOT
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation, Text
from test_compare import make_run

from streamllm.metrics.latency import latency
from streamllm.plots import (
    delay_histogram,
    fonts,
    look,
    operating_points,
    pareto_front,
    policy_name,
    quality_latency,
    quality_latency_panels,
    read_write_path,
    sentence_comparison,
)
from streamllm.plots.curves import FRONT
from streamllm.plots.fonts import word_fonts
from streamllm.plots.labels import Label, place_labels
from streamllm.plots.style import COLORS, INK, POLICIES, looks
from streamllm.records import Event, Trace


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


def run(policy: str, laal: float, bleu: float, **more: Any) -> dict[str, Any]:
    target = f"streamllm.policies.{policy}.{policy.title().replace('_', '')}"
    return {"policy._target_": target, "laal": laal, "bleu": bleu, "dataset.name": "m30k", **more}


WAITK = [
    run("waitk", lag, bleu, **{"policy.k": k}) for k, lag, bleu in ((5, 4.9, 33.8), (1, 1.3, 13.6), (3, 2.9, 31.4))
]
RUNS = pandas.DataFrame([*WAITK, run("full", 11.9, 34.0), run("hold_n", 4.0, 33.0), run("hold_n", 3.5, 32.0)])


def many(count: int = 15, seed: int = 0) -> pandas.DataFrame:
    """Policies whose points crowd along one curve."""
    rng = np.random.default_rng(seed)
    rows = [*WAITK]
    for number in range(count - 1):
        for lag in np.sort(rng.uniform(2, 9, 4)):
            bleu = 35 - 20 * np.exp(-lag / 2) + rng.normal(0, 0.4)
            rows.append(run(f"policy_{chr(97 + number)}", lag, bleu, **{"policy.threshold": round(lag / 10, 2)}))
    return pandas.DataFrame(rows)


def line(ax: Axes, name: str) -> tuple[list[float], list[float]]:
    (found,) = [found for found in ax.lines if found.get_label() == name]
    x, y = found.get_data()
    return list(map(float, x)), list(map(float, y))


def notes(ax: Axes) -> dict[str, Annotation]:
    return {text.get_text(): text for text in ax.texts if isinstance(text, Annotation)}


def overlapping(texts: Sequence[Text]) -> list[tuple[str, str]]:
    texts[0].get_figure(root=True).draw_without_rendering()
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
    return [(a[0], b[0]) for a, b in combinations(boxes, 2) if a[1].overlaps(b[1])]


# --- names and looks


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("streamllm.policies.waitk.WaitK", "waitk"),
        ("streamllm.policies.local_agreement.LocalAgreement", "local_agreement"),
        ("streamllm.policies.ralcp.RALCP", "ralcp"),
        ("mine.LocalAgreement", "local_agreement"),
        ("thresholds.Entropy", "entropy"),
    ],
)
def test_policy_is_called_by_its_file_or_else_its_class(target: str, name: str):
    assert policy_name(target) == name


def test_known_policies_look_the_same_in_every_figure():
    assert looks(["waitk", "hold_n", "new"])["hold_n"] == looks(["alignatt", "hold_n"])["hold_n"]


def test_nineteen_policies_all_look_different():
    names = ["waitk", "full", *POLICIES, "new", "newer"]
    assert len(names) == 19
    assert len({(look.color, look.marker) for look in looks(names).values()}) == 19


def test_unknown_policies_do_not_look_like_known_ones():
    styles = looks(["a_new_one", *POLICIES[:4]])
    assert len(set(styles.values())) == 5


def test_replay_has_a_name_of_its_own_and_labels_hold_single_settings():
    runs = pandas.DataFrame(
        [
            {"policy._target_": composed_target("oracle"), "policy.delays": [2, 3], "laal": 1.0, "bleu": 1.0},
            {"policy._target_": composed_target("oracle"), "policy.delays": [4, 4], "laal": 2.0, "bleu": 2.0},
            *(
                {"policy._target_": composed_target("replay"), "policy.delays.run": name, "laal": lag, "bleu": lag}
                for name, lag in (("a", 3.0), ("b", 4.0))
            ),
        ]
    )
    assert list(operating_points(runs)) == [""] * 4
    assert set(notes(quality_latency(runs, points=True))) == {"oracle", "replay"}


def composed_target(policy: str) -> str:
    return re.findall(r"^_target_: (.+)$", (ROOT / f"conf/policy/{policy}.yaml").read_text(), re.MULTILINE)[0]


def test_operating_points_name_what_differs_within_a_policy():
    runs = pandas.DataFrame(
        [*WAITK, run("stride", 1, 1, **{"policy.n": 2.0}), run("stride", 2, 2, **{"policy.n": 2.0})]
    )
    assert list(operating_points(runs)) == ["k=5", "k=1", "k=3", "", ""]
    runs["min_lag"] = [None, None, None, 2, 4]
    assert list(operating_points(runs)) == ["k=5", "k=1", "k=3", "min_lag=2", "min_lag=4"]


# --- quality over latency


def test_operating_points_are_joined_from_early_to_late():
    ax = quality_latency(RUNS)
    assert line(ax, "waitk") == ([1.3, 2.9, 4.9], [13.6, 31.4, 33.8])
    assert line(ax, "hold_n") == ([3.5, 4.0], [32.0, 33.0])
    assert line(ax, "full") == ([11.9], [34.0])


def test_full_sentence_translation_is_a_star_and_never_a_line():
    """Its runs differ in seeds or data: there is no setting between them. One that is hurried is a curve, not it."""
    again = [run("full", 11.7, 33.0), run("full", 6.0, 30.0, max_lag=6), run("full", 4.0, 25.0, max_lag=4)]
    runs = pandas.DataFrame([*WAITK, run("full", 11.9, 34.0), *again])
    ax = quality_latency(runs, points=True, key=True)
    (star,) = [found for found in ax.lines if found.get_label() == "full"]
    assert (star.get_linestyle(), star.get_marker()) == ("None", "*")
    assert line(ax, "full") == ([11.7, 11.9], [33.0, 34.0])
    assert line(ax, "full, bounded") == ([4.0, 6.0], [25.0, 30.0])
    assert {"max_lag=4", "6"} <= set(notes(ax)) and "max_lag=none" not in notes(ax)
    key = {found.get_label(): found.get_linestyle() for found in ax.get_legend().legend_handles}
    assert (key["full"], key["full, bounded"]) == ("None", "-")
    model = quality_latency(runs[:4].assign(model="tiny"), by="model")
    assert line(model, "tiny") == ([1.3, 2.9, 4.9], [13.6, 31.4, 33.8])
    assert line(model, "_whole tiny") == ([11.9], [34.0])


def test_intervals_of_full_sentence_translation_are_bars():
    runs = pandas.DataFrame([*WAITK, run("full", 11.9, 34.0), run("full", 11.7, 33.0)])
    ends = pandas.DataFrame({"bleu_low": runs["bleu"] - 1, "bleu_high": runs["bleu"] + 1})
    (band, bars) = quality_latency(runs, band=ends).collections
    assert len(bars.get_segments()) == 2 and not hasattr(band, "get_segments")


def test_axes_say_what_they_measure():
    ax = quality_latency(RUNS)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("LAAL (source units)", "BLEU")


def test_figure_is_made_only_if_no_axes_are_given():
    figure, ax = plt.subplots()
    assert quality_latency(RUNS, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert quality_latency(RUNS).figure is not figure
    assert len(plt.get_fignums()) == 2


def test_wait_k_is_the_black_reference_unless_another_is_named():
    def colors(ax: Axes) -> dict[Any, Any]:
        return {found.get_label(): found.get_color() for found in ax.lines}

    assert colors(quality_latency(RUNS))["waitk"] == INK
    assert colors(quality_latency(RUNS, reference="hold_n"))["hold_n"] == INK


def test_each_line_is_labelled_at_one_of_its_ends():
    ax = quality_latency(RUNS)
    labels = notes(ax)
    assert set(labels) == {"waitk", "full", "hold_n"}
    for name, label in labels.items():
        x, y = line(ax, name)
        assert label.xy in {(x[0], y[0]), (x[-1], y[-1])}


def test_labels_can_be_left_out():
    assert not quality_latency(RUNS, labels=False).texts


def test_some_lines_only_can_be_labelled():
    assert set(notes(quality_latency(RUNS, labels=["hold_n"]))) == {"hold_n"}


def test_within_given_limits_only_what_is_in_sight_is_labelled():
    """As in a second figure of a crowded corner: wait-k goes on beyond it, "full" is not in it."""
    _, ax = plt.subplots()
    ax.set(xlim=(2, 4.5), ylim=(20, 40))
    labels = notes(quality_latency(RUNS, ax=ax))
    assert ax.get_ylim() == (20, 40)
    assert set(labels) == {"waitk", "hold_n"}
    assert labels["waitk"].xy == (2.9, 31.4)


def test_points_are_labelled_by_their_setting_the_key_standing_once():
    assert {"k=1", "3", "5"} <= set(notes(quality_latency(RUNS, points=True)))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_no_label_of_fifteen_crowded_policies_covers_another(seed: int):
    runs = many(15, seed)
    ax = quality_latency(runs, points=True)
    assert overlapping(ax.texts) == []
    assert {f"policy_{chr(97 + n)}" for n in range(14)} | {"waitk"} <= set(notes(ax))


def test_labels_stay_inside_the_axes():
    ax = quality_latency(many(), points=True)
    ax.figure.draw_without_rendering()
    frame = ax.get_window_extent().padded(1)
    for text in ax.texts:
        box = Text.get_window_extent(text)
        assert frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1), text.get_text()


def test_labels_cover_no_marker_where_there_is_room():
    _, ax = plt.subplots()
    x = np.linspace(0, 1, 30)
    ax.plot(x, np.full(30, 0.5), "o")
    (label,) = place_labels(ax, [Label("in the middle", (x[15], 0.5), INK)])
    box = Text.get_window_extent(label)
    assert not any(box.contains(*point) for point in ax.transData.transform(np.stack([x, np.full(30, 0.5)], 1)))


def test_labels_that_are_not_needed_cover_no_markers():
    _, ax = plt.subplots()
    ax.plot(*np.meshgrid(np.linspace(0, 1, 30), np.linspace(0, 1, 30)), "ko")
    assert not place_labels(ax, [Label("in the middle", (0.5, 0.5), INK, needed=False)])
    assert place_labels(ax, [Label("in the middle", (0.5, 0.5), INK)])


def test_labels_without_room_are_left_out_unless_needed():
    _, ax = plt.subplots(figsize=(2, 2))
    ax.plot([0, 1], [0, 1])
    crowd = [Label(f"number {n}", (0.5, 0.5), INK, needed=False) for n in range(30)]
    written = place_labels(ax, [*crowd, Label("the one", (0.5, 0.5), INK)])
    assert "the one" in {text.get_text() for text in written}
    assert 1 < len(written) < 10
    assert overlapping(written) == []


def test_label_far_from_its_point_is_tied_to_it():
    _, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    written = place_labels(ax, [Label(f"a long name {n}", (0.5, 0.5), INK) for n in range(20)])
    assert len(written) == 20
    assert written[0].arrow_patch is None
    assert written[-1].arrow_patch is not None


def test_axes_are_widened_for_a_label_at_their_right_edge():
    ax = quality_latency(RUNS.assign(policy="a policy with a rather long name"))
    assert ax.get_xlim()[1] > 11.9 + 0.2 * (11.9 - 1.3)


def test_other_columns_can_make_the_lines():
    runs = RUNS.assign(
        **{
            "paradigm._target_": ["streamllm.engine.paradigms.group.Group"] * 3
            + ["streamllm.engine.paradigms.reencoded.Batch"] * 3
        }
    )
    assert set(notes(quality_latency(runs, by="paradigm"))) == {"group", "batch"}


def test_band_is_drawn_from_low_to_high():
    band = pandas.DataFrame({"bleu_low": RUNS["bleu"] - 2, "bleu_high": RUNS["bleu"] + 1})
    ax = quality_latency(RUNS, band=band)
    outline = ax.collections[0].get_paths()[0].vertices
    assert {(1.3, 11.6), (1.3, 14.6), (4.9, 31.8), (4.9, 34.8)} <= {(x, round(float(y), 6)) for x, y in outline}
    segments = [
        tuple(map(tuple, s)) for c in ax.collections[1:] if hasattr(c, "get_segments") for s in c.get_segments()
    ]
    assert ((11.9, 32.0), (11.9, 35.0)) in segments  # a single point has a line for a band


def test_band_belongs_to_runs_by_index():
    band = pandas.DataFrame({"bleu_low": RUNS["bleu"] - 2, "bleu_high": RUNS["bleu"] + 1})
    shuffled = quality_latency(RUNS, band=band[::-1]).collections[0].get_paths()[0].vertices
    assert np.array_equal(shuffled, quality_latency(RUNS, band=band).collections[0].get_paths()[0].vertices)


def test_pareto_front_is_what_no_run_beats():
    front = pareto_front(RUNS)
    assert list(front["laal"]) == [1.3, 2.9, 3.5, 4.0, 4.9, 11.9]
    worse = pandas.DataFrame([*WAITK, run("full", 11.9, 33.8), run("stride", 2.9, 31.0), run("stride", 1.3, 13.6)])
    assert list(pareto_front(worse)["bleu"]) == [13.6, 31.4, 33.8]
    assert line(quality_latency(worse, pareto=True), "_pareto")[1] == [13.6, 31.4, 33.8]


def test_runs_without_a_value_are_left_out():
    runs = pandas.concat([RUNS, pandas.DataFrame([run("waitk", None, 20.0), run("ralcp", None, 3.0)])])  # type: ignore[arg-type]
    assert set(notes(quality_latency(runs))) == {"waitk", "full", "hold_n"}


def test_panels_show_each_policy_against_the_others():
    panels = quality_latency_panels(RUNS, columns=2)
    assert [ax.get_title(loc="left") for ax in panels] == ["full", "hold_n"]
    for ax in panels:
        assert line(ax, "waitk")[0] == [1.3, 2.9, 4.9]
        assert [found.get_label() for found in ax.lines].count("_other") == 1
    assert line(panels[1], "hold_n") == ([3.5, 4.0], [32.0, 33.0])
    assert len({ax.get_ylim() for ax in panels}) == 1


def test_panels_of_many_policies_fill_rows():
    assert len(quality_latency_panels(many(14), columns=4)) == 13


def test_lines_of_different_data_are_drawn_with_a_warning():
    names = ["news", "news", "news", "talks", "talks", "talks"]
    with pytest.warns(UserWarning, match=r"different dataset.name \(.*hold_n: talks.*waitk: news\), so they do not"):
        quality_latency(RUNS.assign(**{"dataset.name": names}))
    with pytest.warns(UserWarning, match="different sentences"):
        quality_latency_panels(RUNS.assign(sentences=[180, 180, 180, 6, 6, 6]))


def test_lines_that_are_data_sets_need_no_warning():
    rows = RUNS[RUNS["policy._target_"].str.contains("waitk")]
    quality_latency(rows.assign(**{"dataset.name": list("abc"), "sentences": [1, 2, 3]}), by="dataset.name")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": "yaal"}, "no column 'yaal'; of numbers it has laal, bleu"),
        ({"by": "colour"}, "no column 'colour'"),
        ({"runs": RUNS.assign(bleu=float("nan"))}, "none of the 6 runs has both 'laal' and 'bleu'"),
        ({"runs": pandas.DataFrame()}, "no column 'laal'; of numbers it has none"),
        ({"runs": RUNS.assign(**{"dataset.name": list("aabbbb")})}, "the line 'waitk' would join .* dataset.name"),
        ({"band": RUNS[["bleu"]]}, "bleu_low and bleu_high"),
        ({"band": RUNS[:2].assign(bleu_low=1, bleu_high=2)}, "one row for each of runs"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        quality_latency(**{"runs": RUNS, **change})


MIXED = RUNS.assign(**{"dataset.name": list("aabbbb"), "sentences": 9})


def test_advice_for_mixed_runs_holds():
    with pytest.raises(ValueError, match=r"runs\[runs\['dataset.name'\] == 'a'\], or give by='dataset.name'"):
        quality_latency(MIXED)
    quality_latency(MIXED[MIXED["dataset.name"] == "a"])
    quality_latency(MIXED, by="dataset.name")


def test_a_column_that_would_be_refused_is_no_advice():
    runs = MIXED.assign(sentences=[9, 8, 7, 7, 7, 7])
    with pytest.raises(ValueError, match=r"different sentences \(9, 8\)"):
        quality_latency(runs, by="dataset.name")
    with pytest.raises(ValueError, match=r"== 'a'\]$"):
        quality_latency(runs)


# --- the path of a sentence

SOURCE = "a man is riding his bicycle"


def trace(prediction: str, delays: Sequence[int], forced: int = 0, name: str = "1", source: str = SOURCE) -> Trace:
    """A sentence whose last ``forced`` units were read because the end token came."""
    units, words = tuple(prediction.split()), source.split()
    events: list[Event] = []
    read = 0
    for unit, delay in zip(units, delays, strict=True):
        events += [Event("read", word) for word in words[read:delay]] + [Event("write", unit)]
        read = delay
    events += [Event("forced_read", word) for word in words[len(words) - forced :]]
    return Trace(
        name, source, "ein Mann fährt Rad", units, tuple(delays), (0.0,) * len(delays), tuple(events), 6, prediction
    )


TRACE = trace("ein Mann fährt Rad", (2, 3, 4, 6))


def test_path_goes_right_for_each_read_and_down_for_each_write():
    x, y = line(read_write_path(TRACE), "_path ")
    assert list(zip(x, y, strict=True)) == [
        *[(0, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 2), (4, 3), (6, 3), (6, 4)],
        (6, 4),
    ]


def test_each_write_is_marked_in_the_column_of_the_last_unit_read():
    assert line(read_write_path(TRACE), "_write ") == ([1.5, 2.5, 3.5, 5.5], [0.5, 1.5, 2.5, 3.5])


def test_words_stand_on_the_axes():
    ax = read_write_path(TRACE)
    assert [label.get_text() for label in ax.get_xticklabels()] == SOURCE.split()
    assert [(label.get_text(), label.xy[1]) for label in notes(ax).values()] == [
        *[("ein", 0.5), ("Mann", 1.5), ("fährt", 2.5), ("Rad", 3.5)]
    ]
    assert ax.get_ylim() == (4, 0)


def test_what_was_seen_is_shaded():
    assert [bar.get_width() for bar in read_write_path(TRACE).patches] == [2, 3, 4, 6]


def test_forced_reads_are_marked_and_explained():
    ax = read_write_path(trace("ein Mann", (2, 4), forced=2))
    assert line(ax, "_forced ") == ([4.5, 5.5], [2.0, 2.0])
    assert line(ax, "_path ")[0][-1] == 6
    assert "forced READ" in ax.get_legend().get_texts()[0].get_text()
    assert read_write_path(TRACE).get_legend() is None


def test_policies_side_by_side_have_their_colours_and_their_words():
    ax = read_write_path({"wait-2": TRACE, "full": trace("Mann auf Rad", (6, 6, 6))})
    cells = {label.get_text(): label for label in notes(ax).values()}
    assert {"wait-2", "full", "fährt", "auf"} <= set(cells)
    assert cells["auf"].get_color() == cells["full"].get_color() != cells["wait-2"].get_color()
    paths = [found for found in ax.lines if str(found.get_label()).startswith("_path")]
    assert [path.get_color() for path in paths] == list(COLORS[:2])
    assert paths[0].get_xdata()[0] != paths[1].get_xdata()[0]  # paths that go the same way can be told apart
    assert overlapping(ax.texts) == []


@pytest.mark.parametrize("paths", [2, 3, 4])
def test_marks_of_one_cell_stand_side_by_side(paths: int):
    ax = read_write_path({str(number): TRACE for number in range(paths)})
    ax.figure.draw_without_rendering()
    marks = [found for found in ax.lines if str(found.get_label()).startswith("_write")]
    columns = sorted(ax.transData.transform(mark.get_xydata()[0])[0] for mark in marks)
    width = marks[0].get_markersize() * ax.figure.dpi / 72
    assert (np.diff(columns) >= 0.8 * width).all()  # an edge may touch the next
    assert all(1 < mark.get_xdata()[0] < 2 for mark in marks)


def test_characters_stand_on_the_axis_where_they_are_the_units():
    source = dataclasses.replace(TRACE, source="ab cd ef")
    assert [label.get_text() for label in read_write_path(source).get_xticklabels()] == list("abcdef")


def test_words_are_no_formulas():
    priced = dataclasses.replace(TRACE, source="a man has $1 or $2_$^", units=("$1", "$_$^", "a", "b"))
    ax = read_write_path({"$a$": priced, "b": priced})
    ax.figure.draw_without_rendering()
    assert not any(text.get_parse_math() for text in (*ax.texts, *ax.get_xticklabels()))


def test_path_of_a_sentence_without_output_is_drawn():
    ax = read_write_path(trace("", (), forced=6))
    assert line(ax, "_path ") == ([0, 6], [0, 0])


def test_paths_of_different_sentences_are_refused():
    with pytest.raises(ValueError, match="2 sources"):
        read_write_path({"a": TRACE, "b": trace("ein", (1,), source="b c d e f g")})
    with pytest.raises(ValueError, match="0 traces"):
        read_write_path({})


def test_fonts_of_the_figure_come_first_and_suffice_for_what_they_have():
    assert word_fonts("Ein Mann fährt Rad, Ω") == plt.rcParams["font.family"]


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Only what Matplotlib brings; returns the files that the system then has."""
    files: list[str] = []
    bundled = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    monkeypatch.setattr(fonts, "_said", set())
    fonts._fonts_for.cache_clear()
    yield files  # type: ignore[misc]
    fonts._fonts_for.cache_clear()


def test_characters_without_a_font_are_one_line_that_says_what_to_install(
    no_fonts: list[str], caplog: pytest.LogCaptureFixture
):
    for _ in range(2):
        figure = read_write_path(
            dataclasses.replace(TRACE, units=("一个", "男人", "ไทย", "fährt"), prediction="x")
        ).figure
        figure.savefig(io.BytesIO(), format="png")  # a warning for each character would be an error here
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "Thai characters such as ท: figures show boxes" in "".join(said)
    assert "apt-get install fonts-noto-core" in next(line for line in said if "Thai" in line)
    assert "apt-get install fonts-noto-cjk" in next(line for line in said if "Chinese" in line)


def test_font_that_was_installed_after_matplotlib_made_its_list_is_found(no_fonts: list[str], tmp_path: Path):
    """A font made here with one Thai letter, in a file that Matplotlib has not seen."""
    pen = TTGlyphPen(None)
    for point, move in (((0, 0), pen.moveTo), ((0, 700), pen.lineTo), ((500, 700), pen.lineTo), ((500, 0), pen.lineTo)):
        move(point)
    pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "ko"])
    made.setupCharacterMap({ord("ก"): "ko"})
    made.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "ko": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (600, 0), "ko": (600, 0)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Thai of One Letter", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(tmp_path / "one.ttf")
    no_fonts.append(str(tmp_path / "one.ttf"))
    assert word_fonts("ก a") == [*plt.rcParams["font.family"], "Thai of One Letter"]


def test_font_follows_the_language_that_the_other_characters_tell():
    assert fonts._preferred("男の人")[0] == "Noto Sans CJK JP"
    assert fonts._preferred("男人")[0] == "Noto Sans CJK SC"
    assert fonts._preferred("남자 人")[0] == "Noto Sans CJK KR"


# --- sizes and colours


def test_figures_of_a_paper_are_as_wide_as_its_columns_with_type_of_8_points():
    for columns, inches in ((1, 3.03), (2, 6.3)):
        with look("paper", columns=columns):
            ax = quality_latency(RUNS)
            assert ax.figure.get_figwidth() == inches
            assert ax.xaxis.label.get_fontsize() == 8
            assert plt.rcParams["pdf.fonttype"] == 42
        assert overlapping(list(notes(ax).values())) == []
    assert quality_latency(RUNS).xaxis.label.get_fontsize() == 11
    assert plt.rcParams["pdf.fonttype"] != 42


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="'poster'"), look("poster"):
        pass
    with pytest.raises(ValueError, match="columns=3"), look("paper", columns=3):
        pass


def test_many_lines_of_a_narrow_figure_are_named_below_it_and_the_figure_grows():
    with look("paper"):
        few, ax = quality_latency(RUNS), quality_latency(many())
    ax.figure.draw_without_rendering()
    key = ax.get_legend()
    assert few.get_legend() is None
    assert {text.get_text() for text in key.get_texts()} == set(policies_of(many()))
    assert key.get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0
    assert key.get_window_extent().x0 >= 0
    assert key.get_window_extent().x1 <= ax.figure.get_window_extent().width
    assert ax.get_window_extent().height > 0.8 * few.get_window_extent().height
    assert notes(ax) == {}


def policies_of(runs: pandas.DataFrame) -> list[str]:
    return [policy_name(target) for target in runs["policy._target_"].unique()]


def test_front_is_explained_where_no_label_covers_it():
    ax = quality_latency(RUNS, pareto=True)
    (text,) = ax.get_legend().get_texts()
    assert text.get_text() == FRONT
    assert quality_latency(RUNS).get_legend() is None
    ax.figure.draw_without_rendering()
    for label in notes(ax).values():
        assert not Text.get_window_extent(label).overlaps(ax.get_legend().get_window_extent())


MACHADO = {  # full severity; Machado, Oliveira and Fernandes 2009, doi 10.1109/TVCG.2009.113
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(color: str, vision: str) -> Any:
    """L*, a*, b* of a colour as somebody with that vision sees it."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ (
        np.clip(np.array(MACHADO[vision]) @ linear, 0, 1)
    )
    f = [np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz / [0.9505, 1, 1.089]]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def report_colors(scheme: str) -> list[str]:
    css = (ROOT / "streamllm/report/page.css").read_text()
    part = css.split("@media (prefers-color-scheme: dark)")[scheme == "dark"]
    return re.findall(r"--c\d: (#\w{6})", part)


@pytest.mark.parametrize("vision", MACHADO)
@pytest.mark.parametrize("colors", [list(COLORS), report_colors("light"), report_colors("dark")])
def test_colours_can_be_told_apart_with_any_colour_vision(colors: list[str], vision: str):
    """A difference of 2.3 is just noticeable; lines have markers and dashes of their own besides."""
    assert len(colors) == 6
    for one, other in combinations(colors, 2):
        assert np.linalg.norm(seen(one, vision) - seen(other, vision)) > 12, (one, other)


def test_paths_are_told_apart_by_their_marks_too():
    ax = read_write_path({"a": TRACE, "b": TRACE, "c": TRACE})
    markers = [line.get_marker() for line in ax.lines if str(line.get_label()).startswith("_write")]
    assert len(set(markers)) == 3


# --- lags


def heights(ax: Axes, name: str) -> dict[float, float]:
    (bars,) = [bars for bars in ax.containers if bars.get_label() == name]
    return {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in bars if bar.get_height()}


def test_lags_are_counted_as_laal_does():
    """Lags of TRACE are 2, 3 - 1.5, 4 - 3 and 6 - 4.5."""
    ax = delay_histogram({"one": [TRACE], "two": [TRACE, trace("Mann Rad", (6, 6))]})
    one, two = heights(ax, "one"), heights(ax, "two")
    assert one.keys() == {1, 2}
    assert one[2] == pytest.approx(3 * one[1])  # 1.5 counts as 2
    assert two.keys() == {1, 2, 6}
    assert two[6] == pytest.approx(two[1])
    mean = latency(TRACE.delays, 6, TRACE.reference, "word")["laal"]
    assert {"mean", f"{mean:.1f}"} <= set(notes(ax))


def test_long_translations_are_measured_by_their_own_length():
    ax = delay_histogram({"long": [trace("ein Mann fährt auf seinem Rad", (1, 2, 3, 4, 5, 6))]})
    assert heights(ax, "long").keys() == {1}


def test_each_run_has_its_named_row_in_the_given_order_from_the_top():
    ax = delay_histogram({"first": [TRACE], "second": [TRACE]})
    labels = {label.get_text(): at for at, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)}
    assert labels["first"] > labels["second"]
    assert ax.get_legend_handles_labels()[1] == ["first", "second"]


def test_lags_of_runs_are_read_from_their_folders(tmp_path: Path):
    runs = RUNS[:2].assign(folder=[make_run(tmp_path / f"r-{n}", [TRACE]) for n in range(2)])
    assert [label.get_text() for label in delay_histogram(runs).get_yticklabels()] == ["waitk k=1", "waitk k=5"]


def test_lags_of_one_run_need_no_name():
    assert len(delay_histogram([TRACE]).get_yticks()) == 1


@pytest.mark.parametrize("runs", [[], {}, {"a": [trace("", ())]}])
def test_lags_of_nothing_are_refused(runs: Any):
    with pytest.raises(ValueError, match=r"no output|0 runs"):
        delay_histogram(runs)


# --- two runs

TABLE = pandas.DataFrame(
    {
        "laal_difference": [-1.0, -0.5, -2.0, 1.0, 2.0, 0.0, 1.0, None],
        "bleu_difference": [10.0, 5.0, -3.0, 8.0, 1.0, 4.0, 0.0, 9.0],
    }
)


def test_quarters_are_counted_without_ties():
    texts = [text.get_text() for text in sentence_comparison(TABLE).texts]
    assert sorted(texts) == ["0\nworse, later", "1\nworse, earlier", "2\nbetter, earlier", "2\nbetter, later"]


def test_each_sentence_with_both_values_is_a_dot():
    dots = np.concatenate([dots.get_offsets() for dots in sentence_comparison(TABLE).collections])
    assert sorted(map(tuple, dots)) == sorted(map(tuple, TABLE.dropna().to_numpy()))


def test_axes_tell_which_run_is_subtracted():
    ax = sentence_comparison(TABLE, names=("wait-3", "mine"))
    assert ax.get_xlabel() == "LAAL of mine − LAAL of wait-3 (source units)"
    assert ax.get_ylabel() == "BLEU of mine − BLEU of wait-3"
    assert ax.get_title(loc="left") == "mine against wait-3 in 7 sentences; in 1 of them BLEU is the same"


def test_counts_stand_in_their_quarters_even_if_all_sentences_lie_in_one():
    ax = sentence_comparison(TABLE[:2] * 20)
    ax.figure.draw_without_rendering()
    origin = ax.transData.transform((0, 0))
    for text in ax.texts:
        box = text.get_window_extent()
        assert (box.x0 > origin[0]) == ("later" in text.get_text())
        assert (box.x1 < origin[0]) == ("earlier" in text.get_text())
        assert (box.y0 > origin[1]) == ("better" in text.get_text())


def test_table_without_the_latency_is_refused():
    with pytest.raises(ValueError, match="no column 'dal_difference'"):
        sentence_comparison(TABLE, latency="dal")
    with pytest.raises(ValueError, match="none of the 1 sentences"):
        sentence_comparison(TABLE[7:])


def test_nothing_global_is_changed():
    before = dict(plt.rcParams)
    quality_latency(RUNS, points=True, pareto=True)
    read_write_path(TRACE)
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [0.0, 12.0, 30.0]])
def test_scores_that_are_never_negative_have_no_axis_below_zero(scores: list[float]) -> None:
    runs = pandas.DataFrame({"policy": "waitk", "k": [1, 3, 5], "laal": [1.0, 3.0, 5.0], "bleu": scores})
    low, high = quality_latency(runs).get_ylim()
    assert low == 0 and high > max(scores)
    assert min(quality_latency(runs.assign(bleu=runs["bleu"] - 5)).get_ylim()) < -5
    assert quality_latency(runs.assign(bleu=20.0 + runs["bleu"])).get_ylim()[0] > 15, "far from 0 it stays away"
