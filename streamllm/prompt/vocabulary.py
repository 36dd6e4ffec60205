"""What the tokens of one tokenizer say, and texts as tokens. The text of tokens is that of their bytes put together, so
what is shown token by token is what the whole says. A word never becomes a control token, whatever it spells."""

import json
import re
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal

Spelling = Literal["bytes", "pieces", "text", "wordpiece"]
BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
BRACKETED = re.compile(r"<.+>|\[.+\]|\{.+\}|｜.+｜", re.DOTALL)
WHITE_SPACE = (b" ", b"\n", b"\r", b"\t")


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


BYTE_OF = _byte_letters()


class Vocabulary:
    """The tokens of an mlx-lm TokenizerWrapper (or of a tokenizer of transformers).

    Its decoder is not asked: decoders that do not fit their vocabulary are common, and one that strips, cleans up or
    normalises says other things of a whole text than of its parts.

    Attributes:
        spelling: how pieces spell text. "bytes": a letter for each byte (GPT-2, Llama 3, Qwen, Tekken, tiktoken).
            "pieces": "▁" for a space, and <0x0A> for a byte (SentencePiece, Metaspace). "text": as they read.
            "wordpiece": without spaces, "##" inside a word.
        special: tokens that say nothing.
        unknown: the token for characters that the vocabulary does not have; None where it has all.
        control: tokens that no word may become: the special ones but that for unknown characters, and the added
            ones in brackets, like <think>.

    Raises:
        ValueError: the tokenizer knows no letters.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer, self._lock = tokenizer, threading.Lock()
        self._adds_space = False
        if not self.encode("a"):
            raise ValueError("the tokenizer knows no letters: its vocabulary is missing (tokenizer.json)")
        first = self.piece(self.encode("a")[0])
        between = "".join(self.piece(token) for token in self.encode("a b"))
        self.spelling: Spelling = (
            "bytes" if "Ġ" in between else "pieces" if "▁" in between else "text" if " " in between else "wordpiece"
        )
        # SentencePiece tokenizers may put a space before any text by themselves.
        self._adds_space = self.spelling == "pieces" and first.startswith("▁")
        # Not all_special_ids alone: it leaves out the markers of many chat templates.
        self._added: dict[int, Any] = dict(getattr(tokenizer, "added_tokens_decoder", {}))
        special = {token for token, entry in self._added.items() if entry.special}
        self.special = frozenset(special.union(token for token in tokenizer.all_special_ids if token is not None))
        self.unknown = _unknown(tokenizer)
        bracketed = (token for token, entry in self._added.items() if BRACKETED.fullmatch(entry.content))
        self.control = self.special.union(bracketed) - {self.unknown}
        self._has_byte_pieces = self.spelling in ("pieces", "text") and self._holds("<0x0A>")
        # Asked for again and again.
        cache = lru_cache(maxsize=1 << 16)
        self._spelled, self._is_byte = cache(self._spelling_of), cache(self._is_spelled_as_byte)

    def _holds(self, piece: str) -> bool:
        return bool(self.piece(self.tokenizer.convert_tokens_to_ids(piece)) == piece)

    # Tokens to text

    def piece(self, token: int | None) -> str:
        """A token as the vocabulary spells it; "" for one beyond it (padded embeddings)."""
        return "" if token is None else self.tokenizer.convert_ids_to_tokens([token])[0] or ""

    def bytes_of(self, token: int) -> bytes:
        """What a token says: nothing for special ones and for those beyond the vocabulary."""
        return b"" if token in self.special else self._spelled(token)

    def _spelling_of(self, token: int) -> bytes:
        if token in self._added:  # added tokens are spelled as they read
            content = str(self._added[token].content)
            return (content.replace("▁", " ") if self.spelling == "pieces" else content).encode()
        piece = self.piece(token)
        if self.spelling == "bytes":
            if all(letter in BYTE_OF for letter in piece):
                return bytes(BYTE_OF[letter] for letter in piece)
        elif self._is_byte(token):
            return bytes([int(piece[3:5], 16)])
        elif self.spelling == "wordpiece":
            piece = piece.removeprefix("##")
        elif self.spelling == "pieces":
            piece = piece.replace("▁", " ")
        return piece.encode()

    def _is_spelled_as_byte(self, token: int) -> bool:
        """Whether this is a byte of those that SentencePiece falls back on."""
        return (
            self._has_byte_pieces and token not in self._added and BYTE_PIECE.fullmatch(self.piece(token)) is not None
        )

    def text_of(self, tokens: Sequence[int], special: bool = False) -> str:
        """What tokens say together, ``special`` ones only if asked for. Bytes that are no character become U+FFFD: as
        many as Unicode recommends in a byte-level vocabulary, one a byte in a run of SentencePiece's (each as its own
        decoder does)."""
        tokens = [token for token in tokens if special or token not in self.special]
        if self.spelling == "bytes" or not any(map(self._is_byte, tokens)):
            return b"".join(map(self._spelled, tokens)).decode("utf-8", "replace")
        text, run = "", b""
        for token in tokens:
            if self._is_byte(token):
                run += self._spelled(token)
            elif said := self._spelled(token):
                text, run = text + _characters(run) + said.decode(), b""
        return text + _characters(run)

    def shown(self, token: int) -> str:
        """What a token says, a special one included."""
        return self._spelled(token).decode("utf-8", "replace")

    # Text to tokens

    def encode(self, text: str) -> list[int]:
        """Tokens of a header or a footer: what spells a control token becomes that token."""
        text = text.removeprefix(" ") if self._adds_space else text
        if not text:
            return []
        with self._lock:  # tokenizers of transformers change settings while they encode
            return list(self.tokenizer.encode(text, add_special_tokens=False))

    def encode_words(self, text: str) -> list[int]:
        """Tokens of words that come from outside: what spells a control token is encoded as any other text."""
        tokens = self.encode(text)
        looks_like_a_byte = self._has_byte_pieces and BYTE_PIECE.search(text) is not None
        spells_unknown = self.unknown in tokens and self.piece(self.unknown) in text
        if self.control.isdisjoint(tokens) and not looks_like_a_byte and not spells_unknown:
            return tokens
        plain = self._encode_plainly(text.removeprefix(" ") if self._adds_space else text)
        return [token for token in plain if token not in self.control]

    @cached_property
    def _encode_plainly(self) -> Callable[[str], list[int]]:
        """The tokenizer without its control tokens. Made when it is needed first, which is hardly ever."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:  # a tokenizer in Python
            in_python = {"add_special_tokens": False, "split_special_tokens": True}
            return lambda text: list(self.tokenizer.encode(text, **in_python))
        from tokenizers import Tokenizer

        # Control tokens keep their places under names that no text has: a Unigram model looks for every piece in the
        # text, and some BPE models look whole words up.
        names = {
            self.piece(token): f"\U0010fffd{token}" for token in {*self.control, self.unknown} if token is not None
        }
        description = json.loads(backend.to_str()) | {"truncation": None, "padding": None, "post_processor": None}
        description["added_tokens"] = [entry for entry in description["added_tokens"] if entry["content"] not in names]
        model = description["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(piece, piece): token for piece, token in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
        if model.get("unk_token") is not None:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        if "merges" in model:
            pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
            model["merges"] = [pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]
        if self._has_byte_pieces:
            before = description["pre_tokenizer"]
            cut = {
                "type": "Split",
                "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"},
                "behavior": "Isolated",
                "invert": False,
            }
            description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*([before] if before else []), cut]}
        plain = Tokenizer.from_str(json.dumps(description))
        return lambda text: list(plain.encode(text, add_special_tokens=False).ids)


def _unknown(tokenizer: Any) -> int | None:
    named: int | None = getattr(tokenizer, "unk_token_id", None)
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    name, number = getattr(model, "unk_token", None), getattr(model, "unk_id", None)
    return number if isinstance(number, int) else tokenizer.convert_tokens_to_ids(name) if name else named


def _characters(run: bytes) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(run)
