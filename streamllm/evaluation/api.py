"""The library in a few functions, for notebooks and scripts: what the command does from a configuration, from objects.
`import streamllm` offers them by name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.check import check_model
from streamllm.data.dataset import Dataset
from streamllm.data.given import Given
from streamllm.engine.limits import Limits
from streamllm.engine.loop import stream as stream_session
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.memory import Paradigm
from streamllm.evaluation.describe import describe
from streamllm.evaluation.runner import run_experiment
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.own import Metric
from streamllm.models.lengths import fitting_units
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies.bounded import check_policy
from streamllm.prompt import Prompt
from streamllm.records import Event, Example, Policy
from streamllm.runs.naming import digest
from streamllm.tracking.tracker import Tracker
from streamllm.units import pieces


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` made: a run folder, for `load_traces` and the report, and its metrics (``bleu``, ``laal`` …)."""

    folder: Path
    metrics: Mapping[str, Any]


def load_model(
    path: str = "bundled:tiny-en-de",
    *,
    prompt: Prompt | None = None,
    paradigm: Paradigm | None = None,
    source_unit: Any = "word",
    target_unit: Any = "word",
    **settings: Any,
) -> StreamingModel:
    """A model that writes while it reads.

    Args:
        path: ``bundled:tiny-en-de``, a folder that ``mlx_lm.load`` opens, or a hub id.
        prompt: None takes the model's own, else its chat template.
        paradigm: how the two streams lie in memory; None is `Group`.
        source_unit, target_unit: "word", or "character" for Chinese and Japanese.
        settings: of `ModelConfig`, such as ``temperature`` and ``adapter_path``.

    Raises:
        ModelError: the model is not there, is broken, cannot stream, or a setting is out of range.
    """
    return ModelConfig(path, **settings).load(prompt, source_unit, target_unit, paradigm)


def stream(
    model: StreamingModel,
    source: str | Iterable[str],
    policy: Policy,
    limits: Limits = Limits(),
    seed: int = 0,
) -> Iterator[Event]:
    """Translate one sentence, yielding each READ and WRITE as it happens (`records.Event`: kind, text, seconds).

    Args:
        source: a sentence, or its units as they arrive: READ waits for the next one.

    Raises:
        ValueError: the policy cannot decide with this model.
        SentenceError: a unit has more tokens than the limits say, or as `streamllm.engine.loop.translate` raises.
    """
    check_model(policy, model)
    units = pieces(source, model.prompt.source_unit) if isinstance(source, str) else source
    example = Example("stream", source if isinstance(source, str) else "", "")
    session = model.session(seed, example.id)
    units = fitting_units(model.prompt, units, limits)
    for event, _ in stream_session(session, units, policy.start(example), limits, model.prompt.target_unit):
        yield event


def evaluate(
    model: ModelConfig | str,
    policy: Policy,
    dataset: Dataset | Sequence[Example],
    *,
    name: str | None = None,
    root: str | Path = "outputs",
    source_language: str = "en",
    target_language: str = "de",
    prompt: Prompt | None = None,
    paradigm: Paradigm | None = None,
    limits: Limits = Limits(),
    min_lag: int | None = None,
    max_lag: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    arrival: ArrivalClock | None = None,
    tracker: Tracker | None = None,
    metrics: Sequence[Metric] = (),
    rerun: bool = False,
) -> Evaluation:
    """Translate a data set with a policy into a run folder, or show what is there: a finished run is returned, and one
    that was stopped goes on.

    All that is given but ``root``, ``name``, ``batch_size``, ``tracker``, ``metrics`` and ``rerun`` names the folder,
    so that another policy, or another parameter of it, is another run.

    Args:
        model: a configuration, or the ``path`` of one.
        dataset: of `streamllm.data`, or examples, whose languages are then ``source_language`` and ``target_language``.
        name: begins the folder's name; None takes the data set's name and the policy's.
        batch_size: sentences at a time; None is a number that suits the device. Results do not depend on it, but for
            times and near-ties.
        metrics: own ones, besides ours (`streamllm.metrics.own.Metric`); a finished run computes what it lacks.
        rerun: run anew, and keep a folder that is there as ``<folder>.before-1`` (or the next number that is free).

    Raises:
        ValueError: the model is loaded already, the policy or the data set is a name, something given cannot say what
            it is (see `describe`), or a run was made from other files or code than are there now; or as
            `run_experiment` raises.
    """
    if isinstance(model, StreamingModel):
        raise ValueError(
            "model is a loaded model, which names no files; give the path or a ModelConfig, "
            "such as 'bundled:tiny-en-de'"
        )
    check_policy(policy)
    if isinstance(dataset, str):
        raise ValueError(f"dataset is {dataset!r}; give a data set such as streamllm.Sample(), or a list of Examples")
    model = ModelConfig(model) if isinstance(model, str) else model
    if isinstance(dataset, Sequence):
        dataset = Given(examples=tuple(dataset), source_language=source_language, target_language=target_language)
    config: dict[str, Any] = {
        key: describe(value, key)
        for key, value in {
            "model": model,
            "policy": policy,
            "dataset": dataset,
            "prompt": prompt,
            "paradigm": paradigm or Group(),
            "limits": limits,
            "min_lag": min_lag,
            "max_lag": max_lag,
            "seed": seed,
            "arrival": arrival,
        }.items()
    }
    name = name or f"{dataset.name}-{type(policy).__name__.lower()}"
    found = run_experiment(
        config=config,
        name=name,
        model=model,
        policy=policy,
        dataset=dataset,
        prompt=prompt,
        tracker=tracker,
        root=root,
        seed=seed,
        batch_size=batch_size,
        limits=limits,
        paradigm=paradigm,
        min_lag=min_lag,
        max_lag=max_lag,
        arrival=arrival,
        metrics=metrics,
        rerun=rerun,
    )
    return Evaluation(Path(root) / f"{name}-{digest(config)}", found)
