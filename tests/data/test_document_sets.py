"""Documents: the segments of each add up to its source, whatever file they come from; what is wrong is said once."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.data.dataset import Dataset
from streamllm.data.documents import DocumentDataset
from streamllm.data.given import Given
from streamllm.data.joined import document_id, each_alone, sentence_pairs
from streamllm.data.sample import Sample
from streamllm.data.text import ParallelText
from streamllm.records import Example, Segment
from streamllm.units import join_texts, split

PAIRS = [("a b", "A"), ("c", "C D"), ("d e f", "E"), ("g", "G H")]
TWO = [PAIRS[:3], PAIRS[3:]]  # the same sentences as two documents


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")


def parallel(folder: Path, sources: list[str], references: list[str], **keys: Any) -> DocumentDataset:
    lines = ["".join(f"{line}\n" for line in side) for side in (sources, references)]
    write(folder, talk_en=lines[0], talk_de=lines[1])
    return DocumentDataset(source=folder / "talk.en", target=folder / "talk.de", **keys)


def plain(folder: Path, pairs: list[tuple[str, str]] = PAIRS, **keys: Any) -> DocumentDataset:
    return parallel(folder, [pair[0] for pair in pairs], [pair[1] for pair in pairs], **keys)


def json_lines(folder: Path, *documents: Any, **keys: Any) -> DocumentDataset:
    write(folder, talk_jsonl="".join(f"{json.dumps(one)}\n" for one in documents))
    return DocumentDataset(path=folder / "talk.jsonl", source_language="en", target_language="de", **keys)


def texts(documents: list[Example]) -> list[list[tuple[str, str]]]:
    return [[(segment.source, segment.reference) for segment in one.segments] for one in documents]


def flat(lists: list[list[Any]]) -> list[Any]:
    return [item for one in lists for item in one]


def refusal(dataset: Dataset) -> str:
    with pytest.raises(ValueError, match=r".") as raised:
        dataset.load()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- what a document is


@settings(max_examples=50, deadline=None)
@given(
    sentences=st.lists(st.tuples(*[st.text("ab .好。éก", min_size=1).filter(str.strip)] * 2), min_size=1, max_size=5),
    source_unit=st.sampled_from(["word", "character"]),
    target_unit=st.sampled_from(["word", "character"]),
    size=st.integers(1, 6),
)
def test_segments_follow_each_other_and_add_up_to_the_source(
    sentences: list[tuple[str, str]], source_unit: Any, target_unit: Any, size: int
) -> None:
    examples = tuple(Example(str(i), *pair) for i, pair in enumerate(sentences))
    units = {"source_unit": source_unit, "target_unit": target_unit}
    documents = Given(
        examples=examples, sentences_per_document=size, source_language="en", target_language="de", **units
    ).load()
    assert flat(texts(documents)) == sentences
    for one in documents:
        whole = split(one.source, source_unit)
        assert sum(segment.units for segment in one.segments) == len(whole)
        for segment in one.segments:
            assert whole[segment.start : segment.start + segment.units] == split(segment.source, source_unit)
        references = [split(segment.reference, target_unit) for segment in one.segments]
        assert split(one.reference, target_unit) == flat(references)


@pytest.mark.parametrize(
    ("unit", "parts", "whole"),
    [
        ("word", ["Ein Hund.", "Er  läuft."], "Ein Hund. Er  läuft."),
        ("character", ["你好。", "再见"], "你好。再见"),
        ("character", ["他说 OK", "Go 吧"], "他说 OK Go 吧"),
        ("character", ["他说“好”", "Apple。"], "他说“好”Apple。"),
        ("character", ["สวัสดี", "ลาก่อน"], "สวัสดี ลาก่อน"),
        ("word", ["a", " ", "b"], "a b"),
    ],
)
def test_a_space_stands_between_sentences_where_their_script_writes_one(unit: Any, parts: list[str], whole: str):
    assert join_texts(parts, unit) == whole


@pytest.mark.parametrize(
    ("name", "id"),
    [("doc.1", "doc_1"), ("ted_1096.wav", "ted_1096"), ("en/ted 1.v2.WAV", "en_ted_1_v2"), ("doc_1", "doc_1")],
)
def test_an_id_is_a_stem_without_points(name: str, id: str) -> None:
    assert document_id(name) == id


# --- sentences joined


def test_any_sentences_are_joined_in_their_order() -> None:
    sentences = Sample().load()
    documents = Sample(sentences_per_document=50).load()
    assert [len(one.segments) for one in documents] == [50, 50, 50, 30]
    assert [one.id for one in documents] == ["sample_1", "sample_2", "sample_3", "sample_4"]
    assert flat(texts(documents)) == [(one.source, one.reference) for one in sentences]


def test_limit_and_shuffle_count_documents_and_leave_them_whole() -> None:
    documents = Sample(sentences_per_document=20).load()
    shuffled = Sample(sentences_per_document=20, shuffle=True, limit=4).load()
    assert len(shuffled) == 4
    assert all(one in documents for one in shuffled)
    assert shuffled != documents[:4]


def test_what_is_joined_is_joined_once_where_it_is_streamed(tmp_path: Path) -> None:
    plain(tmp_path)
    keys: dict[str, Any] = {"source": tmp_path / "talk.en", "target": tmp_path / "talk.de"}
    for dataset in (ParallelText(**keys, sentences_per_document=3), Sample(sentences_per_document=7)):
        assert list(dataset.stream()) == dataset.load()


def test_documents_are_cut_and_never_joined(tmp_path: Path) -> None:
    lines = ["a", "b", "c", "", "d"]
    cut = parallel(tmp_path, lines, lines, sentences_per_document=2)
    assert [(one.id, one.source) for one in cut.load()] == [("talk_1_1", "a b"), ("talk_1_2", "c"), ("talk_2", "d")]
    assert list(cut.stream()) == cut.load()


@pytest.mark.parametrize("value", [0, -1, "20", True, 2.5])
def test_a_wrong_number_of_sentences_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^dataset.sentences_per_document is .*; a whole number of at least 1"):
        Sample(sentences_per_document=value)


# --- files


def test_a_line_that_is_blank_in_both_files_ends_a_document(tmp_path: Path) -> None:
    sources, references = ([*(pair[side] for pair in TWO[0]), "", TWO[1][0][side], "", ""] for side in (0, 1))
    documents = parallel(tmp_path, sources, references).load()
    assert texts(documents) == TWO
    assert [one.id for one in documents] == ["talk_1", "talk_2"]
    assert documents[0].source == "a b c d e f"
    assert documents[0].segments[2] == Segment(3, 3, "d e f", "E")


def test_a_file_of_ids_divides_documents(tmp_path: Path) -> None:
    write(tmp_path, talk_ids="doc.1\ndoc.1\ndoc.1\ndoc.2\n")
    documents = plain(tmp_path, documents=tmp_path / "talk.ids").load()
    assert texts(documents) == TWO
    assert [one.id for one in documents] == ["doc_1", "doc_2"]


def test_segments_of_recordings_divide_documents(tmp_path: Path) -> None:
    rows = [("ted_1.wav", 0), ("ted_1.wav", 2.5), ("ted_1.wav", 9), ("ted_2.wav", 1)]
    row = "- {{duration: 3.500000, offset: {}, rW: 9, uW: 0, speaker_id: spk.1, wav: {}}}\n"
    write(tmp_path, talk_yaml="".join(row.format(offset, wav) for wav, offset in rows))
    documents = plain(tmp_path, segments=tmp_path / "talk.yaml").load()
    assert texts(documents) == TWO
    assert [one.id for one in documents] == ["ted_1", "ted_2"]


def test_json_lines_hold_a_document_a_line(tmp_path: Path) -> None:
    first = {"id": "ted.1", "sentences": [{"source": source, "reference": target} for source, target in TWO[0]]}
    second = {"sentences": [{"en": source, "de": target} for source, target in TWO[1]]}
    documents = json_lines(tmp_path, first, second).load()
    assert texts(documents) == TWO
    assert [one.id for one in documents] == ["ted_1", "talk_2"]


def test_every_file_that_is_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, talk_ids="x\n" * 4)
    dataset = plain(tmp_path, documents=tmp_path / "talk.ids")
    assert [path.name for path in dataset.files()] == ["talk.en", "talk.de", "talk.ids"]


# --- what is wrong with them


@pytest.mark.parametrize("blank", [["", "a"], ["a", "", "", "b"]])
def test_a_document_without_sentences_between_blank_lines_is_refused(tmp_path: Path, blank: list[str]) -> None:
    line = 1 if blank[0] == "" else 3
    assert refusal(parallel(tmp_path, blank, blank)).startswith(f"line {line} of {tmp_path}/talk.en and of")


def test_a_blank_line_in_one_file_alone_is_refused(tmp_path: Path) -> None:
    said = refusal(parallel(tmp_path, ["a", "", "b"], ["A", "B", "C"]))
    assert said.startswith(
        f"document 'talk_1' has an empty source in line 2 of {tmp_path}/talk.en (lines blank in both"
    )
    assert "dataset.merge_empty=true" in said


@pytest.mark.parametrize("key", [{}, {"merge_empty": True}, {"skip_empty": True}])
def test_a_boundary_that_is_shifted_between_the_files_is_told(
    tmp_path: Path, key: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """With a key, the two documents become one; else it is an error, which says what to do."""
    pairs = [("a", "A"), ("", "B"), ("b", ""), ("c", "C")]
    said = f"line 2 of {tmp_path}/talk.en and line 3 of {tmp_path}/talk.de may be one boundary between documents"
    dataset = plain(tmp_path, pairs, **key)
    if key:
        assert len(dataset.load()) == 1
        assert f"document 'talk_1': {said} that is shifted, and is lost: two documents may be one here" in caplog.text
    else:
        assert f"; {said} that is shifted: then move it in one of the files: correct the data" in refusal(dataset)


def test_blank_lines_that_are_far_apart_or_end_no_document_are_no_shifted_boundary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = [("a", "A"), ("", "B"), ("b", "B"), ("c", "C"), ("d", "D"), ("e", "")]
    assert "boundary" not in refusal(plain(tmp_path, far))
    write(tmp_path, talk_ids="x\n" * 4)
    near = [("a", "A"), ("", "B"), ("b", ""), ("c", "C")]
    plain(tmp_path, near, documents=tmp_path / "talk.ids", merge_empty=True).load()
    assert "boundary" not in caplog.text


@pytest.mark.parametrize("longer", ["talk.en", "talk.de"])
def test_unequal_numbers_of_lines_are_refused(tmp_path: Path, longer: str) -> None:
    dataset = parallel(tmp_path, ["a"] * (1 + (longer == "talk.en")), ["A"] * (1 + (longer == "talk.de")))
    assert f"ends before line 2 and {tmp_path}/{longer} goes on" in refusal(dataset)


@pytest.mark.parametrize(("ids", "short"), [("x\n" * 3, "talk.ids"), ("x\n" * 5, "talk.en")])
def test_a_wrong_number_of_ids_is_refused(tmp_path: Path, ids: str, short: str) -> None:
    write(tmp_path, talk_ids=ids)
    said = refusal(plain(tmp_path, documents=tmp_path / "talk.ids"))
    assert said.startswith(f"{tmp_path}/{short} ends before line {4 if short == 'talk.ids' else 5} and")


def test_an_id_that_comes_back_is_refused_with_both_lines(tmp_path: Path) -> None:
    write(tmp_path, talk_ids="x\ny\ny\nx\n")
    said = refusal(plain(tmp_path, documents=tmp_path / "talk.ids"))
    ids = tmp_path / "talk.ids"
    assert said.startswith(f"line 4 of {ids} comes back to document 'x', which ended with line 1 of {ids}: ")


def test_a_line_without_id_is_refused(tmp_path: Path) -> None:
    write(tmp_path, talk_ids="x\n\nx\nx\n")
    assert refusal(plain(tmp_path, documents=tmp_path / "talk.ids")).startswith(
        f"line 2 of {tmp_path}/talk.ids is blank"
    )


def test_names_that_become_one_id_are_refused(tmp_path: Path) -> None:
    write(tmp_path, talk_ids="d.1\nd_1\nx\nx\n")
    assert "the document id 'd_1' twice, of 'd.1' and 'd_1'" in refusal(
        plain(tmp_path, documents=tmp_path / "talk.ids")
    )


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("a: b\n", "talk.yaml is a dict; a list of segments is needed, each {duration: …, offset: …"),
        ("- {a: 1}\n", "segment 1 of {folder}/talk.yaml has the keys a, and no name of a recording"),
        ("- [1, 2\n", "talk.yaml is not YAML: "),
        ("[" * 150 + "]" * 150, "talk.yaml is not YAML: it is nested too deep"),
        ("- {wav: x.wav, offset: 1}\n" * 2, "ends before segment 3 and {folder}/talk.en goes on"),
        (
            "- {wav: x.wav, offset: 1}\n- {wav: x.wav, offset: 0.5}\n",
            "segment 2 of {folder}/talk.yaml begins at 0.5 s, before the one above it (1 s)",
        ),
    ],
)
def test_segments_that_are_something_else_are_refused(tmp_path: Path, yaml: str, said: str) -> None:
    write(tmp_path, talk_yaml=yaml)
    assert said.replace("{folder}", str(tmp_path)) in refusal(plain(tmp_path, segments=tmp_path / "talk.yaml"))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"id": "x", "sentences": []}, "line 1 of {path} is a document without sentences"),
        ({"id": "x", "text": "a"}, "line 1 of {path} has the keys id, text and no list of sentences; a line is one"),
        ([1], "line 1 of {path} is a list and no list of sentences"),
        ({"id": None, "sentences": [{"en": "a", "de": "b"}]}, "line 1 of {path} has the id None"),
        (
            {"sentences": [{"source": "a"}]},
            "sentence 1 in line 1 of {path} has the keys source; 'reference' (or 'de') is needed",
        ),
        ({"sentences": [{"source": 1, "reference": "a"}]}, "sentence 1 in line 1 of {path} has 'source' as int; text"),
        (
            {"sentences": [{"source": "a", "reference": None}]},
            "document 'talk_1' has an empty reference in sentence 1 in line 1 of {path}: correct",
        ),
    ],
)
def test_json_lines_that_are_something_else_are_refused(tmp_path: Path, document: Any, said: str) -> None:
    assert refusal(json_lines(tmp_path, document)).startswith(said.format(path=tmp_path / "talk.jsonl"))


@pytest.mark.parametrize(
    ("keys", "has"),
    [
        ({}, "dataset=documents names no file"),
        ({"source": "a.en"}, "dataset=documents has dataset.source;"),
        ({"path": "a.jsonl", "source": "a.en", "target": "a.de"}, "dataset=documents has dataset.path, dataset.source"),
        ({"source": "a.en", "target": "a.de", "documents": "i", "segments": "s"}, "dataset=documents has"),
        ({"path": "a.jsonl"}, "the source language of a.jsonl is not known: add dataset.source_language=CODE"),
        ({"source": "a.en", "target": "a.de", "skip_empty": True, "merge_empty": True}, "dataset.merge_empty is True"),
    ],
)
def test_files_that_do_not_go_together_are_refused(keys: dict[str, Any], has: str) -> None:
    with pytest.raises(ValueError, match="^" + has.replace(".", r"\.").replace("(", r"\(")):
        DocumentDataset(**keys)


def test_files_without_sentences_are_refused(tmp_path: Path) -> None:
    assert refusal(parallel(tmp_path, [], [])) == f"{tmp_path}/talk.en holds no sentences: it is empty"


# --- sentences without source or reference


def test_an_empty_sentence_can_be_left_out_or_merged(tmp_path: Path) -> None:
    pairs = [("", "A"), ("b", "B"), ("c", ""), ("", ""), ("", "D"), ("e", "E")]
    write(tmp_path, talk_ids="x\n" * 6)
    keys: dict[str, Any] = {"documents": tmp_path / "talk.ids"}
    assert texts(plain(tmp_path, pairs, skip_empty=True, **keys).load()) == [[("b", "B"), ("e", "E")]]
    assert texts(plain(tmp_path, pairs, merge_empty=True, **keys).load()) == [[("b c", "A B D"), ("e", "E")]]


def test_a_document_in_one_language_only_cannot_be_merged(tmp_path: Path) -> None:
    write(tmp_path, talk_ids="x\n")
    dataset = plain(tmp_path, [("a", "")], documents=tmp_path / "talk.ids", merge_empty=True)
    assert "document 'x'" in (said := refusal(dataset))
    assert "text in one language only" in said


def test_a_document_of_which_nothing_is_left_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, talk_ids="x\nx\nx\ny\n")
    dataset = plain(tmp_path, [*PAIRS[:3], ("d", "")], documents=tmp_path / "talk.ids", skip_empty=True)
    assert [one.id for one in dataset.load()] == ["x"]


# --- in sentences again


def test_documents_fall_into_their_sentence_pairs_again() -> None:
    pairs = list(sentence_pairs(Sample(sentences_per_document=50).load()))
    assert [(one.source, one.reference) for one in pairs] == [(one.source, one.reference) for one in Sample().load()]
    assert [one.id for one in pairs[49:51]] == ["sample_1_50", "sample_2_1"]
    assert [index for index, one in enumerate(pairs) if one.segments[0].start == 0] == [0, 50, 100, 150]
    assert list(sentence_pairs(pairs)) == pairs
    assert not any(one.segments for one in each_alone(pairs))


def test_sentences_are_no_documents() -> None:
    assert list(sentence_pairs(Sample().load())) == Sample().load()
