"""Read/write paths drawn from a write head, with the model as in evaluation: many in one batch.

Invariant: what is drawn for a sentence follows from the seed, the step, its id and the number of the sample, so that
neither the size of a batch nor the sentences in it change a path, but for near-ties.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streamllm.batching.coroutines import Clock
from streamllm.batching.scheduler import in_sessions
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.session import Session
from streamllm.engine.write_head import WriteHead
from streamllm.models.model import StreamingModel
from streamllm.policies.bounded import bounded
from streamllm.records import READ, WRITE, WRITE_BARE, Action, Decide, Example, State, Trace
from streamllm.training.drawn import DrawnData, draws_write
from streamllm.training.heads.network import Network
from streamllm.training.heads.rewards import reward
from streamllm.training.objectives.grpo import GRPO, Floats, Paths, advantages


@dataclass(frozen=True)
class Drawn:
    """As `streamllm.policies.Learned`, but WRITE is drawn with the probability that the head gives it. Of each decision
    it keeps what the head was given, and what was drawn."""

    session: Session
    dice: random.Random
    states: list[Floats] = field(default_factory=list)
    writes: list[bool] = field(default_factory=list)

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if not state.read:
            return READ
        logit = self.session.write_logit()
        self.states.append(self.session.judged_state())
        self.writes.append(draws_write(logit, self.dice))
        return WRITE_BARE if self.writes[-1] else READ


@dataclass(frozen=True)
class Rollouts:
    """Draws paths and rewards them.

    Args:
        model: its write head is set to what draws.
        start: the head that training begins with.
        limits: of each translation.
        language, tokenizer: of the target, for BLEU.
    """

    model: StreamingModel
    start: WriteHead
    objective: GRPO
    limits: Limits
    seed: int
    language: str
    tokenizer: str | None = None

    def paths(self, head: WriteHead, examples: Sequence[Example], samples: int, place: str) -> Paths:
        """Some paths of each example, at a ``place`` in the training that tells their random numbers from others."""
        traces, drawn = self._translated(head, examples, samples, place)
        how = self.objective.quality, self.objective.latency, self.language, self.tokenizer
        rewards = np.array([reward(trace, *how) for trace in traces], np.float32)
        each = advantages(rewards.reshape(-1, samples), self.objective.scale).reshape(-1)
        none = np.empty((0, head.width), np.float32)
        states = np.concatenate([none, *(np.stack(path.states) for path in drawn if path.states)])
        return Paths(
            states,
            np.array([write for path in drawn for write in path.writes], bool),
            self.start(states),
            np.repeat(each, [len(path.writes) for path in drawn]),
            rewards,
        )

    def _translated(
        self, head: WriteHead, examples: Sequence[Example], samples: int, place: str
    ) -> tuple[list[Trace], list[Drawn]]:
        """Those of the first example first."""
        self.model.write_head = head
        units = self.model.prompt.source_unit, self.model.prompt.target_unit
        asked = [replace(example, id=f"{example.id}/{i}") for example in examples for i in range(samples)]
        drawn: dict[str, Drawn] = {}
        seed = f"{self.seed}/{place}"

        def translate_one(session: Session, example: Example, clock: Clock) -> Trace:
            path = drawn[example.id] = Drawn(session, random.Random(f"{seed}/{example.id}"))
            policy = bounded(path, max_lag=self.objective.max_lag)
            return translate(session, example, policy, self.limits, *units, clock, self.model.living_on)

        # In one thread: with more, chance decides which sentences share a forward, and so the last digits of a state.
        sampling = random.Random(seed).getrandbits(32)
        found = in_sessions(self.model, asked, translate_one, self.objective.batch_size, sampling, threads=1)
        traces = {trace.id: trace for trace in found}
        return [traces[example.id] for example in asked], [drawn[example.id] for example in asked]


class PathData(DrawnData):
    """Batches of paths, each drawn from the network as it is when the batch is asked for."""

    def __init__(self, rollouts: Rollouts, network: Network, examples: Sequence[Example]):
        super().__init__(rollouts.objective, examples, rollouts.seed)
        self.rollouts, self.network = rollouts, network

    def drawn(self, rows: Sequence[int], place: str, samples: int) -> Paths:
        return self.rollouts.paths(self.network.head(), [self.examples[i] for i in rows], samples, place)
