"""What runs are called where several stand together: as short as it can be without two of them having the same name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamllm.runs.load import LAG_BOUNDS, policy_name
from streamllm.runs.naming import NOT_IN_DIGEST

if TYPE_CHECKING:
    import pandas

LONGEST = 40  # characters of a setting; a long path would fill the page


def settings(table: "pandas.DataFrame", configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What sets a run apart from others of its policy, else all that its policy was given."""
    from streamllm.plots.curves import operating_points, settings_of_policy

    found, named = [], settings_of_policy(table)
    for point, config in zip(operating_points(table), configs, strict=True):
        keys = [key for key in config if key in named]
        texts = {key.rpartition(".")[2]: _text(config[key]) for key in keys}
        found.append(_cut(point or ", ".join(f"{key}={text}" for key, text in texts.items() if text)))
    return found


def varied(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The keys of the configuration that differ between runs, but those of the policy and of bookkeeping."""
    of_policy = {key.removeprefix("policy.") for config in configs for key in config if key.startswith("policy.")}
    chosen: dict[tuple[str, ...], str] = {}  # by last part and values: a key that only repeats another is left out
    for key in sorted({key for config in configs for key in config}, key=lambda key: (len(key), key)):
        if key.partition(".")[0] in NOT_IN_DIGEST | {"policy"} or key in of_policy or key in LAG_BOUNDS:
            continue
        values = [_text(config.get(key)) for config in configs]
        if len(set(values)) > 1:
            chosen.setdefault((key.rpartition(".")[2], *values), key)
    return [{key: _cut(_short(key, config.get(key))) for key in sorted(chosen.values())} for config in configs]


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What two runs were set to otherwise: by key, the values of both as texts, "null" for none.

    First come the choices (``policy``, not ``policy._target_``), without the keys that only one of two chosen has. A
    key that only repeats another (``k`` and ``policy.k``) is left out, and so is bookkeeping."""
    found: dict[tuple[str, str, str], str] = {}
    for key in sorted({*a, *b}, key=lambda key: (not key.endswith("._target_"), len(key), key)):
        group, _, last = key.rpartition(".")
        of_one = a.get(f"{group}._target_") != b.get(f"{group}._target_") and not (key in a and key in b)
        if of_one or key.partition(".")[0] in NOT_IN_DIGEST or a.get(key) == b.get(key):
            continue
        old, new = (_cut(_short(key, of.get(key)) or "null") for of in (a, b))
        found.setdefault((last, old, new), group if last == "_target_" else key)
    return {key: (old, new) for (_, old, new), key in found.items()}


PARADIGM = "paradigm._target_"
SAYS_MOST = ("name", "path")
"""Last parts of keys that stand for others of their group."""


def folded(rows: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The keys that tell runs apart, each with those of its group that say no more than it: of three data sets, the
    name with files, languages and split. ``rows`` is what `varied` gives."""
    keys = list(rows[0]) if rows else []
    kept: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: (key.rpartition(".")[2] not in SAYS_MOST, keys.index(key))):
        group = key.partition(".")[0]
        one = next((other for other in kept if other.partition(".")[0] == group and _tells(rows, other, key)), None)
        if one is None:
            kept[key] = []
        else:
            kept[one].append(key)
    return {key: kept[key] for key in keys if key in kept}


def _tells(rows: Sequence[Mapping[str, str]], key: str, other: str) -> bool:
    """Whether the value of ``key`` says that of ``other``."""
    return len({(row[key], row[other]) for row in rows}) == len({row[key] for row in rows})


def titles(
    policies: Sequence[str], of_policy: Sequence[str], others: Sequence[Mapping[str, str]], digests: Sequence[str]
) -> list[str]:
    """Names as short as they can be without two runs having the same: policy and setting, then paradigm, data set,
    model and what else differs. ``of_policy`` is what `settings` gives, and ``others`` what `varied` does."""
    found = [f"{policy} {setting}".strip() for policy, setting in zip(policies, of_policy, strict=True)]
    for key in sorted(others[0], key=lambda key: (key != PARADIGM, not _says_most(key))):
        longer = [
            f"{title} · {said(key, values[key])}" if values[key] and found.count(title) > 1 else title
            for title, values in zip(found, others, strict=True)
        ]
        if len(set(longer)) > len(set(found)):
            found = longer
    return [
        f"{title} · {digest}" if found.count(title) > 1 else title for title, digest in zip(found, digests, strict=True)
    ]


def said(key: str, text: str) -> str:
    """A value as it stands in a name: alone where it says what it is of, else with its key."""
    return text if _says_most(key) else f"{key.rpartition('.')[2]}={text}"


def _says_most(key: str) -> bool:
    return key.rpartition(".")[2] in (*SAYS_MOST, "_target_")


def _short(key: str, value: Any) -> str:
    """As `_text`; of a class, what it is called on the command line."""
    return policy_name(_text(value)) if key.endswith("_target_") else _text(value)


def _text(value: Any) -> str:
    """A value of a configuration as people write it; nothing for None."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
