"""Statistics on curves: values worked out by hand, runs grouped to points, and how often intervals hold the truth."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from test_compare import make_run, sentences, trace

from streamllm.files import RunError
from streamllm.runs.compare import bootstrap
from streamllm.runs.curve_tests import curve_table, equal_latency_table, loss_table, point_table
from streamllm.runs.curves import areas, extended, heights
from streamllm.runs.folder import RunFolder
from streamllm.runs.load import load_runs
from streamllm.runs.points import by_test_set, curves_of, points_of, side_by_side
from streamllm.runs.sums import mean_of_sums, mean_statistics, p_of_samples, percentiles, resampled_sums

# README's wait-k and full on Multi30k, as LEARNING has them worked out: NoSE 0.906 on 1.23 to 8.62, 0.808 on 1.5 to 4.


def one(*values: float) -> Any:
    return np.array([values])


# --- arithmetic


def test_area_is_that_of_the_trapezoids_between_the_bounds():
    """Points (1, 10), (3, 20), (5, 20): from 2 to 4 one trapezoid of heights 15 and 20, and one of 20 and 20."""
    for order in ([0, 1, 2], [2, 0, 1]):
        x, y = one(1, 3, 5)[:, order], one(10, 20, 20)[:, order]
        assert areas(x, y, 2, 4).tolist() == [17.5 + 20]
        assert areas(x, y, 1, 5).tolist() == [30 + 40]
        assert areas(x, y, 3, 3).tolist() == [0]
    assert areas(one(1, 2, 2, 3), one(0, 0, 4, 4), 1, 3).tolist() == [4]  # a step


@pytest.mark.parametrize(("at", "height"), [(1, 10), (2, 15), (3, 20), (4, 20), (5, 20)])
def test_height_is_on_the_line_between_two_points(at: float, height: float):
    assert heights(one(5, 1, 3), one(20, 10, 20), np.array([at])).tolist() == [height]


def test_height_at_a_step_is_the_middle():
    assert heights(one(1, 2, 2, 3), one(0, 0, 4, 4), np.array([2.0])).tolist() == [2]


def test_a_sample_that_ends_before_goes_on_in_its_direction():
    x, y = extended(one(2, 3, 4), one(10, 20, 20), np.array([1.0]), np.array([5.0]))
    assert (x.tolist(), y.tolist()) == ([[1, 2, 3, 4, 5]], [[0, 10, 20, 20, 20]])
    # A point that is too near says nothing of the direction: 2.1 is a twentieth of the width away.
    assert heights(one(2, 2.1, 3, 4), one(10, 90, 20, 20), np.array([1.0])).tolist() == [0]
    assert heights(one(2), one(10), np.array([1.0])).tolist() == [10]


def test_many_samples_are_each_their_own():
    x, y = np.array([[1.0, 3, 5], [5, 1, 3]]), np.array([[10.0, 20, 20], [20, 10, 20]])
    assert areas(x, y, 2, 4).tolist() == [37.5, 37.5]
    assert heights(x, y, np.array([2.0, 4.0])).tolist() == [15, 20]


@pytest.mark.parametrize(
    ("drawn", "p"),
    [
        ([-1, 1, 2, 3], 2 * (1 + 1) / 5),  # one of four is on the other side
        ([-3, -2, -1, 1], 2 * (1 + 1) / 5),
        ([1.0] * 99, 2 / 100),
        ([0, 1, 1, 1, 1, 1, 1], 2 * (1 + 1) / 8),  # 0 is on both sides
        ([1e-12, 1e-12, -1e-12], 1),
        ([math.nan, 1, 1, 1], 2 / 4),
    ],
)
def test_p_counts_samples_on_the_other_side_of_zero(drawn: list[float], p: float):
    assert p_of_samples(np.array(drawn), 1e-9) == pytest.approx(p)


def test_p_of_no_sample_is_none():
    assert math.isnan(p_of_samples(np.array([math.nan])))


# --- runs


def lagged(lag: int, noise: float, seed: int = 0, count: int = 40) -> list[Any]:
    return sentences(count, noise, lag, seed)


def make_runs(root: Path) -> Path:
    """Two policies with two points each, with two seeds each, and full, over one test set."""
    number = 0
    for policy, values in (("waitk.WaitK", ((1, 0.6), (3, 0.3))), ("stride.Stride", ((1, 0.5), (3, 0.35)))):
        for k, noise in values:
            for seed in (0, 1):
                make_run(root / f"r-{number}", lagged(k, noise, seed), config_of(policy, k, seed))
                number += 1
    make_run(root / "full-9", lagged(6, 0.2), config_of("full.Full", None, 0))
    return root


def config_of(policy: str, k: int | None, seed: int, data: str = "set") -> dict[str, Any]:
    own = {} if k is None else {"k": k}
    return {
        "dataset": {"target_language": "de", "target_unit": None, "name": data},
        "policy": {"_target_": f"streamllm.policies.{policy}", **own},
        "seed": seed,
        **own,
    }


@pytest.fixture
def runs(tmp_path: Path) -> pandas.DataFrame:
    return load_runs(make_runs(tmp_path))


def scores_of(folders: Sequence[str], key: str) -> list[float]:
    return [RunFolder(folder).metrics()[key] for folder in folders]


def test_runs_that_differ_in_seeds_alone_are_one_point(runs: pandas.DataFrame):
    curves = curves_of(runs)
    assert {name: [len(point) for point in curve] for name, curve in curves.items()} == {
        "full": [1],
        "waitk": [2, 2],
        "stride": [2, 2],
    }
    assert list(points_of(runs)) == ["full", "waitk k=1", "waitk k=3", "stride k=1", "stride k=3"]
    assert all(len(point) == 1 for point in curves_of(runs, seeds=())["waitk"])
    with pytest.raises(ValueError, match="no column 'colour'"):
        curves_of(runs, by="colour")


def test_a_point_of_seeds_is_their_mean_with_its_spread(runs: pandas.DataFrame):
    points = points_of(runs)
    table = point_table(points, ["bleu", "laal"], samples=30).set_index("point")
    for key in ("bleu", "laal"):
        found = scores_of(points["waitk k=1"], key)
        row = table.loc["waitk k=1"]
        assert row[key] == pytest.approx(sum(found) / 2)
        assert row[f"{key}_sd"] == pytest.approx(abs(found[0] - found[1]) / math.sqrt(2))
        assert row[f"{key}_low"] < row[key] < row[f"{key}_high"]
    assert table["seeds"].tolist() == [1, 2, 2, 2, 2]
    assert math.isnan(table.loc["full", "bleu_sd"])


def test_a_point_of_one_run_has_the_interval_of_that_run(runs: pandas.DataFrame):
    """Both draw the same samples."""
    (folder,) = points_of(runs)["full"]
    found = bootstrap(folder, 50)["bleu"]
    row = point_table({"full": folder}, ["bleu"], samples=50).iloc[0]
    assert (row["bleu"], row["bleu_low"], row["bleu_high"]) == pytest.approx((found.value, found.low, found.high))


def test_curves_have_the_numbers_that_are_worked_out_by_hand(runs: pandas.DataFrame):
    curves = {name: curve for name, curve in curves_of(runs).items() if name != "full"}
    table = curve_table(curves, "waitk", points_of(runs)["full"], samples=40).set_index("curve")
    ends = {
        name: sorted((np.mean(scores_of(p, "laal")), np.mean(scores_of(p, "bleu"))) for p in curve)
        for name, curve in curves.items()
    }
    low, high = max(points[0][0] for points in ends.values()), min(points[-1][0] for points in ends.values())
    offline = scores_of(points_of(runs)["full"], "bleu")[0]
    assert set(table["from"]) == {low} and set(table["to"]) == {high}
    for name, ((x0, y0), (x1, y1)) in ends.items():
        middle = y0 + ((low + high) / 2 - x0) / (x1 - x0) * (y1 - y0)  # of a straight line
        assert table.loc[name, "mean"] == pytest.approx(middle)
        assert table.loc[name, "nose"] == pytest.approx(middle / offline)
        assert table.loc[name, "nose_low"] < table.loc[name, "nose"] < table.loc[name, "nose_high"]
    gap = table.loc["stride"]
    assert gap["difference"] == pytest.approx(table.loc["stride", "mean"] - table.loc["waitk", "mean"])
    assert gap["difference_low"] < gap["difference"] < gap["difference_high"]
    assert math.isnan(table.loc["waitk", "difference"])
    by_number = curve_table(curves, offline=offline, samples=5).set_index("curve")
    assert by_number["nose"].tolist() == pytest.approx(table["nose"].tolist())


def test_differences_at_equal_latency(runs: pandas.DataFrame):
    curves = curves_of(runs)
    table = equal_latency_table(curves["waitk"], curves["stride"], samples=40)
    (x0, y0), (x1, y1) = sorted((np.mean(scores_of(p, "laal")), np.mean(scores_of(p, "bleu"))) for p in curves["waitk"])
    inside = 0
    for row in table.to_dict("records"):
        if x0 <= row["laal"] <= x1:
            inside += 1
            theirs = y0 + (row["laal"] - x0) / (x1 - x0) * (y1 - y0)
            assert row["baseline"] == pytest.approx(theirs)
            assert row["difference"] == pytest.approx(row["system"] - theirs)
            assert row["difference_low"] < row["difference"] < row["difference_high"]
            assert (row["p_value"] < 0.05) == (not row["difference_low"] <= 0 <= row["difference_high"])
        else:
            assert math.isnan(row["difference"]) and math.isnan(row["difference_low"]) and math.isnan(row["p_value"])
    same = equal_latency_table(curves["waitk"], curves["waitk"], samples=20)
    assert same["p_value"].tolist() == [1, 1]
    assert same[["difference", "difference_low", "difference_high"]].abs().max().max() < 1e-9
    far = equal_latency_table(curves["waitk"], curves["full"], samples=5)
    assert far["difference"].isna().all()  # nothing is extrapolated
    assert inside or len(table)


def test_loss_is_relative_to_full(runs: pandas.DataFrame):
    points = points_of(runs)
    full = points.pop("full")
    table = loss_table(full, points, samples=40).set_index("point")
    whole = scores_of(full, "bleu")[0]
    for name, folders in points.items():
        mean = np.mean(scores_of(folders, "bleu"))
        assert table.loc[name, "loss"] == pytest.approx(whole - mean)
        assert table.loc[name, "loss_percent"] == pytest.approx(100 * (1 - mean / whole))
        assert table.loc[name, "loss_low"] < whole - mean < table.loc[name, "loss_high"]
    none = loss_table(full, {"full": full}, samples=10).iloc[0]
    assert (none["loss"], none["loss_low"], none["loss_high"]) == (0, 0, 0)


def test_test_sets_stand_side_by_side(tmp_path: Path):
    for number, (data, k) in enumerate((d, k) for d in ("a", "b") for k in (1, 3)):
        make_run(tmp_path / f"r-{number}", lagged(k, 0.4, 0, 30 + number // 2), config_of("waitk.WaitK", k, 0, data))
    make_run(tmp_path / "r-9", lagged(6, 0.3, 0, 30), config_of("full.Full", None, 0, "a"))
    runs = load_runs(tmp_path)
    assert {name: len(rows) for name, rows in by_test_set(runs).items()} == {"a": 3, "b": 2}
    table = side_by_side(runs, ["bleu"], samples=10)
    assert list(table.index) == ["waitk k=1", "waitk k=3", "full"]
    assert list(table.columns.get_level_values(0).unique()) == ["a", "b"]
    assert table.loc["waitk k=3", ("b", "bleu")] == RunFolder(tmp_path / "r-3").metrics()["bleu"]
    assert math.isnan(table.loc["full", ("b", "bleu")])


def test_what_cannot_be_compared_is_refused(runs: pandas.DataFrame, tmp_path: Path):
    curves = curves_of(runs)
    with pytest.raises(ValueError, match="the curve 'full' has 1 point"):
        curve_table(curves)
    del curves["full"]
    with pytest.raises(ValueError, match="baseline is 'wait'; the curves are 'waitk', 'stride'"):
        curve_table(curves, "wait")
    with pytest.raises(
        ValueError, match=r"bounds are 0 to 9, which not all curves cover \(waitk .* nothing is extrapo"
    ):
        curve_table(curves, bounds=(0, 9))
    with pytest.raises(ValueError, match="must be below the second"):
        curve_table(curves, bounds=(3, 2))
    with pytest.raises(ValueError, match="samples is 0"):
        curve_table(curves, samples=0)
    with pytest.raises(ValueError, match="0 runs"):
        point_table({"none": []})
    other = make_run(tmp_path / "other-1", lagged(2, 0.3, 0, 30), config_of("waitk.WaitK", 2, 0))
    with pytest.raises(RunError, match="compare runs over the same data set"):
        curve_table({**curves, "other": [str(other), curves["waitk"][0]]})


def test_unequal_numbers_of_points_and_undefined_latencies_are_said(
    runs: pandas.DataFrame, tmp_path: Path, caplog: Any
):
    curves = curves_of(runs)
    traces = [*lagged(2, 0.4)[:-1], trace("39", "", lagged(2, 0.4)[-1].reference, ())]
    more = make_run(tmp_path / "more-1", traces, config_of("waitk.WaitK", 2, 0))
    caplog.set_level(logging.WARNING)
    curve_table({"more": [*curves["waitk"], str(more)], "stride": curves["stride"]}, samples=5)
    assert any("laal is a mean without the 1 sentences that do not define it" in text for text in caplog.messages)
    assert any("different numbers of points" in text for text in caplog.messages)


# --- how often the interval of 95 % holds the true value


@pytest.mark.long
def test_intervals_of_curves_hold_the_truth_in_93_to_97_of_100_draws():
    """2,000 draws of 150 sentences from a population whose means are known. Sentences have their own difficulty, shared
    by all points, and skewed noise. Curves are of 4 and 5 points; latency and quality are means over sentences."""
    lags = {"a": np.array([1.2, 2.6, 4.1, 6.0]), "b": np.array([1.0, 2.0, 3.5, 5.0, 6.5]), "full": np.array([9.0])}
    goods = {"a": np.array([14.0, 24, 29, 31]), "b": np.array([10.0, 20, 28, 30.5, 31]), "full": np.array([32.0])}
    low, high = 1.2, 6.0

    def statistics(x: Mapping[str, Any], y: Mapping[str, Any]) -> dict[str, Any]:
        mean = {name: areas(x[name], y[name], low, high) / (high - low) for name in ("a", "b")}
        return {
            "nose": mean["a"] / y["full"][:, 0],
            "area between": mean["a"] - mean["b"],
            "equal latency": y["a"][:, 1] - heights(x["b"], y["b"], x["a"][:, 1]),
            "at the end": y["b"][:, 0] - heights(x["a"], y["a"], x["b"][:, 1]),
            "loss": 100 * (1 - y["a"][:, 2] / y["full"][:, 0]),
        }

    truth = statistics(*({name: values[None] for name, values in of.items()} for of in (lags, goods)))
    generator = np.random.default_rng(20)
    draws, count = 2000, 150
    held = dict.fromkeys(truth, 0)
    for draw in range(draws):
        difficulty = generator.gamma(2.0, 6.0, size=(count, 1)) - 12
        length = generator.normal(size=(count, 1))
        found = {}
        for name in lags:
            shape = count, len(lags[name])
            noise = generator.gamma(1.5, 7.0, size=shape) - 10.5
            found[name, "y"] = goods[name] + difficulty + noise
            found[name, "x"] = lags[name] * (1 + 0.15 * length) + 0.6 * generator.normal(size=shape)
        columns = {
            (*key, place): mean_statistics(values[:, place])
            for key, values in found.items()
            for place in range(values.shape[1])
        }
        sums = resampled_sums(columns, count, 400, draw)
        drawn = {
            axis: {
                name: np.stack([mean_of_sums(sums[name, axis, place]) for place in range(len(lags[name]))], 1)
                for name in lags
            }
            for axis in ("x", "y")
        }
        for name, values in statistics(drawn["x"], drawn["y"]).items():
            begin, end = percentiles(values)
            held[name] += begin <= truth[name][0] <= end
    shares = {name: count / draws for name, count in held.items()}
    print(shares)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares
