"""A folder of recordings that are not utterances: noises, impulse responses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr.audio import AUDIO_SUFFIXES, AudioInfo, probe


@dataclass(frozen=True)
class Recording:
    """A file, and what its header says."""

    path: Path
    info: AudioInfo


def list_recordings(folder: Path | str) -> tuple[Recording, ...]:
    """The audio files of a folder and the folders in it, each with its header read.

    Args:
        folder: audio files are those with a suffix of `AUDIO_SUFFIXES`; others (a licence, a
            table) are not looked at.

    Returns:
        In the order of their paths, so that the same folder gives the same draws; at least one.

    Raises:
        ValueError: no such folder, none of its files audio, or a file that cannot be read as such.
        OSError: a file that may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "missing"
        raise ValueError(f"{folder}: {found}, expected a folder of audio files")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder}: no audio files, expected {' '.join(AUDIO_SUFFIXES)}")
    return tuple(Recording(path, probe(path)) for path in paths)
