"""A state comes back whole, the newest whole one is found, and one of something else is refused."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from asr.data.manifest import Utterance
from asr.model_file import load_model
from asr.trainer.checkpoint import (
    STATE_VERSION,
    AudioStamps,
    Origin,
    Progress,
    Stateful,
    StateStore,
    differences,
    drop_models,
    pack_state,
    read_state,
    save_models,
    unpack_state,
)
from tests.trainer.fitting import MakeRecognizer, digest

# --- a state and its bytes --------------------------------------------------------------------


PROGRESS = Progress(
    epoch=3, group=7, step=55, left_out=1, validations=3, best_wer=0.125, best_cer=0.0625,
    best_step=40, since_best=2, audio_s=1234.5, elapsed_s=99.5, train_s=88.25, recent_steps=4,
    recent_loss=2.5, recent_blanks=3.5, recent_clipped=1,
)  # fmt: skip
PLAN = "0123456789abcdef"
SETTINGS = {"optim.lr": "0.1", "trainer.batch_duration_s": "60"}
ORIGIN = Origin("run", PLAN, {"threads": "2", "device": "AVX2"}, "AdamW", SETTINGS)


def trained(width: int = 3, steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with moments and running statistics that are not their first ones."""
    torch.manual_seed(70)
    model = nn.Sequential(nn.Linear(width, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.randn(5, width)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def parts(width: int = 3, steps: int = 2) -> dict[str, Stateful]:
    model, optimizer = trained(width, steps)
    return {"model": model, "optimizer": optimizer}


@pytest.fixture(scope="module")
def content() -> bytes:
    return pack_state(PROGRESS, parts(), ORIGIN)


def test_everything_comes_back(content: bytes) -> None:
    model, optimizer = trained(steps=0)
    found = unpack_state(content, {"model": model, "optimizer": optimizer}, ORIGIN, "here")
    assert found == (PROGRESS, ORIGIN)
    expected_model, expected_optimizer = trained()
    for name, value in expected_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    for _ in range(2):  # moments and step counts too: the next steps are the same
        for one, other in ((model, optimizer), (expected_model, expected_optimizer)):
            one(torch.ones(5, 3).cumsum(0)).square().sum().backward()
            other.step()
            other.zero_grad()
    for name, value in expected_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def refusal(content: bytes, now: Origin = ORIGIN, width: int = 3) -> str:
    with pytest.raises(ValueError, match=r"^here: ") as caught:
        unpack_state(content, parts(width, steps=0), now, "here")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_another_plan(content: bytes) -> None:
    other = replace(ORIGIN, plan="fedcba9876543210")
    message = refusal(content, other)
    assert "saved by a training on other data or settings (plan 0123456789ab)" in message
    assert "expected plan fedcba987654" in message
    assert message.endswith("settings of the run")
    message = refusal(content, replace(other, settings=SETTINGS | {"optim.lr": "0.2"}))
    assert message.endswith("settings of the run; now: optim.lr 0.1 -> 0.2")


def test_another_optimizer(content: bytes) -> None:
    message = refusal(content, replace(ORIGIN, optimizer="SGD"))
    assert "has the moments of AdamW, expected those of SGD" in message


def test_a_state_from_before_optimizer_and_settings_were_kept(content: bytes) -> None:
    state = torch.load(io.BytesIO(content), weights_only=True)
    origin = {name: state["origin"][name] for name in ("run", "plan", "surroundings")}
    _, found = unpack_state(saved_anew(content, origin=origin), parts(), ORIGIN, "here")
    assert found == replace(ORIGIN, optimizer="", settings={})


def test_another_model(content: bytes) -> None:
    assert "does not fit this model" in refusal(content, width=4)


def saved_anew(content: bytes, **changes: object) -> bytes:
    state = torch.load(io.BytesIO(content), weights_only=True)
    buffer = io.BytesIO()
    torch.save(state | changes, buffer)
    return buffer.getvalue()


def test_a_part_that_is_missing(content: bytes) -> None:
    assert "does not fit this model (parts has no model, expected one)" in refusal(
        saved_anew(content, parts={})
    )


@pytest.mark.parametrize(
    ("entry", "change", "expected"),
    [
        ("progress", {"step": "3"}, "here: progress: step is '3', expected a whole number"),
        ("progress", {"step": True}, "here: progress: step is True, expected a whole number"),
        ("progress", {"step": -1}, "here: progress: step is -1, expected 0 to"),
        ("progress", {"step": 1 << 60}, f"here: progress: step is {1 << 60}, expected 0 to"),
        ("progress", {"step": 10**30}, f"here: progress: step is {10**30}, expected a number of"),
        ("progress", {"audio_s": float("inf")}, "here: progress: audio_s is inf, expected 0 to"),
        ("progress", {"best_wer": float("nan")}, "here: progress: best_wer is nan, expected a num"),
        ("progress", {"best_step": 99}, "here: progress: best_step is 99, expected at most step"),
        ("progress", {"steps": 1}, "here: progress: content has 'steps': did you mean step?"),
        ("origin", {"run": 3}, "here: origin: run is 3, expected a text"),
        ("origin", {"settings": {"lr": 0.1}}, "here: origin: settings['lr'] is 0.1, expected a te"),
        ("origin", {"run": torch.ones(1)}, "here: damaged training state (TypeError)"),
    ],
)
def test_progress_and_origin_of_other_types(
    content: bytes, entry: str, change: dict[str, object], expected: str
) -> None:
    state = torch.load(io.BytesIO(content), weights_only=True)
    message = refusal(saved_anew(content, **{entry: state[entry] | change}))
    assert message.startswith(expected)


def test_progress_without_an_entry(content: bytes) -> None:
    progress = dict(torch.load(io.BytesIO(content), weights_only=True)["progress"])
    del progress["window"]  # which the first states of this version did not have
    assert read_state(saved_anew(content, progress=progress), "here").progress == PROGRESS
    del progress["step"]
    assert refusal(saved_anew(content, progress=progress)) == (
        "here: progress: content has no step, expected one"
    )


def test_what_was_packed_is_not_unpacked(content: bytes) -> None:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr("archive/data/999", bytes(1 << 20))
    assert refusal(packed.getvalue()) == "here: damaged training state (ValueError)"


def test_another_version(content: bytes) -> None:
    message = refusal(saved_anew(content, version=STATE_VERSION + 1))
    assert f"training state version {STATE_VERSION + 1}, expected {STATE_VERSION}" in message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_content_cut_short(content: bytes, share: float) -> None:
    assert "damaged training state" in refusal(content[: int(share * len(content))])


def test_content_of_another_kind() -> None:
    assert "damaged training state" in refusal(b"no state")
    buffer = io.BytesIO()
    torch.save([1, 2, 3], buffer)
    assert "damaged training state" in refusal(buffer.getvalue())


class Canary:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_hostile_content_runs_no_code(content: bytes, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    assert "damaged training state" in refusal(saved_anew(content, extra=Canary(mark)))
    assert "damaged training state" in refusal(pickle.dumps(Canary(mark)))
    assert not mark.exists()


def test_differences_are_told_by_name_with_old_and_new() -> None:
    was = {"threads": "2", "device": "AVX2"}
    assert differences(was, {"device": "AVX2", "threads": "2"}) == ""
    assert differences(was, {"threads": "4", "torch": "3"}) == (
        "threads 2 -> 4, torch none -> 3, device AVX2 -> none"
    )


def test_what_a_state_says_of_itself(content: bytes) -> None:
    state = read_state(content, "here")
    assert (state.origin, state.progress) == (ORIGIN, PROGRESS)


# --- audio files ------------------------------------------------------------------------------


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Four files, the last one with two segments."""
    made = []
    for name in "abcd":
        path = tmp_path / f"{name}.wav"
        path.write_bytes(name.encode())
        made.append(Utterance(path, "text", 1.0, name))
    return [*made, replace(made[-1], id="e", offset=0.5)]


def changed(utterances: list[Utterance], saved: AudioStamps) -> list[int] | None:
    now = AudioStamps(utterances)
    assert now.changed is None
    now.load_state_dict(saved.state_dict())
    return now.changed


def test_files_that_are_the_same_have_not_changed(utterances: list[Utterance]) -> None:
    saved = AudioStamps(utterances)
    assert saved.state_dict()["stamps"].shape == (5,)
    assert saved.state_dict()["stamps"].dtype == torch.int32
    assert changed(utterances, saved) == []


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_utterances_whose_files_changed_are_found(utterances: list[Utterance], change: str) -> None:
    saved = AudioStamps(utterances)
    for utterance in utterances[1::2]:
        path = utterance.audio_filepath
        before = path.stat()
        if change == "gone":
            path.unlink()
        elif change == "size":
            path.write_bytes(b"another")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert changed(utterances, saved) == [1, 3, 4]
    assert changed(utterances, AudioStamps(utterances)) == []  # those that are saved now


def test_each_file_is_looked_at_once_and_by_one_rank(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked: list[Path] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path: looked.append(path) or stat(path))
    saved = AudioStamps(utterances)
    assert looked == [utterance.audio_filepath for utterance in utterances[:4]]
    looked.clear()
    other_rank = AudioStamps(utterances, is_writer=False)
    other_rank.load_state_dict(saved.state_dict())
    assert looked == []
    assert caplog.messages == []
    assert other_rank.stamps.shape == saved.stamps.shape


# --- states on disk ---------------------------------------------------------------------------


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
def test_a_damaged_state_is_not_newer_than_those_saved_after_it_was_skipped(
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
def test_a_foreign_or_damaged_state_is_skipped_and_left_alone(
    store: StateStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file_of(store, 40).write_bytes(content)
    assert store.load()[1] == file_of(store, 30)
    assert any("skipped" in record.getMessage() for record in caplog.records)
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


# --- model files ------------------------------------------------------------------------------


OTHERS = {"best.safetensors", "model-x.safetensors", "model-5.safetensors.bak", "my-model-5.txt"}


@pytest.mark.parametrize(
    ("step", "num_kept", "expected"),
    [
        (100, 2, {9, 100}),  # by number, not by name
        (100, 3, {5, 9, 100}),
        (100, 9, {5, 9, 100}),
        (50, 2, {5, 9}),  # 100 will be done again
        (0, 2, set()),  # of a training that is overwritten
        (100, 0, set()),
    ],
)
def test_the_latest_stay_up_to_the_step(
    tmp_path: Path, step: int, num_kept: int, expected: set[int]
) -> None:
    for name in OTHERS:
        (tmp_path / name).touch()
    for number in (9, 100, 5):
        (tmp_path / f"model-{number}.safetensors").touch()
    drop_models(tmp_path, step, num_kept)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == OTHERS | {f"model-{number}.safetensors" for number in expected}


@pytest.mark.parametrize("num_kept", [0, 1, 2])
def test_the_models_of_three_validations(
    make_recognizer: MakeRecognizer, tmp_path: Path, num_kept: int
) -> None:
    for step, is_best in ((5, False), (10, True), (15, False)):
        recognizer = make_recognizer(seed=step)
        save_models(tmp_path, recognizer, {"step": step, "dev_wer": 0.5}, is_best, num_kept)
    kept = {f"model-{step}.safetensors" for step in (10, 15)[2 - num_kept :]}
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.safetensors", "last.safetensors", *kept,
    }  # fmt: skip
    _, training = load_model(tmp_path / "best.safetensors")
    assert training == {"step": 10, "dev_wer": 0.5}
    assert load_model(tmp_path / "last.safetensors")[1]["step"] == 15
    if num_kept:
        assert digest(tmp_path / "last.safetensors") == digest(tmp_path / "model-15.safetensors")
