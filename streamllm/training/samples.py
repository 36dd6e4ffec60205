"""Translations drawn from the model that learns, many in one batch, and what their learning needs: tokens, what was
read when each was drawn, and what they are worth.

Invariant: the log-probabilities of a learned forward are those that the tokens were drawn with. What is drawn for a
sentence follows from the seed, the step, its id and the number of the sample, so that neither the size of a batch nor
the sentences in it change it, but for near-ties.
"""

import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from streamllm.batching.coroutines import Clock
from streamllm.batching.scheduler import in_sessions
from streamllm.engine.finite import Logits
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.memory import Memory
from streamllm.engine.sampling import Sampling
from streamllm.engine.session import Session
from streamllm.models.model import StreamingModel
from streamllm.policies import Full, Learned, WaitK
from streamllm.policies.bounded import bounded
from streamllm.prompt import PromptTokens
from streamllm.records import READ, WRITE, WRITE_BARE, Action, Decide, Example, Policy, State, Trace, Write
from streamllm.training.batch import Encoded, pad
from streamllm.training.data import FULL
from streamllm.training.drawn import DrawnData, draws_write
from streamllm.training.heads.rewards import lag, worth
from streamllm.training.objectives.grpo import Floats, advantages
from streamllm.training.objectives.grpo_model import ModelGRPO, Samples
from streamllm.units import pieces


class Draws(Sampling):
    """As `Sampling`; of each place in the target it keeps the token that was drawn there last, and how many source
    tokens had been read. A token that was drawn before a READ is given up, and drawn anew after it: so what is kept of
    a place that was written is what was written."""

    def __init__(self, memory: Memory, seed: int, temperature: float):
        super().__init__(seed, temperature)
        self._memory, self._of, self._at = memory, seed, temperature
        self.tokens: list[int] = []
        self.read: list[int] = []

    def draw(self, logits: Logits, reads: int, written: int) -> int:
        if isinstance(logits, np.ndarray) or mx.default_device() == mx.Device(mx.cpu):  # type: ignore[arg-type]
            # MLX takes six times as long on a CPU, and each of its turns waits for its thread.
            dice = np.random.default_rng([self._of, reads, written])
            exact = np.array(logits if isinstance(logits, np.ndarray) else logits.astype(mx.float32), np.float64)
            token = int((exact - self._at * np.log(dice.standard_exponential(len(exact)))).argmax())
        else:
            token = super().draw(logits, reads, written)
        del self.tokens[written:], self.read[written:]
        self.tokens.append(token)
        self.read.append(self._memory.source_tokens)
        return token


@dataclass(frozen=True)
class DrawnDecisions:
    """As `streamllm.policies.Learned`, but WRITE is drawn, with probability one half where the head says
    ``threshold``."""

    threshold: float
    chance: float
    dice: random.Random

    def start(self, example: Example) -> Decide:
        return self.decide

    def decide(self, state: State) -> Action:
        if state.source_done:
            return WRITE
        if not state.read:
            return READ
        logit = state.model.write_logit() - math.log(self.threshold) + math.log1p(-self.threshold)
        return WRITE_BARE if draws_write(logit, self.dice, self.chance) else READ


@dataclass
class FirstWrite:
    """A policy, and how many units were read when it wrote, or tried to, for the first time while source remained.
    Until then, each prediction feeds the target header anew, as a whole; from then on, its last token alone."""

    policy: Policy
    read: int | None = None

    def start(self, example: Example) -> Decide:
        ask = self.policy.start(example)

        def decide(state: State) -> Action:
            action = ask(state)
            if self.read is None and isinstance(action, Write):
                self.read = state.read
            return action

        return decide


def policy_of(objective: ModelGRPO, setting: Any, dice: random.Random | None = None) -> Policy:
    """The policy of one of ``objective.settings``; with ``dice``, its decisions are drawn where they are to be."""
    if setting == FULL:
        return Full()
    if objective.policy == "waitk":
        return bounded(WaitK(setting), max_lag=objective.max_lag)
    drawn = dice is not None and objective.chance
    learned = DrawnDecisions(setting, objective.chance, dice) if drawn else Learned(setting)  # type: ignore[arg-type]
    return bounded(learned, max_lag=objective.max_lag)


@dataclass(frozen=True)
class Sampler:
    """Draws translations and rewards them.

    Args:
        limits: of each translation.
        language, tokenizer: of the target, for BLEU.
    """

    model: StreamingModel
    objective: ModelGRPO
    limits: Limits
    seed: int
    language: str
    tokenizer: str | None = None

    def samples(self, examples: Sequence[Example], samples: int, place: str) -> Samples:
        """Some translations of each example, at a ``place`` in the training that tells their random numbers from
        others."""
        drawn = self.drawn(examples, samples, place)
        how = self.objective.quality, self.language, self.tokenizer
        qualities = np.array([worth(trace, *how) for trace, _ in drawn])
        rewards = (qualities - self.objective.latency * np.array([lag(trace) for trace, _ in drawn])).astype(np.float32)
        of_both = self._advantages(rewards, samples)
        of_quality = self._advantages(qualities.astype(np.float32), samples) if self.objective.phases else of_both
        batch = pad([encoded for _, encoded in drawn])
        ended = batch.target_units == batch.whole_units
        each = np.where(ended, of_quality[:, None], of_both[:, None])
        return Samples(batch, np.where(batch.labels >= 0, each, 0).astype(np.float32), rewards)

    def _advantages(self, rewards: Floats, samples: int) -> Floats:
        return advantages(rewards.reshape(-1, samples), self.objective.scale).reshape(-1)

    def drawn(self, examples: Sequence[Example], samples: int, place: str) -> list[tuple[Trace, Encoded]]:
        """Those of the first example first."""
        model, objective, seed = self.model, self.objective, f"{self.seed}/{place}"
        units = model.prompt.source_unit, model.prompt.target_unit
        settings = {one.id: random.Random(f"{seed}/{one.id}").choice(objective.settings) for one in examples}
        asked = [(one, replace(one, id=f"{one.id}/{i}")) for one in examples for i in range(samples)]
        setting_of = {sample.id: settings[one.id] for one, sample in asked}

        def does(opened: Session, example: Example, clock: Clock) -> tuple[str, Trace, Encoded]:
            own = f"{seed}/{example.id}"
            draws = Draws(opened.memory, zlib.crc32(own.encode()), objective.temperature)
            session = Session(opened.memory, model.prompt, draws)
            policy = FirstWrite(policy_of(objective, setting_of[example.id], random.Random(own)))
            trace = translate(session, example, policy, self.limits, *units, clock)
            return example.id, trace, encoded(model.prompt, trace, draws, session.target_tokens, policy.read)

        inside = model.model
        trains = inside.training
        inside.eval()  # without dropout
        try:
            # In one thread: with more, chance decides which sentences share a forward, and so the last digits of it.
            several = in_sessions(model, [sample for _, sample in asked], does, objective.batch_size, threads=1)
            found = {id: (trace, one) for id, trace, one in several}
        finally:
            inside.train(trains)
        return [found[sample.id] for _, sample in asked]


def encoded(prompt: PromptTokens, trace: Trace, draws: Draws, written: int, first: int | None) -> Encoded:
    """A translation that was drawn, of so many tokens, as a sentence pair whose target positions each see what was read
    when the token after them was drawn; those of the header but its last, the units read by the ``first`` WRITE (None:
    all)."""
    source, units = list(prompt.source_header), [-1] * len(prompt.source_header)
    words = pieces(trace.source, prompt.source_unit)
    for i, piece in enumerate([*(prompt.source_tokens(word, i == 0) for i, word in enumerate(words)), None]):
        tokens = prompt.source_footer if piece is None else piece
        source += tokens
        units += [i] * len(tokens)
    ended = trace.events[-1].text == "end_token"
    tokens = draws.tokens[: written + ended]
    # A prompt without a footer does not say that the source has ended; there, who has read all has seen it end.
    whole = units[-1] + 1
    sees = [units[read - 1] + 1 if read else 0 for read in draws.read[: len(tokens)]]
    header = prompt.target_header
    seen = [whole if first is None else first] * (len(header) - 1) + sees
    return Encoded(
        source,
        units,
        [*header, *tokens[:-1]],
        seen,
        seen,
        [whole] * len(seen),
        [-1] * (len(header) - 1) + tokens,
        k=0,
    )


class SampleData(DrawnData):
    """Batches of translations, each drawn from the model as it is when the batch is asked for."""

    def __init__(self, sampler: Sampler, examples: Sequence[Example]):
        super().__init__(sampler.objective, examples, sampler.seed)
        self.sampler = sampler

    def drawn(self, rows: Sequence[int], place: str, samples: int) -> Samples:
        return self.sampler.samples([self.examples[i] for i in rows], samples, place)
