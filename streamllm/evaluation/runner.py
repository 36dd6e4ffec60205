"""The runner: one configuration over one data set, into one run folder. Invariant: results depend on the
configuration only; a run that was stopped, however, goes on where it stood and ends the same."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streamllm import check
from streamllm.check import check_model
from streamllm.contents import Contents
from streamllm.data.as_bytes import PairsAsBytes
from streamllm.engine.limits import Limits
from streamllm.evaluation.portions import Translator, in_portions
from streamllm.evaluation.progress import MANY, Gathered, logging_to, store_all
from streamllm.evaluation.rescore import keep_sentences, with_own
from streamllm.evaluation.tables import brief_text, conclude, other_code, summary_text
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.own import Metric, own_scores, own_values, signatures
from streamllm.metrics.quality import check_tokenizer
from streamllm.metrics.summary import Summary
from streamllm.policies.bounded import bounded
from streamllm.records import Example, Policy, State, Trace
from streamllm.runs import made_from
from streamllm.runs.environment import environment
from streamllm.runs.folder import LOG, RunFolder
from streamllm.runs.scores import name_own
from streamllm.tracking.tracker import Guarded, NullTracker, RunInfo, Tracker
from streamllm.units import Unit

if TYPE_CHECKING:
    from streamllm.engine.paradigms.memory import Paradigm
    from streamllm.models.loading import ModelConfig
    from streamllm.prompt import Prompt
    from streamllm.runs.lines import PredictionLine
    from streamllm.runs.traces import StoredTraces

log = logging.getLogger(__name__)

Translate = Callable[[Sequence[Example]], Iterator[Trace]]
"""Translates examples, yielding each trace as it is finished, in any order."""

LEFT_OUT = "sentences_left_out"
"""The key of metrics.json that counts what ``dataset.skip_long`` has left out; it is there where that is set."""


class Dataset(Protocol):
    """What the runner needs of a data set (see `streamllm.data`). Units are "word" or "character"."""

    @property
    def source_language(self) -> str: ...

    @property
    def target_language(self) -> str: ...

    @property
    def source_unit(self) -> Unit: ...

    @property
    def target_unit(self) -> Unit: ...

    def load(self) -> list[Example]: ...


def run_experiment(
    *,
    config: Mapping[str, Any],
    name: str,
    model: "ModelConfig",
    policy: Policy,
    dataset: Dataset,
    prompt: "Prompt | None" = None,
    tracker: Tracker | None = None,
    root: str | Path = "outputs",
    seed: int = 0,
    batch_size: int | None = 1,
    limits: Limits = Limits(),
    paradigm: "Paradigm | None" = None,
    min_lag: int | None = None,
    max_lag: int | None = None,
    arrival: ArrivalClock | None = None,
    metrics: Sequence[Metric] = (),
    rerun: bool = False,
    brief: bool = False,
    translator: Translator | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """Translate a data set with a policy, and return the metrics (those of `metrics.summary.summarise`).

    Args:
        config: the resolved configuration that the other arguments were made from. It names the folder,
            ``root/<name>-<digest of config>``; where that run has finished, its metrics are returned and
            neither data nor model is loaded. What the run was made from is compared first: files of the
            model and of the data, and code that is not ours.
        prompt: None takes the model's own.
        batch_size: sentences at a time, None for a number that suits the device. Results do not depend on it, but for
            times and for near-ties; what cannot be batched is translated one by one, which is logged
            (`batching.scheduler.translate_many`), and so is everything if ``arrival`` takes the times of this machine.
        paradigm: how the two streams lie in memory; None is `Group`.
        min_lag, max_lag: bounds on what the policy may decide (`policies.Bounded`), in units.
        arrival: the clock by which source units arrive, for latency in seconds.
        metrics: own ones, besides ours. A finished run computes one that it lacks, or that has changed, from its
            traces.
        rerun: run anew; a folder that is there is kept as ``<folder>.before-1``, or the next number that is free.
        brief: say in one line that a run had finished before.
        translator: what translates, if it is not `batching.scheduler.translate_many`.
        processes: in how many it does so, each with a model of its own: memory is estimated by it, and said where it
            may not be there (`batching.needed`).

    Raises:
        ValueError, OSError, ImportError: the data or the model cannot be loaded, or do not fit each other, or the run
            was made from something else than is there now.
        MetricError: an own metric cannot be used, or failed, when everything translated has been stored.
        RunInUse: another process is writing the folder.
        KeyboardInterrupt: after everything translated so far has been stored.
    """
    check.batch_size(batch_size)
    policy = bounded(asked := policy, min_lag, max_lag)
    made = {**made_from.of_part(model), **made_from.of_part(asked), **made_from.of_own_code(config)}
    if arrival is not None and arrival.measured:
        batch_size = 1  # in a batch, a sentence's times are shares
    own_scores(metrics, taken=config)
    tokenizer: str | None = getattr(dataset, "bleu_tokenizer", None)
    check_tokenizer(tokenizer)
    folder = RunFolder.of(config, name, root)
    if folder.finished and not rerun:
        made_from.check(folder, {**made, **made_from.of_data(dataset)}, {"sentences": dataset.load})
        found, added = with_own(folder, metrics, config)
        new = f"  {' and '.join(added)}: computed now, from what was translated then\n" if added else ""
        new += f"  {unchecked}\n" if (unchecked := made_from.unchecked(folder)) else ""
        if brief:
            print(f"{brief_text(folder, found)}, finished before{other_code(folder)}\n{new}".rstrip(), flush=True)
        else:
            again = "to run it again, add rerun=true"
            print(f"{summary_text(folder, found)}\n{new}  finished before{other_code(folder)}; {again}")
        if tracker is not None and (tracker.again or added):
            guarded = Guarded(tracker)
            with guarded.finishing():
                guarded.start(RunInfo(folder.digest, folder.path.name, folder.path, config))
                target = (dataset.target_language, dataset.target_unit, tokenizer)
                conclude(guarded, folder, folder.stored_traces(), found, *target)
        return found
    # Before the model: bad data costs nothing.
    examples = dataset.load_lazily() if hasattr(dataset, "load_lazily") else dataset.load()
    limits = limits.between(dataset.source_unit, dataset.target_unit, examples)
    later = isinstance(examples, PairsAsBytes)  # then the files tell what was read, and the sentences when it is done
    read = {**made_from.of_data(dataset), **({} if later else made_from.of_sentences(examples))}
    prompt_fed: Contents = {}

    def contents() -> Contents:
        return {**made, **made_from.of_part(model), **read, **prompt_fed}  # a download may have come in between

    skip_long = bool(getattr(dataset, "skip_long", False))
    data = str(getattr(dataset, "name", ""))
    loaded: Any = None

    def make_translate() -> Translate:
        nonlocal loaded
        loaded = model.load(prompt, dataset.source_unit, dataset.target_unit, paradigm)
        check_model(policy, loaded)
        prompt_fed.update(made_from.of_part(loaded))
        languages = getattr(loaded, "languages", None)
        if languages is not None and (unlike := languages.unlike(dataset.source_language, dataset.target_language)):
            log.warning("%s", unlike)
        # After it: a model that is not there is said at once.
        from streamllm.batching.needed import say_memory
        from streamllm.batching.scheduler import translate_many

        translates = translator or in_portions(translate_many)

        def translate(examples: Sequence[Example]) -> Iterator[Trace]:
            say_memory(loaded, examples, batch_size, processes)
            return translates(loaded, examples, policy, limits, batch_size, seed)

        return translate

    def short_enough(examples: Sequence[Example]) -> Sequence[Example]:
        from streamllm.models.lengths import all_short, fitting

        if isinstance(examples, PairsAsBytes) and all_short(loaded, examples.longest_word, limits):
            return examples
        return fitting(loaded, examples, limits, data, skip_long)

    if rerun and (aside := folder.set_aside()) is not None:
        print(f"what was in {folder.path} is in {aside} now")
    return complete(
        folder,
        examples,
        make_translate,
        config=config,
        target_language=dataset.target_language,
        target_unit=dataset.target_unit,
        tokenizer=tokenizer,
        tracker=tracker,
        arrival=arrival,
        at_limit=limits.reached,
        metrics=metrics,
        contents=contents,
        short_enough=short_enough,
        skip_long=skip_long,
    )


def complete(
    folder: RunFolder,
    examples: Sequence[Example],
    make_translate: Callable[[], Translate],
    *,
    config: Mapping[str, Any],
    target_language: str,
    target_unit: Unit = "word",
    tokenizer: str | None = None,
    tracker: Tracker | None = None,
    arrival: ArrivalClock | None = None,
    at_limit: Callable[[State], bool] | None = None,
    metrics: Sequence[Metric] = (),
    contents: Callable[[], Contents] = dict,
    short_enough: Callable[[Sequence[Example]], Sequence[Example]] = list,
    skip_long: bool = False,
) -> dict[str, Any]:
    """Translate what the folder does not hold yet, then write the metrics of all of it; raises as
    `run_experiment`. ``make_translate`` is called, and so the model loaded, only if something is missing.

    Args:
        contents: what the run is made from, as far as it is known when it is asked: before the model is loaded, and
            after.
        short_enough: those of the examples that can be translated, asked once the model is loaded; it raises where
            others are not to be left out.
        skip_long: whether what it leaves out is counted in the metrics.
    """
    as_bytes = isinstance(examples, PairsAsBytes)  # checked, and never listed as a whole before the first sentence
    sentences: Mapping[str, Callable[[], Sequence[Example]]] = {"sentences": lambda: examples} if as_bytes else {}
    if not as_bytes:
        _check_examples(examples)
    own = own_scores(metrics, taken=config)
    guarded = Guarded(tracker or NullTracker())
    with folder:
        made_from.check(folder, contents(), sentences)
        stored = _check_done(folder, examples)
        done = set(stored.ids)
        pending = [example for example in examples if example.id not in done] if done else examples
        translate_pending = make_translate() if pending else None
        todo = short_enough(pending) if pending else []
        total = len(done) + len(todo)
        if not total:
            raise ValueError(
                f"all {len(examples)} sentences are too long: raise limits.source_tokens_per_unit, or correct the data"
            )
        unchecked = made_from.unchecked(folder)
        made = contents()
        made_from.check(folder, made, sentences)
        folder.begin(config, environment(), made)
        with logging_to(folder.path / LOG), guarded.finishing():
            try:
                guarded.start(RunInfo(folder.digest, folder.path.name, folder.path, config))
                log.log(
                    logging.INFO if done else logging.DEBUG,
                    *("%s: %d of %d sentences are there already", folder.path, len(done), len(examples)),
                )
                if unchecked:
                    log.info("%s: %s", folder.path, unchecked)
                documents = not as_bytes and any(example.segments for example in examples)
                summary = Summary(target_language, target_unit, arrival, at_limit, tokenizer, documents)
                gathered = Gathered(summary, stored[:])
                if translate_pending is not None and todo:
                    store_all(translate_pending(todo), folder, len(done), total, gathered, guarded)
                left_out = {example.id for example in pending} if len(todo) < len(pending) else set()
                left_out -= {example.id for example in todo if left_out}
                order = [example.id for example in examples if example.id not in left_out]
                if len(order) >= MANY:
                    log.info("%s: writing the scores of %d sentences", folder.path, len(order))
                gathered.finish()
                found: dict[str, Any] = dict(summary.metrics(order))
                if skip_long:
                    found[LEFT_OUT] = len(examples) - len(order)
                if metrics:
                    found |= own_values(metrics, stored.ordered(order)) | signatures(metrics)
                    keep_sentences(folder, metrics)
                name_own(folder.path, own)
                folder.add_contents(made_from.of_metrics(metrics, config), anew=True)
                folder.add_contents(made_from.of_sentences(examples) if as_bytes else {})
                traces = folder.finish(found, order)
                conclude(guarded, folder, traces, found, target_language, target_unit, tokenizer)
                for warning in gathered.warnings(order):
                    log.warning("%s", warning)
                log.debug("finished: %s", found)
            except KeyboardInterrupt:
                log.info(
                    "interrupted: %d of %d sentences are stored in %s; the same command goes on from there",
                    *(folder.count(), len(examples), folder.path),
                )
                raise
            except Exception:
                log.debug("the run failed", exc_info=True)  # whole in run.log, one line on the screen
                raise
    print(summary_text(folder, found))
    return found


def _check_examples(examples: Sequence[Example]) -> None:
    if not examples:
        raise ValueError(
            "no sentence pairs are left: the data set gave none; look at its files, and at the keys that select pairs"
        )
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise ValueError(f"the data set has two examples with the id {example.id!r}; each needs its own")
        seen.add(example.id)


def _check_done(folder: RunFolder, examples: Sequence[Example]) -> "StoredTraces":
    """What is stored, once it is known to be of these examples: files may have changed since."""
    by_id: dict[str, Example] = {}
    changed: list[str] = []

    def look(line: "PredictionLine") -> None:
        if not by_id:
            by_id.update((example.id, example) for example in examples)
        example = by_id.get(line.id)
        if not changed and (example is None or (example.source, example.reference) != (line.source, line.reference)):
            changed.append(_changed(line, example))

    stored = folder.stored_traces(look)
    if changed:
        raise ValueError(
            f"{folder.path} was begun on other data: {changed[0]}. "
            "Restore the data, or give rerun=true, which keeps that folder under another name"
        )
    return stored


def _changed(trace: "PredictionLine", example: Example | None) -> str:
    if example is None:
        return f"its sentence {trace.id!r} ({trace.source!r}) is not there now"
    if example.source != trace.source:
        return f"its sentence {trace.id!r} ({trace.source!r}) is {example.source!r} now"
    return f"the reference {trace.reference!r} of its sentence {trace.id!r} is {example.reference!r} now"
