"""Values as an agent of W&B writes them, in Hydra's grammar; and what the plug-ins of sweeps cannot do."""

import re

import pytest
from hydra._internal.utils import get_args_parser

from streamllm.cli.agent import SWEEP, words_of_agent
from streamllm.cli.arguments import composed
from streamllm.cli.errors import OPTIONS, _refuse_dashes, _refuse_storage


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("max_lag=None", ["max_lag=null"]),
        ("rerun=True", ["rerun=true"]),
        ("k=3.0", ["k=3"]),
        ("policy.catchup=0.5", ["policy.catchup=0.5"]),
        ("policy={'catchup': 0.2, 'more': {'k': None}}", ["policy.catchup=0.2", "policy.more.k=null"]),
        ("data.k=[1, 2.0, 'full']", ["data.k=[1,2,'full']"]),
        ("metric=[ter]", ["metric=[ter]"]),
        ("tracker.mode=online", ["tracker.mode=online"]),
        ("-m", ["-m"]),
    ],
)
def test_words_of_an_agent_are_put_into_hydras_grammar(monkeypatch: pytest.MonkeyPatch, word: str, words: list[str]):
    monkeypatch.setenv(SWEEP, "abc")
    assert words_of_agent([word]) == words
    monkeypatch.delenv(SWEEP)
    assert words_of_agent([word]) == [word], "nothing else is changed"


def test_a_configuration_takes_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SWEEP, "abc")
    cfg = composed(words_of_agent(["k=3.0", "max_lag=None", "policy={'catchup': 0.5}"]))
    assert (cfg.k, cfg.max_lag, cfg.policy.catchup) == (3, None, 0.5)


def test_a_storage_of_optuna_is_refused():
    with pytest.raises(SystemExit, match="leave it out, and the same command goes on"):
        _refuse_storage(["policy=waitk", "hydra.sweeper.storage=sqlite:///a.db"])
    _refuse_storage(["hydra.sweeper.storage=null", "k=3"])


def test_choice_with_null_says_what_to_write():
    with pytest.raises(ValueError, match="choice\\(\\) takes no null; write max_lag=4,6,null"):
        composed(["max_lag=choice(4, 6,null)"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--k", "3"], "--k is no option: keys have no dashes, as in k=3"),
        (["policy=waitk", "--k=3"], "--k is no option: keys have no dashes, as in k=3"),
        (["-k", "3"], "-k is no option: keys have no dashes, as in k=3"),
        (["--batch-size", "4", "k=3"], "--batch-size is no option: keys have no dashes, as in batch_size=4"),
        (["--model.path", "--debug"], "--model.path is no option: keys have no dashes, as in model.path=…"),
        (["--experiment", "waitk_curve"], "as in experiment=waitk_curve"),  # Hydra has --experimental-rerun
        (["--rerun", "k=3"], "as in rerun=…"),
    ],
)
def test_a_key_with_dashes_is_refused_with_what_to_write(words: list[str], said: str):
    with pytest.raises(SystemExit, match=re.escape(said)):
        _refuse_dashes(words)


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "k=1,3"],
        ["--multirun", "k=1,3", "--cfg", "job", "-p", "policy", "--resolve"],
        ["-cd", "conf", "-cjob", "--multi", "--info=all", "--help", "-h"],
        ["~policy", "+study=a", "policy.threshold=-1", "--", "-1"],
    ],
)
def test_options_of_hydra_and_plain_overrides_pass(words: list[str]):
    _refuse_dashes(words)


def test_options_are_those_of_hydra():
    found = {option for action in get_args_parser()._actions for option in action.option_strings}
    assert set(OPTIONS) == found


def test_a_command_without_words_has_no_dashes() -> None:
    _refuse_dashes([])
