"""The splits of shards: with an index, without one, and of other people's making."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.dataset import load_request
from asr.data.manifest import Utterance, write_manifest
from asr.data.shar.index import INDEX_FILE, SharIndex, write_index
from asr.data.shar.load import StreamedSplits, load_shar
from asr.data.shar.writer import SharSettings, SharWriter
from asr.text import CharTokenizer, TextNormalizer
from tests.data.loading import no_gate

from .conftest import COUNT, RATE

Foreign = tuple[Path, list[str]]


@pytest.fixture(scope="session")
def dev(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = tmp_path_factory.mktemp("dev") / "dev.jsonl"
    write_manifest(manifest, utterances[5:8])
    return manifest


def load(
    folder: Path, dev: Path, said: list[str] | None = None, **changes: object
) -> StreamedSplits:
    arguments: dict[str, object] = {"text": TextNormalizer(), **changes}
    notice = (said if said is not None else []).append
    return load_shar(str(folder), str(dev), notice=notice, **arguments)  # type: ignore[arg-type]


def write(utterances: list[Utterance], folder: Path, **settings: object) -> Path:
    list(SharWriter(utterances, folder, SharSettings(**settings)).write())  # type: ignore[arg-type]
    return folder


def test_with_an_index_nothing_else_is_read(
    shards: Path, dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("asr.data.shar.index.read_cuts", None)
    splits = load(shards, dev, said, shards_per_window=2)
    assert splits.alphabet == "abcd"
    assert splits.train.index.utterances == COUNT
    assert splits.train.shards_per_window == 2
    assert len(splits.dev) == 3
    assert said == []


def test_other_text_rules_count_the_alphabet_anew(shards: Path, dev: Path) -> None:
    said: list[str] = []
    text = TextNormalizer(lowercase=False)
    splits = load(shards, dev, said, text=text)
    assert splits.alphabet == "ABCDabcd"
    (line,) = said
    assert "all cuts are read once, as the alphabet was counted by other text rules" in line
    said.clear()
    assert load(shards, dev, said, text=text, alphabet="abcdABCD").alphabet == "abcdABCD"
    assert said == []


def test_without_an_index_it_is_made_once(
    utterances: list[Utterance], dev: Path, tmp_path: Path
) -> None:
    folder = write(utterances, tmp_path / "s", shard_size=20)
    before = json.loads((folder / INDEX_FILE).read_text())
    (folder / INDEX_FILE).unlink()
    said: list[str] = []
    first = load(folder, dev, said)
    assert said[0].endswith(f"no {INDEX_FILE}, all cuts are read once")
    assert f"written, 3 shards, {COUNT} utterances" in said[1]
    after = json.loads((folder / INDEX_FILE).read_text())
    for shard in before["shards"]:
        shard["recording_sha256"] = None  # its tars were not read
    assert (after["shards"], after["characters"]) == (before["shards"], before["characters"])
    said.clear()
    assert load(folder, dev, said).fingerprint() == first.fingerprint()
    assert said == []


def test_a_folder_that_cannot_keep_its_index(
    utterances: list[Utterance], dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(utterances[:6], tmp_path / "s", shard_size=3)
    (folder / INDEX_FILE).unlink()

    def refuse(folder: Path, index: SharIndex) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("asr.data.shar.load.write_index", refuse)
    said: list[str] = []
    assert load(folder, dev, said, alphabet="abcd").train.index.utterances == 6
    assert "the index is not kept (Permission denied), so the next run reads anew" in said[1]


@pytest.mark.filterwarnings(  # lhotse leaves files for the garbage collector to close
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
def test_shards_that_lhotse_wrote(tmp_path: Path, dev: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    from lhotse.shar import SharWriter as LhotseWriter

    lhotse.set_current_audio_backend("LibsndfileBackend")
    generator = np.random.default_rng(0)
    folder = tmp_path / "foreign"
    folder.mkdir()
    waveforms = {}
    with LhotseWriter(folder, fields={"recording": "flac"}, shard_size=3) as writer:
        for number in range(7):
            samples = generator.integers(-3000, 3000, (2, RATE)).astype(np.int16)
            path = tmp_path / f"{number}.wav"
            soundfile.write(path, samples.T, RATE, subtype="PCM_16")
            recording = lhotse.Recording.from_file(path)
            supervisions = [
                lhotse.SupervisionSegment(
                    f"s{number}", recording.id, 0.0, 0.4, text="Ab c", speaker="anna"
                )
            ] * (2 if number == 5 else 1)
            cut = lhotse.MonoCut(
                f"rec/{number}.5", 0.25, 0.5, 1, supervisions=supervisions, recording=recording
            )
            writer.write(cut)
            waveforms[cut.id] = samples[1, RATE // 4 : RATE * 3 // 4] / 2**15
    said: list[str] = []
    splits = load(folder, dev, said, alphabet="abcd ")
    assert "cut rec/5.5 is no utterance: it has 2 supervisions, expected 1" in said[1]
    assert splits.train.index.utterances == 6
    seen = {}
    windows = splits.train.open(CharTokenizer("abc "), no_gate, 0)
    for window in windows.epoch(0):
        for position, utterance in enumerate(window.utterances):
            assert (utterance.text, utterance.speaker) == ("ab c", "anna")
            assert utterance.duration == 0.5
            seen[utterance.id] = load_request(window.request(0, position), RATE)
    assert seen.keys() == waveforms.keys() - {"rec/5.5"}
    for name, waveform in seen.items():
        np.testing.assert_allclose(waveform, waveforms[name], atol=2 / 2**15)  # lhotse's rounding


def test_shards_that_are_being_written(
    utterances: list[Utterance], dev: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    writing = SharWriter(utterances, folder, SharSettings(shard_size=20)).write()
    next(writing)
    writing.close()
    with pytest.raises(ValueError, match="its shards are not all written, go on with asr shar"):
        load(folder, dev)


def test_an_index_of_other_shards(utterances: list[Utterance], dev: Path, tmp_path: Path) -> None:
    folder = write(utterances, tmp_path / "s", shard_size=20)
    tar = folder / "recording.000001.tar"
    tar.rename(folder / "gone")
    with pytest.raises(ValueError, match=r"index\.json: recording\.000001\.tar is missing"):
        load(folder, dev)
    (folder / "gone").rename(tar)
    (folder / "cuts.000007.jsonl.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"index\.json: cuts\.000007\.jsonl\.gz is not in it"):
        load(folder, dev)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged index"),
        ("[]", "damaged index"),
        ("{}", "damaged index"),
        ('{"version": 2}', "version 2, expected 1"),
        ('{"version": 1, "shards": [{"cuts": 1}]}', "damaged index"),
        ('{"version": 1, "shards": [], "text": {}}', "damaged index"),
    ],
)
def test_a_damaged_index(dev: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / INDEX_FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json: {message}"):
        load(tmp_path, dev)


def test_an_index_cannot_lead_out_of_its_folder(shards: Path, dev: Path, tmp_path: Path) -> None:
    content = (shards / INDEX_FILE).read_text()
    (tmp_path / INDEX_FILE).write_text(content.replace("cuts.000000", "../cuts.000000"))
    with pytest.raises(ValueError, match=r"'\.\./cuts\.000000\.jsonl\.gz' is no name of cuts"):
        load(tmp_path, dev)


def test_folders_without_shards(shards: Path, dev: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no shards, expected cuts\.000000\.jsonl\.gz"):
        load(tmp_path, dev)
    (tmp_path / "cuts.000000.jsonl.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has no recording\.000000\.tar beside it"):
        load(tmp_path, dev)
    (tmp_path / "recording.000000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="no utterance in 1 shards, expected some"):
        load(tmp_path, dev)


def test_dev_has_a_character_that_the_shards_lack(
    shards: Path, utterances: list[Utterance], tmp_path: Path
) -> None:
    manifest = tmp_path / "dev.jsonl"
    write_manifest(manifest, [Utterance(utterances[0].audio_filepath, "axe", 0.1, "u")])
    with pytest.raises(ValueError, match=r"^dev: \S+dev\.jsonl:1: u: character 'e' "):
        load(shards, manifest)


def test_the_fingerprint_is_of_both_splits(shards: Path, dev: Path, tmp_path: Path) -> None:
    base = load(shards, dev).fingerprint()
    assert load(shards, dev).fingerprint() == base
    lines = dev.read_text().splitlines(keepends=True)
    other = dev.with_name("other.jsonl")
    other.write_text("".join(lines[:2]))
    assert load(shards, other).fingerprint() != base
    assert load(shards, dev, shards_per_window=3).fingerprint() != base


def test_write_index_is_whole(tmp_path: Path) -> None:
    write_index(tmp_path, SharIndex((), {"é": 1}, {}))
    assert json.loads((tmp_path / INDEX_FILE).read_text())["characters"] == {"é": 1}
