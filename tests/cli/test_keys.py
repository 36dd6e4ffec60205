"""The keys of the commands are checked before anything is loaded: each wrong value is one line that names its key."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from test_overrides import USUAL, said_of

from streamllm.cli import calibrate, distill, live, serve
from streamllm.cli.annotations import Part, fits, in_words
from streamllm.cli.arguments import composed
from streamllm.cli.errors import one_line, resolved
from streamllm.cli.keys import CommandKeys, RunKeys, arguments_of, check_part, checked
from streamllm.cli.run import everything
from streamllm.cli.train import TrainKeys
from streamllm.cli.user_errors import user_error
from streamllm.training.fresh import FreshModel

CONF = ROOT / "conf"


@cache
def usual() -> DictConfig:
    return composed(USUAL["run"])


def said_of_value(word: str) -> str | None:
    """As `said_of`, for ``key=value`` alone; composed once for all."""
    key, _, text = word.partition("=")
    cfg = OmegaConf.create(OmegaConf.to_container(usual(), resolve=False))
    OmegaConf.update(cfg, key, OverridesParser.create().parse_override(f"key={text}").value())
    try:
        everything(cfg)
    except Exception as error:
        return one_line(user_error(error))
    return None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.path=null", "model.path is null; it is a text"),
        ("model.path=5", "model.path is 5; it is a text (as a text: 'model.path=\"5\"')"),
        ("model.temperature=abc", "model.temperature is 'abc'; it is a number"),
        ("model.temperature=inf", "model.temperature is inf; it is a finite number, at least 0 (0 is greedy)"),
        ("model.temperature=nan", "model.temperature is nan; it is a number"),
        ("model.top_p=true", "model.top_p is true; it is a number"),
        ("model.sinks=true", "model.sinks is true; it is a whole number"),
        ("limits=null", "limits is null; it is a group of keys: give those, as in limits.KEY=VALUE, or leave limits"),
        ("debug=maybe", "debug is 'maybe'; it is true or false"),
        ("debug={_target_:builtins.bool}", "debug is {'_target_': 'builtins.bool'}; it is true or false"),
        ("k=[1]", "k is [1]; it is a whole number"),
        ("policy.k=[1]", "policy.k is [1]; it is a whole number"),
        ("output=5", "output is 5; it is a group of keys: output.root"),
        ("tuning.metric=blue", "tuning.metric is 'blue'; did you mean bleu? accepted are "),
        ("name=a/b", "name is 'a/b'; accepted are letters, digits"),
        (f"name={'x' * 300}", "name is 'xxxxxxxxxxxxxxxxxxxx'… and 300 bytes long; at most 200 are accepted"),
        ("max_lag=0", "max_lag is 0; it is a whole number of units, at least 1, or null for no bound"),
        ("paradigm._target_=builtins.list", "paradigm is a list, without open: paradigm._target_ names a class for"),
        ("name=${name}", "Recursive interpolation detected"),
        ("seed=${oc.env:NO_SUCH}", "seed cannot be read: \"Environment variable 'NO_SUCH' not found\""),
        ("batch_size=4.0", "batch_size is 4.0; it is a whole number or null (written without a point or exponent"),
        ("metrics=ter", "metrics=ter: metrics holds what is chosen by metric: give metric=ter"),
        ("dataset.limit=abc", "dataset.limit is 'abc'; it is a whole number or null"),
    ],
)
def test_a_wrong_value_is_one_line(word: str, message: str) -> None:
    assert (said_of_value(word) or "").startswith(message)


NOTHING = "adds what nothing reads (a label for runs is +study=NAME): "


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("~tracker", "tracker is missing: leave out ~tracker, or add it to the YAML that lacks it; for none give tra"),
        ("tracker=null", "tracker=null: tracker is chosen by the name of a file; accepted are none, wandb"),
        ("+evil=1", f"+evil=1 {NOTHING}there is no key 'evil'; there are arrival, batch_size"),
        ("polic.f=2", "there is no key 'polic.f'; did you mean policy? policy has policy.k, policy.catchup"),
        ("metrc=ter", "there is no key 'metrc'; did you mean metric? There are metric, arrival"),
        ("metrics=[ter,wer]", "metrics=[ter,wer]: metrics holds what is chosen by metric: give metric=[ter,wer]"),
        ("limits=[1]", "limits=[1]: limits is a group of keys: give those, as in limits.KEY=VALUE"),
        ("policy={_target_:mypol.Mine,n:2}", "policy={…} gives values to the keys of policy=waitk: policy.k, poli"),
        pytest.param("policy=full +k=3", f"+k=3 {NOTHING}policy=full has no k: ", marks=pytest.mark.long),
        pytest.param("+dataset@other=sample", f"+dataset@other=sample {NOTHING}there is no", marks=pytest.mark.long),
        pytest.param("~k", "policy.k takes its value from k, which is not there: give k ", marks=pytest.mark.long),
        pytest.param("polic.k=2", "there is no key 'polic.k'; did you mean policy.k? policy", marks=pytest.mark.long),
        pytest.param(
            "policy=oracle policy.delays=[1,a]",
            "policy.delays is [1, 'a']; it is a list of whole numbers or keys, each with a list of whole numbers",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_wrong_line_is_one_line(words: str, message: str) -> None:
    assert (said_of("run", words.split()) or "").startswith(message)


@pytest.mark.long
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.betas=[1,a]", "optimizer.betas is [1, 'a']; it is a list of numbers"),
        ("training.learning_rate=inf", "training.learning_rate is inf; it is a finite number, above 0"),
        ("fresh.seed=-1", "fresh.seed is -1; it is a whole number, at least 0"),
        ("score=null", "score is null; it is a group of keys"),
        ("+evil.a=1", "+evil.a=1 adds what nothing reads"),
    ],
)
def test_a_wrong_value_of_a_training_is_one_line(word: str, message: str) -> None:
    assert (said_of("train", [word]) or "").startswith(message)


def test_a_training_may_clip_nothing() -> None:
    assert said_of("train", ["training.clip=inf"]) is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "kind", "word", "message"),
    [
        ("live", live.LiveKeys, "show_source=maybe", "show_source is 'maybe'; it is true or false"),
        ("serve", serve.ServeKeys, "port=70000", "port is 70000; it is a whole number from 0"),
        ("serve", serve.ServeKeys, "host=5", "host is 5; it is a text"),
        ("serve", serve.ServeKeys, "choices.waitk.k=3", "choices.waitk.k is 3; it is the least and the most that a"),
        (
            "serve",
            serve.ServeKeys,
            "streams_per_forward=0",
            "streams_per_forward is 0; it is a whole number",
        ),
        ("serve", serve.ServeKeys, "quotas.idle=never", "quotas.idle is 'never'; it is a number"),
        ("distill", distill.DistillKeys, "to=5", "to is 5; it is a text or null"),
        ("calibrate", calibrate.CalibrateKeys, "heads=0", "heads is 0; it is a whole number of heads"),
        ("calibrate", calibrate.CalibrateKeys, "+evil=1", "+evil=1 adds what nothing reads"),
    ],
)
def test_each_command_has_keys_of_its_own(config: str, kind: type[CommandKeys], word: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("+", r"\+")):
        checked(composed([word], config), kind)


def test_types_come_before_anything_is_read() -> None:
    absent = ["dataset=table", "dataset.path=absent.csv", "model=folder", "model.path=absent", "seed=abc"]
    assert said_of("run", absent) == "seed is 'abc'; it is a whole number"


def test_a_number_is_a_name_too() -> None:
    _, keys, _ = everything(composed([*USUAL["run"], "name=2024", "output.root=5"]))
    assert (keys.name, keys.output.root) == (2024, 5)
    assert said_of("run", ["name=2024", "tracker=wandb"]) is None  # whose tags are the name


def test_checking_changes_no_value() -> None:
    cfg = composed(["model.temperature=1", "limits.length_ratio=2", "name=2024"])
    assert checked(cfg, RunKeys)[0] == resolved(cfg)


def test_what_a_composed_file_declares_can_be_added_to() -> None:
    chat = ["prompt=chat", "dataset.source_language=sv", "+languages.sv=Swedish", "+study=mine", "++k=2"]
    assert said_of("run", chat) is None


@pytest.mark.long
@pytest.mark.parametrize("group", ["optimizer", "objective", "training", "adapter"])
def test_every_file_of_training_passes(group: str) -> None:
    of = ["model=tiny-en-de"] if group == "adapter" else USUAL["train"]
    for path in sorted((CONF / group).glob("*.yaml")):
        checked(composed([*of, f"{group}={path.stem}"], "train"), TrainKeys)


# --- classes of one's own


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module of one's own, and returns its name."""

    def written(code: str) -> str:
        name = f"own_{len(list(tmp_path.iterdir()))}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        return name

    yield written
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    arguments_of.cache_clear()


START = "    def start(self, example): ...\n"


def test_a_constructor_without_annotations_is_not_checked_by_type(module: Callable[[str], str]) -> None:
    own = module(f"class Own:\n    def __init__(self, k, n=1): self.n = n\n{START}")
    word = f"policy._target_={own}.Own"
    _, _, parts = everything(composed([*USUAL["run"], word, "~policy.catchup", "+policy.n=[any,thing]"]))
    assert parts["policy"].n == ["any", "thing"]
    said = said_of("run", [word, "~policy.catchup", "+policy.m=2"])
    assert said == "policy.m is a key that Own does not take; it takes policy.k, policy.n"


def test_a_constructor_with_annotations_is_checked_by_type(module: Callable[[str], str]) -> None:
    own = module(f"class Own:\n    def __init__(self, k: int, mode: str = 'a'): ...\n{START}")
    words = [f"policy._target_={own}.Own", "~policy.catchup"]
    assert (
        said_of("run", [*words, "+policy.mode=2"]) == "policy.mode is 2; it is a text (as a text: 'policy.mode=\"2\"')"
    )
    assert said_of("run", [*words, "~policy.k"]) == "policy.k is missing, and Own needs it: add +policy.k=…"


def test_a_constructor_that_takes_anything_may_be_given_anything(module: Callable[[str], str]) -> None:
    own = module(f"class Own:\n    def __init__(self, **settings): ...\n{START}")
    assert said_of("run", [f"policy._target_={own}.Own", "+policy.depth={a:1}"]) is None


def test_annotations_that_only_type_checkers_can_read_check_nothing(module: Callable[[str], str]) -> None:
    own = module(f"class Own:\n    def __init__(self, k: 'NoSuchType', n: int = 0): ...\n{START}")
    check_part("policy", {"_target_": f"{own}.Own", "k": object})
    with pytest.raises(ValueError, match=r"policy\.n is 'a'; it is a whole number"):
        check_part("policy", {"_target_": f"{own}.Own", "k": object, "n": "a"})


def test_an_error_of_a_constructor_says_where(module: Callable[[str], str]) -> None:
    own = module(f"class Own:\n    def __init__(self, k): k + 'a'\n{START}")
    said = said_of("run", [f"policy._target_={own}.Own", "~policy.catchup"])
    assert said is not None
    assert said.startswith("policy cannot be made: TypeError: unsupported operand")
    assert "(in __init__, line 2 of " in said


# --- annotations


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, [0, -1, 10**30], [True, 1.0, "1", None]),
        (float, [0, 0.5, float("inf")], [True, "a", float("nan"), None]),
        (bool, [True, False], [0, 1, "true"]),
        (str, ["", "a"], [1, None, ["a"]]),
        (int | None, [1, None], ["a"]),
        (Literal["read", 2], ["read", 2], ["write", 2.0, True]),
        (Sequence[int], [[], [1]], ["1", [1, "a"], {"a": 1}, None]),
        (tuple[int, str], [[1, "a"]], [[1], [1, 2]]),
        (tuple[int, ...], [[], [1, 2]], [[1, "a"]]),
        (Mapping[str, int], [{}, {"a": 1}], [{"a": "b"}, [1]]),
        (Path, ["a/b"], [5, None]),
        (float | Callable[[float], float], [1.0], ["a"]),
        (Part, [{"_target_": "a.B"}], [None, {}, {"_target_": 5}, "a"]),
        (FreshModel, ["anything", 5, None], []),
        (Any, ["anything"], []),
    ],
    ids=str,
)
def test_what_fits_an_annotation(kind: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(fits(value, kind) for value in good)
    assert not any(fits(value, kind) for value in bad)
    assert fits({"_target_": "a.B"}, kind), "which is made before it is given"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "a whole number or null"),
        (int | Literal["after_source"] | None, "a whole number, 'after_source' or null"),
        (str | Sequence[str], "a text or a list of texts"),
        (Sequence[Sequence[int]] | None, "a list of lists of whole numbers or null"),
        (Mapping[str, float], "keys, each with a number"),
    ],
    ids=str,
)
def test_annotations_in_words(kind: Any, words: str) -> None:
    assert in_words(kind) == words
