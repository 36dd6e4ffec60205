"""Test sets that sacrebleu knows and downloads."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamllm.data.dataset import Dataset
from streamllm.data.lines import FilePath, listed
from streamllm.data.originals import find_original, folder_of, read_pairs, read_wmt_xml
from streamllm.data.outside import CONNECT_SECONDS, innermost
from streamllm.data.pairs import to_examples
from streamllm.data.text import read_parallel
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class SacrebleuTestSet(Dataset):
    """A test set that sacrebleu knows and downloads (WMT, IWSLT 2017, …), with its first reference.

    Args:
        testset: the name in sacrebleu, e.g. "wmt14/full".
        data_dir: a folder with the files of the test set as they were published (docs/own_data_set.md), read instead.
    """

    testset: str
    data_dir: FilePath | None = None
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not isinstance(self.testset, str) or not self.testset:
            raise ValueError(f"dataset.testset is {self.testset!r}; a name such as wmt14/full is needed")
        if self.name is None:
            object.__setattr__(self, "name", self.testset.replace("/", "-"))
        super().__post_init__()

    def load(self) -> list[Example]:
        if self.data_dir is not None:
            return self._select(self._from_files(self.data_dir))
        self._known()
        pair = f"{self.source_language}-{self.target_language}"
        source, *references = _downloaded(self.testset, pair)
        if not references:
            raise ValueError(f"sacrebleu has no reference for {self.testset} {pair}: take another dataset.testset")
        return self._select(read_parallel(source, references[0], name=self.name, skip_empty=self.skip_empty))

    def files(self) -> list[Path]:
        if self.data_dir is None:
            return []
        return [file for file, _ in _found(self.data_dir, self.testset, self._known()[0])]

    def _known(self) -> tuple[list[str], str]:
        """What sacrebleu knows of the test set in this language pair: its file or two, and whose reference counts."""
        from sacrebleu.dataset import DATASETS

        if self.testset not in DATASETS:
            near = difflib.get_close_matches(self.testset, DATASETS, n=5) or list(DATASETS)
            raise ValueError(
                f"dataset.testset is {self.testset!r}, which sacrebleu does not have; it has "
                f"{', '.join(near)} (all: sacrebleu --list)"
            )
        dataset, pair = DATASETS[self.testset], f"{self.source_language}-{self.target_language}"
        if pair not in dataset.langpairs:
            raise ValueError(
                f"{self.testset} has no {pair}; it has {', '.join(dataset.langpairs)}: "
                f"set dataset.source_language and dataset.target_language"
            )
        of_pair = dataset.langpairs[pair]
        if not isinstance(of_pair, dict):
            of_pair = {"paths": of_pair[:2]}
        return of_pair.get("paths", [of_pair.get("path")]), {"refs": [""], **dataset.kwargs, **of_pair}["refs"][0]

    def _from_files(self, data_dir: FilePath) -> list[Example]:
        paths, translator = self._known()
        found = _found(data_dir, self.testset, paths)
        files = [file for file, _ in found]
        if len(files) == 1:
            pairs = read_wmt_xml(files[0], translator, self.max_bytes)
        else:
            pairs = read_pairs(files[0], files[1], (found[0][1], found[1][1]), self.max_bytes)
        places = (str(files[0]), str(files[-1]))
        return to_examples(pairs, name=self.name, places=places, unit="sentence", skip_empty=self.skip_empty)


def _found(data_dir: FilePath, testset: str, paths: Sequence[str]) -> list[tuple[Path, int | None]]:
    """The files of a test set in a folder, each with its column if it is tab-separated.

    Raises:
        FileNotFoundError: one of them is not there, or the folder.
    """
    root = folder_of(data_dir)
    found = []
    for path in paths:
        column, _, relative = path.rpartition(":")
        file = next((file for name in _names(relative, testset) if (file := find_original(root, name))), None)
        if file is None:
            wanted = list(dict.fromkeys(_names(path.rpartition(":")[2], testset)[0] for path in paths))
            raise FileNotFoundError(
                f"{root} lacks {relative} of {testset}: put {listed(wanted)} (or .gz) there, or leave "
                f"out dataset.data_dir and let sacrebleu fetch them"
            )
        found.append((file, int(column) if column else None))
    return found


def _names(relative: str, testset: str) -> list[str]:
    """What a file is called by its makers and by sacrebleu. Some archives of WMT call both directions by the one
    (``newstest2014-deen-src.en.sgm``), and IWSLT's have a pair in ``texts/en/de/en-de``."""
    plain = relative.removeprefix(testset.replace("/", "_") + ".")
    turned = re.sub(r"-([a-z]{2})([a-z]{2})-(src|ref)\.", r"-\2\1-\3.", plain)
    nested = re.sub(r"^([a-z]{2})-([a-z]{2})/", r"texts/\1/\2/\1-\2/", plain)
    return [plain, relative, turned, nested]


def _downloaded(testset: str, pair: str) -> list[str]:
    """The files of a test set of sacrebleu: source, then references."""
    import socket

    from sacrebleu.utils import SACREBLEU_DIR, get_reference_files, get_source_file

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)  # sacrebleu itself would wait without end
    try:
        return [get_source_file(testset, pair), *get_reference_files(testset, pair)]
    except OSError as error:
        raise ConnectionError(
            f"test set {testset} {pair} is not in {SACREBLEU_DIR} and cannot be downloaded "
            f"({innermost(error)}): connect once, or give dataset.data_dir=FOLDER with its files as they were "
            "published, or use dataset=files dataset.source=FILE dataset.target=FILE"
        ) from error
    except SystemExit as error:  # what sacrebleu does when a checksum differs
        raise ConnectionError(
            f"the download of test set {testset} is damaged: delete {SACREBLEU_DIR}/{testset} and try again"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
