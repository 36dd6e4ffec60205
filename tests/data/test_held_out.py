"""Files divided for a training: what is held out is not learned from, and the other way round."""

from pathlib import Path

import pytest

from streamllm.data.held_out import HeldOut, Remaining


def both(folder: Path, lines: int, **more: object) -> tuple[HeldOut, Remaining]:
    for code in ("en", "de"):
        (folder / f"talk.{code}").write_text("".join(f"{code} {n}\n" for n in range(lines)))
    files = {"source": folder / "talk.en", "target": folder / "talk.de", **more}
    return HeldOut(**files), Remaining(**files)  # type: ignore[arg-type]


@pytest.mark.parametrize(("lines", "count"), [(2, 1), (19, 1), (20, 1), (300, 15), (999, 49)])
def test_each_pair_is_in_one_of_the_parts(tmp_path: Path, lines: int, count: int):
    held, rest = both(tmp_path, lines)
    sources = [example.source for part in (held, rest) for example in part.load()]
    assert sorted(sources) == sorted(f"en {n}" for n in range(lines))
    assert len(held.load()) == count
    for part in (held, rest):
        assert [example.source for example in part.stream()] == [example.source for example in part.load()]


def test_no_more_than_most_are_held_out(tmp_path: Path):
    held, rest = both(tmp_path, 300, most=4)
    assert (len(held.load()), len(rest.load())) == (4, 296)


def test_a_part_of_the_files_is_divided_alike(tmp_path: Path):
    held, rest = both(tmp_path, 300, limit=100, shuffle=True)
    assert len(held.load()) + len(rest.load()) == 100
    assert not {example.id for example in held.load()} & {example.id for example in rest.load()}


def test_documents_are_not_divided(tmp_path: Path):
    with pytest.raises(ValueError, match="dataset@validation=files"):
        both(tmp_path, 40, sentences_per_document=2)
