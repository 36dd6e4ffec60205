"""Byte-level BPE: training a vocabulary, and subword regularisation by BPE dropout that a seed repeats."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from streamllm.check import number
from streamllm.files import write_atomically


def train_tokenizer(texts: Iterable[str], vocab_size: int, special_tokens: dict[str, str], folder: Path) -> None:
    """Learn a byte-level BPE of ``vocab_size`` pieces and write it to ``folder`` as transformers reads it.

    ``special_tokens`` maps a role ("source", "target", "end") to its text; "end" ends a sentence. Every
    text is cut at white space and each word takes the space before it, as `PromptTokens` feeds it.
    """
    if "end" not in special_tokens:
        raise ValueError(f"special_tokens has no 'end': {special_tokens}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" " + " ".join(text.split()) for text in texts), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    end = special_tokens["end"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": end}
    config["clean_up_tokenization_spaces"] = False  # type: ignore[assignment]
    write_atomically(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


class BPEDropout:
    """Random segmentations of a word (Provilkov et al. 2020, arXiv 1910.13267).

    Each merge is left out with probability ``p`` whenever it could be made. A word has ``variants``
    segmentations, each fixed by the seed, so a resumed training sees what an uninterrupted one sees
    (the tokenizers library offers the dropout, but not its seed).

    Args:
        tokenizer_json: a fast tokenizer's ``tokenizer.json`` whose model is a byte-level BPE.

    Raises:
        ValueError: p is outside [0, 1), or the tokenizer is no byte-level BPE.
    """

    def __init__(self, tokenizer_json: Path, p: float, seed: int, variants: int = 8):
        number("data.bpe_dropout", p, least=0, below=1)
        model: dict[str, Any] = json.loads(tokenizer_json.read_text())["model"]
        if model.get("type") != "BPE":
            raise ValueError(f"bpe_dropout needs a BPE tokenizer, and {tokenizer_json} is {model.get('type')}")
        pairs = (tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"])
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._ids: dict[str, int] = model["vocab"]
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
        pre_tokenizer, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
        pieces = pre_tokenizer.pre_tokenize_str(" é") if pre_tokenizer else []
        if "".join(piece for piece, _ in pieces) != "ĠÃ©":
            raise ValueError(f"data.bpe_dropout needs a byte-level BPE, which {tokenizer_json} is not: leave it at 0")
        self._split = pre_tokenizer.pre_tokenize_str
        self._normalised = normalizer.normalize_str if normalizer else str
        self.p, self.seed, self.variants = p, seed, variants
        self._cache: dict[str, list[list[int]]] = {}

    def tokens(self, text: str, rng: random.Random) -> list[int]:
        """One of the segmentations of ``text``, chosen by ``rng``."""
        if text not in self._cache:
            pieces = [piece for piece, _ in self._split(self._normalised(text))]
            self._cache[text] = [
                [token for piece in pieces for token in self._segment(piece, dice)]
                for dice in (random.Random(f"{self.seed}/{text}/{i}") for i in range(self.variants))
            ]
        return self._cache[text][rng.randrange(self.variants)]

    def _segment(self, piece: str, dice: random.Random) -> list[int]:
        parts = list(piece)
        while True:
            candidates = [
                (rank, i)
                for i in range(len(parts) - 1)
                if (rank := self._ranks.get((parts[i], parts[i + 1]))) is not None and dice.random() >= self.p
            ]
            if not candidates:
                try:
                    return [self._ids[part] for part in parts]
                except KeyError as error:
                    raise ValueError(
                        f"data.bpe_dropout: the tokenizer has no {error}, which is a byte of {piece!r}: leave it at 0"
                    ) from error
            _, i = min(candidates)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
