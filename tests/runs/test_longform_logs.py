"""Logs of documents in the forms of OmniSTEval and simulstream: what is written is read back, and what they stumble
over is not in it. That they read it rightly themselves is in tests/metrics/test_longform_tools.py."""

import json
from pathlib import Path

import long_documents
import pytest

from streamllm.files import RunError
from streamllm.metrics.longform import Document
from streamllm.records import Segment
from streamllm.runs.longform_logs import (
    Scale,
    omnisteval_command,
    read_omnisteval,
    read_simulstream,
    trace,
    write_omnisteval,
    write_simulstream,
)
from streamllm.units import Unit

FORMS = [(write_omnisteval, read_omnisteval), (write_simulstream, read_simulstream)]
forms = pytest.mark.parametrize(("write", "read"), FORMS, ids=["omnisteval", "simulstream"])
SCALE = Scale(units_per_second=long_documents.RATE)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@forms
@pytest.mark.parametrize("unit", ["word", "character"])
def test_a_run_is_read_back_as_it_was_written(write, read, unit: Unit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    documents = long_documents.run(1, unit)
    write(tmp_path, documents, unit, SCALE)
    for ours, again in zip(documents, read(tmp_path, unit, SCALE), strict=True):
        assert (again.id, list(again.units), list(again.delays)) == (ours.id, list(ours.units), list(ours.delays))
        for one, other in zip(ours.segments, again.segments, strict=True):
            assert (other.start, other.units, other.source) == (one.start, one.units, one.source)
            assert other.reference == one.reference.strip()
        if ours.units:
            assert again.elapsed == pytest.approx(ours.elapsed, abs=1e-9)


@forms
def test_documents_without_times_are_read_back_without(write, read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [Document("a", ["x"], [1], [Segment(0, 2, "a b", "x")])], "word")
    (again,) = read(tmp_path, "word")
    assert again.elapsed is None


def test_a_word_lasts_a_second(tmp_path: Path) -> None:
    one = Document("a", ["x"], [2008], [Segment(0, 2007, "", "x"), Segment(2007, 4, "", "y")])
    write_omnisteval(tmp_path, [one], "word")
    assert rows(tmp_path / "omnisteval.jsonl")[0]["delays"] == [2008000]
    assert '"offset": 2007, "duration": 4' in (tmp_path / "segments.yaml").read_text()


def test_milliseconds_stay_milliseconds(tmp_path: Path) -> None:
    scale = Scale(seconds_per_unit=0.001, units_per_second=1000)
    one = Document("a", ["x"], [1500], [Segment(500, 1234, "", "x")], [1.75])
    write_omnisteval(tmp_path, [one], "word", scale)
    (row,) = rows(tmp_path / "omnisteval.jsonl")
    assert (row["delays"], row["elapsed"]) == ([1500], [1750.0])
    (again,) = read_omnisteval(tmp_path, "word", scale)
    assert (again.delays, again.elapsed, again.segments[0].start) == ([1500], [1.75], 500)


def test_names_differ_without_their_dots_and_slashes(tmp_path: Path) -> None:
    segments = [Segment(0, 1, "", "x")]
    write_omnisteval(tmp_path, [Document(name, [], [], segments) for name in ("a.1", "a.2", "b/a_1", "ä")], "word")
    assert [row["source"] for row in rows(tmp_path / "omnisteval.jsonl")] == [["a_1"], ["a_2"], ["b_a_1"], ["_"]]
    write_omnisteval(tmp_path, [Document(name, [], [], segments) for name in ("a.1", "a_1")], "word")
    assert [row["source"] for row in rows(tmp_path / "omnisteval.jsonl")] == [["a_1"], ["a_1-2"]]
    assert [one.id for one in read_omnisteval(tmp_path, "word")] == ["a.1", "a_1"]


def test_a_recording_without_output_has_a_line_with_empty_lists(tmp_path: Path) -> None:
    write_simulstream(tmp_path, [Document("a", [], [], [Segment(0, 3, "", "x")])], "word")
    name, end = rows(tmp_path / "simulstream.jsonl")
    assert name["metadata"] == {"wav_name": "a", "id": "a"}
    assert (end["generated_tokens"], end["deleted_tokens"], end["total_audio_processed"]) == ([], [], 3)


def test_characters_are_written_without_spaces(tmp_path: Path) -> None:
    write_omnisteval(
        tmp_path, [Document("a", list("你好ok"), [1, 1, 2, 2], [Segment(0, 2, "", "你好 ok")])], "character"
    )
    assert rows(tmp_path / "omnisteval.jsonl")[0]["prediction"] == "你好ok"


def test_a_reference_stays_on_its_line(tmp_path: Path) -> None:
    write_omnisteval(tmp_path, [Document("a", [], [], [Segment(0, 2, "", "x\r\ny"), Segment(2, 1, "", "z")])], "word")
    assert (tmp_path / "references.txt").read_text() == "x y\nz\n"


def test_deleted_tokens_are_gone_and_an_extended_word_comes_later(tmp_path: Path) -> None:
    write_simulstream(tmp_path, [Document("a", [], [], [Segment(0, 3, "", "x")])], "word")
    log = tmp_path / "simulstream.jsonl"
    first = {"id": 0, "total_audio_processed": 1, "computation_time": 0, "generated_tokens": ["ein", "Ball"]}
    second = {"id": 0, "total_audio_processed": 2, "computation_time": 0, "generated_tokens": ["Ball.", "Ja"]}
    lines = [first | {"deleted_tokens": []}, second | {"deleted_tokens": ["Ball"]}]
    log.write_text(log.read_text().splitlines()[0] + "\n" + "".join(f"{json.dumps(line)}\n" for line in lines))
    (one,) = read_simulstream(tmp_path, "word")
    assert (one.units, one.delays) == (["ein", "Ball.", "Ja"], [1, 2, 2])
    log.write_text(log.read_text() + json.dumps(second | {"deleted_tokens": ["Ball"]}))
    with pytest.raises(RunError, match=r"line 4 is not a line of simulstream's.*not the last tokens"):
        read_simulstream(tmp_path, "word")


def test_a_document_is_a_trace_for_figures() -> None:
    one = Document("a", ["x", "y"], [1.0, 2.0], [Segment(0, 1, "s", "r"), Segment(1, 1, "t", "u")])
    made = trace(one, "word")
    assert (made.source, made.reference, made.prediction, made.source_units) == ("s t", "r u", "x y", 2)
    assert made.delays == (1, 2) and made.elapsed == (0.0, 0.0)


def test_the_command_names_what_the_scores_depend_on(tmp_path: Path) -> None:
    command = omnisteval_command(tmp_path, "zho_Hans", "character")
    assert command[:2] == ["omnisteval", "longform"]
    assert command[-5:] == ["--char_level", "--lang", "zh", "--bleu_tokenizer", "zh"]


@forms
def test_no_documents_make_no_log(write, read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="0 documents"):
        write(tmp_path, [], "word")


def test_a_log_that_does_not_fit_its_segments_is_refused(tmp_path: Path) -> None:
    write_omnisteval(tmp_path, [Document("a", ["x"], [1], [Segment(0, 1, "", "x")])], "word")
    log = tmp_path / "omnisteval.jsonl"
    whole = log.read_text()
    log.write_text(whole.replace('["a"]', '["b"]'))
    with pytest.raises(RunError, match="do not name the same recordings: only one of them has a, b"):
        read_omnisteval(tmp_path, "word")
    log.write_text(whole.replace("[1000]", "[]"))
    with pytest.raises(RunError, match="document 'a' has 1 units but 0 delays"):
        read_omnisteval(tmp_path, "word")
    log.write_text(whole + whole)
    with pytest.raises(RunError, match="line 2 is a second one for 'a'"):
        read_omnisteval(tmp_path, "word")
    log.write_text("{")
    with pytest.raises(RunError, match="line 1 is not JSON"):
        read_omnisteval(tmp_path, "word")
    log.write_text(whole)
    (tmp_path / "references.txt").write_text("x\ny\n")
    with pytest.raises(RunError, match="1 segments, 2 references"):
        read_omnisteval(tmp_path, "word")
    (tmp_path / "references.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"references\.txt does not exist"):
        read_omnisteval(tmp_path, "word")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("omnisteval.jsonl", "[" * 10_000, r"line 1 is not JSON \(it is nested too deep\)"),
        ("omnisteval.jsonl", '{"source": NaN}', r"line 1 is not JSON \(NaN"),
        ("segments.yaml", "[" * 10_000, r"segments\.yaml is no list of segments"),
        ("segments.yaml", "- {wav: [", r"segments\.yaml is no list of segments"),
        ("segments.yaml", "a: &a [1, 2]\nb: [*a, *a]\n", "no segments, 1 references"),
    ],
)
def test_a_damaged_log_is_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    write_omnisteval(tmp_path, [Document("a", ["x"], [1], [Segment(0, 1, "", "x")])], "word")
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=said) as raised:
        read_omnisteval(tmp_path, "word")
    assert "\n" not in str(raised.value)
