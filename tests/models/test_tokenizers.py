"""Tokenizers of every kind, made here: what is loaded is what the folder says, words come back, and no word becomes a
control token. docs/tokenizers.md shows the table."""

import base64
import io
import json
import random
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import load as load_by_mlx_lm
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from streamllm.models import tokenizers
from streamllm.models.loading import ModelConfig, ModelError, find_model
from streamllm.prompt import Prompt, PromptTokens
from streamllm.training.bpe import BPEDropout
from streamllm.units import split

PROMPT = Prompt(target_header="German:")
BUNDLED = ModelConfig("bundled:tiny-en-de")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'()<>|/[]äöüßéïΕλάδαприветč"
SENTENCES = ["the dog runs over the hill", "a Hund rennt, und 2012 naïve Straße!", "привет Ελλάδα the end", "two Hello"]
SP_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


# Folders


def edit(folder: Path, name: str = "tokenizer.json", **changes: Any) -> None:
    file = folder / name
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def write(folder: Path, tokenizer: Tokenizer, **config: Any) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))


def byte_level(folder: Path) -> None:
    tiny.byte_level_tokenizer(folder)


def byte_level_cleaned_up(folder: Path) -> None:
    tiny.byte_level_tokenizer(folder)
    edit(folder, "tokenizer_config.json", clean_up_tokenization_spaces=True)


def tekken_with_a_decoder_of_sentencepiece(folder: Path) -> None:
    tiny.byte_level_tokenizer(folder)
    edit(folder, decoder=SP_DECODER)


def byte_level_without_decoder(folder: Path) -> None:
    tiny.byte_level_tokenizer(folder)
    edit(folder, decoder=None)


def tekken(folder: Path) -> None:
    said = [bytes([i]) for i in range(256)] + [b" t", b" th", b" the", "ä".encode()]
    entry = [{"rank": i, "token_bytes": base64.b64encode(b).decode(), "token_str": None} for i, b in enumerate(said)]
    special = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(["<unk>", "<s>", "</s>"])]
    numbers = {"num_vocab_tokens": 260, "default_vocab_size": 263, "default_num_special_tokens": 3, "version": "v7"}
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    content = {"config": {"pattern": pattern, **numbers}, "vocab": entry, "special_tokens": special}
    (folder / "tekken.json").write_text(json.dumps(content))


def metaspace(scheme: str) -> Callable[[Path], None]:
    return lambda folder: tiny.metaspace_tokenizer(folder, scheme)


def bytes_and(pieces: str) -> list[str]:
    return ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *dict.fromkeys(pieces)]


def unigram(folder: Path) -> None:
    pieces = [(piece, -float(i > 2) * 5) for i, piece in enumerate(bytes_and(LETTERS))]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("▁the", -3.0), ("▁dog", -3.0)], unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    write(folder, tokenizer, unk_token="<unk>")


def unigram_normalised(folder: Path) -> None:
    """No byte fallback, and a normaliser: full-width letters and ligatures become others."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((piece, -5.0) for piece in dict.fromkeys("▁" + LETTERS))]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("▁the", -3.0)], unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    write(folder, tokenizer, unk_token="<unk>")


def lower_cased(folder: Path) -> None:
    tiny.byte_level_tokenizer(folder)
    edit(folder, normalizer={"type": "Lowercase"})


def plain_text(folder: Path) -> None:
    vocabulary = {piece: i for i, piece in enumerate(bytes_and(LETTERS + " 你好😀'"))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    write(folder, tokenizer)


def with_added_words(folder: Path) -> None:
    """A word with letters beyond ASCII, one inside words, and a control token that is not marked as special."""
    tiny.byte_level_tokenizer(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    number = len(content["model"]["vocab"])
    named = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": False}
    content["added_tokens"] += [
        {"id": number + i, "content": text, **named} for i, text in enumerate(["größe", "ĳ", "tw", "<think>"])
    ]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@cache
def sentencepiece(kind: str, byte_fallback: bool = True) -> bytes:
    import sentencepiece as sp

    model = io.BytesIO()
    sp.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=340 if byte_fallback else 84,
        model_type=kind,
        byte_fallback=byte_fallback,
        control_symbols=["<turn>"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def tokenizer_model(kind: str, byte_fallback: bool = True) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "tokenizer.model").write_bytes(sentencepiece(kind, byte_fallback))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))

    return make


def gpt2_files(folder: Path) -> None:
    tiny.byte_level_tokenizer(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "eos_token": "<end>"})
    )


KINDS: dict[str, Callable[[Path], None]] = {
    "byte-level": byte_level,
    "byte-level, cleaned up": byte_level_cleaned_up,
    "byte-level, decoder of SentencePiece": tekken_with_a_decoder_of_sentencepiece,
    "byte-level, no decoder": byte_level_without_decoder,
    "byte-level, lower-cased": lower_cased,
    "byte-level, added words": with_added_words,
    "vocab.json and merges.txt": gpt2_files,
    "tekken.json": tekken,
    "Metaspace, always a space": metaspace("always"),
    "Metaspace, a space first": metaspace("first"),
    "Metaspace, no space": metaspace("never"),
    "Llama 2's normaliser": metaspace("normalizer"),
    "Unigram, byte fallback": unigram,
    "Unigram, normalised": unigram_normalised,
    "tokenizer.model, Unigram": tokenizer_model("unigram"),
    "tokenizer.model, Unigram without bytes": tokenizer_model("unigram", False),
    "tokenizer.model, BPE": tokenizer_model("bpe"),
    "spaces as they are": plain_text,
}
# Of these the tokenizer's own decoder is wrong, and so no witness.
WRONG_DECODER = {
    "byte-level, decoder of SentencePiece",
    "byte-level, no decoder",
    "byte-level, added words",
    "spaces as they are",
}


class Rows(nn.Module):
    """As much of a model as the check of a tokenizer looks at."""

    def __init__(self, rows: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(rows, 1)


def load(
    folder: Path, model_type: str = "llama", prompt: Prompt = PROMPT, rows: int = 10_000, **config: Any
) -> PromptTokens:
    edit(folder, "config.json", model_type=model_type, **config)
    tokenizer = load_by_mlx_lm(folder, tokenizers.settings(folder), eos_token_ids=config.get("eos_token_id"))
    tokenizers.as_the_folder_says(folder, tokenizer)
    tokens = PromptTokens(prompt, tokenizer)
    tokenizers.check(tokens, Rows(rows))
    return tokens


@cache
def of_kind(kind: str) -> PromptTokens:
    folder = Path(mkdtemp())
    KINDS[kind](folder)
    return load(folder)


def units_written(tokens: PromptTokens, written: list[int]) -> list[str]:
    """The units of some tokens as `Session` cuts them: a new one where a token starts with white space."""
    units, current = [], []
    for token in written:
        if current and (tokens.starts_unit(token) or tokens.ends_unit(current[-1])) and tokens.decode(current).strip():
            units += split(tokens.decode(current))
            current = []
        current.append(token)
    return units + split(tokens.decode(current))


# Every kind

every_kind = pytest.mark.parametrize("kind", KINDS)
WORD = st.text(st.sampled_from(LETTERS + "你好😀é̈"), min_size=1, max_size=7)


@every_kind
@settings(max_examples=25)
@given(words=st.lists(WORD, min_size=1, max_size=6))
def test_what_is_written_token_by_token_is_the_whole_text(kind: str, words: list[str]) -> None:
    tokens = of_kind(kind)
    fed = [token for i, word in enumerate(words) for token in tokens.source_tokens(word, first=i == 0)]
    assert units_written(tokens, fed) == tokens.decode(fed).split()
    if kind not in WRONG_DECODER:
        own = tokens.vocabulary.tokenizer.decode(fed, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert own.split() == tokens.decode(fed).split()
    if tokens.vocabulary.unknown not in fed and not re.search(r"normalised|lower|\.model", kind):
        assert tokens.decode(fed).split() == words


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WRONG_DECODER])
@settings(max_examples=25)
@given(data=st.data())
def test_any_tokens_say_what_the_tokenizer_says_of_them(kind: str, data: st.DataObject) -> None:
    """Half characters, bytes that are none, white space and special tokens among them."""
    tokens = of_kind(kind)
    tokenizer = tokens.vocabulary.tokenizer
    some = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=12))
    own = tokenizer.decode(some, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert tokens.decode(some) in (own, own.removeprefix(" "))


@every_kind
def test_ten_words_come_back(kind: str) -> None:
    tokens = of_kind(kind)
    for word in tokenizers.WORDS:
        encoded = tokens.encode(word)
        if tokens.vocabulary.unknown not in encoded:
            assert tokens.decode(encoded) in (word, word.lower())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not re.search(r"tokenizer\.model|tekken|vocab", kind)])
def test_ten_words_are_loaded_as_the_file_alone_says(kind: str) -> None:
    tokens = of_kind(kind)
    alone = Tokenizer.from_file(str(Path(tokens.vocabulary.tokenizer.name_or_path) / "tokenizer.json"))
    for word in tokenizers.WORDS:
        assert tokens.vocabulary.encode(word) == alone.encode(word, add_special_tokens=False).ids


# What the folder says


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "gemma"])
def test_the_rules_of_tokenizer_json_count_for_every_model_type(tmp_path: Path, model_type: str) -> None:
    """transformers 5 puts those of its own class in their place, and 2012 becomes other tokens."""
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: i for i, letter in enumerate([*tiny.LETTERS.values(), "Ġ2"])}, merges=[("Ġ", "2")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    write(tmp_path, tokenizer)
    edit(
        tmp_path,
        "tokenizer_config.json",
        tokenizer_class={"qwen2": "Qwen2Tokenizer"}.get(model_type, "PreTrainedTokenizerFast"),
    )
    tokens = load(tmp_path, model_type)
    assert [tokens.vocabulary.piece(token) for token in tokens.encode(" 2012")] == ["Ġ2", "0", "1", "2"]
    assert tokens.encode(" 2012 é") == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(" 2012 é").ids


def test_the_bundled_model_reads_numbers_as_it_was_trained() -> None:
    model = BUNDLED.load()
    assert [model.prompt.vocabulary.piece(token) for token in model.prompt.encode(" 2012")] == ["Ġ2", "0", "1", "2"]
    assert len(model.tokenizer) == 4000  # and no token that its folder does not have


@pytest.mark.parametrize("folder", ["bundled", "lower-cased"])
def test_bpe_dropout_of_nothing_gives_the_tokens_that_are_fed(tmp_path: Path, folder: str) -> None:
    """A training must not see other tokens than a run does."""
    lower_cased(tmp_path)
    prompt = BUNDLED.load().prompt if folder == "bundled" else load(tmp_path)
    dropout = BPEDropout(
        (find_model(BUNDLED.path) if folder == "bundled" else tmp_path) / "tokenizer.json", 0.0, seed=0
    )
    for word in (" 2012", " über", " don't", " <|end|>", " 4x4", " 你好", " Haus"):
        assert dropout.tokens(word, random.Random(0)) == prompt.encode(word)


@pytest.mark.parametrize("order", [("model", "normalizer"), ("normalizer", "model")])
def test_rules_are_found_wherever_they_stand(tmp_path: Path, order: tuple[str, str]) -> None:
    lower_cased(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["vocab"]["normalizer"] = 9_999
    ordered = {name: content[name] for name in (*order, *content)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(ordered, indent=2))
    assert load(tmp_path).decode(load(tmp_path).encode("HAUS")) == "haus"


def test_a_tokenizer_that_is_not_its_file_is_refused(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    tokenizer = load_by_mlx_lm(tmp_path, tokenizers.settings(tmp_path))
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ValueError, match=r"loaded otherwise than its file says: 'Hello,' becomes .*save_pretrained"):
        tokenizers.as_the_folder_says(tmp_path, tokenizer)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_tokenizer_model_alone_is_read_as_sentencepiece_reads_it(tmp_path: Path, kind: str) -> None:
    """Ligatures, full-width letters and «…» go through its normaliser, and Unigram does not fall into letters."""
    import sentencepiece as sp

    tokenizer_model(kind)(tmp_path)
    tokens = load(tmp_path)
    own = sp.SentencePieceProcessor(model_proto=sentencepiece(kind))
    for word in ("the", "ﬁne…", "«Ｆull»", "naïve", "好", "2012", "<turn>", "</s>", "<0x0A>", "<unk>"):
        assert tokens.encode(word) == own.encode(word), word


def test_a_bos_token_goes_before_a_text_of_llama_whose_folder_has_no_rule(tmp_path: Path) -> None:
    tokenizer_model("bpe")(tmp_path)
    tokens = load(tmp_path, prompt=Prompt(source_header="the", target_header="German:"))
    assert tokens.source_header == [1, *tokens.encode("the")]
    edit(tmp_path, "tokenizer_config.json", add_bos_token=False)
    assert load(tmp_path, prompt=Prompt(source_header="the", target_header="German:")).source_header == tokens.encode(
        "the"
    )


def test_tekken_alone_has_its_bos_and_end_token(tmp_path: Path) -> None:
    tekken(tmp_path)
    tokens = load(tmp_path)
    assert tokens.source_header == [1] and tokens.end_token == 2


def test_a_tiktoken_file_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.model").write_text(
        "".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256))
    )
    monkeypatch.setattr(tokenizers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"is a tiktoken file.*pip install tiktoken.*tokenizer.json"):
        tokenizers.settings(tmp_path)


def test_a_wordpiece_vocabulary_is_refused(tmp_path: Path) -> None:
    vocabulary = {piece: i for i, piece in enumerate(["[UNK]", *"abcdefgh", *(f"##{c}" for c in "abcdefgh")])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    write(tmp_path, tokenizer, unk_token="[UNK]")
    with pytest.raises(ValueError, match=r"do not say where a space stands \(WordPiece.*choose another model"):
        load(tmp_path)


def test_a_vocabulary_that_loses_letters_is_refused(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    edit(tmp_path, pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": "H"}, "behavior": "Removed", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]})  # fmt: skip
    with pytest.raises(ValueError, match=r"'Hello,' becomes \[.*\], which say 'ello,'.*first publisher"):
        load(tmp_path)


def test_added_words_say_what_they_are(tmp_path: Path) -> None:
    """Byte-level decoding makes mojibake of them, or fails."""
    with_added_words(tmp_path)
    tokens = load(tmp_path)
    fed = tokens.encode(" größe ĳs two <think>")
    assert tokens.decode(fed) == "größe ĳs two <think>"
    assert {"größe", "ĳ", "tw"} <= {tokens.vocabulary.piece(token) for token in fed}
    assert "<think>" not in {tokens.vocabulary.piece(token) for token in fed}


def test_the_bundled_model_scores_the_same_with_a_decoder_of_sentencepiece(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_model(BUNDLED.path), folder)
    edit(folder, decoder=SP_DECODER)
    words, written = ["A", "dog", "is", "running", "over", "the", "street", "."], []
    for config in (BUNDLED, ModelConfig(str(folder))):
        session = config.load().session()
        for word in words:
            session.read(word)
        session.end_source()
        written.append(list(iter(lambda session=session: session.write().unit, None)))
    assert written[0] == written[1] and any("ü" in unit or "ß" in unit for unit in written[0])


# Control tokens


@every_kind
def test_no_word_becomes_a_control_token(kind: str) -> None:
    tokens = of_kind(kind)
    vocabulary = tokens.vocabulary
    assert vocabulary.control
    for token in vocabulary.control:
        name = vocabulary.piece(token)
        for word in (name, f" {name}", f"({name})x", f"a{name}{name}"):
            fed = tokens.encode(word)
            assert vocabulary.control.isdisjoint(fed)
            if vocabulary.unknown not in fed:
                assert tokens.decode(fed).lower() == word.strip().lower()


@pytest.mark.parametrize("kind", ["Unigram, byte fallback", "tokenizer.model, Unigram", "Metaspace, always a space"])
def test_a_word_that_spells_a_byte_of_sentencepiece_is_no_byte(kind: str) -> None:
    tokens = of_kind(kind)
    assert tokens.decode(tokens.encode(" a<0x0A>b")) == "a<0x0A>b"


@pytest.mark.parametrize("word", ["<|source|>", "<|target|>", "<|end|>", "a<|end|>", "<|end|><|target|>"])
def test_no_word_becomes_a_control_token_of_the_bundled_model(word: str) -> None:
    prompt = BUNDLED.load().prompt
    for first in (True, False):
        fed = prompt.source_tokens(word, first)
        assert not {0, 1, 2} & set(fed)
        assert prompt.decode(fed) == word
    assert prompt.source_header == [0] and prompt.source_footer == [2] and prompt.target_header == [1]


def test_a_reference_that_spells_the_end_token_is_learned_as_words() -> None:
    from streamllm.records import Example
    from streamllm.training.data import DataConfig, TrainingData

    data = TrainingData([], BUNDLED.load().prompt, DataConfig(), seed=0)
    encoded = data.encode(Example("0", "a <|end|> b <|source|>", "ein <|end|> Hund <|target|>"), k=3)
    assert encoded.source.count(0) == 1 and encoded.source.count(2) == 1  # header and footer
    assert encoded.labels.count(2) == 1 and encoded.target.count(1) == 1  # the end, and the header


def test_a_normaliser_makes_no_control_token_of_other_letters(tmp_path: Path) -> None:
    """A full-width ＜end＞ would become <end> before it is looked up."""
    tiny.byte_level_tokenizer(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    for entry in content["added_tokens"]:
        entry["normalized"] = True
    edit(tmp_path, added_tokens=content["added_tokens"], normalizer={"type": "NFKC"})
    tokens = load(tmp_path)
    assert tokens.vocabulary.encode("＜end＞") == [0]
    assert 0 not in tokens.encode("＜end＞")


# End tokens and rows


def test_the_end_tokens_of_all_files_count(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path, chat_template=tiny.CHAT)  # ends a turn with <stop>
    edit(tmp_path, "generation_config.json", eos_token_id=[3])
    tokens = load(tmp_path, eos_token_id=2)
    assert tokens.end_tokens == {0, 1, 2, 3}
    assert tokens.end_token == 0


def test_an_end_token_that_only_the_configuration_names_is_taught(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    edit(tmp_path, "tokenizer_config.json", eos_token=None)
    assert load(tmp_path, eos_token_id=1).end_token == 1


def folder_with_rows(folder: Path, rows: int) -> ModelConfig:
    tiny.model_folder(folder)
    weights = tiny.read_weights(folder / "model.safetensors")
    weights = {name: value[:rows] if value.shape[0] > 300 else value for name, value in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    edit(folder, "config.json", vocab_size=rows)
    return ModelConfig(str(folder))


def test_a_token_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"as number 3\d\d, and the model has 310 rows.*do not belong together"):
        folder_with_rows(tmp_path, 310).load()


def test_a_control_token_without_a_row_is_refused_where_it_is_fed(tmp_path: Path) -> None:
    """Gemma 3 has a token for images that its models of text have no row for."""
    tiny.byte_level_tokenizer(tmp_path)
    rows = len(tiny.load(tmp_path))
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    edit(
        tmp_path,
        added_tokens=[*content["added_tokens"], content["added_tokens"][0] | {"id": rows, "content": "<image>"}],
    )
    assert rows not in load(tmp_path, rows=rows).encode("<image>")
    with pytest.raises(ValueError, match=rf"'<image>' as number {rows}"):
        load(tmp_path, rows=rows, prompt=Prompt(source_header="<image>", target_header="German:"))


def test_positions_are_no_rows(tmp_path: Path) -> None:
    class Gpt2(Rows):
        def __init__(self) -> None:
            super().__init__(100)
            self.wpe = nn.Embedding(10_000, 1)

    tiny.byte_level_tokenizer(tmp_path)
    edit(tmp_path, "config.json", model_type="gpt2")
    tokens = PromptTokens(PROMPT, tiny.load(tmp_path))
    with pytest.raises(ValueError, match="has 100 rows"):
        tokenizers.check(tokens, Gpt2())
