"""The tables and plots of the study, from runs that are there."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.learned import points
from experiments.learned.examples import examples_text
from experiments.study import markdown, write_between
from streamllm.plots import quality_latency
from streamllm.plots.style import CYCLE, FAINT, Look, sizes
from streamllm.runs import curve_table, equal_latency_table, load_runs, no_later_table
from streamllm.runs.load import FULL

CROWDED = 10  # BLEU below the best that the plots show
LATEST = 6.0  # LAAL up to which they go
GROUPS = ("model", "policy", "prompt")  # choices from groups, which no column of a run names
GREY, MARKERS = "#8c8c8c", "osDv^PX*<>"
PLOTS = {
    "bundled": "BLEU over LAAL of the bundled model: policies without training, its head, what is trained",
    "rewarded": "BLEU over LAAL of the bundled model after learning by reward: policies without training, and its head",
    "llm": "BLEU over LAAL of the LLM: its policies without training, and its head",
}


@dataclass(frozen=True)
class Part:
    """Runs of one model in one folder: its lines by their names, each the overrides of a sweep; what is timed; the
    data; and lines that are run for the table alone."""

    root: Path
    without_training: Mapping[str, list[str]]
    learned: Mapping[str, list[str]]
    timed: Mapping[str, list[str]]
    data: list[str]
    beside: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def lines(self) -> dict[str, list[str]]:
        return {**self.without_training, **self.learned, **self.beside}

    @property
    def cost(self) -> Path:
        return self.root.with_name(f"{self.root.name}-cost.json")

    def runs(self) -> pandas.DataFrame:
        """The runs of these lines, with ``point``, what sets each apart in its line, from early to late. Others in the
        folder, as of lines that have changed since, are left out.

        Raises: ValueError: a line has no run.
        """
        runs = load_runs(self.root)
        found = [] if runs.empty else [(*self._place(run), i) for i, (_, run) in enumerate(runs.iterrows())]
        kept = {i: point for line, point, i in found if line is not None}
        rows = runs.iloc[list(kept)].assign(point=list(kept.values()))
        if missing := [name for name in self.lines if name not in set(rows.get("study", ()))]:
            raise ValueError(f"{self.root} has no run of {', '.join(missing)}: give the command without 'report'")
        order = {name: place for place, name in enumerate(self.lines)}
        return rows.assign(order=rows["study"].map(order)).sort_values(["order", "laal"], ignore_index=True)

    def _place(self, run: "pandas.Series[Any]") -> tuple[str | None, str]:
        line = self.lines.get(run.get("study"))
        if line is None:
            return None, ""
        settings = [override.partition("=")[::2] for override in line]
        settings = [(key, values) for key, values in settings if key not in GROUPS]
        for key, values in settings:
            if not any(_same(run.get(key), value) for value in _values(values)):
                return None, ""
        varied = [key for key, values in settings if len(_values(values)) > 1] or [
            key for key, _ in settings if key.startswith("policy.") and key != "policy.heads"
        ]
        return run["study"], ", ".join(f"{key.rpartition('.')[2]}={_short(run[key])}" for key in varied)


def _values(text: str) -> list[str]:
    return [text] if text.startswith("[") or "/" in text else text.split(",")


def _same(found: Any, value: str) -> bool:
    wanted = yaml.safe_load(value)
    return bool(found == wanted) or (isinstance(found, str) and found == value)


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.2f}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def write_report(page: Path, parts: Mapping[str, Part]) -> None:
    """Write the tables of parts between the marks of ``page``/README.md, and their plots beside it."""
    readme = page / "README.md"
    for name, part in parts.items():
        runs = part.runs()
        write_between(readme, f"{name} points", points_text(runs))
        write_between(readme, f"{name} tests", tests_text(runs, part))
        write_between(readme, f"{name} areas", areas_text(runs, part))
        if part.timed:
            write_between(readme, f"{name} cost", cost_text(json.loads(part.cost.read_text(encoding="utf-8"))["rows"]))
            examples = examples_text(*(folder_of(runs, *one) for one in points.COMPARED))
            write_between(readme, f"{name} examples", examples)
        if name == "rewarded":
            write_between(readme, "chosen", chosen_text(runs, part))
        if name == "bundled":
            figure = panels(runs, part)
        else:
            figure, axes = plt.subplots(figsize=(8, 5.4), layout="constrained")
            draw(axes, runs, styles(part))
        figure.savefig(page / f"{name}.svg", bbox_inches="tight")
        figure.savefig(page / f"{name}.png", dpi=150, bbox_inches="tight")
        plt.close(figure)
        write_between(readme, f"{name} plot", f"![{PLOTS[name]}]({name}.svg)")


def folder_of(runs: pandas.DataFrame, line: str, point: str) -> str:
    """Raises: ValueError: there is not exactly one such run."""
    found = runs[(runs["study"] == line) & (runs["point"] == point)]["folder"].tolist()
    if len(found) != 1:
        raise ValueError(f"{len(found)} runs are {line!r} {point!r}; of {line!r} there are {_points_of(runs, line)}")
    return str(found[0])


def _points_of(runs: pandas.DataFrame, line: str) -> str:
    return ", ".join(runs[runs["study"] == line]["point"]) or "none"


# --- tables


def points_text(runs: pandas.DataFrame) -> str:
    """Every point, with its share of what the same weights have for whole sentences, where those were run."""
    runs = runs.assign(weights=runs["model.path"])
    of_whole = runs["policy._target_"].str.endswith(".Full")
    whole = dict(zip(runs["weights"][of_whole], runs["bleu"][of_whole], strict=True))
    rows = []
    for run in runs.itertuples():
        bleu, *lags = (f"{getattr(run, name):.2f}" for name in ("bleu", "laal", "dal", "al", "cw"))
        share = f"{100 * run.bleu / whole[run.weights]:.1f}" if run.weights in whole else ""
        rows.append([run.study, run.point, bleu, share, *lags, _number(run.forward_passes_per_target_token)])
    return markdown(
        ["line", "point", "BLEU", "% of full", "LAAL", "DAL", "AL", "CW", "forward passes per target token"], rows
    )


def named_points(runs: pandas.DataFrame, lines: Sequence[str]) -> dict[str, str]:
    """Folders of the points of lines, by names of both."""
    chosen = runs[runs["study"].isin(list(lines))]
    return {f"{run.study} {run.point}".strip(): str(run.folder) for run in chosen.itertuples()}


def tests_text(runs: pandas.DataFrame, part: Part) -> str:
    """Each learned point against the lines of `BASELINES` at equal LAAL, and the best run without training that is no
    later."""
    learned = named_points(runs, list(part.learned))
    best = against_best(runs, part, learned).set_index("system")
    in_order = sorted(learned, key=lambda name: best.loc[name, "latency"])  # as the rows of what follows
    beside: dict[tuple[str, str], Any] = {}
    for baseline in points.BASELINES:
        curve = list(named_points(runs, [baseline]).values())
        table = equal_latency_table(curve, [learned[name] for name in in_order], samples=points.SAMPLES)
        beside |= {(baseline, name): row for name, row in zip(in_order, table.to_dict("records"), strict=True)}
    rows = []
    for name in learned:
        row = best.loc[name]
        cells = [name, f"{row['latency']:.2f}", f"{row['quality']:.2f}"]
        for baseline in points.BASELINES:
            cells += difference(beside[baseline, name])
        cells.append(f"{row['baseline']}: {row['baseline_quality']:.2f} at {row['baseline_latency']:.2f}")
        if not row["baseline"]:
            cells[-1] = "none"
        rows.append([*cells, *difference(row)])
    above = [head for baseline in points.BASELINES for head in (f"above {baseline} at equal LAAL [95 %]", "p")]
    return markdown(
        ["point", "LAAL", "BLEU", *above, "best without training, no later", "above that [95 %]", "p"], rows
    )


def against_best(runs: pandas.DataFrame, part: Part, systems: Mapping[str, str]) -> pandas.DataFrame:
    """`no_later_table` with all runs without training as baselines."""
    baselines = named_points(runs, list(part.without_training))
    return no_later_table(baselines, systems, samples=points.SAMPLES, trials=points.TRIALS)


def difference(row: Mapping[str, Any]) -> list[str]:
    """A difference with its interval, and its p; nothing where there is none."""
    if math.isnan(row["difference"]):
        return ["", ""]
    value, low, high = (row[key] for key in ("difference", "difference_low", "difference_high"))
    p = row["p_value"]
    return [f"{value:+.2f} [{low:+.2f}, {high:+.2f}]", f"{p:.3f}" if p >= 0.001 else "< 0.001"]


def areas_text(runs: pandas.DataFrame, part: Part) -> str:
    """Each learned line of two points or more beside the baseline, over the range of LAAL that both cover."""
    baseline = points.BASELINES[0]
    theirs = list(named_points(runs, [baseline]).values())
    full = next(iter(named_points(runs, [FULL]).values()))
    curves = {name: [name] for name in part.learned}
    curves |= {name: [one for one in lines if one in part.learned] for name, lines in points.TOGETHER.items()}
    rows = []
    for name, lines in curves.items():
        curve = list(named_points(runs, lines).values())
        if len(curve) < 2:
            continue
        try:
            table = curve_table({name: curve, baseline: theirs}, baseline, full, samples=points.SAMPLES).set_index(
                "curve"
            )
        except ValueError:  # no range that both cover
            rows.append([name, str(len(curve)), "none", "", "", "", ""])
            continue
        own, other = table.loc[name], table.loc[baseline]
        rows.append(
            [
                name,
                str(len(curve)),
                f"{own['from']:.2f} to {own['to']:.2f}",
                *(f"{one['mean']:.2f} [{one['mean_low']:.2f}, {one['mean_high']:.2f}]" for one in (own, other)),
                f"{own['difference']:+.2f} [{own['difference_low']:+.2f}, {own['difference_high']:+.2f}]",
                *(f"{one['nose']:.3f} [{one['nose_low']:.3f}, {one['nose_high']:.3f}]" for one in (own, other)),
            ]
        )
    rows = [[*row, *[""] * (8 - len(row))] for row in rows]
    heads = ["line", "points", "LAAL", "mean BLEU", f"of {baseline}", "difference [95 %]", "NoSE", f"of {baseline}"]
    return markdown(heads, rows)


def chosen_text(runs: pandas.DataFrame, part: Part) -> str:
    """The points that were chosen on validation, each against the best run without training that is no later."""
    systems = {bound: folder_of(runs, *point) for bound, point in points.CHOSEN.items()}
    best = against_best(runs, part, systems).set_index("system")
    full = float(runs[runs["study"] == FULL]["bleu"].iloc[0])
    rows = []
    for bound, (line, point) in points.CHOSEN.items():
        row = best.loc[bound]
        beaten = f"{row['baseline']}: {row['baseline_quality']:.2f}" if row["baseline"] else "none"
        place = [f"{row['latency']:.2f}", f"{row['quality']:.2f}", f"{100 * row['quality'] / full:.1f}"]
        rows.append([f"≤ {bound}", f"{line} {point}", *place, beaten, *difference(row)])
    heads = ["LAAL", "point", "LAAL found", "BLEU", "% of full", "best without training, no later"]
    return markdown([*heads, "difference [95 %]", "p"], rows)


def cost_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CPU time and forwards per target token; of times, how they were measured."""
    cells = []
    for row in rows:
        spread = f" ({row['low']:.2f} to {row['high']:.2f})" if row["turns"] > 1 else ""
        cells.append([row["line"], f"{row['cpu_ms']:.2f}{spread}", f"{row['forwards']:.2f}"])
    how = f"{rows[0]['sentences']} sentences, one at a time, one thread; "
    turns = rows[0]["turns"]
    how += "one turn" if turns == 1 else f"the median of {turns} turns (the least to the most)"
    return markdown(["line", "CPU ms per target token", "forward passes per target token"], cells) + f"\n\n{how}."


# --- plots


def styles(part: Part) -> dict[str, Look]:
    """What is learned in colours, the same in every panel; what is not in grey, by its markers."""
    grey = [name for name in part.without_training if name not in (points.BASELINES[0], FULL)]
    found = {name: Look(GREY, marker, ":") for name, marker in zip(grey, MARKERS, strict=False)}
    return found | dict(zip(part.learned, CYCLE, strict=False))


def panels(runs: pandas.DataFrame, part: Part) -> Figure:
    figure, grid = plt.subplots(len(points.PANELS), 1, figsize=(8.5, 6.4 * len(points.PANELS)), layout="constrained")
    for ax, (title, lines) in zip(grid, points.PANELS.items(), strict=True):
        draw(ax, runs[runs["study"].isin([*lines, FULL])], styles(part))
        ax.set_title(title, loc="left", fontsize=sizes().text)
    return figure


def draw(ax: Axes, runs: pandas.DataFrame, styles: Mapping[str, Look]) -> None:
    """BLEU over LAAL in the range that matters; whole sentences, which lie far to the right, are a line across."""
    whole = runs[runs["study"] == FULL]
    curves = runs[runs["study"] != FULL]
    shown = curves[curves["laal"] <= LATEST]
    top = max(float(shown["bleu"].max()), float(whole["bleu"].max()))
    left = max(0.0, float(shown[shown["bleu"] >= top - CROWDED]["laal"].min()) - 0.2)
    ax.set(xlim=(left, LATEST), ylim=(top - CROWDED, top + 0.6))
    for height in whole["bleu"]:
        ax.axhline(height, color=FAINT, linestyle="--", linewidth=1)
        ax.annotate("full", (LATEST, height), xytext=(-3, 2), textcoords="offset points", ha="right", color="grey")
    chosen = {name: look for name, look in styles.items() if name in set(curves["study"])}
    first = points.BASELINES[0]
    quality_latency(curves, by="study", ax=ax, reference=first, pareto=True, key=True, styles=chosen)
