"""Shards as lhotse reads them, whole whenever the writing ends, the same for the same input."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.audio import load_audio
from asr.data.manifest import Utterance
from asr.data.shar import INDEX_FILE, SharFolder, read_index, recording_of
from asr.data.shar_writer import SharSettings, SharWriter, divide
from tests.data.conftest import RATE

# lhotse leaves the files that it reads for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def lhotse() -> Any:
    """The package, which is an extra."""
    module = pytest.importorskip("lhotse")
    module.set_current_audio_backend("LibsndfileBackend")
    return module


def write(utterances: list[Utterance], folder: Path, **settings: object) -> Path:
    list(SharWriter(utterances, folder, SharSettings(**settings)).write(num_workers=2))  # type: ignore[arg-type]
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_lhotse_reads_text_speaker_duration_and_the_very_samples(
    lhotse: Any, utterances: list[Utterance], tmp_path: Path, audio_format: str
) -> None:
    folder = write(utterances, tmp_path / "s", audio_format=audio_format, shard_size=10)
    cuts = list(lhotse.CutSet.from_shar(in_dir=folder))
    assert len(list(folder.glob("*.tar"))) == 5
    by_id = {(cut.custom or {}).get("utterance_id", cut.id): cut for cut in cuts}
    assert by_id.keys() == {utterance.id for utterance in utterances}
    for utterance in utterances:
        cut = by_id[utterance.id]
        (supervision,) = cut.supervisions
        assert supervision.text == utterance.text  # as the manifest has it
        assert supervision.speaker == utterance.speaker
        assert cut.duration == pytest.approx(utterance.duration, abs=1 / RATE)
        assert (cut.custom or {}).get("lang") == utterance.extra.get("lang")
        expected = load_audio(
            utterance.audio_filepath, RATE, offset=utterance.offset, duration=utterance.duration
        )
        np.testing.assert_array_equal(cut.load_audio()[0], expected)


def test_opus_is_small_and_as_long(
    lhotse: Any, utterances: list[Utterance], tmp_path: Path
) -> None:
    folder = write(utterances[:6], tmp_path / "s", audio_format="opus", shard_size=6)
    for cut in lhotse.CutSet.from_shar(in_dir=folder):
        assert cut.load_audio().shape[1] == cut.num_samples
    with tarfile.open(folder / "recording.000000.tar") as tar:
        audio = [member for member in tar.getmembers() if member.name.endswith(".opus")]
    assert len(audio) == 6


def test_the_index_counts_what_is_there(utterances: list[Utterance], shards: Path) -> None:
    index = read_index(SharFolder(shards))
    assert index is not None
    assert index.complete
    assert index.utterances == len(utterances)
    assert index.duration_s == pytest.approx(sum(u.duration or 0.0 for u in utterances), abs=0.02)
    letters = "".join(utterance.text.lower() for utterance in utterances)
    assert index.characters == {letter: letters.count(letter) for letter in "abcd"}
    longest = max(shard.longest_s for shard in index.shards)
    assert longest == pytest.approx(max(u.duration or 0.0 for u in utterances), abs=1 / RATE)
    for shard in index.shards:
        assert shard.num_bytes == (shards / shard.recording).stat().st_size


def test_the_same_call_gives_the_same_bytes(utterances: list[Utterance], tmp_path: Path) -> None:
    one = content(write(utterances, tmp_path / "a", shard_size=4, seed=1))
    assert content(write(utterances, tmp_path / "b", shard_size=4, seed=1)) == one
    other = content(write(utterances, tmp_path / "c", shard_size=4, seed=2))
    assert other.keys() == one.keys()
    assert other != one


def test_a_killed_writing_goes_on(
    utterances: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(write(utterances, tmp_path / "whole", shard_size=10))
    folder = tmp_path / "s"
    settings = SharSettings(shard_size=10)
    writing = SharWriter(utterances, folder, settings).write()
    next(writing), next(writing)
    writing.close()
    (folder / "recording.000002.tar").write_bytes(b"a tar whose cuts are missing is written anew")
    (folder / ".0123456789abcdef.part").write_bytes(b"half a file")
    index = read_index(SharFolder(folder))
    assert index is not None
    assert not index.complete
    encoded: list[str] = []
    monkeypatch.setattr(
        "asr.data.shar_writer.load_audio",
        lambda path, *a, **k: encoded.append(str(path)) or load_audio(path, *a, **k),
    )
    list(SharWriter(utterances, folder, settings).write())
    assert content(folder) == whole
    assert len(encoded) == len(utterances) - 20  # those of the shards that were there are not
    encoded.clear()
    assert len(list(SharWriter(utterances, folder, settings).write())) == 5
    assert encoded == []


def test_a_folder_of_something_else(utterances: list[Utterance], tmp_path: Path) -> None:
    folder = write(utterances[:4], tmp_path / "s", shard_size=4)
    before = content(folder)
    with pytest.raises(ValueError, match="holds shards of another manifest or of other settings"):
        write(utterances[:4], folder, shard_size=3)
    with pytest.raises(ValueError, match="holds shards of another manifest or of other settings"):
        write([replace(utterances[0], text="b"), *utterances[1:4]], folder, shard_size=4)
    assert content(folder) == before
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"t: holds mine\.txt, expected an empty folder"):
        write(utterances[:4], tmp_path / "t", shard_size=4)


def test_bad_audio_stops_and_leaves_no_half_shard(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    folder = tmp_path / "s"
    with pytest.raises(ValueError, match=r"bad\.wav: cannot be read as audio"):
        write([*utterances[:7], Utterance(bad, "a", 0.5, "bad")], folder, shard_size=4, seed=3)
    for cuts in folder.glob("cuts.0*"):
        assert (folder / recording_of(cuts.name)).is_file()
    assert not list(folder.glob(".*.part"))
    index = read_index(SharFolder(folder))
    assert index is not None
    assert not index.complete


def test_opus_knows_few_rates(utterances: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"11025 Hz, expected one of 8000, .* --sample-rate"):
        write(utterances[:2], tmp_path / "s", audio_format="opus", sample_rate=11025)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"audio_format": "mp3"}, "format 'mp3', expected one of flac, opus, wav"),
        ({"shard_duration_s": 0.0}, "shards of 0 s, expected more than 0 s"),
        ({"shard_size": 0}, "shards of 0 utterances, expected at least 1"),
        ({"seed": -1}, "seed -1 of the shuffling, expected 0 or more"),
        ({"sample_rate": 0}, "sample rate 0 Hz, expected 1000 to 384000 Hz"),
        ({"sample_rate": 500_000}, "sample rate 500000 Hz, expected 1000 to 384000 Hz"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharSettings(**settings)  # type: ignore[arg-type]


def test_an_id_that_is_too_long_for_a_name(utterances: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"utterance id x+\.\.\.: longer than 1024 bytes"):
        write([replace(utterances[0], id="x" * 1025)], tmp_path / "s")


def test_shards_are_shuffled_and_about_equally_long() -> None:
    durations = np.random.default_rng(0).uniform(1.0, 15.0, 900)
    sorted_by_speaker = [
        Utterance(Path("x.wav"), "a", float(duration), f"u{i}")
        for i, duration in enumerate(durations)
    ]
    shares = divide(sorted_by_speaker, SharSettings(shard_duration_s=600.0))
    assert sorted(chain(*shares)) == list(range(900))
    assert len(shares) == round(durations.sum() / 600.0)
    lengths = [durations[share].sum() for share in shares]
    assert max(lengths) - min(lengths) < 30.0
    assert all(min(share) < 200 and max(share) > 700 for share in shares)
    sizes = [len(share) for share in divide(sorted_by_speaker, SharSettings(shard_size=250))]
    assert sizes == [225] * 4


def test_no_utterances() -> None:
    with pytest.raises(ValueError, match="no utterances, expected at least 1"):
        divide([], SharSettings())


def test_the_index_is_no_shard_to_lhotse(lhotse: Any, shards: Path) -> None:
    assert (shards / INDEX_FILE).is_file()
    assert len(lhotse.CutSet.from_shar(in_dir=shards)) == 47


def test_more_than_an_index_or_a_shard_may_have(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.data.shar_writer.MAX_SHARDS", 10)
    monkeypatch.setattr("asr.data.shar_writer.MAX_CUTS", 40)
    assert len(divide(utterances, SharSettings(shard_size=5))) == 10
    with pytest.raises(ValueError, match="12 shards of up to 4 utterances, expected at most 10 of"):
        divide(utterances, SharSettings(shard_size=4))
    with pytest.raises(ValueError, match="1 shards of up to 47 utterances, expected at most 10 of"):
        divide(utterances, SharSettings(shard_size=47))
