"""Which runs are one point, one curve, one test set: a table of runs grouped by their configurations, for
`streamllm.runs.curve_tests`.

Two runs are one point if their configurations differ in seeds alone, and one curve if they have the same policy. Test
sets differ in keys of ``dataset``."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamllm.runs.curve_tests import point_table
from streamllm.runs.load import FULL, curve_name, flatten, policy_name, read_config
from streamllm.runs.naming import NOT_IN_DIGEST
from streamllm.runs.sums import SEED

if TYPE_CHECKING:
    import pandas

SAME_ON_A_CURVE = ("model.path", "model.adapter_path", "paradigm._target_")
"""Keys that may not differ between the points of one curve."""

SEEDS = ("seed",)
"""Keys that tell seeds apart. Trainings with several seeds differ in ``model.path``: give that."""


def curves_of(runs: "pandas.DataFrame", by: str = "policy", seeds: Sequence[str] = SEEDS) -> dict[str, list[list[str]]]:
    """The curves of runs, for `curve_table`: by name, a list of points, each the folders of its seeds.

    Args:
        runs: rows of `load_runs`, of one test set.
        by: the column whose values are the curves; "policy" is made of ``policy._target_`` where it is absent, and a
            ``full`` that ``max_lag`` hurries is "full, bounded".
        seeds: keys that seeds differ in.

    Raises: ValueError: a column is absent, or a curve would join runs of different models.
    """
    curves: dict[str, list[list[str]]] = {}
    for name, rows in _column(runs, by).items():
        groups: dict[Hashable, list[str]] = {}
        settings = [_settings(folder, seeds) for folder in rows]
        for key in SAME_ON_A_CURVE:
            if len(values := list(dict.fromkeys(str(found.get(key)) for found in settings))) > 1:
                raise ValueError(
                    f"the curve {name!r} would join runs with different {key} ({', '.join(values)}): keep those of "
                    f"one, or name the curves by it ({key.removesuffix('._target_')!r} in place of {by!r})"
                )
        for folder, found in zip(rows, settings, strict=True):
            groups.setdefault(_frozen(found), []).append(folder)
        curves[name] = list(groups.values())
    return curves


def points_of(runs: "pandas.DataFrame", seeds: Sequence[str] = SEEDS) -> dict[str, list[str]]:
    """The points of runs by a name such as "waitk k=3": folders of the seeds of each. Raises: as `curves_of`."""
    groups: dict[Hashable, list[str]] = {}
    settings: dict[Hashable, dict[str, Any]] = {}
    for folder in _folders(runs):
        found = _settings(folder, seeds)
        key = _frozen(found)
        groups.setdefault(key, []).append(folder)
        settings[key] = found
    return dict(zip(_names(list(settings.values())), groups.values(), strict=True))


def by_test_set(runs: "pandas.DataFrame") -> dict[str, "pandas.DataFrame"]:
    """The rows of each test set, in the order of their first rows, by its name; where two are called alike, what else
    differs is added. Raises: ValueError: ``runs`` has no column ``folder``."""
    groups: dict[Hashable, list[int]] = {}
    settings: dict[Hashable, dict[str, Any]] = {}
    for place, folder in enumerate(_folders(runs)):
        config = flatten(read_config(folder))
        found = {key: value for key, value in config.items() if key.startswith("dataset.")}
        key = _frozen(found)
        groups.setdefault(key, []).append(place)
        settings[key] = found
    names = [str(found.get("dataset.name", "data")) for found in settings.values()]
    varied = _varied(list(settings.values()))
    names = [
        name if names.count(name) == 1 else " ".join([name, *(f"{found.get(key)}" for key in varied)])
        for name, found in zip(names, settings.values(), strict=True)
    ]
    return {name: runs.iloc[places] for name, places in zip(names, groups.values(), strict=True)}


def side_by_side(
    runs: "pandas.DataFrame",
    metrics: Sequence[str] = ("laal", "bleu"),
    seeds: Sequence[str] = SEEDS,
    samples: int = 1000,
    seed: int = SEED,
) -> "pandas.DataFrame":
    """Several test sets side by side: the scores of each point on each of them, with intervals.

    Returns: a row for each point, named as `points_of` does, and for each test set and metric the columns (test set,
        metric), (test set, "METRIC_low"), (test set, "METRIC_high") and (test set, "METRIC_sd"), which is nan without
        several seeds. A point that a test set lacks is nan there.
    Raises: as `curve_table`.
    """
    import pandas

    found = {}
    for name, rows in by_test_set(runs).items():
        table = point_table(points_of(rows, seeds), metrics, samples, seed)
        found[name] = table.set_index("point").drop(columns="seeds")
    return pandas.concat(found, axis=1)


def _column(runs: "pandas.DataFrame", by: str) -> dict[str, list[str]]:
    """Folders by the values of a column."""
    if by in runs:
        values = runs[by]
    elif f"{by}._target_" in runs:
        values = runs[f"{by}._target_"].map(policy_name)
    else:
        raise ValueError(f"runs has no column {by!r}: give one of its columns, such as 'policy' or 'model.path'")
    found: dict[str, list[str]] = {}
    for value, folder in zip(values, _folders(runs), strict=True):
        name = str(value)
        if by == "policy":
            name = curve_name(name, flatten(read_config(folder)).get("max_lag") if name == FULL else None)
        found.setdefault(name, []).append(folder)
    return found


def _folders(runs: "pandas.DataFrame") -> list[str]:
    if "folder" not in runs:
        raise ValueError("runs has no column 'folder': take the DataFrame of streamllm.runs.load.load_runs")
    return [str(folder) for folder in runs["folder"]]


def _settings(folder: str, seeds: Sequence[str]) -> dict[str, Any]:
    """What a run is set to, but for its seeds."""
    config = flatten(read_config(folder))
    return {
        key: value
        for key, value in config.items()
        if key.partition(".")[0] not in NOT_IN_DIGEST
        and not any(key == one or key.startswith(f"{one}.") for one in seeds)
    }


def _frozen(settings: Mapping[str, Any]) -> Hashable:
    return tuple(sorted((key, repr(value)) for key, value in settings.items()))


def _varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted({key for found in settings for key in found})
    return [key for key in keys if len({repr(found.get(key)) for found in settings}) > 1]


def _names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The policy with its settings that differ from others of the policy, then what else differs; a key that only
    repeats another (``k`` and ``policy.k``) is left out."""
    policies = [policy_name(str(found.get("policy._target_", "run"))) for found in settings]
    names = []
    for policy, found in zip(policies, settings, strict=True):
        alike = [other for name, other in zip(policies, settings, strict=True) if name == policy]
        texts: dict[tuple[str, str], None] = {}
        for key in sorted(_varied(alike), key=lambda key: (not key.startswith("policy."), key)):
            if not key.endswith("._target_") or key == "paradigm._target_":
                texts[key.rpartition(".")[2], _text(found.get(key))] = None
        names.append(" ".join([policy, *(f"{key}={text}" for key, text in texts)]))
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).rpartition("/")[2]
