"""Test sets from files laid out as their makers published them; the sentences are made up."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from streamllm.data.dataset import Dataset
from streamllm.data.hub import HubDataset
from streamllm.data.sacrebleu_set import SacrebleuTestSet
from streamllm.records import Example
from streamllm.runs.naming import digest

CONF = Path(__file__).parents[2] / "conf"
IWSLT_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<mteval>\n<srcset setid="iwslt2017-tst" srclang="english">\n'
SGM_HEAD = '<srcset setid="newstest" srclang="any">\n'
TALK = '<doc docid="1" genre="lectures">\n<title>A & B</title>\n<description>TED Talk: <b></description>\n'


def made(*overrides: str) -> Dataset:
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        dataset: Dataset = instantiate(compose(overrides=[f"+{overrides[0]}", *overrides[1:]]).dataset)
    return dataset


def pairs(*overrides: str) -> list[tuple[str, str]]:
    return [(example.source, example.reference) for example in made(*overrides).load()]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def segments(head: str, *texts: str) -> str:
    return head + TALK + "".join(f'<seg id="{i}"> {text} </seg>\n' for i, text in enumerate(texts, 1)) + "</doc>\n"


def put_iwslt(folder: Path, part: str, pair: str, language: str, *texts: str) -> None:
    put(folder / f"IWSLT17.TED.{part}.{pair}.{language}.xml", segments(IWSLT_HEAD, *texts))


# --- IWSLT 2017 ---


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """The folder en-de of the archive of training data, with years 2010 to 2015."""
    for part in ("dev2010", *(f"tst{year}" for year in range(2010, 2016))):
        put_iwslt(tmp_path / "en-de", part, "en-de", "en", f"one of {part}", "tea &amp;  milk")
        put_iwslt(tmp_path / "en-de", part, "en-de", "de", f"eins von {part}", "Tee &amp; Milch")
    put(tmp_path / "en-de" / "train.tags.en-de.en", "<url>x</url>\nthe first\n<title>A</title>\nthe second\n</doc>\n")
    put(tmp_path / "en-de" / "train.tags.en-de.de", "<url>x</url>\ndas erste\n<title>B</title>\ndas zweite\n</doc>\n")
    return tmp_path


@pytest.mark.parametrize("below", ["", "en-de"])
def test_one_year_of_iwslt_is_a_split(talks: Path, below: str) -> None:
    found = made("dataset=iwslt2017", f"dataset.data_dir={talks / below}", "dataset.split=tst2013").load()
    assert found == [
        Example("iwslt2017-tst2013-1", "one of tst2013", "eins von tst2013"),
        Example("iwslt2017-tst2013-2", "tea &amp; milk", "Tee &amp; Milch"),  # as in the rows of the hub
    ]


def test_the_test_split_of_iwslt_is_six_years_in_their_order_as_on_the_hub(talks: Path) -> None:
    dataset = made("dataset=iwslt2017", f"dataset.data_dir={talks}")
    sources = [example.source for example in dataset.load()]
    assert sources[::2] == [f"one of tst{year}" for year in range(2010, 2016)]
    assert [example.source for example in dataset.stream()] == sources
    assert len(dataset.files()) == 12


def test_validation_and_training_data_of_iwslt(talks: Path) -> None:
    folder = ("dataset=iwslt2017", f"dataset.data_dir={talks}")
    assert pairs(*folder, "dataset.split=validation")[0] == ("one of dev2010", "eins von dev2010")
    assert pairs(*folder, "dataset.split=train") == [("the first", "das erste"), ("the second", "das zweite")]


def test_the_reference_of_tst2017_is_the_source_of_the_other_direction(tmp_path: Path) -> None:
    put_iwslt(tmp_path / "texts/en/de/en-de", "tst2017", "en-de", "en", "a word")
    put_iwslt(tmp_path / "texts/de/en/de-en", "tst2017", "de-en", "de", "ein Wort")
    folder = f"dataset.data_dir={tmp_path}"
    assert pairs("dataset=iwslt2017", folder, "dataset.split=tst2017") == [("a word", "ein Wort")]
    assert pairs("dataset=wmt", folder, "dataset.testset=iwslt17") == [("a word", "ein Wort")]


def test_a_year_that_the_folder_lacks_is_refused_with_what_it_has(talks: Path) -> None:
    (talks / "en-de" / "IWSLT17.TED.tst2011.en-de.de.xml").unlink()
    with pytest.raises(
        ValueError, match=r"'test', for which .* lacks IWSLT17\.TED\.tst2011\.en-de\.de\.xml; it has .*tst"
    ):
        made("dataset=iwslt2017", f"dataset.data_dir={talks}").load()


def test_files_of_different_length_are_refused(talks: Path) -> None:
    put_iwslt(talks / "en-de", "tst2013", "en-de", "de", "eins")
    with pytest.raises(ValueError, match=r"en\.xml has 2 sentences and .*de\.xml has 1; sentence i"):
        made("dataset=iwslt2017", f"dataset.data_dir={talks}", "dataset.split=tst2013").load()


def test_a_segment_without_an_end_is_refused(talks: Path) -> None:
    file = talks / "en-de" / "IWSLT17.TED.tst2013.en-de.en.xml"
    file.write_text(file.read_text().replace("milk </seg>", "milk"))
    with pytest.raises(ValueError, match=r"has 2 <seg …>, of which 1 end"):
        made("dataset=iwslt2017", f"dataset.data_dir={talks}", "dataset.split=tst2013").load()


def test_an_empty_segment_is_refused_unless_it_is_to_be_left_out(talks: Path) -> None:
    put_iwslt(talks / "en-de", "tst2013", "en-de", "de", "eins", "")
    words = ("dataset=iwslt2017", f"dataset.data_dir={talks}", "dataset.split=tst2013")
    with pytest.raises(ValueError, match=r"1 empty reference sentence in .*de\.xml \(sentence 2\)"):
        made(*words).load()
    assert pairs(*words, "dataset.skip_empty=true") == [("one of tst2013", "eins")]


# --- WMT ---


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("below", ["", "test-full"])
@pytest.mark.parametrize("code", ["deen", "ende"])
def test_sgm_of_wmt(tmp_path: Path, code: str, below: str, ending: str) -> None:
    put(tmp_path / below / f"newstest2014-{code}-src.en.sgm{ending}", segments(SGM_HEAD, "one", "two"))
    put(tmp_path / below / f"newstest2014-{code}-ref.de.sgm{ending}", segments(SGM_HEAD, "eins", "zwei"))
    dataset = made("dataset=wmt", f"dataset.data_dir={tmp_path}")
    assert dataset.load() == [Example("wmt14-full-1", "one", "eins"), Example("wmt14-full-2", "two", "zwei")]
    assert [file.name for file in dataset.files()] == [
        f"newstest2014-{code}-src.en.sgm{ending}",
        f"newstest2014-{code}-ref.de.sgm{ending}",
    ]


def test_texts_are_those_that_sacrebleu_makes_of_the_same_files(tmp_path: Path) -> None:
    from sacrebleu.dataset.fake_sgml import FakeSGMLDataset

    texts = segments(SGM_HEAD, "tea &amp;   milk", "a < b", "“x”\u00a0y", "<hl>z</hl>")
    put(tmp_path / "newstest2016-ende-src.en.sgm", texts)
    put(tmp_path / "newstest2016-ende-ref.de.sgm", texts)
    FakeSGMLDataset("x", data=[], langpairs={})._convert_format(
        str(tmp_path / "newstest2016-ende-src.en.sgm"), str(tmp_path / "lines")
    )
    sources = [source for source, _ in pairs("dataset=wmt", "dataset.testset=wmt16", f"dataset.data_dir={tmp_path}")]
    assert sources == (tmp_path / "lines").read_text().splitlines()


WMT_XML = """<?xml version='1.0' encoding='utf-8'?>
<dataset id="newstest2021.en-de">
<doc origlang="en" id="news.1">
<src lang="en"><p><seg id="1">one</seg><seg id="2">tea &amp; milk</seg></p><p><seg id="3">three</seg></p></src>
<ref lang="de" translator="C"><p><seg id="1">EINS</seg><seg id="2">TEE</seg></p></ref>
<ref lang="de" translator="A"><p><seg id="2">Tee &amp; Milch</seg><seg id="1">eins</seg></p></ref>
<hyp system="S" lang="de"><p><seg id="1">x</seg><seg id="2">y</seg><seg id="3">z</seg></p></hyp>
</doc>
<doc origlang="en" id="suite" testsuite="s"><src lang="en"><p><seg id="1">no</seg></p></src></doc>
</dataset>
"""


def test_xml_of_wmt_since_2021_gives_the_reference_that_sacrebleu_takes(tmp_path: Path) -> None:
    put(tmp_path / "test" / "newstest2021.en-de.xml", WMT_XML)
    words = ("dataset=wmt", f"dataset.data_dir={tmp_path}")
    assert pairs(*words, "dataset.testset=wmt21") == [("one", "eins"), ("tea & milk", "Tee & Milch")]
    assert pairs(*words, "dataset.testset=wmt21/C") == [("one", "EINS"), ("tea & milk", "TEE")]
    with pytest.raises(ValueError, match=r"no reference of translator 'D'; translators of its references: 'A', 'C'"):
        made(*words, "dataset.testset=wmt21/D").load()


@pytest.mark.parametrize(
    ("testset", "file", "translator", "pair"),
    [
        ("wmt22", "wmttest2022.en-cs.all.xml", "B", "en-cs"),
        ("wmt22", "wmttest2022.liv-en.all.xml", "", "liv-en"),
        ("wmt23", "wmttest2023.en-de.all.xml", "refA", "en-de"),
    ],
)
def test_each_year_and_pair_of_wmt_has_its_translator(
    tmp_path: Path, testset: str, file: str, translator: str, pair: str
) -> None:
    named = f' translator="{translator}"' if translator else ""
    put(tmp_path / "xml" / file, WMT_XML.replace(' translator="A"', named))
    languages = [
        f"dataset.{side}_language={code}" for side, code in zip(("source", "target"), pair.split("-"), strict=True)
    ]
    found = pairs("dataset=wmt", f"dataset.data_dir={tmp_path}", f"dataset.testset={testset}", *languages)
    assert found[0] == ("one", "eins")


def test_damaged_xml_is_one_line(tmp_path: Path) -> None:
    put(tmp_path / "newstest2021.en-de.xml", WMT_XML[:300])
    with pytest.raises(
        ValueError, match=r"newstest2021\.en-de\.xml is not a test set of WMT in XML \(.*fetch it again"
    ):
        made("dataset=wmt", f"dataset.data_dir={tmp_path}", "dataset.testset=wmt21").load()


def test_other_test_sets_of_sacrebleu_are_text_and_tables(tmp_path: Path) -> None:
    put(tmp_path / "test_2018_flickr.en", "a dog\n")
    put(tmp_path / "test_2018_flickr.de.gz", "ein Hund\n")
    put(tmp_path / "MTNT" / "test" / "test.en-fr.tsv", "1\ta cat\tun chat\n2\ta cow\tune vache\n")
    folder = f"dataset.data_dir={tmp_path}"
    assert pairs("dataset=wmt", folder, "dataset.testset=multi30k/2018") == [("a dog", "ein Hund")]
    words = ("dataset=wmt", folder, "dataset.testset=mtnt1.1/test", "dataset.target_language=fr")
    assert pairs(*words) == [("a cat", "un chat"), ("a cow", "une vache")]


def test_a_folder_without_the_files_is_told_which_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"put test-full/newstest2014-deen-src\.en\.sgm, test-full/newstest2014-d"
    ):
        made("dataset=wmt", f"dataset.data_dir={tmp_path}").load()
    with pytest.raises(FileNotFoundError, match=r"dataset\.data_dir is .*gone, which is not a folder"):
        made("dataset=wmt", f"dataset.data_dir={tmp_path / 'gone'}").load()


def test_every_test_set_of_sacrebleu_names_files_that_can_be_looked_for(tmp_path: Path) -> None:
    from sacrebleu.dataset import DATASETS

    for testset, dataset in DATASETS.items():
        for pair in dataset.langpairs:
            source, target = pair.split("-")
            options: dict[str, Any] = {"source_language": source, "target_language": target, "data_dir": tmp_path}
            with pytest.raises(FileNotFoundError, match=r"lacks .*: put \S+"):
                SacrebleuTestSet(testset=testset, **options).load()


def test_runs_of_before_this_key_keep_their_names() -> None:
    old = {"dataset": {"_target_": "streamllm.data.sacrebleu_set.SacrebleuTestSet", "testset": "wmt15"}}
    new = {"dataset": {**old["dataset"], "data_dir": None}}
    other: dict[str, Any] = {"dataset": {**old["dataset"], "data_dir": "folder"}}
    assert digest(old) == digest(new) != digest(other)
    hub = {"dataset": {"_target_": "streamllm.data.hub.HubDataset", "data_dir": None}}
    assert digest(hub) != digest({"dataset": {"_target_": "streamllm.data.hub.HubDataset"}})  # it had it always


# --- Multi30k and the hub ---


def test_a_clone_of_the_repository_of_multi30k_is_a_folder_of_its_files(tmp_path: Path) -> None:
    for split in ("train", "val", "test_2016_flickr", "test_2017_mscoco"):
        put(tmp_path / "data" / "task1" / "raw" / f"{split}.en.gz", f"a dog of {split}\n")
        put(tmp_path / "data" / "task1" / "raw" / f"{split}.de.gz", f"ein Hund aus {split}\n")
    folder = f"dataset.data_dir={tmp_path}"
    for name, split in (("multi30k", "test_2016_flickr"), ("multi30k-val", "val"), ("multi30k-train", "train")):
        assert pairs(f"dataset={name}", folder) == [(f"a dog of {split}", f"ein Hund aus {split}")]
    assert pairs("dataset=multi30k", folder, "dataset.split=test_2017_mscoco")[0][0] == "a dog of test_2017_mscoco"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("iwslt2017", r"dataset=iwslt2017 reads its rows; .*test\.de \(or \.gz\) or IWSLT17\.TED\.\*\.en-de\.en\.xml"),
        (
            "corpus",
            r"dataset\.revision=refs/convert/parquet dataset\.folder=SUBSET .*dataset\.data_dir=FOLDER with files ",
        ),
    ],
)
def test_a_loading_script_is_one_line_that_says_what_to_do(tmp_path: Path, name: str, instead: str) -> None:
    put(tmp_path / name / f"{name}.py", "raise SystemExit\n")
    dataset = HubDataset(path=str(tmp_path / name), split="test", source_language="en", target_language="de")
    with pytest.raises(ValueError, match=rf"is a loading script, which `datasets` no longer runs: {instead}") as error:
        dataset.load()
    assert "\n" not in str(error.value)
