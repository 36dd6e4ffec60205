"""What all commands share: wrong input ends in one line that says what to do."""

import atexit
import functools
import gc
import itertools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    CompactHydraException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

import streamllm.cli.folder_names  # noqa: F401 - configurations name runs by it
from streamllm.cli.agent import words_of_agent
from streamllm.cli.conf import PACKAGE
from streamllm.cli.ending import end_by_sigterm, status
from streamllm.cli.missing_keys import CHOSEN_BY, choices, close_first, is_chosen_by_another, no_such_key, recomposed
from streamllm.cli.plugins import prepare, searched
from streamllm.cli.reader import for_whoever_reads
from streamllm.cli.targets import not_importable
from streamllm.cli.user_errors import USER_ERRORS, printable, user_error
from streamllm.extras import install
from streamllm.files import WHAT_TO_DO

EXTRAS = {"joblib": "sweeps", "submitit_local": "sweeps", "submitit_slurm": "sweeps", "optuna": "sweeps", "ray": "ray"}
"""The extra that brings each of Hydra's launchers and sweepers."""
DEBUG = "(debug=true shows the stack)"
OUT_OF_TIME = (
    "submitit ended it after hydra.launcher.timeout_min minutes: give more of them, such as "
    "hydra.launcher.timeout_min=1440, and the same command goes on"
)

Returned = TypeVar("Returned")

# Else the interpreter looks for garbage among all objects of all libraries before it ends, a tenth of a short run.
atexit.register(gc.freeze)


class Explained(CompactHydraException):
    """The error of a sweep's point, in words that need no others."""


def explained(main: Callable[[DictConfig], Returned]) -> Callable[[DictConfig], Returned]:
    """Decorate a Hydra entry point: one line for what goes wrong, the whole stack with ``debug=true``."""

    @functools.wraps(main)
    def wrapped(cfg: DictConfig) -> Returned:
        _warn_of_a_sweep_without_m()
        try:
            return main(cfg)
        except KeyboardInterrupt:
            sys.exit(status())
        except BrokenPipeError:
            raise
        except Exception as error:
            cause = user_error(error)
            if _wants_the_stack(cfg):
                raise cause from cause.__cause__
            message = OUT_OF_TIME if _is_out_of_time(error) else one_line(cause)
            if HydraConfig.get().mode == RunMode.RUN:
                sys.exit(f"error: {message} {DEBUG}")
            # A sweep goes on, and fails at its end; where it ends with a table, that says why.
            number = HydraConfig.get().job.num
            print(f"#{number} failed" if _ends_with_a_table() else f"error: {message}", file=sys.stderr)
            raise Explained(message) from error

    return wrapped


def launch(main: Callable[[], Any], config: str = "run") -> None:
    """Run an entry point of the configuration ``conf/<config>.yaml``. What Hydra refuses is one line, too; Ctrl-C and
    SIGTERM end it without a stack also in a launcher that waits for other processes."""
    if config != "serve":  # which ends its streams first
        end_by_sigterm()
    whole = "debug=true" in sys.argv or os.environ.get("HYDRA_FULL_ERROR") == "1"
    sys.argv[1:] = flag_first(words_of_agent(sys.argv[1:]))
    _refuse_dashes(sys.argv[1:])
    _refuse_storage(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print in its own words
    try:
        prepare()
        with for_whoever_reads():
            main()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(status())
    except Explained:  # it has been told
        sys.exit(1)
    except (*USER_ERRORS, CompactHydraException, OmegaConfBaseException) as error:
        if whole:
            raise
        words = [word for word in sys.argv[1:] if word.startswith("~") or ("=" in word and not word.startswith("-"))]
        sys.exit(f"error: {printable(refusal(error, config, words))} {DEBUG}")
    except Exception as error:  # a mistake of Hydra or its grammar: what our programs raise is in words by now
        if whole:
            raise
        sys.exit(f"error: {one_line(error)} {DEBUG}")


def flag_first(words: Sequence[str]) -> list[str]:
    """A command line with ``-m`` at its beginning: among overrides, Hydra's parser refuses what comes after it."""
    return sorted(words, key=lambda word: word not in ("-m", "--multirun"))


WHOLE = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--shell-completion", "--config-path", "--config-name", "--config-dir"),
)
"""Options of Hydra that may be shortened: not --experimental-rerun, since experiment is a key."""
OPTIONS = (*WHOLE, "--experimental-rerun", "-h", "-c", "-p", "-r", "-m", "-i", "-sc", "-cp", "-cn", "-cd")
"""All options of Hydra."""


def _refuse_dashes(words: Sequence[str]) -> None:
    """Keys are no options: ``--k 3`` is ``k=3`` here. Hydra would say that the word is not recognised."""
    for word, after in itertools.zip_longest(words, words[1:], fillvalue="="):
        name, equals, value = word.partition("=")
        if not re.fullmatch(r"--?[A-Za-z][\w.-]*", name) or name in OPTIONS:
            continue
        if any(option.startswith(name) for option in WHOLE) or (name[1] != "-" and name[:2] in OPTIONS):
            continue  # short for one of them, or several letters in one word
        key = name.lstrip("-").replace("-", "_")
        if not equals:
            value = "…" if "=" in after or after.startswith("-") else after
        sys.exit(f"error: {name} is no option: keys have no dashes, as in {key}={value}")


def _refuse_storage(words: Sequence[str]) -> None:
    """Optuna 2, which Hydra's plug-in needs, cannot use a database with SQLAlchemy 2, and would begin anew there."""
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key == "hydra.sweeper.storage" and value not in ("null", ""):
            sys.exit(
                f"error: {key} is {value}: Optuna 2 has no database under SQLAlchemy 2, and none is needed: leave it "
                "out, and the same command goes on with the search, up to hydra.sweeper.n_trials in all"
            )


REPEATED = (("k", "policy"), ("early_stop", "limits"))
"""Keys at the top, each with the group that repeats it."""


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The whole configuration as plain values.

    Raises:
        MissingMandatoryValue: a value is missing.
        ValueError: a key and its repetition in a group differ: one run would have two folders, and two values of k.
    """
    values = plain(cfg)
    values.pop("rerun", None)  # of this one command, and nothing of what comes out
    check_repeated(values)
    return values


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The whole configuration as plain values, of whatever type.

    Raises:
        MissingMandatoryValue, OmegaConfBaseException: a value is missing, or refers to what is not there.
        ValueError: a value refers to itself.
    """
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except RecursionError as error:
        raise ValueError("a value refers to itself by ${…}: give it a value of its own") from error


def check_repeated(values: Mapping[str, Any]) -> None:
    """Raises: ValueError: a key and its repetition in a group differ."""
    for key, group in REPEATED:
        repeated = (values.get(group) or {}).get(key)
        if key in values and repeated is not None and repeated != values[key]:
            raise ValueError(f"{key} is {values[key]} and {group}.{key} is {repeated}: give {key}={repeated} alone")


# --- errors of a run


def _wants_the_stack(cfg: DictConfig) -> bool:
    try:
        return cfg.get("debug") is True
    except OmegaConfBaseException:  # what it refers to is not there
        return False


def _ends_with_a_table() -> bool:
    return "table" in (HydraConfig.get().callbacks or {})


def _warn_of_a_sweep_without_m() -> None:
    hydra = HydraConfig.get()
    swept = list(hydra.sweeper.get("params") or {})
    if swept and hydra.mode == RunMode.RUN:
        name = hydra.runtime.choices.get("experiment")
        print(f"warning: experiment={name} sweeps over {', '.join(swept)}; add -m to do so", file=sys.stderr)


RESOLVING = re.compile(r"\w+ raised while resolving interpolation: (.*)")
FULL_KEY = re.compile(r"\n *full_key: (\S+)")


def _is_out_of_time(error: BaseException | None) -> bool:
    """Whether submitit has interrupted a point for good. It raises wherever the point is, and libraries wrap what was
    raised in an import of theirs."""
    while error is not None and type(error).__name__ != "UncompletedJobError":
        error = error.__cause__ or error.__context__
    return error is not None


def one_line(error: BaseException) -> str:
    """What is wrong and what to do, without a line break; a mistake in code is told with its place."""
    return printable(_told(error))


def _told(error: BaseException) -> str:
    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return _missing_value(error.full_key)
    if (
        isinstance(error, OmegaConfBaseException)
        and error.full_key == "prompt.instruction"
        and "language" in str(error)
    ):
        return (
            "prompt=chat names both languages in its instruction: give dataset.source_language=… and "
            "dataset.target_language=…, and +languages.sv=Swedish for one that conf/prompt/chat.yaml does not list"
        )
    if isinstance(error, InterpolationKeyError) and (found := re.match(r"Interpolation key '(.+?)' not", str(error))):
        return f"{error.full_key or 'a key'} takes its value from {found[1]}, which is not there: give {found[1]} again"
    if isinstance(error, InterpolationResolutionError) and (found := RESOLVING.match(str(error))):
        return f"{error.full_key or 'a key'} cannot be read: {found[1]}"
    if (what := not_importable(error)) is not None:
        return what
    if isinstance(error, InstantiationException) and error.__cause__ and (key := FULL_KEY.search(str(error))):
        return f"{key[1]} cannot be made: {one_line(error.__cause__)}"
    # OmegaConf adds lines of its own.
    message = " ".join(str(error).split("\n    object_type")[0].split())
    if isinstance(error, (*USER_ERRORS, InstantiationException, OmegaConfBaseException, CompactHydraException)):
        return message
    frames = traceback.extract_tb(error.__traceback__)  # a mistake in code; the last of ours or the user's own is named
    if frames and Path(frames[-1].filename).name in ("default_element.py", "defaults_list.py"):  # of Hydra
        return (
            "a choice on the command line cannot be read: write group=option (policy=waitk) or key=value, with a name "
            "before the '=' and, for a group, a name or a list of names behind it"
        )
    if frames and _is_ours(frames[-1].filename) and (frames[-1].line or "").startswith("raise "):
        return message  # in our words
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    place = f" (in {own[-1].name}, line {own[-1].lineno} of {own[-1].filename})" if own else ""
    return f"{type(error).__name__}: {message}{place}"


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(PACKAGE)


def _missing_value(key: str) -> str:
    """What to add for a ``???``, with the command in the head of its file as the example."""
    group = key.partition(".")[0]
    file = Path(group, f"{HydraConfig.get().runtime.choices.get(group)}.yaml")
    path = next((folder / file for folder in searched() if (folder / file).exists()), None)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    examples = [line.lstrip("# ") for line in lines if line.startswith("#") and f"{key}=" in line]
    return f"{key} is missing: add {key}=…" + (f", as in {examples[0]}" if examples else "")


# --- errors of a command line

SWEPT = re.compile(r"Ambiguous value for argument '(.*)'\n|Sweep parameters '(.*)' requires --multirun")
"""What Hydra says of a sweep without -m."""


LIST_FOR_KEYS = re.compile(r"Error merging override ([\w.]+)=(.*)")
"""What Hydra says of a list for a group of keys, among others."""


def refusal(error: BaseException, config: str, words: list[str]) -> str:
    """What Hydra says about the overrides ``words``, in one line that says what is accepted."""
    if isinstance(error, Explained):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_choice(error.missing_cfg_file, error.options or ())
    if isinstance(error, OverrideParseException):
        return _not_readable(error.override, str(error), config)
    if str(error).startswith("Config group override must be a string or a list") and (no_name := _no_name(words)):
        return no_name
    if getattr(error, "full_key", None) == "hydra.sweep.dir":  # ${output.root}/.sweep
        return "output.root cannot be read, and a sweep needs it: give output.root=FOLDER"
    if found := SWEPT.match(str(error)):
        return _sweep_without_m(found[1] or found[2])
    if isinstance(error, OSError) and error.filename:  # Hydra's notes of a sweep
        return f"cannot write {error.filename} ({error.strerror}): give output.root=FOLDER, where you may write"
    if isinstance(error, OSError) and error.strerror and error.errno in WHAT_TO_DO:
        return f"cannot write what Hydra notes of a sweep ({error.strerror}): {WHAT_TO_DO[error.errno]}"
    if found := re.match(r"(?:In '.*': )?Could not override '(.+?)'", str(error)):
        return no_such_key(found[1], config, words)
    if (found := LIST_FOR_KEYS.match(str(error))) and "with ListConfig" in str(error.__cause__):
        key, value = found[1], found[2]
        if key in CHOSEN_BY:
            return is_chosen_by_another(key, value)
        return f"{key}={value}: {key} is a group of keys: give those, as in {key}.KEY=VALUE"
    if found := re.match(r"Could not delete from config. '(.+?)' does not exist", str(error)):
        key = found[1]
        if OmegaConf.select(recomposed(config, []), key, default=...) is ...:
            return no_such_key(key, config, words)
        return f"~{key} takes out what is not there: it is null, or another override took it out; leave ~{key} out"
    return one_line(error.__cause__ if error.__cause__ and not str(error) else error)  # of OmegaConf, wrapped


def _not_readable(word: str, what: str, config: str) -> str:
    """Hydra's grammar of values gives a meaning to signs such as = # , { and quotes."""
    if "=" not in word:
        if meant := _choices_named(word):
            return f"cannot read {word}: did you mean {' or '.join(meant)}?"
        if config == "live":
            return f"cannot read {word!r}: text comes from standard input: echo {shlex.quote(word)} | streamllm live"
        return f"cannot read {word}: an override is KEY=VALUE"
    found = re.fullmatch(r"(.+)=choice\((.*)\)", word)
    if found and "null" in (values := [value.strip() for value in found[2].split(",")]):
        return f"cannot read {word}: choice() takes no null; write {found[1]}={','.join(values)}, which does"
    lines = [line for line in what.splitlines() if line.strip("^ ") and not line.startswith(("See ", "Error parsing"))]
    why = lines[0].removeprefix(f"LexerNoViableAltException: {word}") if lines else ""
    quoted = _quoted(word)
    hint = f": if the value is a text, quote it: {quoted}" if quoted else ""
    return f"cannot read {word}" + (f" ({why})" if why else "") + hint


def _choices_named(word: str) -> list[str]:
    """What a word may be short for: ``policy=waitk`` for ``waitk``."""
    if not re.fullmatch(r"[\w.-]+", word):
        return []
    return sorted({f"{path.parent.name}={word}" for folder in searched() for path in folder.glob(f"*/{word}.yaml")})


def _sweep_without_m(word: str) -> str:
    hint = f"; one text is {quoted}" if (quoted := _quoted(word)) else ""
    return (
        f"{word} is several values: add -m to run one after the other, as in {_program()} -m {shlex.quote(word)}{hint}"
    )


def _quoted(word: str) -> str | None:
    """An override with its value as a text, for Hydra and for the shell; None if its key is wrong."""
    key, _, value = word.partition("=")
    quoted = f'{key}="{value.strip().replace(chr(34), chr(92) + chr(34))}"'
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return None
    return shlex.quote(quoted)


def _program() -> str:
    name = Path(sys.argv[0]).name
    return name if name.startswith("streamllm ") else f"python {name}"


def _no_such_choice(path: str, options: Iterable[str]) -> str:
    group, _, name = path.rpartition("/")
    if group in ("hydra/launcher", "hydra/sweeper") and name in EXTRAS:
        return f"{group}={name} is not installed: {install(EXTRAS[name])}"
    return f"{group}={name} does not exist; accepted are {', '.join(close_first(name, options or choices(group)))}"


def _no_name(words: list[str]) -> str | None:
    """What to say of ``tracker=null``: the first override that chooses a file by something else than its name."""
    parser = OverridesParser.create()
    for word in words:
        override = parser.parse_override(word)
        group = override.key_or_group
        if (files := choices(group)) and not isinstance(override.value(), str | list):
            return f"{word}: {group} is chosen by the name of a file; accepted are {', '.join(files)}"
    return None
