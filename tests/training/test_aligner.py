"""Labels by a word aligner: what a word needs by hand, files and eflomal alike; each mistake is one clear error."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from test_heads import PAIRS, model, tokenized
from test_train_head import folder, layers, trained

from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training.heads.alignments import by_eflomal, from_file, needed
from streamllm.training.heads.cells import Parts, cells_of, every_path
from streamllm.training.heads.labels.aligner import Aligner
from streamllm.training.heads.measured import CellConfig, measure

__all__ = ["folder", "model"]

FOUR = (["a", "b", "c", "d"], ["W", "X", "Y", "Z"])


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("0-0 1-1 2-2 3-3", [1, 2, 3, 4]),
        ("3-0 0-1 1-2 2-3", [4, 4, 4, 4]),  # what comes behind a late word waits for it
        ("1-1 3-3", [0, 2, 2, 4]),  # without a link: what was needed by then
        ("0-0 2-0 1-0 0-1", [3, 3, 3, 3]),  # several links: the last one
        ("2-2 0-0", [1, 1, 3, 3]),  # in any order
        ("", [0, 0, 0, 0]),
    ],
)
def test_a_word_needs_the_last_source_word_that_it_or_one_before_it_is_linked_to(line: str, needs: list[int]) -> None:
    assert needed(line, FOUR, "here").tolist() == needs


def test_write_is_right_once_that_has_been_read(model: StreamingModel) -> None:
    """dog, cat the end. by 1-0 0-1 2-3: dog needs 2 words, cat and the need them, too, end and its full stop 3, and the
    end of the sentence all."""
    pair = tokenized(model)[0]
    parts = Parts.of(pair, model.prompt)
    (cells,) = cells_of(model, [pair], [every_path(parts, 3, 0)])
    object.__setattr__(cells, "needs", needed("1-0 0-1 2-3", (pair.source, pair.target), "here"))
    need = [2, 2, 2, 2, 3, 3, 3]  # dog , cat the end . </s>
    assert Aligner().needed(cells).tolist() == need
    for labels, beyond in ((Aligner(), 0), (Aligner(beyond=1), 1)):
        found = labels.targets(labels.measured(cells))
        for right, read, part in zip(found, cells.read, cells.part, strict=True):
            assert right == (read >= need[part] + beyond)


def words(pairs: list[Example]) -> list[Any]:
    return [(one.source.split(), one.reference.split()) for one in pairs]


LINES = ["0-0 1-1 2-3", "0-1", ""]


def written(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_a_file_has_a_line_for_each_pair(tmp_path: Path) -> None:
    found = from_file(Path(written(tmp_path / "links", LINES)), words(PAIRS))
    assert [one.tolist() for one in found] == [[1, 2, 2, 3], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (LINES[:2], "links has 2 lines, and the data set 3 pairs"),
        ([*LINES, ""], "links has 4 lines, and the data set 3 pairs"),
        (["0-0", "1-0", ""], "links, line 2: '1-0' is no link of this pair, which has 1 source words and 2 target"),
        (["0-0", "0-2", ""], "links, line 2: '0-2' is no link of this pair"),
        (["0-0", "", "0p0"], "links, line 3: '0p0' is no link; one is SOURCE-TARGET, words from 0, such as 0-0"),
        (["0-0 -1-2", "", ""], "links, line 1: '-1-2' is no link; one is"),
        (["0 - 0", "", ""], "links, line 1: '0' is no link; one is"),
    ],
)
def test_a_file_that_does_not_fit_is_an_error_that_says_where(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_file(Path(written(tmp_path / "links", lines)), words(PAIRS))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.path is '.*links', which cannot be read"):
        from_file(tmp_path / "links", words(PAIRS))


class Random:
    """An aligner as eflomal is one: it gives something else each time."""

    times = 0
    given: ClassVar[list[str]] = []

    def align(self, sources: list[str], targets: list[str], links_filename_fwd: str, quiet: bool) -> None:
        Random.times, Random.given = Random.times + 1, targets
        lines = [f"{Random.times % len(one.split())}-0" for one in sources]
        Path(links_filename_fwd).write_text("".join(f"{line}\n" for line in lines))
        assert len(sources) == len(targets) and quiet


@pytest.fixture
def eflomal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eflomal", SimpleNamespace(Aligner=Random))  # type: ignore[arg-type]


def test_what_eflomal_gave_is_kept(eflomal: None, tmp_path: Path) -> None:
    first = by_eflomal(words(PAIRS), tmp_path)
    assert Random.given == ["dog cat the end", "the dog", "a b"], "without punctuation, and as many words"
    times = Random.times
    again = by_eflomal(words(PAIRS), tmp_path)
    assert Random.times == times
    assert [one.tolist() for one in again] == [one.tolist() for one in first]
    by_eflomal(words(PAIRS[:1]), tmp_path)
    assert Random.times == times + 1 and len([*tmp_path.iterdir()]) == 2, "other data are aligned anew"


def test_without_eflomal_the_error_names_what_installs_it_and_the_file(
    model: StreamingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "eflomal", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"eflomal, which is not there: pip install .*aligner.*labels\.path=FILE"):
        measure(model, PAIRS, Aligner(), CellConfig(), tmp_path, "weights")
    assert not [*tmp_path.iterdir()]


def test_a_sentence_that_eflomal_would_leave_without_links_is_an_error(eflomal: None, tmp_path: Path) -> None:
    long = [(["a"] * 1024, ["b"])]
    with pytest.raises(ValueError, match=r"a sentence has 1024 words, and eflomal aligns at most 1023"):
        by_eflomal(long, tmp_path)
    assert len(by_eflomal([(["a"] * 1023, ["b"])], tmp_path)) == 1


def test_links_belong_to_their_pairs_whatever_is_left_out_and_in_whatever_order(
    model: StreamingModel, tmp_path: Path
) -> None:
    """The middle pair is empty; pairs stand by length in what is kept."""
    pairs = [PAIRS[0], Example("empty", "", "x"), PAIRS[1]]
    path = written(tmp_path / "links", ["2-0", "", "0-1"])
    labels = Aligner(path=path, validation_path=path)
    found = measure(model, pairs, labels, CellConfig(rows=None, ahead=0), tmp_path / "kept", "weights")
    short, long = found.units == 1, found.units == 3
    by_written = {0: 1, 1: 0, 2: 0}  # the dog: read 1 - needs 0, 1 and, at the end, 1
    assert all(by_written[w] == m for w, m in zip(found.written[short], found.measured[short], strict=True))
    np.testing.assert_array_equal(found.measured[long], found.read[long] - 3)


def test_other_links_are_measured_anew(model: StreamingModel, tmp_path: Path) -> None:
    for lines in (LINES, [*LINES[:2], "0-0"], LINES):
        path = written(tmp_path / "links", lines)
        measure(model, PAIRS, Aligner(path=path, validation_path=path), CellConfig(), tmp_path / "kept", "weights")
    assert len([*(tmp_path / "kept").iterdir()]) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": "a"}, "labels.path is given, and labels.validation_path is null"),
        ({"validation_path": "a"}, "labels.validation_path is given, and labels.path is null"),
        ({"path": 3, "validation_path": "a"}, "labels.path is 3; it is text"),
        ({"beyond": -1}, "labels.beyond is -1; it is a whole number of source units, at least 0"),
    ],
)
def test_what_is_not_accepted_is_said_with_its_key(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Aligner(**values)


def test_characters_are_not_linked(model: StreamingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.prompt, "target_unit", "character")
    with pytest.raises(ValueError, match=r"labels=aligner links words, and a side of the data is in characters"):
        Aligner().needs(PAIRS, [0], model.prompt, tmp_path)


def test_a_head_is_trained_on_them_and_a_stopped_training_goes_on(eflomal: None, folder: Path) -> None:
    whole = trained(folder, labels=Aligner())
    kept = {file.name: file.read_bytes() for file in (whole / "labels").glob("eflomal-*")}
    assert len(kept) == 1  # training and validation data are the same here
    with pytest.raises(KeyboardInterrupt):
        trained(folder, "stopped", 4, labels=Aligner())
    (run,) = (folder / "stopped").iterdir()
    times = Random.times
    half = {file.name: file.read_bytes() for file in (run / "labels").glob("eflomal-*")}
    trained(folder, "stopped", labels=Aligner())
    assert Random.times == times, "what it was given is not aligned again"
    assert half == {file.name: file.read_bytes() for file in (run / "labels").glob("eflomal-*")}
    assert all(np.isfinite(array).all() for array in layers(run))
