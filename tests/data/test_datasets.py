"""Datasets: every pair that is loaded is right, keeps its id, and what is wrong with data is said once."""

import csv
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamllm.data.documents import DocumentDataset
from streamllm.data.hub import HubDataset
from streamllm.data.lines import MAX_BYTES, count_lines, read_lines
from streamllm.data.sacrebleu_set import SacrebleuTestSet
from streamllm.data.sample import Sample
from streamllm.data.table import Table
from streamllm.data.text import ParallelText, read_parallel
from streamllm.records import Example
from streamllm.runs.naming import digest
from streamllm.units import unit_of

CONF = Path(__file__).parents[2] / "conf"
GERMAN = {"source_language": "en", "target_language": "de"}


def write_pair(folder: Path, sources: list[str], references: list[str]) -> dict[str, Any]:
    (folder / "talk.en").write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
    (folder / "talk.de").write_text("".join(f"{line}\n" for line in references), encoding="utf-8")
    return {"source": folder / "talk.en", "target": folder / "talk.de"}


def numbered(folder: Path, count: int) -> dict[str, Any]:
    return write_pair(folder, [f"s{i}" for i in range(1, count + 1)], [f"t{i}" for i in range(1, count + 1)])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of ``datasets`` of this test alone."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


# --- lines ---


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, separator: str) -> None:
    (tmp_path / "a").write_bytes(f"one{separator}still one\ntwo\n".encode())
    assert read_lines(tmp_path / "a") == [f"one{separator}still one", "two"]


def test_carriage_returns_byte_order_mark_and_surrounding_space_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeff  one two\t\r\n\u00a0three \r\n".encode())
    assert read_lines(tmp_path / "a") == ["one two", "three"]


def test_the_last_line_needs_no_line_feed_and_a_blank_one_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\ntwo")
    (tmp_path / "b").write_bytes(b"one\ntwo\n\n")
    assert read_lines(tmp_path / "a") == ["one", "two"]
    assert read_lines(tmp_path / "b") == ["one", "two", ""]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(st.text().filter(lambda line: "\n" not in line), max_size=6),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_without_line_feeds_is_one_line_plain_and_gzipped(
    tmp_path: Path, lines: list[str], ending: str
) -> None:
    data = "".join(line + ending for line in lines).encode()
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "a.gz").write_bytes(gzip.compress(data))
    expected = [line.strip() for line in lines]
    if expected:  # a byte order mark at the very start is no text
        expected[0] = lines[0].removeprefix("\ufeff").strip()
    assert read_lines(tmp_path / "a") == read_lines(tmp_path / "a.gz") == expected


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf\n"])
def test_invalid_utf8_is_refused_with_file_and_line(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "talk.en").write_bytes(mark + "one\ntwo\nMünchen\n".encode("latin1"))
    line = 3 + mark.count(b"\n")
    with pytest.raises(ValueError, match=rf"talk\.en is not UTF-8: line {line} has the byte 0xfc"):
        read_lines(tmp_path / "talk.en")


def test_a_cut_off_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(b"one\n" * 1000)[:-12])
    with pytest.raises(ValueError, match=r"a\.en\.gz is not whole gzip data"):
        read_lines(tmp_path / "a.en.gz")


# --- parallel text ---


def test_pairs_of_two_files_have_ids_by_line_number(tmp_path: Path) -> None:
    examples = ParallelText(**numbered(tmp_path, 10)).load()
    assert examples[0] == Example("talk-01", "s1", "t1")
    assert examples[9] == Example("talk-10", "s10", "t10")


def test_a_missing_file_is_refused_with_names_that_come_near(tmp_path: Path) -> None:
    files = numbered(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match=r"talks\.en does not exist; .* has talk\.en"):
        ParallelText(**{**files, "source": tmp_path / "talks.en"}).load()


def test_a_file_in_a_missing_folder_is_refused_with_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither does the folder .*nowhere"):
        read_lines(tmp_path / "nowhere" / "a.en")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    numbered(tmp_path, 2)
    with pytest.raises(IsADirectoryError, match=r"is a folder; .* talk\.de, talk\.en"):
        read_lines(tmp_path)


def test_unequal_numbers_of_lines_are_refused_with_both(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ["a", "b", "c"], ["A", "B"])
    with pytest.raises(ValueError, match=r"talk\.en has 3 lines and .*talk\.de has 2"):
        read_parallel(**files)


def test_an_empty_source_line_is_refused_with_all_line_numbers(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ["a", "", "c", " \t"], ["A", "B", "C", "D"])
    with pytest.raises(ValueError, match=r"2 empty source lines in .*talk\.en \(lines 2, 4\).*skip_empty=true"):
        read_parallel(**files)


def test_an_empty_reference_is_refused_with_its_line_number(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ["a", "b"], ["A", ""])
    with pytest.raises(ValueError, match=r"1 empty reference line in .*talk\.de \(line 2\)"):
        read_parallel(**files)


def test_many_empty_lines_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ["a"] + [""] * 30, ["A"] * 31)
    with pytest.raises(ValueError, match=r"30 empty source lines .*\(lines 2, 3, .*, 11 and 20 more\)"):
        read_parallel(**files)


def test_skip_empty_leaves_pairs_out_and_keeps_the_ids_of_the_others(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ["a", "", "c", "d"], ["A", "B", "", "D"])
    examples = ParallelText(**files, skip_empty=True).load()
    assert examples == [Example("talk-1", "a", "A"), Example("talk-4", "d", "D")]


def test_files_without_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no sentences"):
        read_parallel(**write_pair(tmp_path, [], []))


def test_files_of_which_every_pair_is_skipped_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in each of its 2 pairs a side is empty"):
        read_parallel(**write_pair(tmp_path, ["", "b"], ["A", ""]), skip_empty=True)


def test_languages_come_from_the_names_of_the_files(tmp_path: Path) -> None:
    dataset = ParallelText(source="talk.zh.gz", target="talk.en")
    assert (dataset.source_language, dataset.source_unit) == ("zh", "character")
    assert (dataset.target_language, dataset.target_unit) == ("en", "word")


def test_a_language_that_no_name_tells_must_be_given() -> None:
    with pytest.raises(ValueError, match=r"language of ref\.txt is not known.*dataset\.target_language=CODE"):
        ParallelText(source="talk.en", target="ref.txt")
    assert ParallelText(source="talk.en", target="ref.txt", target_language="de").target_language == "de"


# --- what all datasets share ---


def test_limit_takes_the_first_pairs(tmp_path: Path) -> None:
    files = numbered(tmp_path, 20)
    assert ParallelText(**files, limit=3).load() == ParallelText(**files).load()[:3]


@pytest.mark.parametrize("skip", [False, True])
def test_a_limit_gives_the_ids_of_the_whole_and_leaves_out_as_it_does(tmp_path: Path, skip: bool) -> None:
    sources = ["a", "", "\u2028", "d", *["more"] * 96] if skip else ["\ufeffa", "b\r", " c\u2028c ", *["more"] * 97]
    files = write_pair(tmp_path, sources, ["x"] * 100)
    for limit in (1, 2, 3, 98, 200):
        whole = ParallelText(**files, skip_empty=skip).load()
        assert ParallelText(**files, skip_empty=skip, limit=limit).load() == whole[:limit]
    assert whole[0].id.endswith("-001")


def test_lines_beyond_the_limit_are_counted_only(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ["a", "b", ""], ["x", "y", "z"])
    assert [one.source for one in ParallelText(**files, limit=2).load()] == ["a", "b"]
    with pytest.raises(ValueError, match=r"1 empty source line.*line 3"):
        ParallelText(**files, limit=3).load()


def test_files_that_differ_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ["a", "b", "c"], ["x", "y"])
    with pytest.raises(ValueError, match=r"has 3 lines and .* has 2"):
        ParallelText(**files, limit=1).load()


@given(st.text("a\n\r\u2028\ufeff", max_size=12))
def test_lines_are_counted_as_they_are_read(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "counted.txt"
    file.write_text(text, encoding="utf-8", newline="")
    assert count_lines(file) == len(read_lines(file))


def test_a_limit_beyond_the_data_takes_all(tmp_path: Path) -> None:
    assert len(ParallelText(**numbered(tmp_path, 3), limit=50).load()) == 3


@pytest.mark.parametrize("limit", [0, -1, "ten", True, 1.5])
def test_a_limit_below_one_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.limit is {limit!r}; a whole number of at least 1"):
        Sample(limit=limit)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(count=st.integers(1, 30), limit=st.integers(1, 40), seed=st.integers(0, 5))
def test_shuffling_keeps_pairs_and_ids_and_does_not_depend_on_the_limit(
    tmp_path: Path, count: int, limit: int, seed: int
) -> None:
    files = numbered(tmp_path, count)
    plain = ParallelText(**files).load()
    shuffled = ParallelText(**files, shuffle=True, seed=seed).load()
    assert sorted(shuffled, key=lambda example: example.id) == plain
    assert ParallelText(**files, shuffle=True, seed=seed, limit=limit).load() == shuffled[:limit]


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    files = numbered(tmp_path, 20)
    first, again, other = (ParallelText(**files, shuffle=True, seed=seed).load() for seed in (1, 1, 2))
    assert first == again
    assert first != other


RECORDED_ORDER = [9, 4, 2, 5, 8, 1, 10, 7, 3, 6]  # old runs depend on it


def test_the_order_of_a_seed_never_changes(tmp_path: Path) -> None:
    examples = ParallelText(**numbered(tmp_path, 10), shuffle=True, seed=7).load()
    assert [int(example.id[-2:]) for example in examples] == RECORDED_ORDER


@pytest.mark.parametrize(
    ("language", "unit"),
    [(language, "character") for language in ("zh", "ja", "zh-Hant", "zho_Hans", "JA")]
    + [(language, "word") for language in ("en", "de", "ko", "pt-br")],
)
def test_units_are_characters_for_chinese_and_japanese(language: str, unit: str) -> None:
    assert unit_of(language) == unit


def test_units_can_be_set() -> None:
    assert Sample(target_unit="character").target_unit == "character"
    with pytest.raises(ValueError, match="'syllable'"):
        Sample(source_unit="syllable")  # type: ignore[arg-type]


@pytest.mark.parametrize("language", ["english", "", False, None])
def test_what_is_no_language_code_is_refused(language: Any) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.source_language is {language!r}"):
        Sample(source_language=language)


# --- the sample ---


def test_the_sample_has_at_least_150_pairs_in_both_directions() -> None:
    forth, back = Sample().load(), Sample(source_language="de", target_language="en").load()
    assert len(forth) >= 150
    assert [(e.id, e.source, e.reference) for e in forth] == [(e.id, e.reference, e.source) for e in back]


def test_a_language_that_the_sample_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"target_language is 'fr', and the sample has en, de"):
        Sample(target_language="fr").load()
    with pytest.raises(ValueError, match="both 'de'"):
        Sample(source_language="de").load()


def test_text_is_read_without_importing_datasets(tmp_path: Path) -> None:
    files = numbered(tmp_path, 2)
    code = (
        "import sys; from streamllm.data.hub import *; from streamllm.data.sample import *\n"
        "from streamllm.data.text import *; Sample().load()\n"
        f"ParallelText(source={str(files['source'])!r}, target={str(files['target'])!r}).load()\n"
        f"HubDataset(path='x/y', data_dir={str(tmp_path)!r}, split='talk', source_language='en', "
        "target_language='de').load()\n"
        "sys.exit(', '.join({'datasets', 'sacrebleu', 'pandas', 'mlx'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- tables ---

ROWS = [{"id": "a", "en": "one", "de": "eins"}, {"id": "b", "en": "two", "de": "zwei"}]
EXPECTED = [Example("a", "one", "eins"), Example("b", "two", "zwei")]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows as what the ending of the name says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if name.endswith(".json"):
        text = json.dumps(rows)
    elif name.endswith("l"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif name.endswith(".tsv"):
        text = "".join("\t".join(cells) + "\n" for cells in [list(rows[0]), *(map(str, row.values()) for row in rows)])
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# --- compressed data ---

REPEATED = [{"en": "the same words", "de": "dieselben Wörter"}] * 3000


def packed(path: Path) -> Table | ParallelText:
    """3000 equal pairs, which pack to less than a sixteenth."""
    if ".parquet" in path.name or ".jsonl" in path.name or ".csv" in path.name:
        if path.suffix == ".gz":
            plain = write_table(path.with_suffix(""), REPEATED)
            path.write_bytes(gzip.compress(plain.read_bytes()))
        else:
            write_table(path, REPEATED)
        return Table(path=path, **GERMAN)
    for language in ("en", "de"):
        lines = "".join(f"{row[language]}\n" for row in REPEATED)
        path.with_name(f"talk.{language}.gz").write_bytes(gzip.compress(lines.encode()))
    return ParallelText(source=path.with_name("talk.en.gz"), target=path.with_name("talk.de.gz"))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["talk.en.gz", "talk.jsonl.gz", "talk.csv.gz", "talk.parquet"])
def test_compressed_data_is_read_up_to_a_bound(tmp_path: Path, cache: Path, name: str, whole: bool) -> None:
    def count(dataset: Table | ParallelText) -> int:
        return len(dataset.load()) if whole else sum(1 for _ in dataset.stream())

    dataset = packed(tmp_path / name)
    with pytest.raises(ValueError, match=r"talk.* holds more than [\d,]+ bytes once it is unpacked.*dataset.max_bytes"):
        count(replace(dataset, max_bytes=1000))
    assert count(replace(dataset, max_bytes=10**6)) == count(replace(dataset, max_bytes=None)) == len(REPEATED)


@pytest.mark.parametrize("beside", [None, "documents", "segments"])
def test_compressed_documents_are_read_up_to_a_bound(tmp_path: Path, beside: str | None) -> None:
    lines = {"en": "the same words\n", "de": "dieselben Wörter\n", "documents": "one\n", "segments": "- {wav: a}\n"}
    for name, line in lines.items():
        (tmp_path / f"talk.{name}.gz").write_bytes(gzip.compress((line * 3000).encode()))
    extra: dict[str, Any] = {} if beside is None else {beside: tmp_path / f"talk.{beside}.gz"}
    dataset = DocumentDataset(source=tmp_path / "talk.en.gz", target=tmp_path / "talk.de.gz", **extra)
    with pytest.raises(ValueError, match=r"talk.* holds more than [\d,]+ bytes once it is unpacked"):
        replace(dataset, max_bytes=1000).load()
    assert len(replace(dataset, max_bytes=10**6).load()[0].segments) == 3000


def test_text_that_packs_as_text_does_is_not_bounded(tmp_path: Path) -> None:
    lines = Path(__file__).read_text(encoding="utf-8")
    (tmp_path / "a.gz").write_bytes(gzip.compress(lines.encode()))
    assert read_lines(tmp_path / "a.gz", max_bytes=1)


def test_a_bound_that_is_none_is_refused() -> None:
    for bound in (0, -1, True, 1.5, "many"):
        with pytest.raises(ValueError, match=r"dataset\.max_bytes is .* whole number of bytes"):
            Sample(max_bytes=bound)  # type: ignore[arg-type]


def test_the_bound_keeps_the_names_of_runs() -> None:
    for key in ("dataset", "validation"):
        before = {key: {"_target_": "streamllm.data.text.ParallelText"}}
        assert digest({key: before[key] | {"max_bytes": MAX_BYTES}}) == digest(before)


@pytest.mark.parametrize("name", ["talk.en", "talk.jsonl"])
def test_data_that_is_a_fifo_is_not_waited_for(tmp_path: Path, cache: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match=rf"{name} is a FIFO .* write it to a file first"):
        (Table(path=tmp_path / name, **GERMAN) if "json" in name else beside_a_fifo(tmp_path / name)).load()


def beside_a_fifo(path: Path) -> ParallelText:
    path.with_name("talk.de").write_text("eins\n")
    return ParallelText(source=path, target=path.with_name("talk.de"))


# --- kinds of tables ---


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz", "csv", "tsv", "tsv.gz", "parquet"])
def test_tables_of_every_kind_are_read(tmp_path: Path, cache: Path, ending: str) -> None:
    path = write_table(tmp_path / f"talk.{ending}", ROWS)
    assert Table(path=path, **GERMAN).load() == EXPECTED


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_column_of_translations_is_read_by_language(tmp_path: Path, cache: Path, ending: str) -> None:
    rows = [{"translation": {"en": row["en"], "de": row["de"]}} for row in ROWS]
    path = write_table(tmp_path / f"talk.{ending}", rows)
    assert Table(path=path, source_language="de", target_language="en").load() == [
        Example("talk-1", "eins", "one"),
        Example("talk-2", "zwei", "two"),
    ]


def test_columns_can_be_named(tmp_path: Path, cache: Path) -> None:
    rows = [{"key": 7, "src": "one", "x": {"ref": "eins"}}, {"key": 8, "src": "two", "x": {"ref": "zwei"}}]
    path = write_table(tmp_path / "talk.jsonl", rows)
    columns = {"source_column": "src", "target_column": "x.ref", "id_column": "key"}
    assert Table(path=path, **columns, **GERMAN).load() == [Example("7", "one", "eins"), Example("8", "two", "zwei")]


def test_several_files_are_one_table(tmp_path: Path, cache: Path) -> None:
    paths = [write_table(tmp_path / f"{i}.jsonl", [row]) for i, row in enumerate(ROWS)]
    assert Table(path=paths, **GERMAN).load() == EXPECTED


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("text", ["NA", "null", "007", "1.50", "True", "2020-01-01", 'say "no"', '"'])
def test_a_cell_stays_the_text_it_is(tmp_path: Path, cache: Path, ending: str, text: str) -> None:
    path = write_table(tmp_path / f"talk.{ending}", [{"id": "1", "en": text, "de": text}] * 1)
    assert Table(path=path, **GERMAN).load() == [Example("1", text, text)]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_line_feed_or_tab_inside_a_cell_ends_nothing(tmp_path: Path, cache: Path, ending: str) -> None:
    rows = [{"id": "1", "en": "two\nlines", "de": "zwei\tSpalten"}, {"id": "2", "en": "one", "de": "eins"}]
    path = write_table(tmp_path / f"talk.{ending}", rows)
    pairs = [("1", "two\nlines", "zwei\tSpalten"), ("2", "one", "eins")]
    assert Table(path=path, **GERMAN).load() == [Example(*pair) for pair in pairs]


def test_wrong_columns_are_refused_with_those_there_are(tmp_path: Path, cache: Path) -> None:
    path = write_table(tmp_path / "talk.jsonl", [{"src": "one", "translation": {"en": "x", "fr": "y"}}])
    listing = r"columns (are )?src, translation\.en, translation\.fr"
    with pytest.raises(ValueError, match=rf"talk\.jsonl has no column for 'de'; its {listing}"):
        Table(path=path, **GERMAN).load()
    with pytest.raises(ValueError, match=rf"dataset\.source_column is 'sources', and .* the {listing}"):
        Table(path=path, source_column="sources", target_column="translation.fr", **GERMAN).load()
    with pytest.raises(ValueError, match=rf"dataset\.id_column is 'key', and .* the {listing}"):
        Table(path=path, target_column="translation.fr", id_column="key", **GERMAN).load()


def test_a_column_that_is_not_text_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_table(tmp_path / "talk.jsonl", [{"en": 1, "de": "eins"}])
    with pytest.raises(ValueError, match=r"column 'en' of .* holds int, not text \(row 1\)"):
        Table(path=path, **GERMAN).load()


def test_empty_cells_are_refused_by_row_and_can_be_skipped(tmp_path: Path, cache: Path) -> None:
    rows = [{"en": "one", "de": "eins"}, {"en": " ", "de": "zwei"}, {"en": "three", "de": None}]
    path = write_table(tmp_path / "talk.jsonl", rows)
    with pytest.raises(ValueError, match=r"1 empty source row .*\(row 2\) and 1 empty reference row .*\(row 3\)"):
        Table(path=path, **GERMAN).load()
    assert Table(path=path, skip_empty=True, limit=5, **GERMAN).load() == [Example("talk-1", "one", "eins")]


def test_repeated_ids_are_refused(tmp_path: Path, cache: Path) -> None:
    path = write_table(tmp_path / "talk.jsonl", [*ROWS, {"id": "a", "en": "three", "de": "drei"}])
    with pytest.raises(ValueError, match="1 repeated ids, first 'a' in rows 1 and 3"):
        Table(path=path, **GERMAN).load()


def test_a_shuffled_table_has_the_order_and_ids_of_the_same_text(tmp_path: Path, cache: Path) -> None:
    files = numbered(tmp_path, 12)
    rows = [{"en": example.source, "de": example.reference} for example in read_parallel(**files)]
    path = write_table(tmp_path / "talk.jsonl", rows)
    for limit in (None, 5):
        options = {"shuffle": True, "seed": 3, "limit": limit}
        assert Table(path=path, **options, **GERMAN).load() == ParallelText(**files, **options).load()


def test_rows_of_a_table_are_joined_before_documents_are_counted(tmp_path: Path, cache: Path) -> None:
    rows = [{"en": f"source {i}", "de": f"target {i}"} for i in range(7)]
    table = Table(path=write_table(tmp_path / "talk.jsonl", rows), sentences_per_document=3, limit=2, **GERMAN)
    assert [[segment.source[-1] for segment in one.segments] for one in table.load()] == [[*"012"], [*"345"]]
    assert list(table.stream()) == table.load()


def test_damaged_tables_are_refused_with_their_name(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "talk.jsonl").write_text('{"en": "one", "de": "eins"}\n{"en": "two", "de": \n')
    (tmp_path / "talk.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"line 2 of .*talk\.jsonl is not JSON"):
        Table(path=tmp_path / "talk.jsonl", **GERMAN).load()
    with pytest.raises(ValueError, match=r"talk\.parquet cannot be read as PARQUET"):
        Table(path=tmp_path / "talk.parquet", **GERMAN).load()


@pytest.mark.parametrize(("row", "count"), [("three", 1), ("two, and more,zwei", 3)])
def test_a_row_of_another_length_is_refused_with_its_number(tmp_path: Path, cache: Path, row: str, count: int) -> None:
    (tmp_path / "talk.csv").write_text(f"en,de\n{row}\none,eins\n")
    with pytest.raises(ValueError, match=rf"row 1 of .*talk\.csv has {count} cells, .* 2 columns \(en, de\)"):
        Table(path=tmp_path / "talk.csv", **GERMAN).load()


@pytest.mark.parametrize(("name", "text"), [("a.json", "[]"), ("a.jsonl", "\n"), ("a.csv", "en,de\n"), ("a.csv", "")])
def test_a_table_without_rows_is_refused(tmp_path: Path, cache: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="holds no sentences"):
        Table(path=tmp_path / name, **GERMAN).load()


def test_a_row_without_id_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_table(tmp_path / "talk.jsonl", [*ROWS, {"id": None, "en": "three", "de": "drei"}])
    with pytest.raises(ValueError, match=r"1 rows without id \(row 3\)"):
        Table(path=path, **GERMAN).load()


def test_a_table_is_read_without_a_word_on_the_terminal(tmp_path: Path, cache: Path, capfd: Any) -> None:
    Table(path=write_table(tmp_path / "talk.jsonl", ROWS), **GERMAN).load()
    (tmp_path / "bad.json").write_text("[{]")
    with pytest.raises(ValueError, match=r"bad\.json cannot be read as JSON"):
        Table(path=tmp_path / "bad.json", **GERMAN).load()
    assert capfd.readouterr() == ("", "")


def test_invalid_utf8_in_a_table_is_refused_with_file_and_line(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "talk.csv").write_bytes("en,de\none,eins\nfive,fünf\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"talk\.csv is not UTF-8: line 3"):
        Table(path=tmp_path / "talk.csv", **GERMAN).load()


def test_a_missing_table_is_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"talk\.csv does not exist"):
        Table(path=tmp_path / "talk.csv", **GERMAN).load()


@pytest.mark.parametrize("name", ["talk.xlsx", "talk", "talk.parquet.gz"])
def test_an_unknown_format_is_refused_with_those_known(name: str) -> None:
    with pytest.raises(ValueError, match=rf"format of {re.escape(name)} is not known.*\.jsonl.*\.parquet"):
        Table(path=name, **GERMAN)


# --- folders and the hub ---


def test_a_folder_of_text_stands_in_for_the_hub(shared: Path) -> None:
    folder = shared / "data" / "multi30k"
    options = {"path": "bentrevett/multi30k", "name": "multi30k", "data_dir": folder, **GERMAN}
    test = HubDataset(split="test_2016_flickr", **options).load()
    assert len(test) == 1000
    assert test[0] == Example(
        "multi30k-0001",
        "A man in an orange hat starring at something.",
        "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    )
    assert len(HubDataset(split="train", **options).load()) == 29_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    numbered(tmp_path, 2)
    (tmp_path / "README.md").write_text("no data")
    return tmp_path


def test_an_unknown_split_of_a_folder_is_refused_with_those_it_has(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"dataset\.split is 'test', and .* has talk; set dataset.split to one of them"
    ):
        HubDataset(path="a/b", split="test", data_dir=folder, **GERMAN).load()


def test_an_unknown_language_of_a_folder_is_refused_with_those_it_has(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"has no talk\.fr: the languages of talk are de, en"):
        HubDataset(path="a/b", split="talk", data_dir=folder, source_language="en", target_language="fr").load()


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset\.data_dir is .*gone, which is not a folder"):
        HubDataset(path="a/b", split="test", data_dir=tmp_path / "gone", **GERMAN).load()


def test_a_plain_file_goes_before_its_gzipped_twin(folder: Path) -> None:
    (folder / "talk.en.gz").write_bytes(gzip.compress(b"x\ny\n"))
    examples = HubDataset(path="a/b", split="talk", data_dir=folder, **GERMAN).load()
    assert [example.source for example in examples] == ["s1", "s2"]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_hub_out_of_reach_is_one_error_within_seconds(
    cache: Path, no_network: None, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    waits: list[float] = []  # between attempts; what the clock says depends on the machine
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ConnectionError) as error:
        HubDataset(path="bentrevett/multi30k", split="test", **GERMAN).load()
    assert sum(waits) < 10
    for part in ("bentrevett/multi30k", "offline", "dataset.data_dir=FOLDER", "test.en and test.de", "dataset=files"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_reading_the_hub_leaves_the_settings_of_datasets_alone(cache: Path, no_network: None) -> None:
    import datasets
    import huggingface_hub

    def settings() -> list[Any]:
        return [
            datasets.config.HF_HUB_OFFLINE,
            huggingface_hub.constants.HF_HUB_OFFLINE,
            datasets.are_progress_bars_disabled(),
            datasets.logging.get_verbosity(),
        ]

    before = settings()
    with pytest.raises(ConnectionError):
        HubDataset(path="bentrevett/multi30k", split="test", **GERMAN).load()
    assert settings() == before


def test_an_unknown_split_of_a_dataset_is_refused_with_those_it_has(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "corpus").mkdir()
    write_table(tmp_path / "corpus" / "test.jsonl", ROWS)
    dataset = HubDataset(path=str(tmp_path / "corpus"), split="test", **GERMAN)
    assert dataset.load() == EXPECTED
    with pytest.raises(ValueError, match=r"split 'dev'\) cannot be read: .*dev.*test"):
        HubDataset(path=str(tmp_path / "corpus"), split="dev", **GERMAN).load()


def test_splits_can_be_called_otherwise_on_the_hub(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "corpus").mkdir()
    write_table(tmp_path / "corpus" / "test.jsonl", ROWS)
    dataset = HubDataset(path=str(tmp_path / "corpus"), split="flickr", hub_splits={"flickr": "test"}, **GERMAN)
    assert dataset.load() == EXPECTED


# --- sacrebleu ---


def test_an_unknown_test_set_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"dataset\.testset is 'wmt14/ful'.* it has wmt14/full"):
        SacrebleuTestSet(testset="wmt14/ful", **GERMAN).load()


def test_a_pair_that_a_test_set_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"wmt14/full has no en-zh; it has .*en-de"):
        SacrebleuTestSet(testset="wmt14/full", source_language="en", target_language="zh").load()


@pytest.fixture
def sacrebleu_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where sacrebleu keeps wmt14/full, of this test alone."""
    from sacrebleu.dataset import DATASETS

    monkeypatch.setattr(DATASETS["wmt14/full"], "_outdir", str(tmp_path))
    monkeypatch.setattr(DATASETS["wmt14/full"], "_rawdir", str(tmp_path / "raw"))
    return tmp_path


def test_a_test_set_out_of_reach_is_one_error(sacrebleu_folder: Path, no_network: None) -> None:
    with pytest.raises(ConnectionError, match=r"wmt14/full en-de is not in .*cannot be downloaded.*dataset=files"):
        SacrebleuTestSet(testset="wmt14/full", **GERMAN).load()
    assert socket.getdefaulttimeout() is None


def test_a_test_set_that_was_fetched_before_needs_no_network(sacrebleu_folder: Path, no_network: None) -> None:
    from sacrebleu.dataset import DATASETS

    texts = {"src": "one\ntwo\n", "ref": "eins\nzwei\n"}
    for fieldname in DATASETS["wmt14/full"].fieldnames("en-de"):
        (sacrebleu_folder / f"wmt14_full.en-de.{fieldname}").write_text(texts.get(fieldname, "x\ny\n"))
    assert SacrebleuTestSet(testset="wmt14/full", **GERMAN).load() == [
        Example("wmt14-full-1", "one", "eins"),
        Example("wmt14-full-2", "two", "zwei"),
    ]


# --- configuration ---

NEEDED = {"files": ["dataset.source=a.en", "dataset.target=a.de"], "table": ["dataset.path=a.csv"], "hub": []}
NEEDED["hub"] = ["dataset.path=a/b"]
NEEDED["documents"] = NEEDED["files"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "dataset").glob("*.yaml")))
def test_every_dataset_of_the_configuration_can_be_made_and_cut(name: str) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        overrides = [f"+dataset={name}", "dataset.limit=5", "dataset.shuffle=true", "dataset.seed=3"]
        cfg = compose(overrides=overrides + NEEDED.get(name, []))
    dataset = instantiate(cfg.dataset)
    assert (dataset.source_language, dataset.target_language) == ("en", "de")
    assert (dataset.source_unit, dataset.target_unit) == ("word", "word")
    assert (dataset.limit, dataset.shuffle, dataset.seed) == (5, True, 3)
    assert dataset.name


def test_the_configuration_of_multi30k_reads_plain_files(shared: Path) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        overrides = ["+dataset=multi30k", f"dataset.data_dir={shared}/data/multi30k", "dataset.target_language=fr"]
        cfg = compose(overrides=overrides)
    examples = instantiate(cfg.dataset).load()
    assert len(examples) == 1000
    assert examples[-1].id == "multi30k-test_2016_flickr-1000"


def test_text_of_json_stays_the_text_of_the_file(tmp_path: Path):
    """Where all of a column look like dates, `datasets` makes dates of them."""
    path = tmp_path / "dates.jsonl"
    rows = [{"id": f"2026-11-{day}T10:00:00", "en": f"2026-11-{day}", "de": "ein Tag"} for day in (28, 29)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = Table(path=path, source_language="en", target_language="de").load()
    assert [(one.id, one.source) for one in found] == [(row["id"], row["en"]) for row in rows]


@pytest.mark.parametrize("name", ["talks.jsonl", "talks.json"])
def test_translations_may_have_other_languages_in_each_row(tmp_path: Path, name: str):
    rows = [{"translation": {"en": "a dog", "de": "ein Hund"}}, {"translation": {"fr": "un", "de": "ein", "en": "a"}}]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / name).write_text(lines if name.endswith("l") else json.dumps(rows))
    found = Table(path=tmp_path / name, source_language="en", target_language="de").load()
    assert [(one.source, one.reference) for one in found] == [("a dog", "ein Hund"), ("a", "ein")]
