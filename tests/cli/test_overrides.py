"""Whatever is typed as overrides either works or is one line: composed, checked and made as the commands do it, without
a model being loaded."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from streamllm.cli import run, train
from streamllm.cli.arguments import composed
from streamllm.cli.errors import one_line
from streamllm.cli.user_errors import user_error

MADE: dict[str, Callable[[DictConfig], Any]] = {"run": run.everything, "train": train.everything}
USUAL = {"run": ["tracker=none"], "train": ["tracker=none", "fresh=tiny"]}
VALUES = (
    *("null", "true", "false", "0", "1", "-1", "2.0", "0.5", "1e400", "inf", "-inf", "nan", "10000000000000000000000"),
    *(
        "",
        "''",
        "abc",
        '"1"',
        "'a b'",
        "ä",
        "日本",
        "\x00",
        "???",
        "full",
        "after_source",
        "en",
        "word",
        "outputs/a-run",
    ),
    *(
        "[]",
        "[1]",
        "[1,2]",
        "[a]",
        "[[0,1]]",
        "[null]",
        "{}",
        "{a:1}",
        "{_target_:os.getcwd}",
        "{_target_:5}",
        "[1",
        "{a",
    ),
    *(
        "${k}",
        "${seed}",
        "${no_such}",
        "${name}",
        "${oc.env:NO_SUCH}",
        "${oc.env:HOME}",
        "${a",
        "$",
        "a=b",
        "1,2",
        "x:y",
    ),
    *("streamllm.policies.waitk.WaitK", "no_such_module.Mine", "streamllm.policies", "range(1,3)", "choice(1,2)", "\\"),
)


def keys(node: Any, above: str = "") -> list[str]:
    """Every key of a configuration, groups included."""
    if not isinstance(node, dict):
        return []
    return [key for name, item in node.items() for key in (f"{above}{name}", *keys(item, f"{above}{name}."))]


def known_keys(config: str) -> list[str]:
    from omegaconf import OmegaConf

    return keys(OmegaConf.to_container(composed(USUAL[config], config), resolve=False))


def words(config: str) -> st.SearchStrategy[list[str]]:
    groups = ["policy", "model", "dataset", "prompt", "metric", "experiment", "tracker", "hydra/launcher", "adapter"]
    key = st.one_of(
        st.sampled_from([*known_keys(config), *groups]),
        st.text("abcdefk._@/[]0", min_size=1, max_size=8),
        st.sampled_from([*known_keys(config)]).map(lambda key: f"{key}.more"),
        st.sampled_from([*known_keys(config)]).map(lambda key: key[:-1]),
    )
    value = st.one_of(st.sampled_from(VALUES), st.text(max_size=6), st.integers().map(str), st.floats().map(str))
    added = st.tuples(st.sampled_from(["", "", "", "+", "++"]), key, value).map(lambda of: f"{of[0]}{of[1]}={of[2]}")
    word = st.one_of(added, added, added, key.map(lambda key: f"~{key}"), st.text(max_size=8))
    return st.lists(word, min_size=1, max_size=3)


def said_of(config: str, overrides: list[str]) -> str | None:
    """The error, as it is shown; None if it works."""
    try:
        MADE[config](composed([*USUAL[config], *overrides], config))
    except Exception as error:
        return one_line(user_error(error))
    return None


@pytest.mark.parametrize("config", ["run", "train"])
def test_any_overrides_work_or_are_one_line(config: str) -> None:
    @settings(max_examples=200, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(words(config))
    def check(overrides: list[str]) -> None:
        said = said_of(config, overrides)
        if said is not None:
            print(overrides, "->", said)
            assert said
            assert "\n" not in said
            assert not said.startswith(
                ("TypeError", "AttributeError", "KeyError", "AssertionError", "RecursionError", "IndexError")
            )

    check()
