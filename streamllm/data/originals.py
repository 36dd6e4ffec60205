"""Test sets in the files that their makers published: SGM and XML with segments, tagged text, columns of a table.

Texts are those of sacrebleu and of the hub: white space is joined, and what is no real XML (IWSLT, WMT before 2021)
keeps its entities, such as ``&amp;``."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from streamllm.data.lines import MAX_BYTES, FilePath, listed, read_bytes, read_lines, read_text

SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
TAGGED = "train.tags."
"""What names of IWSLT's training data begin with: a line is a sentence, or a tag such as ``<url>…</url>``."""
WITH_ALL_YEARS = {"ar", "de", "fr", "ja", "ko", "zh"}
"""Languages that IWSLT 2017 pairs with English in talks of six years; the others have those of 2010."""


def folder_of(data_dir: FilePath) -> Path:
    """Raises: FileNotFoundError: ``dataset.data_dir`` is no folder."""
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset.data_dir is {data_dir}, which is not a folder (from {Path.cwd()})")
    return root


def find_original(root: Path, relative: str) -> Path | None:
    """A file of an archive, plain or .gz, below the folder where the archive was unpacked or a folder inside: of
    ``test/a.sgm``, ``test/a.sgm`` or ``a.sgm``. None: it is not there."""
    parts = PurePosixPath(relative.removesuffix(".gz")).parts
    places = (root.joinpath(*parts[first:]) for first in range(len(parts)))
    files = (file for place in places for file in (place, place.with_name(place.name + ".gz")))
    return next((file for file in files if file.is_file()), None)


def iwslt_files(root: Path, split: str, source_language: str, target_language: str) -> list[tuple[Path, Path]]:
    """The files of a split of IWSLT 2017, sources and references; none where the folder has no file of IWSLT 2017.

    As on the hub, ``test`` is tst2010 to tst2015 one after the other and ``validation`` is dev2010. One year is a split
    too, such as ``tst2013``; of tst2016 and tst2017, the reference is the source of the other direction.

    Args:
        root: where the archive was unpacked, or the folder of the pair (``en-de``).

    Raises:
        ValueError: it has other files of IWSLT 2017, but not those.
    """
    pair, back = f"{source_language}-{target_language}", f"{target_language}-{source_language}"
    found, missing = [], []
    for part in _parts(split, pair):
        source = _first(root, _names(part, pair, source_language))
        target = _first(root, [*_names(part, pair, target_language), *_names(part, back, target_language)])
        if source and target:
            found.append((source, target))
        else:
            missing.append(_names(part, pair, source_language if source is None else target_language)[0])
    if not missing:
        return found
    folders = [folder for folder in (root, root / pair, *_folders(root, pair)) if folder.is_dir()]
    names = {file.name for folder in folders for file in folder.iterdir()}
    there = sorted(name for name in names if name.startswith(("IWSLT17.TED.", TAGGED)))
    if not there:
        return []
    raise ValueError(
        f"dataset.split is {split!r}, for which {root} lacks {listed([Path(name).name for name in missing])}; it has "
        f"{listed(there)}: put the missing files there, or set dataset.split to train, validation, test or one year "
        f"such as tst2013, and dataset.source_language and dataset.target_language to the pair"
    )


def _parts(split: str, pair: str) -> list[str]:
    if split == "test":
        every_year = bool(WITH_ALL_YEARS & set(pair.split("-")))
        return [f"tst{year}" for year in range(2010, 2016 if every_year else 2011)]
    return ["dev2010" if split == "validation" else split]


def _names(part: str, pair: str, language: str) -> list[str]:
    """The names of a file of IWSLT 2017 in its archive."""
    names = [f"IWSLT17.TED.{part}.{pair}.{language}.xml", f"IWSLT17.TED.{part}.mltlng.{pair}.{language}.xml"]
    if part == "train":
        names = [f"{TAGGED}{pair}.{language}"]
    return [str(folder / name) for folder in _folders(Path(), pair) for name in names]


def _folders(root: Path, pair: str) -> Iterator[Path]:
    yield root / "texts" / Path(*pair.split("-")) / pair
    yield root / "DeEnItNlRo-DeEnItNlRo"


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((file for name in names if (file := find_original(root, name))), None)


def is_original(file: Path) -> bool:
    """Whether not every line of it is a sentence."""
    return file.name.startswith(TAGGED) or _has_segments(file)


def _has_segments(file: Path) -> bool:
    return file.name.removesuffix(".gz").endswith((".sgm", ".xml"))


def read_pairs(
    source: Path, target: Path, columns: tuple[int | None, int | None] = (None, None), max_bytes: int | None = MAX_BYTES
) -> list[tuple[str, str]]:
    """Sources and references of two files, the first of one with the first of the other, and so on.

    Args:
        columns: of tab-separated files, from 0; None for other files.
        max_bytes: as for `streamllm.data.lines.read_lines`.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not what its name says, or they differ in length.
    """
    sides = [read_side(file, column, max_bytes) for file, column in zip((source, target), columns, strict=True)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{source} has {len(sides[0])} sentences and {target} has {len(sides[1])}; sentence i of one must "
            f"translate sentence i of the other: fetch both anew, or choose two that belong together"
        )
    pairs = list(zip(*sides, strict=True))
    if source.name.startswith(TAGGED):
        return [pair for pair in pairs if not pair[0].startswith("<")]  # tags have the same lines in both files
    return pairs


def read_side(file: Path, column: int | None = None, max_bytes: int | None = MAX_BYTES) -> list[str]:
    """The sentences of one file: segments of ``.sgm`` and ``.xml``, a column of a tab-separated file, or every line."""
    if _has_segments(file):
        return _segments(file, max_bytes)
    lines = read_lines(file, max_bytes) if column is None else read_text(file, max_bytes).rstrip("\n").split("\n")
    if column is None:
        return lines
    for number, line in enumerate(lines, start=1):
        if line.count("\t") < column:
            raise ValueError(f"line {number} of {file} has no column {column + 1}: fetch the file again")
    return [line.split("\t")[column].strip() for line in lines]


def _segments(file: Path, max_bytes: int | None) -> list[str]:
    text = read_text(file, max_bytes)
    segments = [" ".join(segment.split()) for segment in SEGMENT.findall(text)]
    begun = len(re.findall(r"<seg\b", text, re.IGNORECASE))
    if not segments or begun != len(segments):
        raise ValueError(
            f"{file} has {begun} <seg …>, of which {len(segments)} end with </seg>: it is damaged, or not of WMT "
            f"or IWSLT; fetch it again, or give plain text by dataset=files"
        )
    return segments


def read_wmt_xml(file: Path, translator: str, max_bytes: int | None = MAX_BYTES) -> list[tuple[str, str]]:
    """Sources and references of a test set of WMT since 2021: one XML file with all references.

    Test suites and segments without any reference are left out, as sacrebleu does.

    Args:
        translator: whose reference, such as "A"; "" for the one of no named translator.
        max_bytes: as for `streamllm.data.lines.read_lines`.

    Raises:
        ValueError: the file is not such XML, or has no reference of this translator.
    """
    try:
        root = ElementTree.fromstring(read_bytes(file, max_bytes))
        documents = [document for document in root.iter("doc") if "testsuite" not in document.attrib]
        pairs, translators = [], set()
        for document in documents:
            sources = _by_number(document.iter("src"))
            references = {side.get("translator", ""): _by_number([side]) for side in document.iter("ref")}
            translators |= set(references)
            for number in sorted(sources):
                if any(texts.get(number) for texts in references.values()):
                    pairs.append((sources[number], references.get(translator, {}).get(number, "")))
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a test set of WMT in XML ({error}): fetch it again") from error
    if translator not in translators:
        there = listed(sorted(map(repr, translators))) or "none"
        raise ValueError(
            f"{file} has no reference of translator {translator!r}; translators of its references: {there}. Take the "
            f"file with references, or another dataset.testset (wmt21/B, wmt21/C …)"
        )
    return pairs


def _by_number(sides: Iterator[ElementTree.Element] | list[ElementTree.Element]) -> dict[int, str]:
    segments = [segment for side in sides for segment in side.iter("seg")]
    return {int(segment.get("id", "")): " ".join("".join(segment.itertext()).split()) for segment in segments}
