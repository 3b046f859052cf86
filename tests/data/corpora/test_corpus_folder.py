"""The folder of a corpus: its name, its lock, and whose files it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.data.corpora.corpus_folder import corpus_folder, write_if_changed
from asr.lock import locked


def test_the_folder_is_made_and_kept_when_something_is_in_it(tmp_path: Path) -> None:
    with corpus_folder(tmp_path / "data", "mine-1.0") as folder:
        assert folder == tmp_path / "data" / "mine-1.0"
        (folder / "train.jsonl").write_text("x")
    with corpus_folder(tmp_path / "data", "mine-1.0") as folder:
        assert (folder / "train.jsonl").read_text() == "x"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/abs", ".hidden", "a b", "a\n", "downloads", 7, None]
)
def test_names_that_are_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(ValueError, match=r"corpus name is .*, expected letters"),
        corpus_folder(tmp_path / "data", name),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train.jsonl", "corpus.json"])
def test_somebody_elses_files_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("precious")
    with (
        pytest.raises(ValueError, match=f"{name}: exists and was not written by asr prepare"),
        corpus_folder(tmp_path, "mine"),
    ):
        pass
    assert [p.name for p in (tmp_path / "mine").iterdir()] == [name]


def test_two_cannot_prepare_the_same_corpus(tmp_path: Path) -> None:
    with (
        corpus_folder(tmp_path, "mine"),
        pytest.raises(ValueError, match=r"another process \(\d+ on .+\) prepares this corpus now"),
        corpus_folder(tmp_path, "mine"),
    ):
        pass
    with corpus_folder(tmp_path, "mine"), corpus_folder(tmp_path, "other"):
        pass


def prepare_and_fail(data_dir: Path, written: str | None) -> None:
    with corpus_folder(data_dir, "mine") as folder:
        if written is not None:
            (folder / written).write_text("x")
        raise KeyError


def test_a_failure_before_the_first_file_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        prepare_and_fail(tmp_path, written=None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError):
        prepare_and_fail(tmp_path, written="rejected.jsonl")
    assert (tmp_path / "mine" / "rejected.jsonl").exists()


def test_a_lock_is_let_go(tmp_path: Path) -> None:
    waited: list[str] = []
    for _ in range(2):
        with locked(tmp_path / "lock", "writes", waiting=waited.append):
            pass
    assert waited == []


def test_a_file_is_written_only_when_its_content_changes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert write_if_changed(path, b"1") is True
    before = path.stat().st_ino
    assert write_if_changed(path, b"1") is False
    assert path.stat().st_ino == before
    assert write_if_changed(path, b"2") is True
    assert path.read_bytes() == b"2"
