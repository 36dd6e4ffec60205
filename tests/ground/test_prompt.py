"""Headers, units and footers in tokens, and what is known of single tokens."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from streamllm.prompt import Prompt, PromptTokens

PLAIN = Prompt(target_header="German:")
WORD = st.text(alphabet="abcdgotherun<>.,!?'-0123456789äöüßčé好你̈😀", min_size=1, max_size=6)


def make(folder: Path, prompt: Prompt = PLAIN, **settings: Any) -> PromptTokens:
    tiny.byte_level_tokenizer(folder, **settings)
    return PromptTokens(prompt, tiny.load(folder))


def metaspace(folder: Path, scheme: str, prompt: Prompt = PLAIN, **settings: Any) -> tuple[PromptTokens, Any]:
    tiny.metaspace_tokenizer(folder, scheme, **settings)
    tokenizer = tiny.load(folder)
    return PromptTokens(prompt, tokenizer), tokenizer


def tokens_of_words(prompt: PromptTokens, words: list[str]) -> list[int]:
    return [token for i, word in enumerate(words) for token in prompt.source_tokens(word, first=i == 0)]


# Words


@given(words=st.lists(WORD, min_size=1, max_size=5))
def test_words_are_tokenised_one_by_one_as_in_the_whole_text(tokenizer: Any, words: list[str]) -> None:
    prompt = PromptTokens(PLAIN, tokenizer)
    assert tokens_of_words(prompt, words) == tokenizer.encode(" ".join(words), add_special_tokens=False)


def test_words_are_tokenised_as_in_the_whole_text_by_a_trained_vocabulary(shared: Path) -> None:
    tokenizer = tiny.load(shared / "goldens" / "tiny-trained", [])
    prompt = PromptTokens(PLAIN, tokenizer)
    with gzip.open(shared / "data" / "multi30k" / "test_2016_flickr.en.gz", "rt", encoding="utf-8") as lines:
        texts = ["I don't know: 3,5 or 12 -- naïve (so!) 你好 👩‍👩‍👧 é.", *list(lines)[:200]]
    for text in texts:
        words = text.split()
        assert tokens_of_words(prompt, words) == tokenizer.encode(" ".join(words), add_special_tokens=False)


def test_the_first_word_has_a_space_if_asked_for(tokenizer: Any) -> None:
    prompt = PromptTokens(Prompt(target_header="German:", leading_space=True), tokenizer)
    assert prompt.source_tokens("the", first=True) == prompt.source_tokens("the", first=False)
    assert prompt.decode(prompt.source_tokens("the", first=True)) == "the"
    plain = PromptTokens(PLAIN, tokenizer)
    assert plain.source_tokens("the", first=True) != plain.source_tokens("the", first=False)


def test_characters_have_no_space_between_them(tokenizer: Any) -> None:
    prompt = PromptTokens(PLAIN, tokenizer, "character", "character")
    tokens = prompt.source_tokens("你", first=True) + prompt.source_tokens("好", first=False)
    assert tokenizer.decode(tokens) == "你好"


@pytest.mark.parametrize("unit", ["words", "", None])
def test_an_unknown_unit_is_refused(tokenizer: Any, unit: Any) -> None:
    with pytest.raises(ValueError, match="'word', 'character'"):
        PromptTokens(PLAIN, tokenizer, unit)


@pytest.mark.parametrize("scheme", ["always", "first", "never", "normalizer"])
def test_sentencepiece_words_get_exactly_one_space(tmp_path: Path, scheme: str) -> None:
    """Whether the tokenizer puts a space before any text by itself or not."""
    prompt, tokenizer = metaspace(tmp_path, scheme)
    words = ["the", "dog", "runs"]
    whole = tokenizer.encode(" ".join(words), add_special_tokens=False)
    assert tokens_of_words(prompt, words) == whole
    pieces = tokenizer.convert_ids_to_tokens(tokens_of_words(prompt, words))
    assert "".join(pieces) == ("the" if scheme == "never" else "▁the") + "▁dog▁runs"


@pytest.mark.parametrize("scheme", ["always", "first", "never", "normalizer"])
def test_sentencepiece_leading_space(tmp_path: Path, scheme: str) -> None:
    prompt, tokenizer = metaspace(tmp_path, scheme, Prompt(target_header="German:", leading_space=True))
    assert "".join(tokenizer.convert_ids_to_tokens(prompt.source_tokens("dog", first=True))) == "▁dog"


@pytest.mark.parametrize("scheme", ["always", "first", "never", "normalizer"])
def test_sentencepiece_headers_get_the_space_they_have(tmp_path: Path, scheme: str) -> None:
    """A footer " =>" is not given a second space by a tokenizer that adds one."""
    prompt, tokenizer = metaspace(tmp_path, scheme, Prompt(source_footer=" =>", target_header=" German:"))
    assert "".join(tokenizer.convert_ids_to_tokens(prompt.source_footer)) == "▁=>"
    assert "".join(tokenizer.convert_ids_to_tokens(prompt.target_header)) == "▁German:"


# Single tokens


def test_a_byte_level_c_with_caron_is_white_space(tokenizer: Any) -> None:
    prompt = PromptTokens(PLAIN, tokenizer)
    carriage_return = tokenizer.convert_tokens_to_ids("č")
    assert tokenizer.decode([carriage_return]) == "\r"
    assert prompt.starts_unit(carriage_return) and prompt.ends_unit(carriage_return)


def test_elsewhere_a_c_with_caron_is_a_letter(tmp_path: Path) -> None:
    prompt, tokenizer = metaspace(tmp_path, "always")
    letter = tokenizer.convert_tokens_to_ids("č")
    assert not prompt.starts_unit(letter) and not prompt.ends_unit(letter)
    assert prompt.decode(prompt.source_tokens("č", first=False)) == "č"


@pytest.mark.parametrize("piece", ["▁", "▁▁", "<0x0A>", "<0x20>", "<0x09>", "<0x0D>"])
def test_sentencepiece_white_space_divides_words(tmp_path: Path, piece: str) -> None:
    prompt, tokenizer = metaspace(tmp_path, "always")
    token = tokenizer.convert_tokens_to_ids(piece)
    assert prompt.starts_unit(token) and prompt.ends_unit(token)
    assert not prompt.decode([token]).strip()


def test_white_space_of_tokens_added_to_a_byte_level_vocabulary(tmp_path: Path) -> None:
    """Added tokens are spelled as they read: GPT-NeoX has runs of plain spaces."""
    tiny.byte_level_tokenizer(tmp_path)
    tokenizer = tiny.load(tmp_path)
    tokenizer._tokenizer.add_tokens(["      "])
    prompt = PromptTokens(PLAIN, tokenizer)
    spaces = tokenizer.convert_tokens_to_ids("      ")
    assert prompt.starts_unit(spaces) and prompt.ends_unit(spaces)


def test_special_tokens_say_nothing(tokenizer: Any) -> None:
    prompt = PromptTokens(PLAIN, tokenizer)
    mark = tokenizer.convert_tokens_to_ids("<mark>")
    the = prompt.source_tokens("the", first=True)
    assert prompt.decode([*the, mark, *the]) == "thethe"


def test_tokens_beyond_the_vocabulary_say_nothing(tokenizer: Any) -> None:
    """Embeddings are often padded to a round number."""
    prompt = PromptTokens(PLAIN, tokenizer)
    beyond = len(tokenizer) + 5
    assert not prompt.starts_unit(beyond) and not prompt.ends_unit(beyond)
    assert prompt.decode([*prompt.encode("the"), beyond]) == "the"


def test_tokens_beyond_a_sentencepiece_vocabulary_say_nothing(tmp_path: Path) -> None:
    prompt, tokenizer = metaspace(tmp_path, "always")
    assert prompt.decode([*prompt.encode("the"), len(tokenizer) + 5]) == "the"


# Headers


def test_the_bos_token_comes_first_once(tmp_path: Path) -> None:
    prompt = make(tmp_path, Prompt(source_header="the dog", target_header="German:"), bos=True)
    bos = tiny.SPECIAL.index("<bos>")
    assert prompt.source_header == [bos, *prompt.encode("the dog")]
    for tokens in (prompt.source_footer, prompt.target_header, prompt.source_tokens("dog", first=True)):
        assert bos not in tokens


def test_a_bos_token_written_out_is_not_doubled(tmp_path: Path) -> None:
    prompt = make(tmp_path, Prompt(source_header="<bos>the", target_header="German:"), bos=True)
    assert prompt.source_header.count(tiny.SPECIAL.index("<bos>")) == 1


def test_a_tokenizer_without_bos_gets_none(tmp_path: Path) -> None:
    assert make(tmp_path).source_header == []


def test_a_bos_token_that_the_tokenizer_does_not_use_is_left_out(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    tokenizer = tiny.load(tmp_path)
    tokenizer._tokenizer.bos_token = "<bos>"
    assert PromptTokens(PLAIN, tokenizer).source_header == []


def test_an_empty_target_header_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"target header is empty.*set prompt.target_header"):
        PromptTokens(Prompt(), tokenizer)


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prompt.stop is empty.*null"):
        Prompt(stop="")


def test_a_stop_that_no_token_can_say_is_refused(tokenizer: Any) -> None:
    """It would be searched for in each token and never found."""
    with pytest.raises(ValueError, match=r"prompt.stop is 'zqx'.*one token"):
        PromptTokens(Prompt(target_header="German:", stop="zqx"), tokenizer)


@pytest.mark.parametrize("scheme", ["always", "never"])
def test_a_line_break_stops_in_sentencepiece_too(tmp_path: Path, scheme: str) -> None:
    prompt, tokenizer = metaspace(tmp_path, scheme, Prompt(target_header="German:", stop="\n"))
    assert prompt.text_before_stop(tokenizer.convert_tokens_to_ids("<0x0A>")) == ""
    assert prompt.text_before_stop(tokenizer.convert_tokens_to_ids("a")) is None


def test_a_stop_is_found_inside_a_token(tokenizer: Any) -> None:
    prompt = PromptTokens(Prompt(target_header="German:", stop="\n"), tokenizer)
    (token,) = prompt.encode(".\n")
    assert prompt.text_before_stop(token) == "."
    assert PromptTokens(PLAIN, tokenizer).text_before_stop(token) is None


def test_a_tokenizer_without_end_token_needs_a_stop(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    tokenizer = tiny.load(tmp_path, [])
    tokenizer.eos_token_ids = None
    with pytest.raises(ValueError, match=r"no end token: set eos_token_id in config.json, or prompt.stop"):
        PromptTokens(PLAIN, tokenizer)
    stopped = PromptTokens(Prompt(target_header="German:", stop="\n"), tokenizer)
    assert not stopped.end_tokens
    with pytest.raises(ValueError, match=r"no end token.*eos_token_id"):
        _ = stopped.end_token


def test_every_end_token_of_the_tokenizer_is_known(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    prompt = PromptTokens(PLAIN, tiny.load(tmp_path, ["<end>", "<stop>"]))
    assert prompt.end_tokens == {0, 1}
    assert prompt.end_token == 0


# Chat templates


def test_a_chat_template_is_cut_around_the_source(tmp_path: Path) -> None:
    prompt = make(tmp_path, Prompt(chat=True, instruction="Translate: "), chat_template=tiny.CHAT)
    assert prompt.text == Prompt(
        source_header="<mark>user\nTranslate: ", source_footer="<stop>\n", target_header="<mark>assistant\n"
    )
    assert prompt.source_footer[0] == tiny.SPECIAL.index("<stop>")
    assert prompt.target_header[0] == tiny.SPECIAL.index("<mark>")


def test_a_chat_prompt_keeps_the_other_settings(tmp_path: Path) -> None:
    prompt = make(tmp_path, Prompt(chat=True, stop="\n", leading_space=True), chat_template=tiny.CHAT)
    assert (prompt.text.stop, prompt.text.leading_space) == ("\n", True)


def test_a_system_turn_of_the_template_is_part_of_the_header(tmp_path: Path) -> None:
    template = "<mark>system\nBe kind.<stop>\n" + tiny.CHAT
    prompt = make(tmp_path, Prompt(chat=True), chat_template=template)
    assert prompt.text.source_header == "<mark>system\nBe kind.<stop>\n<mark>user\n"


def test_a_template_that_trims_its_turns_keeps_the_source(tmp_path: Path) -> None:
    template = tiny.CHAT.replace("m.content", "m.content | trim")
    assert make(tmp_path, Prompt(chat=True), chat_template=template).text.source_header == "<mark>user\n"


@pytest.mark.parametrize("content", ["m.content | upper", "m.content[:3]", "''", "m.content + m.content"])
def test_a_template_that_mangles_the_source_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"does not show the user's text exactly once.*by hand"):
        make(tmp_path, Prompt(chat=True), chat_template=tiny.CHAT.replace("m.content", content))


def test_a_template_whose_generation_prompt_changes_the_turn_is_refused(tmp_path: Path) -> None:
    template = "{{ messages[0].content }}{% if add_generation_prompt %}!<mark>{% else %}<stop>{% endif %}"
    with pytest.raises(ValueError, match=r"does not follow the user's turn.*by hand"):
        make(tmp_path, Prompt(chat=True), chat_template=template)


def test_a_template_that_refuses_the_turn_is_one_clear_error(tmp_path: Path) -> None:
    template = "{{ raise_exception('needs a system turn') }}"
    with pytest.raises(ValueError, match=r"chat template.*needs a system turn.*by hand"):
        make(tmp_path, Prompt(chat=True), chat_template=template)


def test_a_template_is_asked_not_to_think(tmp_path: Path) -> None:
    """Otherwise the first target words of Qwen3 would be its thoughts."""
    think = "{% if add_generation_prompt and not enable_thinking %}no thoughts\n{% endif %}"
    tiny.byte_level_tokenizer(tmp_path, chat_template=tiny.CHAT + think)
    tokenizer = tiny.load(tmp_path)
    tokenizer._think_start = "<think>"
    assert PromptTokens(Prompt(chat=True), tokenizer).text.target_header.endswith("no thoughts\n")


def test_a_header_does_not_depend_on_the_day(tmp_path: Path) -> None:
    """Llama-3.2's template writes today's date unless it is given one."""
    date = "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    prompt = make(tmp_path, Prompt(chat=True), chat_template=date + "{{ date_string }}\n" + tiny.CHAT)
    assert prompt.text.source_header.startswith("26 Jul 2024\n")


def test_a_tokenizer_without_chat_template_says_what_to_set(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="no chat template") as error:
        PromptTokens(Prompt(chat=True), tokenizer)
    for name in ("prompt.chat=false", "source_header", "source_footer", "target_header"):
        assert name in str(error.value)


@pytest.mark.parametrize("name", ["source_header", "source_footer", "target_header"])
def test_chat_and_headers_by_hand_exclude_each_other(name: str) -> None:
    with pytest.raises(ValueError, match="set chat to false"):
        Prompt(chat=True, **{name: "x"})  # type: ignore[arg-type]


# The clock, thoughts, end of a turn


CLOCK = "{{ strftime_now('%d %B %Y, %H:%M') }}\n"


def test_a_header_does_not_depend_on_the_clock(tmp_path: Path) -> None:
    """Mistral's, gpt-oss's and SmolLM3's templates ask for it."""
    prompt = make(tmp_path, Prompt(chat=True), chat_template=CLOCK + tiny.CHAT)
    assert prompt.text.source_header.startswith("26 July 2024, 00:00\n")


def test_a_clock_inside_a_macro_is_pinned_too(tmp_path: Path) -> None:
    macro = "{% macro today() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}{{ today() }}\n"
    assert make(tmp_path, Prompt(chat=True), chat_template=macro + tiny.CHAT).text.source_header.startswith(
        "2024-07-26\n"
    )


def test_the_rendered_prompt_is_known_as_it_is_fed(tmp_path: Path) -> None:
    prompt = make(tmp_path, Prompt(chat=True, instruction="Say: "), chat_template=CLOCK + tiny.CHAT, bos=True)
    assert prompt.rendered == ("<bos>26 July 2024, 00:00\n<mark>user\nSay: ⟦source⟧<stop>\n<mark>assistant\n⟦target⟧")
    tokens = [*prompt.source_header, *prompt.source_footer, *prompt.target_header]
    fed = "".join(map(prompt.vocabulary.shown, tokens))
    assert fed == prompt.rendered.replace("⟦source⟧", "").replace("⟦target⟧", "")


def test_a_bos_token_of_the_template_is_not_doubled(tmp_path: Path) -> None:
    for start in ("{{ bos_token }}", "\n{{ bos_token }}"):
        prompt = make(tmp_path, Prompt(chat=True), chat_template=start + tiny.CHAT, bos=True)
        assert prompt.source_header.count(tiny.SPECIAL.index("<bos>")) == 1


def test_thoughts_that_a_template_opens_are_closed(tmp_path: Path) -> None:
    """Those of DeepSeek-R1 and QwQ open them whatever they are asked."""
    template = tiny.CHAT.replace("assistant\n", "assistant\n<think>\n")
    header = make(tmp_path, Prompt(chat=True), chat_template=template).text.target_header
    assert header == "<mark>assistant\n<think>\n\n</think>\n\n"


def test_thoughts_that_a_template_closes_stay_as_they_are(tmp_path: Path) -> None:
    template = tiny.CHAT.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n")
    header = make(tmp_path, Prompt(chat=True), chat_template=template).text.target_header
    assert header == "<mark>assistant\n<think>\n\n</think>\n\n"


def test_a_template_without_a_system_turn_gets_none(tmp_path: Path) -> None:
    """Gemma's refuses it."""
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    prompt = make(tmp_path, Prompt(chat=True, instruction="Translate: "), chat_template=refuse + tiny.CHAT)
    assert prompt.text.source_header == "<mark>user\nTranslate: "


def test_the_end_of_the_templates_turn_ends_a_sentence(tmp_path: Path) -> None:
    prompt = make(tmp_path, Prompt(chat=True), chat_template=tiny.CHAT)
    assert prompt.end_tokens == {tiny.SPECIAL.index("<end>"), tiny.SPECIAL.index("<stop>")}


@pytest.mark.parametrize("end", ["\n", ".", ""])
def test_a_turn_that_ends_without_a_control_token_ends_no_sentence(tmp_path: Path, end: str) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        + end
        + "{% endfor %}{% if add_generation_prompt %}German:{% endif %}"
    )
    assert make(tmp_path, Prompt(chat=True), chat_template=template).end_tokens == {0}


def test_a_template_that_knows_no_assistant_still_gives_headers(tmp_path: Path) -> None:
    refuse = "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    assert make(tmp_path, Prompt(chat=True), chat_template=refuse + tiny.CHAT).end_tokens == {0}


# Words are words


@given(words=st.lists(st.sampled_from(["<end>", "<stop>", "a<mark>", "the", "<bos>dog"]), min_size=1, max_size=4))
def test_words_that_spell_control_tokens_are_words(tokenizer: Any, words: list[str]) -> None:
    prompt = PromptTokens(PLAIN, tokenizer)
    fed = tokens_of_words(prompt, words)
    assert not {0, 1, 2, 3} & set(fed)
    assert prompt.decode(fed) == " ".join(words)


def test_a_header_may_hold_control_tokens(tokenizer: Any) -> None:
    assert PromptTokens(Prompt(source_header="<mark>", target_header="<stop>"), tokenizer).target_header == [1]
