"""Tokenizers as their folders say: loaded from the file itself, compared with it, and proven by a round trip. What is
left to transformers, it changes for some model types."""

import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from streamllm.prompt import PromptTokens

log = logging.getLogger(__name__)

# A type of transformers whose tokenizer is the general one, `TokenizersBackend`: it takes normalizer, pre-tokenizer and
# decoder from the file. Those of Qwen2, Llama, Gemma and others bring their own.
GENERAL = {"tokenizer_type": "olmo2"}
NO_CODE: dict[str, Any] = {
    "trust_remote_code": False
}  # else transformers asks on the terminal whether code of the folder may run
WHOLE_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json")
WORDS = ("two", "Hello,", "naïve", "Straße", "2012", "d'été!", "Ελλάδα", "привет", "你好", "😀")
# Classes that put a BOS token before every text unless told otherwise, which the general one does not.
WITH_BOS = ("Llama", "CodeLlama", "Gemma")


def settings(folder: Path) -> dict[str, Any]:
    """What ``mlx_lm.load`` is to hand to transformers for the tokenizer of ``folder``.

    Raises:
        ValueError: the folder's only tokenizer is a tiktoken file, and the package that reads it is absent.
    """
    if not any((folder / name).exists() for name in WHOLE_FILES):
        return dict(NO_CODE)
    model = folder / "tokenizer.model"
    is_alone = model.exists() and not (folder / "tokenizer.json").exists()
    if is_alone and _sentencepiece(model) is None and find_spec("tiktoken") is None:
        raise ValueError(
            f"{model} is a tiktoken file, which transformers reads with the package tiktoken: pip install tiktoken, or "
            "put a tokenizer.json beside it"
        )
    return NO_CODE | GENERAL


def as_the_folder_says(folder: Path, tokenizer: Any) -> None:
    """Complete mlx-lm's TokenizerWrapper, loaded with `settings`, in place: BOS, end tokens, control pieces.

    Raises:
        ValueError: a word becomes other tokens than by the file of the folder alone.
    """
    config = _read(folder / "tokenizer_config.json")
    file = folder / "tokenizer.json"
    rules = _rules(file) if file.exists() else {}
    if not config.get("fix_mistral_regex"):  # which asks for another pre-tokenizer than the file has
        _compare(folder, tokenizer, rules)
    if str(config.get("tokenizer_class")).startswith(WITH_BOS):
        bos = _read(folder / "config.json").get("bos_token_id")
        if tokenizer.bos_token_id is None and isinstance(bos, int):
            tokenizer.bos_token = tokenizer.convert_ids_to_tokens([bos])[0]
        has_rule = rules.get("post_processor") is not None or "add_bos_token" in config
        if tokenizer.bos_token_id is not None and not has_rule:
            tokenizer.add_bos_token = True
    if not any((folder / name).exists() for name in WHOLE_FILES[:2]) and (folder / "tekken.json").exists():
        vocabulary = tokenizer.get_vocab()  # Tekken names no BOS or end token, and Mistral's models expect both
        if tokenizer.bos_token_id is None and "<s>" in vocabulary:
            tokenizer.bos_token, tokenizer.add_bos_token = "<s>", True
        if tokenizer.eos_token_id is None and "</s>" in vocabulary:
            tokenizer.eos_token = "</s>"
            tokenizer.eos_token_ids = {*tokenizer.eos_token_ids, vocabulary["</s>"]}
    tokenizer.eos_token_ids = _end_tokens(folder) | set(tokenizer.eos_token_ids)
    if tokenizer.eos_token_id is None and tokenizer.eos_token_ids:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens([min(tokenizer.eos_token_ids)])[0]


def fault(folder: Path, what: str) -> str:
    """The error for a tokenizer that does not load or does not work: ``what`` is wrong, and with which file, as far as
    can be told."""
    from tokenizers import Tokenizer, __version__

    file, where = folder / "tokenizer.json", f"{folder / 'tokenizer_config.json'} or another file of the tokenizer"
    if file.exists():
        version = _read(file).get("version", "1.0")
        try:
            Tokenizer.from_file(str(file))
        except BaseException:  # a fault inside of the library is no Exception
            where = str(file)
            if version != "1.0":
                what = f"version is {version!r}, and the library tokenizers {__version__} reads '1.0'"
    return f"{where}: {what}. Take the tokenizer's files from the model's first publisher"


def check(tokens: PromptTokens, model: Any) -> None:
    """Prove on a short text that words survive, and that every token has its row in the model.

    Raises:
        ValueError: they do not, or a token that can be fed or ends a sentence has no row.
    """
    _check_round_trip(tokens)
    _check_rows(tokens, model)


def _rules(file: Path) -> dict[str, Any]:
    """What stands before the vocabulary in a tokenizer.json: its rules. The vocabulary is most of the file, and reading
    it takes longer than all that is checked here."""
    text, rules = file.read_text(encoding="utf-8"), {}
    for name in ("normalizer", "pre_tokenizer", "post_processor"):
        at = text.find(f'"{name}":')
        if at < 0 or at > text.find('"model":') >= 0:  # not in the order in which tokenizers writes
            content: dict[str, Any] = json.loads(text)
            return content
        value = text[at + len(name) + 3 :]
        rules[name] = json.JSONDecoder().raw_decode(value.lstrip())[0]
    return rules


def _file_alone(folder: Path, tokenizer: Any, rules: dict[str, Any]) -> Callable[[str], list[int]] | None:
    """How the tokenizer's file encodes a text without transformers; None where nothing else reads it, or where the
    general class has it with the file's rules."""
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast  # the general class, under its older name

        if type(tokenizer.encode.__self__) is PreTrainedTokenizerFast and _has(tokenizer, rules):
            return None
        file = Tokenizer.from_file(str(folder / "tokenizer.json"))
        file.no_truncation()
        file.no_padding()
        return lambda text: list(file.encode(text, add_special_tokens=False).ids)
    if (folder / "tokenizer.model").exists():
        return _sentencepiece(folder / "tokenizer.model")
    return None


def _has(tokenizer: Any, rules: dict[str, Any]) -> bool:
    """Whether a loaded tokenizer has the rules of its file."""
    from tokenizers import Tokenizer

    empty = {"type": "BPE", "vocab": {}, "merges": []}
    named = {name: rules.get(name) for name in ("normalizer", "pre_tokenizer")}
    alone = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": empty, **named}))
    loaded = tokenizer.backend_tokenizer
    return all(_state(getattr(alone, name)) == _state(getattr(loaded, name)) for name in named)


def _state(rule: Any) -> bytes | None:
    return None if rule is None else bytes(rule.__getstate__())


def _sentencepiece(file: Path) -> Callable[[str], list[int]] | None:
    """How SentencePiece encodes; None where the file is not one of its own (tiktoken's may bear the same name)."""
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(file))
    except RuntimeError:
        return None
    return lambda text: list(processor.encode(text))


def _compare(folder: Path, tokenizer: Any, rules: dict[str, Any]) -> None:
    encode = _file_alone(folder, tokenizer, rules)
    if encode is None:
        return
    added = tokenizer.added_tokens_decoder
    for word in WORDS:
        loaded, alone = tokenizer.encode(word, add_special_tokens=False), encode(word)
        if loaded != alone and not any(token in added for token in loaded):
            raise ValueError(
                f"the tokenizer of {folder} is loaded otherwise than its file says: {word!r} becomes "
                f"{tokenizer.convert_ids_to_tokens(loaded)}, and {tokenizer.convert_ids_to_tokens(alone)} by the file "
                "alone. Save it as one tokenizer.json (`AutoTokenizer.from_pretrained(…).save_pretrained(…)` with the "
                "version of transformers that the model was trained with)"
            )


def _end_tokens(folder: Path) -> set[int]:
    """All that the configurations of a folder call end tokens; mlx-lm takes those of one file."""
    configs = [_read(folder / "config.json"), _read(folder / "generation_config.json")]
    found: set[int] = set()
    for config in (*configs, configs[0].get("text_config") or {}):
        given = config.get("eos_token_id")
        found |= {
            token for token in (given if isinstance(given, list) else [given]) if type(token) is int and token >= 0
        }
    return found


def _check_round_trip(tokens: PromptTokens) -> None:
    vocabulary, unknown = tokens.vocabulary, tokens.vocabulary.unknown
    unit, survived = tokens.target_unit, 0
    fed: list[int] = []
    for word in WORDS:
        encoded = tokens.encode(tokens.spaced(word, first=not fed, unit=unit))
        fed += encoded
        said = tokens.decode(encoded)
        if unknown in encoded:  # a letter that the vocabulary does not have
            continue
        if said not in (word, _normalised(tokens, word)):
            raise ValueError(
                f"the tokenizer does not give words back: {word!r} becomes {encoded}, which say {said!r}. Its "
                "vocabulary and its rules do not fit: take the tokenizer's files from the model's first publisher"
            )
        if survived and unit == "word" and not tokens.starts_unit(encoded[0]):
            raise ValueError(
                f"the tokenizer's first token of {' ' + word!r} does not say that a word begins there, so no words can "
                "be written: choose another model"
            )
        survived += 1
    if not survived:
        raise ValueError(
            f"the tokenizer knows the letters of none of the words {', '.join(WORDS)}: choose another model"
        )
    own = vocabulary.tokenizer.decode(fed, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    said = vocabulary.text_of(fed)
    if own.split() != said.split():
        log.info("the tokenizer's own decoder says %.60r for %.60r: its vocabulary is read instead", own, said)


def _normalised(tokens: PromptTokens, word: str) -> str:
    backend = getattr(tokens.vocabulary.tokenizer, "backend_tokenizer", None)
    rules = getattr(backend, "normalizer", None)
    return word if rules is None else str(rules.normalize_str(word)).replace("▁", " ").strip()


def _check_rows(tokens: PromptTokens, model: Any) -> None:
    rows = _rows(model)
    vocabulary = tokens.vocabulary
    ids = vocabulary.tokenizer.get_vocab().values()
    if rows is None or max(ids, default=0) < rows:
        return
    # Gemma 3 has a token for images that its models of text have no row for. No word becomes a control token.
    fed = {*tokens.source_header, *tokens.source_footer, *tokens.target_header}
    beyond = sorted(token for token in ids if token >= rows and (token in fed or token not in vocabulary.control))
    if beyond:
        raise ValueError(
            f"the tokenizer has the token {vocabulary.piece(beyond[0])!r} as number {beyond[0]}, and the model has "
            f"{rows} rows of embeddings (from 0): they do not belong together. Take the tokenizer's files from the "
            "model's own folder"
        )


def _rows(model: Any) -> int | None:
    """Of the table of token embeddings: the largest that is not one of positions."""
    import mlx.nn as nn

    tables = [
        module.weight.shape[0]
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.QuantizedEmbedding)
        and "position" not in name
        and not name.endswith("wpe")
    ]
    return max(tables, default=None)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # absent, or an error of those who need it
        return {}
    return content if isinstance(content, dict) else {}
