"""Tiny tokenizers and models that tests make for themselves: byte-level and SentencePiece-like vocabularies of
a few hundred pieces, random Qwen2 models of two layers, and a model that shows exactly what its cache holds."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import qwen2
from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from streamllm.engine.write_head import WriteHead

SPECIAL = ["<end>", "<stop>", "<bos>", "<mark>"]  # ids 0 to 3
# Qwen2's rule: a word takes the space before it, punctuation the line breaks after it.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIECES = (
    ".\n", " end.\n", "  ", " of the", "你好", "好", " the ", " a", " dog", " cat", " run", "ing", "er", " jump",
    " Haus", " sch", "ön", " <", "German", ":", "\u00a0", "dog", "cat",
)  # fmt: skip
CHAT = (
    "{% for m in messages %}<mark>{{ m.role }}\n{{ m.content }}<stop>\n{% endfor %}"
    "{% if add_generation_prompt %}<mark>assistant\n{% endif %}"
)


def _byte_letters() -> dict[int, str]:
    """How byte-level vocabularies spell each byte (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


LETTERS = _byte_letters()


def byte_level_tokenizer(
    folder: Path, pieces: Sequence[str] = PIECES, bos: bool = False, chat_template: str | None = None
) -> None:
    """Write a byte-level BPE tokenizer whose vocabulary holds ``pieces``, their prefixes and all bytes."""
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *LETTERS.values()])}
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        letters = [LETTERS[byte] for byte in piece.encode()]
        for end in range(1, len(letters)):
            left, right = "".join(letters[:end]), letters[end]
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _write_tokenizer(folder, tokenizer, bos, chat_template)


def metaspace_tokenizer(folder: Path, scheme: str, bos: bool = False, chat_template: str | None = None) -> None:
    """Write a SentencePiece-like BPE tokenizer with byte fallback; ``scheme`` says how a space gets before a
    text: Metaspace's always, first and never, or "normalizer" (Llama 2's, which doubles a space that is there)."""
    letters = [*map(chr, range(33, 127)), "č", "ö", "好", "▁"]
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters])}
    merges: list[tuple[str, str]] = []
    for piece in ("▁the", "▁dog", "▁a", "ing", "▁▁"):
        for end in range(1, len(piece)):
            left, right = piece[:end], piece[end]
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    _write_tokenizer(folder, tokenizer, bos, chat_template)


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, bos: bool, chat_template: str | None) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<end>",
        "clean_up_tokenization_spaces": False,
    }
    if bos:
        settings["bos_token"] = "<bos>"
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def load(folder: Path, end_tokens: Iterable[str] = ("<end>",)) -> Any:
    """mlx-lm's TokenizerWrapper of a folder."""
    return load_tokenizer(folder, eos_token_ids=[SPECIAL.index(token) for token in end_tokens])


def token_bytes(tokenizer: Any) -> list[bytes]:
    """What each token of a byte-level vocabulary says; nothing for special ones."""
    bytes_of = {letter: byte for byte, letter in LETTERS.items()}
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [b"" if i < len(SPECIAL) else bytes(bytes_of[letter] for letter in piece) for i, piece in enumerate(pieces)]


# Random models


def write_head(seed: int, width: int = 32) -> WriteHead:
    """One that says READ and WRITE about as often, by states of a random model."""
    dice = np.random.default_rng(seed)
    layers = [(8, width), (1, 8)]
    return WriteHead([(dice.normal(size=(n, m)).astype(np.float32), np.zeros(n, np.float32)) for n, m in layers])


def config(vocabulary: int, hidden: int = 32, tied: bool = False) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "intermediate_size": 48 if hidden == 32 else 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": vocabulary,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "eos_token_id": [0],
    }


def random_model(seed: int, vocabulary: int, hidden: int = 32, tied: bool = False) -> qwen2.Model:
    """A Qwen2 model whose weights are large enough that what it attends to decides what it says."""
    model = qwen2.Model(qwen2.ModelArgs.from_dict(config(vocabulary, hidden, tied)))
    parameters = tree_flatten(model.parameters())
    keys = mx.random.split(mx.random.key(seed), len(parameters))
    weights = []
    for (name, value), key in zip(parameters, keys, strict=True):
        scale = 1.0 if value.ndim == 1 else 1.5 / value.shape[-1] ** 0.5
        noise = mx.random.normal(value.shape, key=key) * scale
        weights.append((name, noise + 1 if "norm" in name else noise))
    model.update(tree_unflatten(weights))
    mx.eval(model.parameters())
    return model


class Biased:
    """A model with something added to its logits, so that random sentences have words, ends and white space."""

    def __init__(self, model: Any, bias: mx.array):
        self.model, self.bias = model, bias

    @property
    def layers(self) -> list[Any]:
        return self.model.layers

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return self.model(tokens, cache=cache) + self.bias


def sentence_bias(tokenizer: Any, end: float) -> mx.array:
    """Favours tokens that start with a space and printable ASCII; ``end`` is added for the end token."""
    bias = []
    for i, text in enumerate(token_bytes(tokenizer)):
        if i < len(SPECIAL):
            bias.append(end if i == 0 else -1.0)
        elif text[:1] == b" ":
            bias.append(2.0)
        else:
            bias.append(-6.0 if any(byte >= 128 or byte < 32 for byte in text) and b"\n" not in text else 0.0)
    return mx.array(bias)


def model_folder(
    folder: Path, seed: int = 0, hidden: int = 32, tied: bool = False, chat_template: str | None = CHAT
) -> Path:
    """Write a folder that mlx_lm.load opens: a random model and a byte-level tokenizer."""
    byte_level_tokenizer(folder, chat_template=chat_template)
    vocabulary = len(load(folder))
    model = random_model(seed, vocabulary, hidden, tied)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config(vocabulary, hidden, tied)))
    return folder


def read_weights(file: Path) -> dict[str, mx.array]:
    weights: Any = mx.load(str(file))
    return dict(weights)


class Scripted:
    """A model whose next token depends on nothing but the tokens it finds in its cache, in plain sight.

    Its keys are token ids. ``say(source, target)`` is asked for the piece that follows, given the text of
    the source and of the target in view; the target is what stands behind the first ``<mark>``, the target
    header of `SCRIPTED_HEADER`.
    """

    def __init__(self, tokenizer: Any, say: Callable[[str, str], str]):
        self.layers = [None]
        self._tokenizer, self._say = tokenizer, say
        self.fed: list[tuple[str, str]] = []  # text of each forward pass, and all that it saw

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        ids = tokens.astype(mx.float32)[:, None, :, None]  # (1, 1, L, 1)
        held, _ = cache[0].update_and_fetch(ids, ids)
        in_view = [int(token) for token in held.flatten().tolist()]
        self.fed.append((self._tokenizer.decode(tokens[0].tolist()), self._tokenizer.decode(in_view)))
        logits = mx.zeros((1, tokens.shape[1], len(self._tokenizer)))
        logits[0, -1, self.following(in_view)] = 1.0
        return logits

    def following(self, in_view: list[int]) -> int:
        """The next token, given all that the cache holds."""
        source, mark, target = self._tokenizer.decode(in_view).partition("<mark>")
        return self.token(self._say(source, target) if mark else "<end>")

    def token(self, piece: str) -> int:
        """The one token that says ``piece``."""
        spelled = piece if piece in SPECIAL else "".join(LETTERS[byte] for byte in piece.encode())
        return self._tokenizer.get_vocab()[spelled]
