"""Every file under conf/ composes and makes what it names; run.py writes where it should and fails clearly."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.utils import get_class, get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from streamllm.cli.errors import one_line, refusal
from streamllm.cli.keys import RunKeys, checked, made
from streamllm.engine.limits import Limits
from streamllm.runs.folder import METRICS, PREDICTIONS

CONF = ROOT / "conf"
GROUPS = ("model", "prompt", "policy", "paradigm", "dataset", "tracker", "experiment")

# What has no default, and people have to give.
GIVEN = {
    "dataset/documents": ["dataset.source=talks.en", "dataset.target=talks.de"],
    "model/folder": ["model.path=models/mine"],
    "dataset/files": ["dataset.source=talk.en", "dataset.target=talk.de"],
    "dataset/hub": ["dataset.path=Helsinki-NLP/opus_books"],
    "dataset/table": ["dataset.path=talks.csv"],
    "policy/oracle": ["policy.delays=[1,2]"],
    "policy/replay": ["policy.delays.run=outputs/a-run"],
}
PLUGINS = {"experiment/tune_threshold": "hydra_plugins.hydra_optuna_sweeper"}
READS_A_RUN = "policy/replay"  # cannot be made without one: see test_bundled.py


def choices(*groups: str) -> list[str]:
    """The files of some groups as ``group/name``, without experiments of train.py."""
    paths = [path for group in groups for path in sorted((CONF / group).glob("*.yaml"))]
    return [f"{path.parent.name}/{path.stem}" for path in paths if "streamllm train" not in path.read_text("utf-8")]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("run", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


def resolved(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


@pytest.mark.parametrize("choice", choices(*GROUPS))
def test_file_composes_and_makes_what_it_names(choice: str):
    group, name = choice.split("/")
    if plugin := PLUGINS.get(choice):
        pytest.importorskip(plugin, reason=f"{choice}.yaml needs pip install -e '.[sweeps]'")
    cfg = composed(f"{group}={name}", *GIVEN.get(choice, []))
    checked(cfg, RunKeys)
    for key, value in resolved(cfg).items():
        if isinstance(value, dict) and "_target_" in value and (key, choice) != ("policy", READS_A_RUN):
            part, target = made(cfg[key], key), get_object(value["_target_"])
            assert isinstance(part, target) if isinstance(target, type) else key == "arrival" and part is None
            assert inside(part) == inside(instantiate(cfg[key], _convert_="all")), "what Hydra makes of it"


def inside(part: Any) -> Any:
    """A part as its class and values, and so all parts within."""
    if isinstance(part, dict | list | tuple):
        return [inside(item) for item in (part.items() if isinstance(part, dict) else part)]
    values = getattr(part, "__dict__", None)
    return (type(part), inside(values)) if isinstance(values, dict) else (type(part), repr(part).partition(" at 0x")[0])


@pytest.mark.parametrize("choice", choices("model", "policy", "paradigm", "dataset", "tracker"))
def test_unknown_key_is_refused_by_every_group(choice: str):
    group, name = choice.split("/")
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        composed(f"{group}={name}", f"{group}.no_such_key=1", *GIVEN.get(choice, []))


@pytest.mark.parametrize("choice", choices("model", "tracker", "policy", "paradigm"))
def test_every_argument_can_be_typed(choice: str):
    """What is not in a file can only be given with a plus sign, which nobody finds."""
    group, name = choice.split("/")
    cfg = composed(f"{group}={name}", *GIVEN.get(choice, []))
    target = get_class(cfg[group]["_target_"])
    arguments = set() if target.__init__ is object.__init__ else set(inspect.signature(target).parameters)
    assert arguments <= set(cfg[group])


def test_unknown_top_level_key_is_refused():
    with pytest.raises(ConfigCompositionException, match="no_such_key"):
        composed("no_such_key=1")


def test_k_belongs_to_the_policies_that_own_it():
    assert composed("policy=waitk", "k=5").policy.k == 5
    with pytest.raises(ConfigCompositionException, match="Could not override 'k'"):
        composed("policy=full", "k=5")


def test_defaults_are_those_of_the_readme():
    config = resolved(composed())
    assert (config["k"], config["policy"]["k"]) == (3, 3)
    assert config["model"]["path"] == "bundled:tiny-en-de"
    assert (config["tracker"]["mode"], config["output"]["root"]) == ("offline", "outputs")
    assert config["name"] == "sample-waitk"
    assert config["prompt"] is None


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("dataset.source=data/talk.en.gz", "dataset.target=talk.de"), "talk-waitk"),
        (("dataset.source='a talk (1).en'", "dataset.target=talk.de"), "a-talk-1-waitk"),
        (("dataset.source=talk.en", "dataset.target=talk.de", "dataset.name=mine"), "mine-waitk"),
        (("dataset.source='.en'", "dataset.target=talk.de"), "en-waitk"),
    ],
)
def test_runs_over_files_are_called_as_the_files_are(words: tuple[str, ...], name: str):
    assert resolved(composed("dataset=files", *words))["name"] == name


def test_early_stop_reaches_the_limits():
    assert instantiate(composed("early_stop=stop").limits).early_stop == "stop"


def test_the_limit_of_tokens_reaches_the_limits_and_can_be_taken_away():
    assert instantiate(composed("limits.tokens_per_unit=3").limits).tokens_per_unit == 3
    assert instantiate(composed("limits.tokens_per_unit=null").limits).tokens_per_unit is None
    assert instantiate(composed().limits) == Limits()


def test_chat_instruction_names_the_languages_of_the_data():
    prompt = instantiate(composed("prompt=chat", "dataset.source_language=de", "dataset.target_language=en").prompt)
    assert prompt.instruction == "Translate from German to English. Answer with the translation only.\n\n"


@pytest.mark.parametrize("dataset", ["files", "documents"])
def test_chat_instruction_names_the_languages_that_the_files_are_named_after(dataset: str):
    files = [f"dataset={dataset}", "dataset.source=talk.de.gz", "dataset.target=talk.en"]
    assert composed("prompt=chat", *files).prompt.instruction.startswith("Translate from German to English. ")
    given = composed("prompt=chat", *files, "dataset.source_language=fr")
    assert given.prompt.instruction.startswith("Translate from French to English. ")


@pytest.mark.parametrize("files", [["dataset.source=talk.txt"], ["dataset.source=talk.xx"], ["dataset.path=a.jsonl"]])
def test_chat_instruction_without_a_language_is_refused_with_what_to_do(files: list[str]):
    kind = "dataset=documents" if "path" in files[0] else "dataset=files"
    with pytest.raises(OmegaConfBaseException) as caught:
        composed("prompt=chat", kind, *files, "++dataset.target=talk.en").prompt.instruction  # noqa: B018
    assert one_line(caught.value).startswith("prompt=chat names both languages in its instruction: give dataset.source")


@pytest.mark.parametrize("name", [choice for choice in choices("prompt") if "few-shot" in choice])
def test_few_shot_prompt_continues_its_own_examples(name: str):
    """Header, source, footer, target header and target look exactly as an example does."""
    prompt = instantiate(composed(f"prompt={name.split('/')[1]}").prompt)
    *examples, last = prompt.source_header.split("\n\n")
    assert len(examples) == 3
    source_name, target_name = last, prompt.target_header.removeprefix("\n")
    for example in examples:
        source, target = example.split("\n")
        assert source.startswith(source_name + " ")
        assert target.startswith(target_name + " ")
    assert (prompt.source_footer, prompt.stop, prompt.leading_space) == ("", "\n", True)
    assert prompt.target_header.startswith("\n")


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_experiment_names_its_command(path: Path):
    text = path.read_text("utf-8")
    assert f"experiment={path.stem}" in text
    assert "streamllm run" in text or "streamllm train" in text


def test_hydra_leaves_no_files_of_its_own_beside_the_runs():
    hydra = yaml.safe_load((CONF / "run.yaml").read_text("utf-8"))["hydra"]
    assert hydra["output_subdir"] is None
    assert hydra["run"]["dir"] == "."
    assert hydra["job"]["chdir"] is False
    assert "hydra:" not in hydra["sweep"]["dir"]  # multirun crashes on it


# --- run.py as people call it, with a model that needs no weights


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder to work in, with a model configuration that shouts (see test_experiment)."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "shouting.yaml").write_text("_target_: shouting.ShoutingModel\n")
    (tmp_path / "work").mkdir()
    return tmp_path


def run(desk: Path, *arguments: str, stop_after: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *arguments, "tracker=none", "dataset.limit=4"]
    command += [f"hydra.searchpath=[file://{desk / 'conf'}]", "model=shouting"]
    if not any(argument.startswith("batch_size=") for argument in arguments):
        command.append("batch_size=1")  # this model has no memory to share
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(desk)])
    environment = {**os.environ, "PYTHONPATH": paths}
    if stop_after is not None:
        environment["STOP_AFTER"] = str(stop_after)
    return subprocess.run(command, cwd=desk / "work", env=environment, capture_output=True, text=True)


def test_sweep_lands_where_single_runs_do(desk: Path):
    sweep = run(desk, "-m", "k=1,3")
    assert sweep.returncode == 0, sweep.stderr
    assert [path.name for path in (desk / "work").iterdir()] == ["outputs"]
    outputs = desk / "work" / "outputs"
    assert [path.name for path in (outputs / ".sweep").iterdir()] == ["multirun.yaml"]
    assert len(list(outputs.glob(f"sample-waitk-*/{METRICS}"))) == 2
    single = run(desk, "policy=waitk", "k=3", "debug=true")
    assert "finished before" in single.stdout
    assert len(list(outputs.glob("sample-waitk-*"))) == 2


@pytest.mark.long
def test_interrupted_command_goes_on_and_ends_with_the_same_bytes(desk: Path):
    stopped = run(desk, "output.root=stopped", stop_after=2)
    assert stopped.returncode == 130
    assert "interrupted: 2 of 4 sentences are stored in stopped/sample-waitk-" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    for root in ("stopped", "straight"):
        assert run(desk, f"output.root={root}").returncode == 0
    (one,), (two,) = ((desk / "work" / root).glob(f"*/{PREDICTIONS}") for root in ("stopped", "straight"))
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_bytes().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["k=0"], "error: k is 0; it is a whole number of units, at least 1"),
        (["batch_size=0"], "error: batch_size is 0"),
        (["policy.k=5"], "error: k is 3 and policy.k is 5: give k=5 alone"),
        (["limits.early_stop=stop"], "error: early_stop is read and limits.early_stop is stop: give early_stop=stop"),
        (["dataset=table", "dataset.path=absent.csv"], "absent.csv"),
        (
            ["dataset=files"],
            "error: dataset.source is missing: add dataset.source=…, as in streamllm run dataset=files",
        ),
        (["policy=oracle"], "policy.delays is missing: add policy.delays=…, as in streamllm run policy=oracle"),
        (["waitk"], "error: cannot read waitk: did you mean policy=waitk?"),
        (["policy=stride", "k=3"], "error: policy=stride has no k; it has policy.initial, policy.step"),
        (["policy=foo"], "error: policy=foo does not exist; accepted are alignatt, confidence, "),
        (["polcy=waitk"], "error: there is no key 'polcy'; did you mean policy? There are policy, arrival, "),
        (["policy.dept=1"], "error: policy=waitk has no key 'policy.dept'; there are policy.catchup, policy.k"),
        (
            ["paradigm.context=1"],
            "error: paradigm=group has no key 'paradigm.context', but paradigm=revised, paradigm=sentences have one; "
            "it has none",
        ),
        (["k.a=1"], "error: there is no key 'k.a': k has no keys"),
        (["k=[1"], "error: cannot read k=[1 (no viable alternative at input '[1')"),
        (["seed=abc"], "error: seed is 'abc'; it is a whole number"),
        (
            ["+evil=1"],
            "error: +evil=1 adds what nothing reads (a label for runs is +study=NAME): there is no key 'evil'",
        ),
        (["~tracker"], "error: tracker is missing: leave out ~tracker"),
        (["debug=maybe"], "error: debug is 'maybe'; it is true or false"),
        (["seed=true"], "error: seed is true; it is a whole number"),
        (["output.root=/dev/null/x"], "error: cannot make the run folder /dev/null/x/"),
        (["-m", "output.root=/dev/null/x"], "error: cannot write /dev/null/x"),
        (["dataset=multi30k", "dataset.data_dir=.."], "which has no test_2016_flickr.en and test_2016_flickr.de: give"),
        (
            ["+policy.depth=1"],
            "error: policy.depth is a key that WaitK does not take; it takes policy.k, policy.catchup",
        ),
    ],
)
def test_wrong_input_gives_one_line_and_fails(desk: Path, arguments: list[str], message: str):
    failed = run(desk, *arguments)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert list((desk / "work").iterdir()) == []


def test_a_number_names_a_run_and_a_folder_too(desk: Path):
    assert run(desk, "name=2024", "output.root=5").returncode == 0
    assert len(list((desk / "work" / "5").glob(f"2024-*/{METRICS}"))) == 1


@pytest.mark.long
def test_a_sweep_whose_values_are_wrong_says_so_in_its_table(desk: Path):
    sweep = run(desk, "-m", "k=1", "~limits")
    assert "failed: limits is missing: leave out ~limits" in sweep.stdout
    assert "Warning" not in sweep.stderr
    assert "error: output.root cannot be read, and a sweep needs it" in run(desk, "-m", "k=1", "output=5").stderr


def test_sweep_goes_on_after_a_point_that_fails_and_fails_at_its_end(desk: Path):
    sweep = run(desk, "-m", "k=0,2")
    assert sweep.returncode == 1
    assert "failed: k is 0" in sweep.stdout
    assert "Traceback" not in sweep.stderr
    assert len(list((desk / "work" / "outputs").glob(f"sample-waitk-*/{METRICS}"))) == 1


def test_sweep_over_a_repeated_key_fails_in_words(desk: Path):
    sweep = run(desk, "-m", "policy.k=3,5")
    assert sweep.returncode == 1
    assert "failed: k is 3 and policy.k is 5" in sweep.stdout
    assert "Traceback" not in sweep.stderr
    assert "sweep: 1 point and 1 that failed" in sweep.stdout


def test_a_sweep_over_a_key_that_one_of_its_policies_lacks_names_the_policy(desk: Path):
    failed = run(desk, "-m", "policy=waitk,full", "k=1,3")
    assert failed.returncode == 1
    assert failed.stderr == "error: policy=full has no k: leave out k, or policy=full (debug=true shows the stack)\n"


@pytest.mark.parametrize("wrong", ["k=0", "policy=foo"])
def test_debug_shows_the_stack(desk: Path, wrong: str):
    assert "Traceback" in run(desk, wrong, "debug=true").stderr


def test_a_mistake_in_a_policy_is_one_line_that_says_where(desk: Path):
    (desk / "mine.py").write_text("class Mine:\n    def start(self, *of):\n        return None + 1\n")
    failed = run(desk, "policy=full", "policy._target_=mine.Mine")
    assert failed.returncode == 1
    (line,) = [line for line in failed.stderr.splitlines() if "sentence/s" not in line and line]
    assert line.startswith("error: TypeError: unsupported operand")
    assert line.endswith("mine.py) (debug=true shows the stack)")
    assert "(in start, line 3 of " in line


@pytest.mark.parametrize(("plugin", "extra"), [("launcher/joblib", "sweeps"), ("sweeper/optuna", "sweeps")])
def test_a_plugin_that_is_not_installed_is_named_with_its_extra(plugin: str, extra: str):
    name = f"hydra/{plugin}"
    error = MissingConfigException(f"Could not find '{name}'", name, ["basic"])
    expected = f"{name.replace('r/', 'r=')} is not installed: pip install -e '.[{extra}]'"
    assert refusal(error, "run", []) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("policy=oracle", "error: policy.delays is missing"),
        (
            "hello you",
            "error: cannot read 'hello you': text comes from standard input: echo 'hello you' | streamllm live",
        ),
        ("lines=maybe", "error: lines is 'maybe'; it is true or false"),
        ("show_src=true", "error: there is no key 'show_src'; did you mean show_source? There are show_source, arr"),
    ],
)
def test_live_says_in_one_line_what_is_wrong(word: str, message: str):
    command = [sys.executable, "-m", "streamllm", "live", word]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, input="")
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "warned"), [(["paradigm=group"], True), (["paradigm=group", "lines=true"], False), ([], False)]
)
def test_live_says_if_it_ends_with_the_first_sentence(words: list[str], warned: bool):
    command = [sys.executable, "-m", "streamllm", "live", "k=3", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, input="A dog runs.")
    assert done.returncode == 0
    assert done.stdout == "Ein Hund rennt.\n"
    assert ("give paradigm=sentences" in done.stderr) == warned


def test_a_key_that_the_class_takes_and_the_yaml_lacks_is_added_to_the_yaml(desk: Path):
    (desk / "conf" / "dataset").mkdir()
    own = "_target_: streamllm.data.table.Table\npath: a.csv\nsource_language: en\ntarget_language: de\n"
    (desk / "conf" / "dataset" / "mine.yaml").write_text(own)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "streamllm", "run", "dataset=mine", "dataset.shuffle=true"]
    done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(
        "error: the YAML of dataset=mine has no 'shuffle', which Table takes: "
        "add shuffle to the YAML, or give +dataset.shuffle=true"
    )


def test_a_reader_that_has_had_enough_ends_the_help_without_a_word():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = '"$0" -m streamllm run --help | head -n 1'
    done = subprocess.run(["bash", "-c", script, sys.executable], env=environment, capture_output=True, text=True)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_a_label_of_a_study_can_be_added(desk: Path):
    assert run(desk, "+study=mine").returncode == 0


@pytest.mark.long
def test_a_preset_that_sweeps_says_so_without_m(desk: Path):
    single = run(desk, "experiment=waitk_curve")
    assert single.returncode == 0, single.stderr
    assert "warning: experiment=waitk_curve sweeps over k; add -m to do so\n" in single.stderr
    assert "warning" not in run(desk, "k=2").stderr


def test_preset_sweeps_over_k_and_gives_way_to_the_command_line(desk: Path):
    sweep = run(desk, "-m", "experiment=waitk_curve", "k=2,4")
    assert sweep.returncode == 0, sweep.stderr
    assert len(list((desk / "work" / "outputs").glob(f"sample-waitk-*/{METRICS}"))) == 2
    listed = yaml.safe_load((CONF / "experiment" / "waitk_curve.yaml").read_text("utf-8"))
    assert listed["hydra"]["sweeper"]["params"] == {"k": "1,3,5,7,9"}


def test_hub_id_while_offline_gets_the_message_that_says_what_to_do(tmp_path: Path):
    command = [sys.executable, "run.py", "model=qwen2.5-0.5b", "prompt=chat", "tracker=none", f"output.root={tmp_path}"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot get 'Qwen/Qwen2.5-0.5B-Instruct' from the hub")
    assert "give model.path a local folder" in done.stderr
