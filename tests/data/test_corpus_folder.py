"""The folder of a corpus: whose files it holds, its audio, and what a kill leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import load_audio
from asr.data import corpus_folder as module
from asr.data.corpora.manifest import prepare_manifest
from asr.data.corpus_folder import (
    Conversion,
    Corpus,
    PlacedAudio,
    Say,
    corpus_folder,
    place_audio,
    remove_stale_audio,
    write_if_changed,
)
from asr.data.manifest import Utterance
from asr.data.prepare import silent
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


# Audio of a corpus: measured, cut, converted once, and taken up again after a kill.


RATE = 8_000  # [Hz]
WAV = Conversion(audio_format="wav", sample_rate=RATE, num_workers=2)
KEEP = Conversion(audio_format="keep")


def samples(seconds: float, seed: int = 0) -> np.ndarray:
    """int16 noise `(num_samples,)`."""
    noise = np.random.default_rng(seed).integers(-(2**15), 2**15, round(seconds * RATE))
    return noise.astype(np.int16)


def write(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples(seconds, seed), RATE)
    return path


def utterance(
    path: Path, duration: float | None = None, offset: float = 0.0, name: str = ""
) -> Utterance:
    name = name or path.name
    return Utterance(path, "x", duration, name, None, offset, manifest=Path("m"), line=7)


def place(folder: Path, splits: Corpus, conversion: Conversion, say: Say = silent) -> PlacedAudio:
    return place_audio(folder, splits, conversion, say, silent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with corpus_folder(tmp_path / "data", "mine") as made:
        return made


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_16_bit_audio_at_its_own_rate_stays_bit_for_bit(
    tmp_path: Path, folder: Path, audio_format: str
) -> None:
    settings = Conversion(audio_format=audio_format, sample_rate=RATE)
    source = write(tmp_path / "a.wav", 1.5)
    result = place(folder, {"train": [utterance(source)]}, settings)
    (placed,) = result.splits["train"]
    written, rate = soundfile.read(placed.audio_filepath, dtype="int16")
    assert rate == RATE
    assert np.array_equal(written, samples(1.5))
    assert placed.duration == 1.5
    info = soundfile.info(placed.audio_filepath)
    assert (info.format, info.subtype) == (audio_format.upper(), "PCM_16")
    assert result.rejected == result.notes == ()


def test_stereo_at_another_rate_becomes_what_training_would_read(
    tmp_path: Path, folder: Path
) -> None:
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (22_050, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 22_050, subtype="FLOAT")
    result = place(folder, {"train": [utterance(tmp_path / "a.wav")]}, WAV)
    (placed,) = result.splits["train"]
    direct = load_audio(tmp_path / "a.wav", RATE)
    stored = load_audio(placed.audio_filepath, RATE)
    assert np.abs(stored - direct).max() <= 0.5 / 2**15 + 1e-7


@pytest.mark.parametrize("scale", [1.0, 2.0**15])  # or floats on the scale of integers
def test_beyond_full_scale_is_made_softer_and_counted(
    tmp_path: Path, folder: Path, scale: float
) -> None:
    loud = np.float32(scale) * np.array([0.5, 1.5, -1.5, -1.0] * 1000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", loud, RATE, subtype="FLOAT")
    result = place(folder, {"train": [utterance(tmp_path / "a.wav")]}, WAV)
    path = result.splits["train"][0].audio_filepath
    assert soundfile.read(path, dtype="int16")[0][:4].tolist() == [10922, 32767, -32767, -21845]
    assert result.notes == ("1 audio files went beyond full scale and were made softer.",)


@pytest.mark.parametrize("settings", [WAV, KEEP])
def test_a_whole_file_must_last_as_long_as_its_line_says(
    tmp_path: Path, folder: Path, settings: Conversion
) -> None:
    path = write(tmp_path / "a.wav", 1.0)
    near = write(tmp_path / "b.wav", 1.0)
    splits = {"train": [utterance(path, duration=1.2), utterance(near, duration=1.05)]}
    result = place(folder, splits, settings)
    assert [i.duration for i in result.splits["train"]] == [1.0]
    (rejection,) = result.rejected
    assert rejection.where == "m:7"
    assert rejection.reason == (
        "audio lasts 1.000 s, expected 1.200 s as its duration says (tolerance 0.1 s)"
    )


def test_parts_of_a_file_are_cut_out(tmp_path: Path, folder: Path) -> None:
    path = write(tmp_path / "a.wav", 3.0)
    parts = [
        utterance(path, 1.0, 0.0, "0"),
        utterance(path, 0.5, 1.0, "1"),
        utterance(path, None, 2.0, "2"),
    ]
    result = place(folder, {"train": parts}, WAV)
    whole = samples(3.0)
    for placed, (start, end) in zip(
        result.splits["train"], [(0, 1), (1, 1.5), (2, 3)], strict=True
    ):
        audio, _ = soundfile.read(placed.audio_filepath, dtype="int16")
        assert np.array_equal(audio, whole[round(start * RATE) : round(end * RATE)])
        assert (placed.offset, placed.duration) == (0.0, end - start)


def test_parts_that_reach_beyond_their_file_are_rejected(tmp_path: Path, folder: Path) -> None:
    for settings, first, second in (
        (WAV, "audio lasts 1.000 s, expected 2.000 s", "offset 3 s, expected 0 to less than 3 s"),
        (KEEP, "audio lasts 1.000 s, expected 2.000 s", "begins at 3 s, expected less than 3 s"),
    ):
        path = write(tmp_path / "a.wav", 3.0)
        parts = [utterance(path, 2.0, 2.0, "0"), utterance(path, 1.0, 3.0, "1")]
        result = place(folder, {"train": parts}, settings)
        assert result.splits == {"train": []}
        assert first in result.rejected[0].reason
        assert second in result.rejected[1].reason


def test_kept_audio_stays_where_it_is(tmp_path: Path, folder: Path) -> None:
    path, long = write(tmp_path / "a.wav", 1.0), write(tmp_path / "b.wav", 3.0)
    splits = {
        "train": [utterance(path), utterance(long, 1.0, 1.5)],
        "dev": [utterance(long, None, 2.0)],
    }
    result = place(folder, splits, KEEP)
    placed = [i for items in result.splits.values() for i in items]
    assert [(u.audio_filepath, u.offset, u.duration) for u in placed] == [
        (path, 0.0, 1.0),
        (long, 1.5, 1.0),
        (long, 2.0, 1.0),
    ]
    assert not (folder / "audio").exists()


def test_a_kept_part_that_begins_its_file_is_refused(tmp_path: Path, folder: Path) -> None:
    # Without an offset training takes the file for the utterance.
    long = write(tmp_path / "a.wav", 3.0)
    splits = {"train": [utterance(long, 1.0, 0.0, "0"), utterance(long, 2.0, 1.0, "1")]}
    result = place(folder, splits, KEEP)
    assert [r.reason for r in result.rejected] == [
        "begins at 0 s and ends before its file does, which needs audio_format wav or flac"
    ]


def test_what_is_no_audio_is_rejected_with_its_reason(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo.wav")
    names = ["text.wav", "empty.wav", "fifo.wav", "missing.wav"]
    splits = {"train": [utterance(tmp_path / name) for name in names]}
    for settings in (WAV, KEEP):
        result = place(folder, splits, settings)
        reasons = [rejection.reason for rejection in result.rejected]
        expected = ["cannot be read as audio", "empty file", "not a regular file", "No such file"]
        for name, reason, part in zip(names, reasons, expected, strict=True):
            assert reason.startswith(str(tmp_path / name))
            assert part in reason
            assert "\n" not in reason


def test_ids_of_all_kinds_become_file_names_of_their_own(tmp_path: Path, folder: Path) -> None:
    path = write(tmp_path / "a.wav", 0.1)
    ids = ["a", "A", "../../a", "/etc/passwd", "x" * 500, "caf\u00e9", "\u4f60\u597d", ".", "a/b"]
    splits = {"train": [utterance(path, name=name) for name in ids]}
    result = place(folder, splits, WAV)
    paths = [i.audio_filepath for i in result.splits["train"]]
    assert len({str(p).lower() for p in paths}) == len(ids)
    assert {p.parent for p in paths} == {folder / "audio" / "train"}
    assert all(p.is_file() and p.name.isascii() and len(p.name) < 100 for p in paths)


def test_a_second_time_nothing_is_decoded(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path / f"{n}.wav", 0.1 * (n + 1), n) for n in range(5)]
    splits = {"train": [utterance(path) for path in paths]}
    lines: list[str] = []
    first = place(folder, splits, WAV, lines.append)
    decoded: list[str] = []

    def counting(source: Path, *arguments: object, **options: object) -> object:
        decoded.append(source.name)
        return load_audio(source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "load_audio", counting)
    assert place(folder, splits, WAV, lines.append) == first
    assert decoded == []
    # A source that changed, a file that was cut short and one that is gone are made again.
    write(paths[1], 0.7, seed=99)
    placed = [i.audio_filepath for i in first.splits["train"]]
    placed[2].write_bytes(placed[2].read_bytes()[:-10])
    placed[3].unlink()
    again = place(folder, splits, WAV, lines.append)
    assert sorted(decoded) == ["1.wav", "2.wav", "3.wav"]
    assert [i.duration for i in again.splits["train"]] == [0.1, 0.7, 0.3, 0.4, 0.5]
    assert lines == [
        "audio: 5 wav files at 8000 Hz written",
        "audio: 5 wav files at 8000 Hz already done, 0 written",
        "audio: 2 wav files at 8000 Hz already done, 3 written",
    ]


def test_other_settings_write_again_and_leave_nothing_stale(tmp_path: Path, folder: Path) -> None:
    splits = {"train": [utterance(write(tmp_path / f"{n}.wav", 0.1)) for n in range(3)]}
    place(folder, splits, WAV)
    foreign = folder / "audio" / "train" / "mine.wav"
    foreign.write_text("the user's own")
    slower = place(folder, splits, Conversion(sample_rate=4_000))
    assert soundfile.info(slower.splits["train"][0].audio_filepath).samplerate == 4_000
    flac = place(folder, splits, Conversion(audio_format="flac", sample_rate=RATE))
    assert remove_stale_audio(folder, flac.splits, silent) == 3
    left = {path.suffix for path in (folder / "audio").rglob("*.*") if path != foreign}
    assert left == {".flac"}
    assert foreign.exists()
    kept = place(folder, splits, KEEP)
    assert remove_stale_audio(folder, kept.splits, silent) == 3


def test_audio_in_the_folder_that_is_written_is_refused(folder: Path) -> None:
    inside = write(folder / "audio" / "train" / "a.wav")
    with pytest.raises(ValueError, match=r"m:7: its audio lies in .*, expected another"):
        place(folder, {"train": [utterance(inside)]}, WAV)


def test_a_full_disk_is_no_fault_of_the_utterance(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "x.wav")

    monkeypatch.setattr(module, "encode_audio", full)
    with pytest.raises(OSError, match="No space left"):
        place(folder, {"train": [utterance(write(tmp_path / "a.wav"))]}, WAV)


KILLED = """
import os, sys
from pathlib import Path
from asr.data.corpora.manifest import prepare_manifest

def kill(doing, unit, done, total):
    if done == int(sys.argv[3]):
        os._exit(9)

prepare_manifest("mine", sys.argv[1], train=sys.argv[2], sample_rate=8000, progress=kill)
"""


def test_a_killed_preparation_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    for n in range(20):
        write(tmp_path / f"{n}.wav", 0.1, n)
    manifest = tmp_path / "m.jsonl"
    lines = [f'{{"audio_filepath": "{n}.wav", "text": "x"}}' for n in range(20)]
    manifest.write_text("\n".join(lines))
    arguments = [str(tmp_path / "data"), str(manifest), "7"]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == 9
    folder = tmp_path / "data" / "mine"
    assert not (folder / "train.jsonl").exists()
    journal = folder / ".prepare" / "audio.jsonl"
    journal.write_text(journal.read_text() + '{"file": "audio/tr')  # a line cut by the kill
    (folder / "audio" / "train" / ".0123456789abcdef.part").write_text("half a file")
    said: list[str] = []
    prepare_manifest("mine", tmp_path / "data", train=manifest, sample_rate=8000, say=said.append)
    counts = next(line for line in said if line.startswith("audio: ")).split()
    assert int(counts[1]) >= 7
    assert int(counts[1]) + int(counts[-2]) == 20
    fresh = prepare_manifest("mine", tmp_path / "fresh", train=manifest, sample_rate=8000)
    for path in sorted(fresh.folder.rglob("*.*")):
        if path.is_file() and ".prepare" not in path.parts:
            other = folder / path.relative_to(fresh.folder)
            assert other.read_bytes() == path.read_bytes()
    assert not list(folder.rglob("*.part"))
    names = [path.name for path in (folder / "audio").rglob("*.wav")]
    assert len(names) == 20
