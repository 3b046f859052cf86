"""The states on disk: the newest whole one is found, whatever happened to the others."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest
from torch import nn

from asr.trainer.state import Origin, Progress, pack_state
from asr.trainer.store import StateStore


def content_of(step: int, run: str = "ours") -> bytes:
    return pack_state(Progress(step=step), {"model": nn.Linear(3, 2)}, Origin(run, "plan", {}))


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    """With the states of steps 10, 20 and 30."""
    store = StateStore(tmp_path / "state", keep=3)
    for step in (10, 20, 30):
        store.save(step, "ours", content_of(step))
    return store


def names(store: StateStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def file_of(store: StateStore, step: int, serial: int = 0) -> Path:
    """Of the save with that number; else the fixture's, who saved step 10 first, then 20."""
    return store.folder / f"{serial or step // 10:06d}-step-{step}.pt"


def test_the_newest_is_loaded(store: StateStore) -> None:
    content, path = store.load()
    assert path == file_of(store, 30)
    assert content == path.read_bytes()
    assert store.exists()


def test_only_so_many_stay(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state", keep=2)
    assert not store.exists()
    for step in (1, 2, 3, 4):
        store.save(step, "ours", content_of(step))
    assert names(store) == ["000003-step-3.pt", "000004-step-4.pt", "index.json"]
    listed = json.loads(store.index_file.read_text())["states"]
    assert [row["step"] for row in listed] == [3, 4]


def test_a_step_saved_again_is_another_file(store: StateStore) -> None:
    before = store.index_file.read_bytes()
    path = store.save(30, "ours", content_of(30) + b"another end")
    assert path == file_of(store, 30, serial=4)
    store.index_file.write_bytes(before)  # as if killed between the state and the index
    again = StateStore(store.folder, keep=3)
    again.save(30, "ours", content_of(30))
    assert again.load()[1] == file_of(store, 30, serial=5)


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "missing", "folder"])
def test_a_damaged_newest_gives_way_to_the_one_before(
    store: StateStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    newest = file_of(store, 30)
    content = bytearray(newest.read_bytes())
    newest.unlink()
    if damage == "folder":
        newest.mkdir()
    elif damage != "missing":
        content[len(content) // 2] ^= 4
        newest.write_bytes({"empty": b"", "cut": bytes(content[:99])}.get(damage, bytes(content)))
    assert store.load()[1] == file_of(store, 20)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith(f"{newest}: ")
    assert warning.endswith("looking for an older state")


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_state_is_not_newer_than_those_saved_after_it_was_passed_over(
    store: StateStore, keep: int
) -> None:
    file_of(store, 30).write_bytes(b"damaged")
    assert store.load()[1] == file_of(store, 20)
    again = StateStore(store.folder, keep)
    again.save(25, "ours", content_of(25))
    assert again.load()[1] == file_of(store, 25, serial=4)
    assert names(store) == [*("000002-step-20.pt", "000004-step-25.pt")[-keep:], "index.json"]


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_file_is_not_waited_for(
    store: StateStore, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def put(path: Path) -> None:
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")

    put(file_of(store, 30))
    assert store.load()[1] == file_of(store, 20)
    assert "not a regular file" in caplog.text
    put(store.index_file)
    assert store.load()[1] == file_of(store, 20)
    assert "damaged index" in caplog.text


def test_a_state_that_is_too_large_is_not_read(
    store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    newest = file_of(store, 30)
    os.truncate(newest, 1 << 40)  # sparse: a terabyte of zeros
    rows = json.loads(store.index_file.read_text())
    rows["states"][-1]["size"] = 1 << 40
    store.index_file.write_text(json.dumps(rows))
    assert store.load()[1] == file_of(store, 20)
    assert f"{newest}: {1 << 40} bytes, expected a training state of at most" in caplog.text
    bounded = StateStore(store.folder, keep=3, max_bytes=100)
    with pytest.raises(ValueError, match="holds no whole training state"):
        bounded.load()


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../other.pt"}, {"file": 3}, {"step": -1}, {"step": "3"}, {"size": None},
        {"sha256": "x"}, {"sha256": 3}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_index_with_other_values_is_damaged(
    store: StateStore, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads(store.index_file.read_text())
    content["states"][1] |= change
    store.index_file.write_text(json.dumps(content))
    assert store.load()[1] == file_of(store, 30)
    assert f"one by one: {store.index_file}: " in caplog.text


def test_none_left_is_refused(store: StateStore) -> None:
    for step in (10, 20, 30):
        file_of(store, step).write_bytes(b"gone")
    with pytest.raises(ValueError, match="holds no whole training state, expected one"):
        store.load()


def test_a_state_that_was_not_entered_yet_is_the_newest(store: StateStore) -> None:
    index = store.index_file.read_bytes()
    store.save(40, "ours", content_of(40))
    store.index_file.write_bytes(index)  # as before: killed between the state and the index
    assert store.load()[1] == file_of(store, 40)


@pytest.mark.parametrize("content", [content_of(40, run="theirs"), b"damaged"])
def test_a_foreign_or_damaged_state_is_passed_over_and_left_alone(
    store: StateStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file_of(store, 40).write_bytes(content)
    assert store.load()[1] == file_of(store, 30)
    assert any("passed over" in record.getMessage() for record in caplog.records)
    store.clean()
    assert file_of(store, 40).read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 9}', None])
def test_without_its_index_the_states_are_tried_one_by_one(
    store: StateStore, content: bytes | None
) -> None:
    store.index_file.unlink()
    if content is not None:
        store.index_file.write_bytes(content)
    file_of(store, 30).write_bytes(b"damaged")
    assert store.load()[1] == file_of(store, 20)


def test_clean_removes_what_kills_left(store: StateStore) -> None:
    index = store.index_file.read_bytes()
    (store.folder / ".0123456789abcdef.part").write_bytes(b"half a state")
    store.save(40, "ours", content_of(40))  # now 10 is gone
    file_of(store, 10).write_bytes(content_of(10))  # as if killed before it was
    store.clean()
    assert names(store) == [*(file_of(store, s).name for s in (20, 30, 40)), "index.json"]
    store.index_file.write_bytes(index)
    store.clean()  # 40 is newer than the index: it is to be gone on from
    assert file_of(store, 40).exists()


def test_clear_removes_all(store: StateStore) -> None:
    store.clear()
    assert names(store) == []
    assert not store.exists()


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_the_states_before_survive_a_full_disk(
    store: StateStore, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, full)
    content = content_of(40)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.save(40, "ours", content)
    monkeypatch.undo()
    assert caught.value.filename == str(file_of(store, 40))
    assert f"{len(content)} bytes needed" in str(caught.value)
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before


def test_no_space_is_found_out_before_anything_is_written(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match="No space left on device"):
        store.save(40, "ours", content_of(40))
