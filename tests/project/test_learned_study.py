"""The study of policies that learn: each of its commands composes, its tables are of the runs that were asked for, and
the sentences that it shows are those of its rule."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from test_compare import make_run, sentences

from experiments.learned import cost, points, report, run
from experiments.learned.cost import parts
from experiments.learned.examples import chosen, distance, written
from experiments.learned.report import Part
from experiments.learned.run import Given
from streamllm.data.sample import Sample
from streamllm.runs import equal_latency_table

LINES = {**points.WITHOUT_TRAINING, **points.LEARNED, **points.HEAD_LINES, **points.BESIDE}
REWARDED_LINES = {**points.REWARDED_WITHOUT_TRAINING, **points.REWARDED_LEARNED}
LLM_LINES = {**points.LLM_WITHOUT_TRAINING, **points.LLM_LEARNED}
FOLDERS = {name: f"/heads/{name}" for name in (*points.HEADS, "llm")} | {"alignment_heads": "[[1,2],[3,0]]"}


def composed(program: str, overrides: Sequence[str]) -> Any:
    first = [one if "[" in one else one.split(",")[0] for one in overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(program, first)


# --- what is run


@pytest.mark.parametrize("name", LINES)
def test_each_line_of_the_bundled_model_composes(name: str) -> None:
    (line,) = run._filled({name: LINES[name]}, FOLDERS).values()
    cfg = composed("run", [*line, f"+study='{name}'"])
    assert cfg.study == name
    assert "{" not in str(cfg.model.head_path)
    instantiate(cfg.policy, _convert_="all")


@pytest.mark.parametrize("name", REWARDED_LINES)
def test_each_line_of_the_rewarded_model_composes(name: str) -> None:
    cfg = composed("run", [*points.REWARDED, *REWARDED_LINES[name], f"+study='{name}'"])
    assert cfg.model.path == "bundled:tiny-en-de-reward"
    instantiate(cfg.policy, _convert_="all")


@pytest.mark.parametrize("name", LLM_LINES)
def test_each_line_of_the_llm_composes(name: str) -> None:
    (line,) = run._filled({name: LLM_LINES[name]}, FOLDERS).values()
    cfg = composed("run", [*points.MODEL, *line, f"+study='{name}'"])
    instantiate(cfg.policy, _convert_="all")
    assert (cfg.model.head_path == "/heads/llm") == name.startswith("learned")


@pytest.mark.parametrize("name", points.HEADS)
def test_each_head_composes(name: str) -> None:
    (how,) = run._filled({name: points.HEADS[name]}, FOLDERS).values()
    cfg = composed("train_head", how)
    assert (cfg.get("objective") is not None) == (name == "reward")
    assert name == "reward" or cfg.labels._target_.lower().rpartition(".")[2] == name
    assert set(points.THRESHOLDS) == set(points.HEADS)


@pytest.mark.parametrize("lines", [points.TIMED, points.LLM_TIMED])
def test_what_is_timed_composes_and_is_a_single_run(lines: Mapping[str, list[str]]) -> None:
    for line in run._filled(lines, FOLDERS).values():
        assert not any("," in one for one in line)
        composed("run", line)


def test_what_is_named_in_the_data_is_a_line_with_such_a_point() -> None:
    named = [(REWARDED_LINES, *point) for point in points.CHOSEN.values()]
    for lines, line, point in [*named, *((LINES, *point) for point in points.COMPARED)]:
        key, _, value = point.partition("=")
        (values,) = (one.partition("=")[2] for one in lines[line] if one.partition("=")[0].endswith(key))
        assert value in values.split(",")
    for line, point in points.COMPARED:
        assert line in LLM_LINES and point
    assert {name for names in points.PANELS.values() for name in names} <= set(LINES)
    assert {*points.BASELINES, "full"} <= set(points.WITHOUT_TRAINING) & set(points.LLM_WITHOUT_TRAINING)
    assert {name for names in points.TOGETHER.values() for name in names} <= {*points.LEARNED, *points.LLM_LEARNED}


def test_arguments_go_where_they_belong(tmp_path: Path) -> None:
    given = Given.of(
        [
            "dataset=multi30k",
            "dataset.split=val",
            "dataset.limit=40",
            f"dataset.data_dir={tmp_path}",
            "model.path=/models/gemma",
            "sentences=7",
            f"head.oracle={tmp_path}",
            f"output.root={tmp_path}",
        ]
    )
    assert given.runs == tmp_path / "multi30k-val-40"
    assert given.training_data == [f"dataset.data_dir={tmp_path}"]
    assert "dataset.limit=40" in given.data and "dataset.limit=40" not in given.llm_data
    assert given.llm_data[-1] == "dataset.limit=7"
    assert (given.llm, given.heads, given.report) == ("/models/gemma", {"oracle": str(tmp_path)}, False)
    assert Given.of([]).runs.name == "sample"


@pytest.mark.parametrize("word", ["k=3", "head.blue=x", "sentences=many", "pairs=0", "repot", "only=llm", "only=all"])
def test_what_is_not_taken_is_said(word: str) -> None:
    with pytest.raises(SystemExit) as ended:
        Given.of([word])
    assert word.partition("=")[0] in str(ended.value)


def test_a_head_that_is_given_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(run, "train_head", lambda commands, processes: started.extend(commands))
    monkeypatch.setattr(run, "newest", lambda folder, pattern: f"{folder.name}/head")
    given = Given.of([f"output.root={tmp_path}", "pairs=9", "head.oracle=there", "dataset.data_dir=/data"])
    found = run.train_heads(given, {name: points.HEADS[name] for name in ("oracle", "reward")}, {"divergence": "/d"})
    (command,) = (one for one in started if "objective=grpo" in one)
    assert {"model.head_path=/d", "dataset.limit=9", "dataset.data_dir=/data"} <= {*command}
    assert found["reward"].startswith("reward-9-")
    monkeypatch.setitem(points.HEADS, "reward", [*points.HEADS["reward"], "objective.samples=4"])
    otherwise = run.train_heads(given, {"reward": points.HEADS["reward"]}, {"divergence": "/d"})
    assert otherwise["reward"] != found["reward"]
    assert not any("cells.cache" in word for word in command)  # which learning by reward refuses
    started.clear()
    run.train_heads(given, {"oracle": points.HEADS["oracle"]}, given.heads)
    assert started == []


def test_a_line_of_what_is_timed_keeps_its_own_overrides() -> None:
    shared, lines = parts(["dataset=sample", "--line", "a", "k=1", "--line", "b", "policy=full", "max_lag=2"])
    assert shared == ["dataset=sample"]
    assert lines == {"a": ["k=1"], "b": ["policy=full", "max_lag=2"]}


def test_times_are_taken_again_where_another_line_is_timed(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    few = ["1", "dataset=sample", "dataset.limit=2", "--line", "wait-9", "policy=waitk", "k=9"]
    cost.main([str(file), *few])
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["line"], row["sentences"], row["turns"]) == ("wait-9", 2, 1)
    assert 1 < row["forwards"] < 4 and 0 < row["low"] == row["cpu_ms"] == row["high"]
    assert cost.measured(file, [str(file), *few])
    assert not cost.measured(file, [str(file), *few, "max_lag=2"])


# --- what is written of it


def config_of(line: str, policy: str, **more: Any) -> dict[str, Any]:
    head = more.pop("head", None)
    return {
        "dataset": {"target_language": "de", "target_unit": None, "name": "set"},
        "model": {"path": "bundled:tiny-en-de", "adapter_path": "/a", "head_path": head},
        "policy": {"_target_": f"streamllm.policies.{policy}", **more},
        "max_lag": 4 if policy.startswith("learned") else None,
        "study": line,
        **({"k": more["k"]} if "k" in more else {}),
        "limits": {"bare": "bare" in line},
    }


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    """wait-k of two kinds at two points, full, and two learned lines; and runs of a head before it was trained anew."""
    monkeypatch.setattr(points, "SAMPLES", 50)
    monkeypatch.setattr(points, "TRIALS", 100)
    root, number = tmp_path / "bundled", 0

    def add(noise: float, lag: int, config: dict[str, Any]) -> None:
        nonlocal number
        make_run(root / f"r-{number}", sentences(40, noise, lag, number), config)
        number += 1

    for k, noise in ((1, 0.6), (3, 0.4)):
        for line in ("waitk", "waitk bare"):
            add(noise, k, config_of(line, "waitk.WaitK", k=k))
    add(0.1, 6, config_of("full", "full.Full"))
    for threshold, noise in ((0.7, 0.3), (0.87, 0.2)):
        lag = 2 if threshold < 0.8 else 3
        add(noise, lag, config_of("learned max_lag=4", "learned.Learned", threshold=threshold))
        add(noise, lag, config_of("head oracle max_lag=4", "learned.Learned", threshold=threshold, head="/new"))
        add(noise, lag, config_of("head oracle max_lag=4", "learned.Learned", threshold=threshold, head="/old"))
    learned = ["policy=learned", "policy.threshold=0.7,0.87", "max_lag=4"]
    found = Part(
        root,
        {
            "waitk": ["policy=waitk", "k=1,3"],
            "waitk bare": ["policy=waitk", "k=1,3", "limits.bare=true"],
            "full": ["policy=full"],
        },
        {"learned max_lag=4": ["prompt=auto", *learned], "head oracle max_lag=4": [*learned, "model.head_path=/new"]},
        {"wait-3": ["policy=waitk", "k=3"]},
        [],
    )
    row = {"line": "wait-3", "cpu_ms": 3.0, "low": 2.5, "high": 4.0, "forwards": 2.5, "sentences": 50, "turns": 5}
    found.cost.write_text(json.dumps({"of": [], "rows": [row]}), encoding="utf-8")
    return found


def test_runs_of_other_heads_and_points_are_left_out(part: Part) -> None:
    runs = part.runs()
    assert runs.groupby("study", sort=False)["point"].apply(list).to_dict() == {
        "waitk": ["k=1", "k=3"],
        "waitk bare": ["k=1", "k=3"],
        "full": [""],
        "learned max_lag=4": ["threshold=0.7", "threshold=0.87"],
        "head oracle max_lag=4": ["threshold=0.7", "threshold=0.87"],
    }
    assert set(runs["model.head_path"].dropna()) == {"/new"}
    fewer = Part(part.root, part.without_training, {"learned max_lag=4": [*part.learned["learned max_lag=4"]]}, {}, [])
    fewer.learned["learned max_lag=4"][2] = "policy.threshold=0.87"
    assert fewer.runs()["point"].tolist()[-1] == "threshold=0.87"
    more = Part(part.root, part.without_training, {"wait_token": ["policy=wait_token", "policy.latency=1"]}, {}, [])
    with pytest.raises(ValueError, match="has no run of wait_token"):
        more.runs()


def table(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]


def test_tables_have_a_row_for_each_learned_point_with_its_test(part: Part) -> None:
    runs = part.runs()
    tests = table(report.tests_text(runs, part))
    assert [row[0] for row in tests] == [
        f"{line} threshold={threshold}" for line in part.learned for threshold in (0.7, 0.87)
    ]
    assert all(float(row[2]) > float(row[7].split(": ")[1].split(" at ")[0]) for row in tests if row[7] != "none")
    curve = list(report.named_points(runs, ["waitk bare"]).values())
    last = report.folder_of(runs, "head oracle max_lag=4", "threshold=0.87")
    (alone,) = equal_latency_table(curve, [last], samples=50).to_dict("records")
    assert tests[-1][3:5] == report.difference(alone)
    rows = {(row[0], row[1]): row for row in table(report.points_text(runs))}
    bleu = {key: float(row[2]) for key, row in rows.items()}
    share = float(rows["learned max_lag=4", "threshold=0.87"][3])
    assert share == pytest.approx(100 * bleu["learned max_lag=4", "threshold=0.87"] / bleu["full", ""], abs=0.1)
    areas = {row[0]: row for row in table(report.areas_text(runs, part))}
    assert set(areas) == {*part.learned, *points.TOGETHER}
    assert float(areas["learned max_lag=4"][5].split()[0]) > 0


@pytest.mark.long  # figures
def test_a_page_gets_its_tables_and_plots(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "CHOSEN", {"3": ("learned max_lag=4", "threshold=0.7")})
    page = tmp_path / "page"
    page.mkdir()
    (page / "README.md").write_bytes((ROOT / "experiments/learned/README.md").read_bytes())
    model = [*points.MODEL, "model.path=bundled:tiny-en-de", "model.adapter_path=/a"]
    lines = ({name: [*model, *line] for name, line in each.items()} for each in (part.without_training, part.learned))
    rewarded = Part(part.root, part.without_training, part.learned, {}, [])
    report.write_report(page, {"bundled": part, "rewarded": rewarded, "llm": Part(part.root, *lines, part.timed, [])})
    text = (page / "README.md").read_text("utf-8")
    assert "| ≤ 3 | learned max_lag=4 threshold=0.7 |" in text
    assert "the median of 5 turns" in text
    for name in ("bundled", "rewarded", "llm"):
        assert f"]({name}.svg)" in text
        assert "| head oracle max_lag=4 threshold=0.87 |" in text.partition(f"<!-- {name} tests -->")[2]
        assert {path.suffix for path in page.glob(f"{name}.*")} == {".svg", ".png"}
    assert not any(one.reference in text for one in sentences(40, 0.1, 6))  # they are the data's


@pytest.mark.long
def test_the_study_trains_runs_and_reports_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few lines and sentences of the sample; the second time nothing is run or timed anew."""
    learned = {"learned max_lag=4": ["policy=learned", "policy.threshold=0.7,0.87", "max_lag=4"]}
    few = {
        "WITHOUT_TRAINING": {name: points.WITHOUT_TRAINING[name] for name in ("waitk", "waitk bare", "full")},
        "LEARNED": learned,
        "HEADS": {"divergence": points.HEADS["divergence"]},
        "HEAD_LINES": {"head": [*learned["learned max_lag=4"], "model.head_path={divergence}"]},
        "BESIDE": {},
        "CHOSEN": {"3": ("learned max_lag=4", "threshold=0.7")},
        "TIMED": {"wait-3": points.TIMED["wait-3"]},
        "SENTENCES_TIMED": 2,
        "SAMPLES": 50,
        "TRIALS": 100,
    }
    for name, value in few.items():
        monkeypatch.setattr(points, name, value)
    for side in ("source", "target"):
        lines = "".join(f"{getattr(one, side if side == 'source' else 'reference')}\n" for one in Sample().load())
        for split in ("train", "val"):
            (tmp_path / f"{split}.{'en' if side == 'source' else 'de'}").write_text(lines, encoding="utf-8")
    words = ["dataset=multi30k", "dataset.split=val", f"dataset.data_dir={tmp_path}", "dataset.limit=6", "pairs=8"]
    words += ["only=bundled", "processes=1", f"output.root={tmp_path / 'out'}", f"page={tmp_path / 'page'}"]
    run.main(words)
    page = tmp_path / "page/README.md"
    text = page.read_text("utf-8")
    assert "| head threshold=0.87 |" in text and "learned max_lag=4 threshold=0.7" in text
    made = {path: path.stat().st_mtime for path in (tmp_path / "out").rglob("*.json")}
    run.main(words)
    assert {path: path.stat().st_mtime for path in (tmp_path / "out").rglob("*.json")} == made
    assert page.read_text("utf-8") == text


def test_the_page_has_marks_for_both_parts() -> None:
    text = (ROOT / "experiments/learned/README.md").read_text("utf-8")
    kinds = [f"{part} {kind}" for part in run.PARTS for kind in ("plot", "points", "tests", "areas")]
    kinds += [f"{part} {kind}" for part in ("bundled", "llm") for kind in ("cost", "examples")]
    for name in ("chosen", *kinds):
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1


# --- the sentences that are shown


def test_sentences_are_chosen_by_the_rule() -> None:
    gains = [30.0, -20.0, 50.0, 10.0, 0.0, -5.0, 90.0, 0.0]
    lags = [0.1, 0.5, -0.5, 0.0, 0.2, 0.0, 0.6, 0.0]
    found = pandas.DataFrame({"id": list("abcdefgh"), "bleu_difference": gains, "laal_difference": lags})
    apart = dict(zip("abcdefgh", [9, 1, 1, 2, 0.5, 1, 9, 0.0], strict=True))
    assert [(why, row["id"]) for why, row in chosen(found, apart)] == [
        ("better", "c"),
        ("better", "a"),
        ("worse", "b"),
        ("worse", "f"),
        ("other places", "d"),
    ]
    few = found[found["id"].isin(["e", "h"])]
    assert [(why, row["id"]) for why, row in chosen(few, apart)] == [("other places", "e")]


def test_a_sentence_is_written_with_its_places() -> None:
    one, other = sentences(2, 0.0, 1)[0], sentences(2, 0.0, 3)[0]
    assert written(one).split(" (")[0] == one.units[0]
    assert written(one).count("(") == len(one.units)
    pairs = [abs(a - b) for a, b in zip(one.delays, other.delays, strict=False)]
    assert distance(one, other) == pytest.approx(sum(pairs) / len(pairs))
