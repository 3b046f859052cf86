"""Free Spoken Digit Dataset: six speakers, ten English digits, fifty times each, 8 kHz.

Zohar Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from asr.data.archive import ARCHIVE_SUFFIXES, download, unpack
from asr.data.corpus_folder import DOWNLOAD_DIR, Advance, Conversion, Say, corpus_folder
from asr.data.manifest import Utterance
from asr.data.prepare import PreparedCorpus, Settings, prepare_corpus, silent
from asr.lock import locked
from asr.untrusted import read_bytes

COMMIT = "26eb9aa"
ARCHIVE_URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{COMMIT}.zip"
MAX_ARCHIVE_BYTES = 100_000_000  # the archive has about 16 MB
MAX_MEMBERS = 10_000  # it has about 3,050
MAX_UNPACKED_BYTES = 200_000_000  # the recordings have 21 MB
NUM_RECORDINGS = 3000
MAX_RECORDING_BYTES = 1_000_000  # the longest has 37 kB
# Over the lines `<name> <sha256 of the file>` of all recordings, sorted by name. Not over the
# archive: GitHub packs it anew now and then, and only its content stays the same.
CONTENT_SHA256 = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_INDICES = range(5)  # the official test split; 5 to 49 are for training
DEV_INDICES = (5, 6, 7, 8, 9)
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]{1,4})\.wav")


def prepare_fsdd(
    data_dir: str | Path,
    *,
    name: str = "fsdd",
    source: str | Path | None = None,
    verify: bool = True,
    held_out_speaker: str | None = None,
    dev_indices: Sequence[int] = DEV_INDICES,
    archive_url: str = ARCHIVE_URL,
    audio_format: str = "wav",
    sample_rate: int = 8_000,
    num_workers: int | None = None,
    say: Say = silent,
    progress: Advance = silent,
) -> PreparedCorpus:
    """Prepare the Free Spoken Digit Dataset.

    Test are the recordings 0 to 4 of every digit and speaker, as the dataset says; dev is taken
    from the rest by index, and train is what remains. With a held-out speaker, test is all of
    that speaker and train and dev are the others: dev their recordings `dev_indices`, train all
    else. The recordings are verified by their content.

    Args:
        data_dir: folder of all corpora; a download goes to `downloads/fsdd` in it.
        name: of the corpus; with a held-out speaker `_without_<speaker>` is added.
        source: folder of the recordings, or one that holds it as `recordings`, or an archive of
            the repository (.zip, .tar.gz); None downloads it.
        verify: whether the source must be just the 3000 recordings of commit 26eb9aa.
        held_out_speaker: george, jackson, lucas, nicolas, theo or yweweler; None for the official
            split.
        dev_indices: recordings of every digit and speaker that make up dev.
        archive_url: what to download.
        audio_format: "wav" or "flac" (16 bit, mono, written beside the manifests) or "keep".
        sample_rate: of written audio [Hz]; the recordings have 8000.
        num_workers: threads; None takes one a core.
        say: told of every step.
        progress: told how far a long step is: what is done, its unit, how many of how many.

    Returns:
        The prepared corpus.

    Raises:
        ValueError: a wrong argument, or recordings that are not those expected.
        OSError: the network or a file fails.
    """
    settings = Settings(Conversion(audio_format, sample_rate, num_workers))
    _check_split(held_out_speaker, dev_indices)
    full_name = name if held_out_speaker is None else f"{name}_without_{held_out_speaker}"
    with corpus_folder(Path(data_dir), full_name) as folder:
        recordings = find_recordings(Path(data_dir), source, archive_url, verify, say, progress)
        splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
        for utterance, index in read_recordings(recordings):
            if held_out_speaker is None:
                for_test = index in TEST_INDICES
            else:
                for_test = utterance.speaker == held_out_speaker
            split = "test" if for_test else "dev" if index in dev_indices else "train"
            splits[split].append(utterance)
        origin = ARCHIVE_URL if verify else str(recordings)
        return prepare_corpus(folder, splits, settings, source=origin, say=say, progress=progress)


def find_recordings(
    data_dir: Path,
    source: str | Path | None,
    archive_url: str,
    verify: bool,
    say: Say = silent,
    progress: Advance = silent,
) -> Path:
    """The folder with the wav files: the source's, unpacked or downloaded where it must be.

    Raises:
        ValueError: where there are none, the archive is bad, or they are not those expected.
        OSError: where the network or the disk fails.
    """
    if source is not None and not str(source).lower().endswith(ARCHIVE_SUFFIXES):
        recordings = _recordings_in(Path(source))
        unpacked = None
    else:
        downloads = data_dir.absolute() / DOWNLOAD_DIR
        downloads.mkdir(parents=True, exist_ok=True)
        with locked(downloads / "fsdd.lock", "downloads it now", waiting=say):
            unpacked = _unpacked(downloads, source, archive_url, say, progress)
        recordings = _recordings_in(unpacked)
    if verify:
        try:
            verify_recordings(recordings)
        except ValueError:
            # Otherwise the next run would take it for a good download.
            if unpacked is not None and not unpacked.is_symlink():
                shutil.rmtree(unpacked)
            raise
        say(f"{recordings}: verified, the {NUM_RECORDINGS} recordings of {COMMIT}")
    return recordings


def _unpacked(
    downloads: Path, source: str | Path | None, archive_url: str, say: Say, progress: Advance
) -> Path:
    if source is None:
        archive = downloads / f"fsdd-{COMMIT}.zip"
        unpacked = downloads / f"fsdd-{COMMIT}"
    else:
        archive = Path(source)
        content = read_bytes(archive, "an archive", MAX_ARCHIVE_BYTES)
        key = hashlib.sha256(content).hexdigest()[:16]
        unpacked = downloads / f"fsdd-{key}"
    if unpacked.is_dir():
        say(f"{unpacked}: already unpacked")
        return unpacked
    if source is None and not archive.is_file():
        told = partial(progress, "download", "bytes")
        download(archive_url, archive, max_bytes=MAX_ARCHIVE_BYTES, progress=told)
        say(f"{archive}: downloaded from {archive_url}")
    num_files = unpack(archive, unpacked, max_members=MAX_MEMBERS, max_bytes=MAX_UNPACKED_BYTES)
    say(f"{unpacked}: {num_files} files unpacked")
    if source is None:
        archive.unlink()
    return unpacked


def verify_recordings(recordings: Path) -> None:
    """Make sure that a folder holds the recordings of commit 26eb9aa and no others.

    Raises:
        ValueError: for a recording too many, too few or changed.
        OSError: unreadable.
    """
    paths = [path for path in recordings.iterdir() if path.suffix == ".wav"]
    if len(paths) != NUM_RECORDINGS:
        raise ValueError(
            f"{recordings}: holds {len(paths)} recordings, expected {NUM_RECORDINGS} "
            "(verify=false takes those that are there)"
        )
    actual = content_sha256(paths)
    if actual != CONTENT_SHA256:
        raise ValueError(
            f"{recordings}: the content has sha256 {actual}, expected {CONTENT_SHA256} of commit "
            f"{COMMIT} (verify=false takes it as it is)"
        )


def content_sha256(paths: Sequence[Path]) -> str:
    """Fingerprint of files by name and content, whatever archive or folder they came in."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        content = read_bytes(path, "a recording", MAX_RECORDING_BYTES)
        digest.update(f"{path.name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def read_recordings(recordings: Path) -> list[tuple[Utterance, int]]:
    """The utterances of a folder, by digit, speaker and index, each with its index.

    Raises:
        ValueError: for a wav file whose name is not `<digit>_<speaker>_<index>.wav`.
    """
    found: list[tuple[tuple[str, str, int], Utterance]] = []
    for path in recordings.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None:
            digit, speaker, index = match.group(1), match.group(2), int(match.group(3))
            utterance = Utterance(path, DIGITS[int(digit)], None, path.stem, speaker)
            found.append(((digit, speaker, index), utterance))
        elif path.suffix == ".wav":
            raise ValueError(f"{path}: not a recording's name, expected like 7_jackson_32.wav")
    return [(utterance, key[2]) for key, utterance in sorted(found, key=lambda pair: pair[0])]


def _recordings_in(folder: Path) -> Path:
    """`folder`, its `recordings`, or that of the one folder which an archive of GitHub holds."""
    if not folder.is_dir():
        raise NotADirectoryError(20, "not a folder, expected one with recordings", str(folder))
    for candidate in (folder / "recordings", *sorted(folder.glob("*/recordings")), folder):
        if any(candidate.glob("*.wav")):
            return candidate
    raise ValueError(f"{folder}: holds no wav files, expected them there or in recordings/")


def _check_split(held_out_speaker: str | None, dev_indices: Sequence[int]) -> None:
    if held_out_speaker is not None and held_out_speaker not in SPEAKERS:
        raise ValueError(
            f"held_out_speaker is {held_out_speaker!r}, expected one of {', '.join(SPEAKERS)}"
        )
    first = TEST_INDICES.stop if held_out_speaker is None else 0
    wrong = [index for index in dev_indices if index not in range(first, 50)]
    if wrong:
        raise ValueError(f"dev_indices has {wrong[0]!r}, expected whole numbers {first} to 49")
    if not dev_indices:
        raise ValueError(f"dev_indices is empty, expected whole numbers {first} to 49")
