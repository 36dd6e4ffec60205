"""One model for all points of a process, and the table at the end of a sweep."""

from dataclasses import dataclass, field
from typing import Any

import sweep
from sweep import OneModel, Point, table


@dataclass
class Counting:
    """A model configuration that counts how often it is loaded."""

    path: str
    loads: list[Any] = field(default_factory=list, compare=False)

    def load(self, *how: Any) -> object:
        self.loads.append(how)
        return object()


def test_equal_points_share_one_model() -> None:
    one, first, second = OneModel(), Counting("a"), Counting("a")
    assert one.load(first, "word") is one.load(second, "word")
    assert (len(first.loads), len(second.loads)) == (1, 0)


def test_another_model_or_another_use_of_it_is_loaded_anew() -> None:
    one, model = OneModel(), Counting("a")
    kept = one.load(model, "word")
    assert one.load(model, "character") is not kept
    assert one.load(Counting("b"), "character") is not kept
    assert one.load(model, "word") is not kept, "only the last one stays in memory"


def test_the_table_shows_what_differs_and_names_what_failed() -> None:
    points = [
        Point(
            0,
            "waitk",
            {"policy": "waitk", "k": "1", "seed": "0"},
            "outputs/a",
            {"bleu": 13.6, "laal": 1.25, "al": None},
        ),
        Point(1, "waitk", {"policy": "waitk", "k": "0", "seed": "0"}, error="k is 0"),
    ]
    head, names, first, second = table(points).splitlines()
    assert head == "sweep: 1 points and 1 that failed"
    assert names.split() == ["policy", "k", "BLEU", "LAAL", "AL", "folder"]
    assert first.split() == ["waitk", "1", "13.60", "1.25", "-", "outputs/a"]
    assert second.endswith("failed: k is 0")


def test_run_py_keeps_its_model_loaded() -> None:
    model = Counting("c")
    assert sweep.LoadedOnce(model).load("x") is sweep.LoadedOnce(model).load("x")
    assert len(model.loads) == 1
