"""Test sets that sacrebleu knows and downloads."""

import difflib
from dataclasses import dataclass

from streamllm.data.dataset import Dataset
from streamllm.data.outside import CONNECT_SECONDS, innermost
from streamllm.data.text import read_parallel
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class SacrebleuTestSet(Dataset):
    """A test set that sacrebleu knows and downloads (WMT, IWSLT 2017, …), with its first reference.

    Args:
        testset: the name in sacrebleu, e.g. "wmt14/full".
    """

    testset: str
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not isinstance(self.testset, str) or not self.testset:
            raise ValueError(f"dataset.testset is {self.testset!r}; a name such as wmt14/full is needed")
        if self.name is None:
            object.__setattr__(self, "name", self.testset.replace("/", "-"))
        super().__post_init__()

    def load(self) -> list[Example]:
        from sacrebleu.dataset import DATASETS

        if self.testset not in DATASETS:
            near = difflib.get_close_matches(self.testset, DATASETS, n=5) or list(DATASETS)
            raise ValueError(
                f"dataset.testset is {self.testset!r}, which sacrebleu does not have; it has "
                f"{', '.join(near)} (all: sacrebleu --list)"
            )
        pair = f"{self.source_language}-{self.target_language}"
        if pair not in DATASETS[self.testset].langpairs:
            raise ValueError(
                f"{self.testset} has no {pair}; it has {', '.join(DATASETS[self.testset].langpairs)}: "
                f"set dataset.source_language and dataset.target_language"
            )
        source, *references = _downloaded(self.testset, pair)
        if not references:
            raise ValueError(f"sacrebleu has no reference for {self.testset} {pair}: take another dataset.testset")
        return self._select(read_parallel(source, references[0], name=self.name, skip_empty=self.skip_empty))


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
            f"({innermost(error)}): connect once, or use dataset=files dataset.source=FILE dataset.target=FILE"
        ) from error
    except SystemExit as error:  # what sacrebleu does when a checksum differs
        raise ConnectionError(
            f"the download of test set {testset} is damaged: delete {SACREBLEU_DIR}/{testset} and try again"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
