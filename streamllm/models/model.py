"""A streaming model: a decoder of mlx-lm, its tokenizer and its prompt, and the sessions opened on them."""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from streamllm import check
from streamllm.cache.retention import Retention
from streamllm.contents import Contents, of_text
from streamllm.engine.paradigms.forgetting import Forgetting
from streamllm.engine.paradigms.group import Group, GroupParadigm
from streamllm.engine.paradigms.memory import CachedMemory, Memory, Paradigm, TargetStart, check_target_start
from streamllm.engine.positions import Positions
from streamllm.engine.prefix import FEWEST, Prefix
from streamllm.engine.sampling import Sampling, check_sampling
from streamllm.engine.session import Session
from streamllm.engine.write_head import WriteHead
from streamllm.files import replacing, write_atomically
from streamllm.models.languages import Languages
from streamllm.models.precision import fitted
from streamllm.models.settings import SETTINGS
from streamllm.prompt import PromptTokens


class StreamingModel:
    """A model, its tokenizer and its prompt: everything that sentences have in common.

    Args:
        model: an mlx-lm model of a supported family.
        tokenizer: mlx-lm's TokenizerWrapper.
        positions: how many the model has; None looks for a learned table and knows of no other limit.
        documents: whether it was trained on streams of several sentences (``data.documents``).
        languages: those that it was made for; None where nobody says so.
        write_head: what ``policy=learned`` asks.

    Raises:
        ValueError: a value is not accepted, or the model or the paradigm cannot keep streams as ``retention`` says.
    """

    def __init__(
        self,
        model: Any,
        prompt: PromptTokens,
        tokenizer: Any,
        target_start: TargetStart = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        paradigm: Paradigm = Group(),
        alignment_heads: Sequence[Sequence[int]] | None = None,
        retention: Retention = Retention(),
        positions: Positions | None = None,
        documents: bool = False,
        languages: Languages | None = None,
        write_head: WriteHead | None = None,
    ):
        check_target_start("target_start", target_start)
        check_sampling(temperature, top_p)
        check.heads("alignment_heads", alignment_heads)
        self.model, self.prompt, self.tokenizer = model, prompt, tokenizer
        self.target_start, self.paradigm, self.alignment_heads = target_start, paradigm, alignment_heads
        self._temperature, self._top_p = temperature, top_p
        self.retention = retention
        self.positions = positions or Positions.of(model, {})
        self.warned_of_positions = False
        self._open: Callable[[TargetStart], Memory] = partial(paradigm.open, model)
        self.documents = documents
        self.languages, self.write_head = languages, write_head
        self.living_on = paradigm.living_on(documents) if isinstance(paradigm, GroupParadigm) else None
        self.forgetting: Forgetting | None = None
        self._prefix: Prefix | None = None
        if not retention.keeps_all or self.living_on is not None:
            headers = (len(prompt.source_header), len(prompt.target_header))
            from streamllm.engine.paradigms.windows import memories

            self._open = opened = memories(retention, model, paradigm, *headers)
            self.forgetting = opened.forgetting

    def contents(self) -> Contents:
        """The prompt as it is fed, and a digest of its tokens."""
        prompt = self.prompt
        tokens = [prompt.source_header, prompt.source_footer, prompt.target_header, sorted(prompt.end_tokens)]
        return {"prompt": {"text": prompt.rendered, "tokens": of_text(repr(tokens))}}

    def session(self, seed: int = 0, name: str = "", memory: Memory | None = None) -> Session:
        """A new sentence. Sampling is seeded by (seed, name), so that its order in a run does not matter.

        Args:
            memory: an empty one for it to live in; None opens one of its own.
        """
        sampler = None
        if self._temperature > 0:
            sampler = Sampling(zlib.crc32(f"{seed}/{name}".encode()), self._temperature, self._top_p)
        if memory is None:
            memory = self._open(self.target_start)
            if isinstance(memory, CachedMemory):
                memory.prefix, memory.write_head = self.prefix, self.write_head
        heads, ahead = self.alignment_heads, self.forgetting.target.size if self.forgetting else None
        return Session(memory, self.prompt, sampler, alignment_heads=heads, max_ahead=ahead)

    @property
    def prefix(self) -> Prefix | None:
        """The source header, fed once for all sentences; None where it has fewer tokens than are worth it, or the
        paradigm's memories are of a kind of their own. It is fed anew once the prompt or a weight is another one."""
        header = self.prompt.source_header
        limit = self.positions.limit if self.positions.kind == "learned" else None
        if len(header) < FEWEST or (limit is not None and len(header) > limit):
            return None
        if self._prefix is None or not self._prefix.is_of(self.model, header):
            memory = self._open(self.target_start)
            if not isinstance(memory, CachedMemory):
                return None
            memory.read(header)
            self._prefix = Prefix(self.model, header, memory.caches)
        return self._prefix

    def save(self, folder: Path, dtype: mx.Dtype | None = None) -> None:
        """Write a folder that `ModelConfig` and ``mlx_lm.load`` open: weights and `SETTINGS` beside the
        config and tokenizer that are already there.

        Args:
            dtype: of the weights that are floats; None leaves them as they are.

        Raises:
            ValueError: some weights are not finite in ``dtype``; nothing is written.
        """
        weights = dict(tree_flatten(self.model.parameters()))
        if dtype is not None:
            weights = fitted(weights, dtype)
        with replacing(folder / "model.safetensors") as file:
            mx.save_safetensors(file, weights, {"format": "mlx"})
        self.save_settings(folder)

    def save_settings(self, folder: Path, base: str | None = None) -> None:
        """Write `SETTINGS`: all that belongs to the model besides weights and tokenizer; for an adapter, with the
        digest of its ``base``'s weights."""
        settings: dict[str, Any] = {
            "prompt": asdict(self.prompt.text),
            "target_start": self.target_start,
            "paradigm": self.paradigm.trained_as,
        }
        if self.alignment_heads is not None:
            settings["alignment_heads"] = [list(head) for head in self.alignment_heads]
        if self.documents:
            settings["documents"] = True
        if self.languages is not None and self.languages.ordered:
            settings["languages"] = list(self.languages.codes)
        if self.prompt.latencies:
            settings["latencies"] = list(self.prompt.latencies)
        if base is not None:
            settings["base_weights"] = base
        write_atomically(folder / SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
