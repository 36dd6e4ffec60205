"""Digests of files and code: what counts, what is remembered, and what is said to have changed."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from streamllm import contents


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The memory of large files, for this test alone; two bytes are large, and a new file is settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "LARGE", 2)
    monkeypatch.setattr(contents, "SETTLED", -1.0)
    return tmp_path / "cache" / "streamllm" / "digests.json"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- files


def test_a_file_is_known_by_its_sha256(tmp_path: Path) -> None:
    assert contents.of_file(written(tmp_path / "a", "weights")) == hashlib.sha256(b"weights").hexdigest()


def test_a_large_file_is_hashed_once(tmp_path: Path, memory: Path) -> None:
    file = written(tmp_path / "a", "weights")
    contents.of_file(file)
    known = json.loads(memory.read_text())
    known[str(file)][-1] = "as remembered"
    memory.write_text(json.dumps(known))
    assert contents.of_file(file) == "as remembered"


def test_a_large_file_of_the_same_size_and_time_is_hashed_anew(tmp_path: Path) -> None:
    file = written(tmp_path / "a", "weights")
    first, times = contents.of_file(file), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_text("Weights")
    os.utime(file, ns=times)
    assert contents.of_file(file) != first


def test_a_file_that_has_just_been_written_is_not_remembered(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be written again within one tick of the file system's clock."""
    monkeypatch.setattr(contents, "SETTLED", 60.0)
    contents.of_file(written(tmp_path / "a", "weights"))
    assert not memory.exists()


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"a": 1'])
def test_a_damaged_memory_is_no_hindrance(tmp_path: Path, memory: Path, damage: str) -> None:
    written(memory, damage)
    assert contents.of_file(written(tmp_path / "a", "weights")) == hashlib.sha256(b"weights").hexdigest()


def test_a_memory_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    written(tmp_path / "cache", "a file in the folder's place")
    assert contents.of_file(written(tmp_path / "a", "weights")) == hashlib.sha256(b"weights").hexdigest()


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = [written(tmp_path / language / "val.txt", language) for language in ("en", "de")]
    assert list(contents.of_files(files)) == ["val.txt", "val.txt (2)"]


def test_where_a_text_ends_counts() -> None:
    assert contents.of_text("ab", "c") != contents.of_text("a", "bc")


# --- code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package ``theirs`` with a policy, whose rule is in a module that it imports from."""
    folder = tmp_path / "theirs"
    written(folder / "__init__.py", "")
    written(folder / "policy.py", "import json\nfrom . import rule\nclass Mine:\n    rule = rule.RULE\n")
    written(folder / "rule.py", "from theirs.deep.number import NUMBER\nRULE = NUMBER\n")
    written(folder / "deep" / "number.py", "NUMBER = 1\n")
    written(folder / "other.py", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    importlib.import_module("theirs.policy")
    return folder


def forget() -> None:
    """As a new process would see the code."""
    contents._LOADED.clear()


def test_code_counts_with_what_it_imports_from_its_package(package: Path) -> None:
    assert {*contents.of_code("theirs.policy.Mine")} == {"__init__.py", "policy.py", "rule.py", "deep/number.py"}


@pytest.mark.parametrize("file", ["policy.py", "rule.py", "deep/number.py"])
def test_code_that_was_edited_has_another_digest(package: Path, file: str) -> None:
    before = contents.of_code("theirs.policy.Mine")
    written(package / file, (package / file).read_text() + "# edited\n")
    forget()
    after = contents.of_code("theirs.policy.Mine")
    assert [name for name in before if before[name] != after[name]] == [file]


def test_code_that_was_edited_after_it_was_loaded_is_known_as_it_runs(package: Path) -> None:
    before = contents.of_code("theirs.policy.Mine")
    written(package / "policy.py", "edited = True\n")
    assert contents.of_code("theirs.policy.Mine")["policy.py"] == before["policy.py"]
    importlib.reload(sys.modules["theirs.policy"])
    assert contents.of_code("theirs.policy.Mine")["policy.py"] != before["policy.py"]


def test_a_file_alone_counts_with_its_neighbours_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "lonely.py", "import json\nimport neighbour\n")
    written(tmp_path / "neighbour.py", "")
    written(tmp_path / "stranger.py", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {*contents.of_code("lonely.Mine")} == {"lonely.py", "neighbour.py"}


@pytest.mark.parametrize("target", ["streamllm.policies.waitk.WaitK", "builtins.dict", "json.dumps", "nowhere.At.all"])
def test_code_of_ours_and_of_python_does_not_count(target: str) -> None:
    assert contents.of_code(target) == {}


def test_of_a_script_the_class_and_what_it_names_counts(tmp_path: Path) -> None:
    script = (
        "import sys; from streamllm.contents import of_code\n"
        "K = {k}\n"
        "def rule(read): return read >= K\n"
        "class Mine:\n    def start(self): return rule\n"
        "print(of_code('__main__.Mine')) # {comment}\n"
    )

    def said(**words: object) -> str:
        file = written(tmp_path / "script.py", script.format(**words))
        command = [sys.executable, str(file)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True).stdout

    first = said(k=1, comment="a")
    assert all(f"'{name}'" in first for name in ("Mine", "rule", "K"))
    assert said(k=1, comment="b") == first
    assert said(k=2, comment="a") != first


# --- what has changed


def test_what_has_changed_is_named_with_its_part() -> None:
    then = {"model": {"a": "1", "b": "1", "c": "1"}, "data": {"x": "1"}}
    now = {"model": {"a": "1", "b": "2", "d": "1"}}
    assert contents.changes(then, now) == [
        "b of the model (changed)",
        "c of the model (gone)",
        "d of the model (new)",
    ]


def test_files_of_data_do_not_count_where_the_sentences_are_the_same() -> None:
    then = {"data": {"x": "1"}, "sentences": {"sources": "1", "references": "1"}, "model": {"a": "1"}}
    now = {**then, "data": {"x": "2"}}
    assert contents.changes(then, now) == []
    assert contents.changes(then, {"data": {"x": "2"}}) == ["x of the data (changed)"]
    now["sentences"] = {"sources": "1", "references": "2"}
    assert contents.changes(then, now) == ["x of the data (changed)", "references of the sentences (changed)"]
