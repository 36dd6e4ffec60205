"""Whatever is typed as overrides either works or is one line. They are composed, checked and made as the commands do
it, but no model is loaded."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from streamllm.cli import run, train
from streamllm.cli.arguments import composed
from streamllm.cli.errors import flag_first, one_line
from streamllm.cli.user_errors import user_error

EVERYTHING: dict[str, Callable[[DictConfig], Any]] = {"run": run.everything, "train": train.everything}
USUAL = {"run": ["tracker=none"], "train": ["tracker=none", "fresh=tiny"]}
GROUPS = ("policy", "model", "dataset", "prompt", "metric", "experiment", "tracker", "adapter", "hydra/launcher")
VALUES = (
    *("null", "true", "false", "0", "1", "-1", "2.0", "0.5", "1e400", "inf", "-inf", "nan", "1000000000000000000000"),
    *("", "''", "abc", '"1"', "'a b'", "ä", "日本", "\x00", "???", "full", "after_source", "en", "word", "outputs/a"),
    *("[]", "[1]", "[1,2]", "[a]", "[[0,1]]", "[null]", "{}", "{a:1}", "{_target_:os.getcwd}", "{_target_:5}", "[1"),
    *("${k}", "${seed}", "${no_such}", "${name}", "${oc.env:NO_SUCH}", "${oc.env:HOME}", "${a", "$", "a=b", "x:y"),
    *("streamllm.policies.waitk.WaitK", "no_such_module.Mine", "streamllm.policies", "range(1,3)", "choice(1,2)"),
    *("1,2", "{a", "\\"),
)  # fmt: skip
OURS = ("TypeError", "AttributeError", "KeyError", "IndexError", "AssertionError", "RecursionError", "Traceback")
"""What an error reads like that is a mistake of ours."""


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
@pytest.mark.parametrize("place", range(3))
def test_the_flag_of_a_sweep_may_stand_anywhere(flag: str, place: int) -> None:
    """Hydra's own parser takes it at both ends only."""
    words = ["k=1,2", "policy=waitk"]
    words.insert(place, flag)
    given = get_args_parser().parse_args(flag_first(words))
    assert given.multirun and given.overrides == ["k=1,2", "policy=waitk"]


def said_of(config: str, overrides: list[str]) -> str | None:
    """The error, as it is shown; None if it works."""
    try:
        EVERYTHING[config](composed([*USUAL[config], *overrides], config))
    except Exception as error:
        return one_line(user_error(error))
    return None


def keys_in(node: Any, above: str = "") -> list[str]:
    """Every key of a configuration, groups included."""
    if not isinstance(node, dict):
        return []
    return [key for name, item in node.items() for key in (f"{above}{name}", *keys_in(item, f"{above}{name}."))]


@cache
def keys(config: str) -> list[str]:
    return keys_in(OmegaConf.to_container(composed(USUAL[config], config), resolve=False))


def overrides(config: str) -> st.SearchStrategy[list[str]]:
    known = st.sampled_from(keys(config))
    key = st.one_of(
        *(known, known, known, st.sampled_from(GROUPS)),
        *(known.map(lambda key: f"{key}.more"), known.map(lambda key: key[:-1]), st.text("abk._@/[]0", max_size=8)),
    )
    value = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), st.text(max_size=6), st.floats().map(str))
    given = st.builds(lambda sign, key, value: f"{sign}{key}={value}", st.sampled_from(["", "", "+", "++"]), key, value)
    return st.lists(st.one_of(given, given, given, key.map("~{}".format), st.text(max_size=8)), min_size=1, max_size=2)


@pytest.mark.parametrize(
    ("config", "examples"),
    [
        ("run", 8),
        pytest.param("run", 60, marks=pytest.mark.long),
        pytest.param("train", 20, marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(1800)
def test_any_overrides_work_or_are_one_line(config: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(overrides(config))
    def check(words: list[str]) -> None:
        said = said_of(config, words)
        assert said is None or said.strip()
        assert said is None or (said.isprintable() and not said.startswith(OURS))

    check()
