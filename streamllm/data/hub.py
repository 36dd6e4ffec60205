"""Data sets of the Hugging Face hub. Nothing here waits for an absent network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamllm.data.columns import RowDataset
from streamllm.data.dataset import LANGUAGE_CODE
from streamllm.data.lines import FilePath, listed
from streamllm.data.originals import folder_of, is_original, iwslt_files, read_pairs
from streamllm.data.outside import CONNECT_SECONDS, innermost, quiet_datasets
from streamllm.data.pairs import to_examples
from streamllm.data.text import read_parallel, stream_parallel
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class HubDataset(RowDataset):
    """A dataset of the Hugging Face hub, or a folder of text files in its place.

    Without a network a copy in the cache of ``datasets`` is used if there is one.

    Args:
        path: the hub id, or a local folder that ``datasets`` can read.
        subset: what the hub calls a configuration, e.g. "iwslt2017-en-de".
        split: the split, e.g. "test"; slices such as "train[:1%]" are for the hub only.
        hub_splits: what the hub calls those splits that have another name there.
        revision: branch, tag or commit of the hub's repository.
        folder: the folder of the hub's repository that holds the splits, where it has no subsets.
        data_dir: a folder with text files ``<split>.<language>`` or ``<split>.<language>.gz``, or with those of
            Multi30k or IWSLT 2017 as they were published (docs/own_data_set.md), read instead.
    """

    path: str
    split: str
    subset: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    folder: str | None = None
    data_dir: FilePath | None = None
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for key in ("path", "split"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise ValueError(f"dataset.{key} is {getattr(self, key)!r}; a name is needed")
        if self.name is None:
            object.__setattr__(self, "name", f"{self.path.split('/')[-1]}-{self.split}")
        super().__post_init__()

    def load(self) -> list[Example]:
        if self.data_dir is not None:
            return self._select(self._from_files())
        return self._examples(self._rows(), self.path)

    def _stream(self) -> Iterator[Example]:
        if self.data_dir is not None:
            source, target, *_ = self.files()
            if is_original(source):
                return iter(self._from_files())
            return stream_parallel(source, target, name=self.name, skip_empty=self.skip_empty, max_bytes=self.max_bytes)
        return self._example_stream(self._rows(streaming=True), self.path)

    def files(self) -> list[Path]:
        if self.data_dir is None:
            folder = Path(self.path)  # one that `datasets` reads, or else a hub id
            return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
        self._refuse_one_language()
        return _files_of_split(self.data_dir, self.split, self.source_language, self.target_language)

    def _from_files(self) -> list[Example]:
        """Of some tests, several files, one after the other."""
        files = self.files()
        sources, targets = files[::2], files[1::2]
        if not is_original(sources[0]):
            return read_parallel(
                sources[0], targets[0], name=self.name, skip_empty=self.skip_empty, max_bytes=self.max_bytes
            )
        pairs = [
            pair
            for source, target in zip(sources, targets, strict=True)
            for pair in read_pairs(source, target, max_bytes=self.max_bytes)
        ]
        places = (listed(sources), listed(targets))
        return to_examples(pairs, name=self.name, places=places, unit="sentence", skip_empty=self.skip_empty)

    def _rows(self, streaming: bool = False) -> Any:
        return load_hub(
            self.path,
            self.subset,
            self.hub_splits.get(self.split, self.split),
            self.revision,
            self.folder,
            otherwise=(
                f"give dataset.data_dir=FOLDER with files {self.split}.{self.source_language} and "
                f"{self.split}.{self.target_language} (or .gz){self._or_originals()}, or dataset=files "
                f"dataset.source=FILE dataset.target=FILE"
            ),
            streaming=streaming,
        )

    def _or_originals(self) -> str:
        if "iwslt2017" not in self.path.lower():
            return ""
        source, target = self.source_language, self.target_language
        return f" or IWSLT17.TED.*.{source}-{target}.{source}.xml and *.{target}.xml as they were published"


def _files_of_split(folder: FilePath, split: str, source_language: str, target_language: str) -> list[Path]:
    """The files ``<split>.<language>`` or ``<split>.<language>.gz`` of a folder, or of a clone of Multi30k's
    repository, or those of IWSLT 2017: source, target, source, target, …"""
    root = folder_of(folder)
    if (root / "data" / "task1" / "raw").is_dir():
        folder = root = root / "data" / "task1" / "raw"
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(root.iterdir(), reverse=True):  # so that x.en comes after x.en.gz and takes its place
        stemmed, _, language = file.name.removesuffix(".gz").rpartition(".")
        if stemmed and LANGUAGE_CODE.fullmatch(language) and file.is_file():
            found.setdefault(stemmed, {})[language] = file
    if split not in found and (originals := iwslt_files(root, split, source_language, target_language)):
        return [file for pair in originals for file in pair]
    if split not in found:
        whole = sorted(name for name, files in found.items() if len(files) > 1)
        if not whole:
            pair = f"{split}.{source_language} and {split}.{target_language}"
            raise ValueError(f"dataset.data_dir is {folder}, which has no {pair}: give the folder that has them")
        raise ValueError(
            f"dataset.split is {split!r}, and {folder} has {listed(whole)}; set dataset.split to one of them"
        )
    missing = [language for language in (source_language, target_language) if language not in found[split]]
    if missing:
        raise ValueError(
            f"{folder} has no {split}.{missing[0]}: the languages of {split} are "
            f"{listed(sorted(found[split]))}; set dataset.source_language and dataset.target_language"
        )
    return [found[split][source_language], found[split][target_language]]


def load_hub(
    path: str,
    subset: str | None,
    split: str,
    revision: str | None,
    folder: str | None,
    otherwise: str,
    streaming: bool = False,
) -> Any:
    """The rows (a ``datasets.Dataset``) of one split of a dataset of the hub, or of a folder.

    With ``streaming`` they come one by one (a ``datasets.IterableDataset``); a data set on the hub is then neither
    copied to the disk nor read from an earlier copy.

    Without a network, ``datasets``' own copy of an earlier download is read. ``otherwise`` says, for the
    error, what to do when there is none.

    Raises:
        ConnectionError: the hub is out of reach, within seconds.
        ValueError: the hub has no such dataset, subset or split.
    """
    with quiet_datasets() as datasets:
        unreachable = None if Path(path).is_dir() else _why_unreachable(datasets.config.HF_ENDPOINT)
        try:
            with _offline() if unreachable else nullcontext():
                if folder is None:
                    return datasets.load_dataset(path, subset, revision=revision, split=split, streaming=streaming)
                return datasets.load_dataset(_fetched_folder(path, revision, folder), split=split, streaming=streaming)
        except (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError) as error:
            if unreachable:
                raise ConnectionError(
                    f"split {split!r} of dataset {path} is not on this machine and the hub is out of reach "
                    f"({unreachable}): {otherwise}"
                ) from error
            if "scripts are no longer supported" in str(error):
                raise ValueError(_no_script(path, otherwise)) from error
            raise ValueError(
                f"dataset {path} (subset {subset!r}, split {split!r}) cannot be read: {innermost(error)}; "
                f"see dataset.path, dataset.subset and dataset.split"
            ) from error


def _no_script(path: str, otherwise: str) -> str:
    instead = (
        "dataset=iwslt2017 reads its rows"
        if path.lower().endswith("iwslt2017")
        else "dataset.revision=refs/convert/parquet dataset.folder=SUBSET reads its rows if the hub has them as Parquet"
    )
    return f"dataset {path} is a loading script, which `datasets` no longer runs: {instead}; otherwise {otherwise}"


def _fetched_folder(path: str, revision: str | None, folder: str) -> str:
    # `datasets` could read the folder itself, but without a network it would not find its copy again.
    import huggingface_hub

    root = huggingface_hub.snapshot_download(path, repo_type="dataset", revision=revision, allow_patterns=f"{folder}/*")
    if not (Path(root) / folder).is_dir():
        raise FileNotFoundError(f"it has no folder {folder} (revision {revision or 'main'})")
    return str(Path(root) / folder)


def _why_unreachable(endpoint: str) -> str | None:
    """Why the hub cannot be asked, or None. One try that takes seconds; ``datasets`` would take half a minute."""
    import datasets
    import huggingface_hub

    if datasets.config.HF_HUB_OFFLINE:
        return "offline: HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set"
    try:
        huggingface_hub.get_session().head(endpoint, timeout=CONNECT_SECONDS)
    except Exception as error:  # which kind depends on huggingface_hub's HTTP library (requests or httpx)
        return f"offline: {endpoint} does not answer, {innermost(error)}"
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """``datasets`` and ``huggingface_hub`` read only their caches meanwhile."""
    import datasets
    import huggingface_hub

    places = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
