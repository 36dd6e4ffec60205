"""Ten short runs of the bundled model over documents, stored as any run: policies, ways to live on, directions, words
and characters; in some, one document is left without output."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.data.joined import joined
from streamllm.data.sample import Sample
from streamllm.engine.limits import Limits
from streamllm.engine.paradigms.documents import Continuous, Sentences
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.revised import Revised
from streamllm.evaluation.runner import run_experiment
from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.longform import Document, document
from streamllm.models.loading import ModelConfig
from streamllm.policies import AlignAtt, Confidence, Full, LocalAgreement, WaitK
from streamllm.records import Action, Decide, Example, Policy, Write
from streamllm.runs.load import load_traces
from streamllm.units import Unit

CLOCK = ArrivalClock(2.5, seconds_per_read=0.07, seconds_per_write=0.11)
MODEL = ModelConfig("bundled:tiny-en-de")
SENTENCES = Sentences()
SILENT = "_2"
"""How the id ends of a document without output."""


class Joined:
    """Sentences of the sample, three a document. Their ``target_language`` is what they are scored as."""

    name = "talk"

    def __init__(self, seed: int, source_language: str, target_language: str, source_unit: Unit, target_unit: Unit):
        self.source_language, self.target_language = source_language, target_language
        self.source_unit, self.target_unit = source_unit, target_unit
        self._seed = seed

    def load(self) -> list[Example]:
        to = "en" if self.source_language == "de" else "de"
        sentences = Sample(source_language=self.source_language, target_language=to, shuffle=True, seed=self._seed)
        return [*joined(sentences.load()[:8], 3, self.name, self.source_unit, self.target_unit)]


class SaysNothing:
    """wait-3, which ends a document that is to have no output at once."""

    def start(self, example: Example) -> Decide:
        end = MODEL.load().prompt.end_token

        def decide(state: Any) -> Action:
            return Write((end,))

        return decide if example.id.endswith(SILENT) else WaitK(3).start(example)


@dataclass(frozen=True)
class DocumentRun:
    policy: Callable[[], Policy]
    paradigm: Any = SENTENCES
    source_language: str = "en"
    target_language: str = "de"
    source_unit: Unit = "word"
    target_unit: Unit = "word"
    early_stop: Any = "read"

    def made(self, seed: int, root: Path) -> tuple[list[Document], dict[str, Any]]:
        """The documents of the stored run, and its metrics."""
        languages = self.source_language, self.target_language
        metrics = run_experiment(
            config={"seed": seed},
            name="talks",
            model=MODEL,
            policy=self.policy(),
            dataset=Joined(seed, *languages, self.source_unit, self.target_unit),  # type: ignore[arg-type]
            root=root,
            limits=Limits(early_stop=self.early_stop),
            paradigm=self.paradigm,
            arrival=CLOCK,
        )
        (folder,) = root.glob("talks-*")
        return [document(trace, self.target_unit, CLOCK) for trace in load_traces(folder)], metrics


RUNS: dict[str, DocumentRun] = {
    "wait-3": DocumentRun(lambda: WaitK(3)),
    "wait-1, continuous": DocumentRun(lambda: WaitK(1), Continuous()),
    "whole sentences": DocumentRun(Full, target_language="fr"),
    "AlignAtt, English": DocumentRun(lambda: AlignAtt(2), source_language="de", target_language="en"),
    "local agreement, continuous": DocumentRun(LocalAgreement, Continuous()),
    "confidence, cut short": DocumentRun(lambda: Confidence(0.6), Group()),
    "revised": DocumentRun(lambda: WaitK(1), Revised()),
    "one says nothing": DocumentRun(SaysNothing, Group(), early_stop="stop"),
    "wait-5, characters": DocumentRun(lambda: WaitK(5), target_language="zh", target_unit="character"),
    "one says nothing, characters on both sides": DocumentRun(
        SaysNothing, Group(), target_language="zh", source_unit="character", target_unit="character", early_stop="stop"
    ),
}
