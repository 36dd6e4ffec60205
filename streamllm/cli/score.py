"""Metrics of finished runs anew, without translating: streamllm score outputs/sample-waitk-0123 metric=[ter]

Also those of SimulEval's instances.log, which are printed and written nowhere but to --output."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamllm.cli.arguments import Parser, checked, made, one_line_errors
from streamllm.cli.main import as_module
from streamllm.files import write_atomically
from streamllm.metrics.own import Metric, own_scores, own_values, signatures
from streamllm.metrics.summary import summarise
from streamllm.metrics.tokenised import tokenised_warning
from streamllm.runs.folder import CONFIG, INSTANCES
from streamllm.runs.instances import is_speech, read_instances
from streamllm.runs.load import load_traces, read_config, runs_in, target_of
from streamllm.runs.scores import own_of
from streamllm.units import split, unit_of

log = logging.getLogger(__name__)


def score_run(run: Path, words: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Score a run of ours anew and write its metrics. Own metrics are those that the overrides ``words`` choose, else
    those that the run was started with.

    Returns: the summary as it is printed, and the metrics.
    Raises: as `streamllm.evaluation.rescore.rescore`; ValueError: overrides that are not accepted.
    """
    from streamllm.evaluation.rescore import rescore
    from streamllm.evaluation.tables import figures_text

    config = read_config(run)
    _refuse_strange({**config, "metrics": {}} if words else config, run)
    arrival, limits = (made(config[key], key) if config.get(key) else None for key in ("arrival", "limits"))
    metrics = _own(config, words)
    if limits is not None:
        traces = load_traces(run)
        in_words = all(trace.source_units == len(split(trace.source, "word")) for trace in traces)
        limits = limits.between("word" if in_words else "character", target_of(run)[1], traces)
    found = rescore(run, metrics, arrival, limits.reached if limits is not None else None)
    return f"{run}: {figures_text(found, own_of(run))}", found


def score_log(path: Path, language: str | None, words: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Score an instances.log of SimulEval, or that of a folder.

    Returns: as `score_run`.
    Raises: ValueError: no language, a line that is not SimulEval's, or overrides that are not accepted.
    """
    from streamllm.evaluation.tables import figures_text

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give run folders, or instances.log of SimulEval")
    if language is None:
        raise ValueError(f"{path} is a log of SimulEval, which does not tell the target language: add --language de")
    unit = unit_of(language)
    traces = read_instances(path, unit)
    metrics = _own({"dataset": {"target_language": language, "target_unit": unit}}, words)
    own = own_scores(metrics)
    found: dict[str, Any] = dict(summarise(traces, language, unit))
    if is_speech(path):
        found["atd"] = None  # its rule here is that for text
    if tokenised := tokenised_warning(traces):
        log.warning("%s", tokenised)
    found |= own_values(metrics, traces) | signatures(metrics)
    return f"{path}: {figures_text(found, own)}", found


OURS = {"arrival": ("arrival_clock",), "limits": ("Limits",)}
"""What stored parts of a run may name of ours, by class or function: modules have moved since."""


DOOR = "streamllm.evaluation.door."
"""Metrics that start programs or read checkpoints: they come from the words of a command, never from a stored run."""

QUALITY = "quality"


def with_quality(words: Sequence[str]) -> list[str]:
    """``quality=NAME`` as a metric of conf/metric, and ``quality.KEY=…`` as a key of it."""
    chosen = [word.partition("=")[2] for word in words if word.startswith(f"{QUALITY}=")]
    keys = [word for word in words if word.startswith(f"{QUALITY}.")]
    if not chosen and not keys:
        return list(words)
    if len(chosen) != 1 or not re.fullmatch(r"\w+", chosen[0]):
        raise ValueError(f"quality is {', '.join(chosen) or 'not given'}; give one name, such as quality=comet")
    (name,) = chosen
    rest = [word for word in words if word not in keys and not word.startswith(f"{QUALITY}=")]
    given = [word.partition("=")[2].strip("[]") for word in rest if word.startswith("metric=")]
    rest = [word for word in rest if not word.startswith("metric=")]
    every = ",".join(dict.fromkeys([*filter(None, given), name]))
    return [f"metric=[{every}]", *rest, *(f"metrics.{name}{word.removeprefix(QUALITY)}" for word in keys)]


def _refuse_strange(config: Mapping[str, Any], run: Path) -> None:
    """A run folder may be a stranger's: nothing that it names is called unless it is what such a part always is, or a
    metric of some conf/metric here.

    Raises: ValueError: it names something else.
    """
    for part in (*OURS, "metrics"):
        for target in _targets(config.get(part)):
            if isinstance(target, str) and target.startswith("streamllm.") and part in OURS:
                if target.rpartition(".")[2] in OURS[part]:
                    continue
            elif target in _metric_targets():
                continue  # but for those of the door, which `_own` leaves out
            raise ValueError(
                f"{run / CONFIG}: {part} names {target!r}, which no conf/metric here does, so it is not called: give "
                "metric=[NAME], or metric=[] for none of your own"
                if part == "metrics"
                else f"{run / CONFIG}: {part} names {target!r}, which is none of streamllm's, so it is not called"
            )


def _is_of_the_door(target: Any) -> bool:
    return isinstance(target, str) and target.startswith(DOOR)


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield value
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _metric_targets() -> set[Any]:
    """All that the YAML files of the group metric name: ours, those of the folder one works in, those of plug-ins."""
    from omegaconf import OmegaConf

    from streamllm.cli.plugins import searched

    files = [file for folder in searched() for file in sorted((folder / "metric").glob("*.yaml"))]
    return {target for file in files for target in _targets(OmegaConf.to_container(OmegaConf.load(file)))}


def _own(config: dict[str, Any], words: Sequence[str]) -> list[Metric]:
    """The own metrics that are asked for, which may refer to the configuration of the run."""
    from omegaconf import OmegaConf

    stored = config.get("metrics") or {}
    chosen: Any = {name: node for name, node in stored.items() if not any(map(_is_of_the_door, _targets(node)))}
    if left := [name for name in stored if name not in chosen and not words]:
        log.info("%s stays as it is: quality=%s computes it anew", ", ".join(left), left[0])
    if words:
        others = [word for word in words if word.split("=")[0].lstrip("+~").split(".")[0] not in ("metric", "metrics")]
        if others:
            raise ValueError(f"{others[0]} changes nothing of a run that is over: give metric=[NAME] and no other keys")
        cfg = checked(words)
        chosen = OmegaConf.to_container(cfg.metrics) if cfg.metrics else {}
    whole = OmegaConf.create({**config, "metrics": chosen})
    return list(made(whole.metrics, "metrics").values())


def _runs_of(path: Path) -> list[Path]:
    """The finished runs in a folder of runs; any other path as it is.

    Raises: FileNotFoundError: it holds no finished run, and no log of SimulEval.
    """
    if not path.is_dir() or (path / CONFIG).exists() or (path / INSTANCES).exists():
        return [path]
    finished, unfinished = runs_in(path)
    for run in unfinished:
        print(f"left out: {run} has not finished", file=sys.stderr)
    if not finished:
        raise FileNotFoundError(f"{path} holds no finished run, and no {INSTANCES} of SimulEval")
    return finished


def command() -> None:
    parser = Parser(
        prog="streamllm score",
        description="Metrics of finished runs computed anew from what was translated, and written to metrics.json; or "
        "those of SimulEval's instances.log, printed only. Nothing is translated.",
        epilog="Own metrics: metric=[NAME] of conf/metric, as for streamllm run; none are given by metric=[]. COMET "
        "and its like: quality=comet quality.model=Unbabel/wmt22-comet-da, in an environment that is made once.",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN",
        help="run folders, or folders that hold runs; instances.log of SimulEval, or its folder",
    )
    parser.add_argument("--language", metavar="CODE", help="of the target, for SimulEval's logs: de, zh …")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the metrics there as JSON, too")
    given = parser.parse_intermixed_args()
    overrides = [word for word in given.words if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in given.words if word not in overrides]
    with one_line_errors():
        if not paths:
            raise ValueError("no run is given: name run folders, or instances.log of SimulEval")
        overrides = with_quality(overrides)
        found = {}
        paths = [run for path in paths for run in _runs_of(path)]
        for path in paths:
            ours = (path / CONFIG).exists()
            text, found[str(path)] = score_run(path, overrides) if ours else score_log(path, given.language, overrides)
            print(text)
        if given.output:
            content = found[str(paths[0])] if len(paths) == 1 else found
            write_atomically(given.output, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    as_module("score")
