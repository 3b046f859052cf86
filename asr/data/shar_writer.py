"""A manifest as shards, shuffled, so that each is a fair sample of the whole.

Not by lhotse's SharWriter (1.33): its cuts hold the time of writing, so that the same call gives
other bytes, from which a training would not go on; its files have their final names while they are
half written; and it encodes one utterance after the other.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import numpy as np

from asr.atomic_file import remove_leftovers, replacing
from asr.audio import encode_audio, load_audio, probe
from asr.audio_file import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from asr.data.checks import with_duration
from asr.data.manifest import Utterance
from asr.data.shar import (
    MAX_CUTS,
    MAX_SHARDS,
    UTTERANCE_ID,
    Shard,
    SharFolder,
    SharIndex,
    read_index,
    recording_of,
    sha256_of,
    summarise,
    write_index,
)
from asr.finding import Finding
from asr.text import TextNormalizer

LAYOUT = 2  # of the shards; another number makes a folder be written anew
MAX_ID_BYTES = 1024
# Container and encoding, as libsndfile names them.
AUDIO_FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "wav": ("WAV", "PCM_16")}
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # [Hz] RFC 6716, section 2
IN_FLIGHT = 32  # utterances that are encoded at a time, ahead of the writing


@dataclass(frozen=True)
class SharSettings:
    """How a manifest is cut into shards.

    Attributes:
        audio_format: "flac" and "wav" have 16 bits, mono; "opus" is lossy, at libopus's own rate
            of bits.
        shard_duration_s: audio a shard [s]; shards are of about equal length.
        shard_size: utterances a shard, which then decides alone; None for a duration.
        seed: of the shuffling.
        sample_rate: of the audio [Hz]; None keeps each file's.
        text: rules of the texts whose characters the index counts; transcripts stay as they are.

    Raises:
        ValueError: for a value out of range.
    """

    audio_format: str = "flac"
    shard_duration_s: float = 3600.0
    shard_size: int | None = None
    seed: int = 0
    sample_rate: int | None = None
    text: TextNormalizer = field(default_factory=TextNormalizer)

    def __post_init__(self) -> None:
        if self.audio_format not in AUDIO_FORMATS:
            known = ", ".join(AUDIO_FORMATS)
            raise ValueError(f"format {self.audio_format!r}, expected one of {known}")
        if not 0 < self.shard_duration_s < float("inf"):
            raise ValueError(f"shards of {self.shard_duration_s:g} s, expected more than 0 s")
        if self.shard_size is not None and self.shard_size < 1:
            raise ValueError(f"shards of {self.shard_size} utterances, expected at least 1")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} of the shuffling, expected 0 or more")
        rate = self.sample_rate
        if rate is not None and not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
            raise ValueError(
                f"sample rate {rate} Hz, expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
            )


class SharWriter:
    """Writes shards one after another; after a kill, the same goes on with the first missing.

    No shard is there by half: its tar and then its cuts get their names when they are whole. The
    index comes last. The same arguments give the same bytes, but for an opus stream's serial
    number.

    Args:
        utterances: of a manifest.
        folder: empty, missing, or of an earlier writing with the same arguments.
        settings: how.

    Raises:
        ValueError: no utterances, or audio without a usable header where a duration is unknown.
        OSError: missing audio.
    """

    def __init__(
        self, utterances: Sequence[Utterance], folder: Path, settings: SharSettings
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.utterances: list[Utterance] = []
        for row in map(with_duration, utterances):
            if isinstance(row, Finding):
                raise ValueError(row.reason)
            self.utterances.append(row)
        self.shares = divide(self.utterances, settings)

    def write(self, num_workers: int = 1) -> Iterator[Shard]:
        """Write what is missing; the index is complete when the last shard was taken.

        Args:
            num_workers: threads that decode and encode.

        Yields:
            Every shard when it is there, also those that already were.

        Raises:
            ValueError: bad audio, or a folder that holds something else.
            OSError: missing audio, no space.
        """
        made_of = _fingerprint(self.utterances, self.settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        folder, text = SharFolder(self.folder), self.settings.text
        index = read_index(folder)
        others = [name for name in folder.names() if not name.endswith(".part")]
        if index is None and others:
            raise ValueError(
                f"{folder}: holds {others[0]}, expected an empty folder or shards begun by asr shar"
            )
        if index is None:
            write_index(self.folder, SharIndex((), {}, text.settings(), made_of, complete=False))
        elif index.made_of != made_of:
            raise ValueError(
                f"{folder}: holds shards of another manifest or of other settings, expected those "
                "of this call, or an empty folder"
            )
        elif index.complete:
            yield from index.shards
            return
        remove_leftovers(self.folder)
        shards: dict[str, Shard] = {}
        with ThreadPoolExecutor(num_workers, thread_name_prefix="audio") as pool:
            for number, share in enumerate(self.shares):
                cuts = f"cuts.{number:06d}.jsonl.gz"
                recording = recording_of(cuts)
                if not (self.folder / cuts).exists():
                    own = [self.utterances[position] for position in share]
                    _write_shard(self.folder, cuts, recording, own, self.settings, pool)
                (shard,) = summarise(folder, [(cuts, recording)], text).shards
                sha256 = sha256_of(self.folder / recording)
                shards[cuts] = replace(shard, recording_sha256=sha256)
                yield shards[cuts]
        pairs = [(shard.cuts, shard.recording) for shard in shards.values()]
        whole = summarise(folder, pairs, text, known=shards)
        write_index(self.folder, replace(whole, made_of=made_of))


def divide(utterances: Sequence[Utterance], settings: SharSettings) -> list[list[int]]:
    """Positions of each shard's utterances: shuffled, then cut into shares of about equal length.

    Raises:
        ValueError: no utterances, more shards than an index lists, or more utterances than a shard
            may have.
    """
    if not utterances:
        raise ValueError("no utterances, expected at least 1")
    order = np.random.default_rng(settings.seed).permutation(len(utterances))
    if settings.shard_size is not None:
        parts = np.array_split(order, -(-len(order) // settings.shard_size))
    else:
        # An utterance is of the shard in which its middle falls: none is cut, and all are alike.
        durations = np.array([utterances[i].duration or 0.0 for i in order])
        middles = np.cumsum(durations) - durations / 2
        num_shards = max(1, round(durations.sum() / settings.shard_duration_s))
        number = np.minimum(middles / durations.sum() * num_shards, num_shards - 1).astype(int)
        parts = np.split(order, np.searchsorted(number, np.arange(1, num_shards)))
    shares: list[list[int]] = [part.tolist() for part in parts if len(part)]
    largest = max(map(len, shares))
    if largest > MAX_CUTS or len(shares) > MAX_SHARDS:
        raise ValueError(
            f"{len(shares)} shards of up to {largest} utterances, expected at most {MAX_SHARDS} of "
            f"{MAX_CUTS}: choose another --shard-duration-h or --shard-size"
        )
    return shares


def _fingerprint(utterances: Sequence[Utterance], settings: SharSettings) -> str:
    digest = hashlib.sha256(json.dumps([LAYOUT, asdict(settings)]).encode())
    for item in utterances:
        row = [str(item.audio_filepath.absolute()), *item.part, item.id, item.text]
        digest.update(json.dumps([*row, item.speaker, dict(item.extra)]).encode())
    return digest.hexdigest()


def _write_shard(
    folder: Path,
    cuts: str,
    recording: str,
    utterances: Sequence[Utterance],
    settings: SharSettings,
    pool: ThreadPoolExecutor,
) -> None:
    rows: list[bytes] = []
    with (
        replacing(folder / recording) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for start in range(0, len(utterances), IN_FLIGHT):
            some = utterances[start : start + IN_FLIGHT]
            encoded = pool.map(lambda utterance: _encode(utterance, settings), some)
            for utterance, (audio, sample_rate, num_samples) in zip(some, encoded, strict=True):
                cut = _cut(utterance, sample_rate, num_samples)
                for suffix, content in (
                    (settings.audio_format, audio), ("json", _line(cut["recording"]))
                ):  # fmt: skip
                    member = tarfile.TarInfo(f"{cut['id']}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                rows.append(_line(cut))
    # Without name and time, so that the same cuts are the same bytes.
    with (
        replacing(folder / cuts) as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed,
    ):
        packed.writelines(rows)


def _encode(utterance: Utterance, settings: SharSettings) -> tuple[bytes, int, int]:
    """Encoded audio, its rate [Hz] and number of samples."""
    path = utterance.audio_filepath
    rate = settings.sample_rate or probe(path).sample_rate
    if settings.audio_format == "opus" and rate not in OPUS_RATES:
        rates = ", ".join(map(str, OPUS_RATES))
        raise ValueError(f"{path}: {rate} Hz, expected one of {rates} for opus: give --sample-rate")
    waveform = load_audio(
        path, rate, offset=utterance.offset, duration=utterance.duration, channel=utterance.channel
    )
    container, subtype = AUDIO_FORMATS[settings.audio_format]
    content, _ = encode_audio(waveform, rate, container, subtype)
    return content, rate, len(waveform)


def _cut(utterance: Utterance, sample_rate: int, num_samples: int) -> dict[str, object]:
    """A MonoCut as lhotse writes it, whose recording is to be filled from the tar."""
    duration = num_samples / sample_rate
    cut_id = _cut_id(utterance.id)
    custom = dict(utterance.extra)
    if cut_id != utterance.id:
        custom[UTTERANCE_ID] = utterance.id
    supervision: dict[str, object] = {
        "id": cut_id, "recording_id": cut_id, "start": 0.0, "duration": duration, "channel": 0,
        "text": utterance.text,
    }  # fmt: skip
    if utterance.speaker is not None:
        supervision["speaker"] = utterance.speaker
    cut: dict[str, object] = {
        "id": cut_id, "start": 0.0, "duration": duration, "channel": 0,
        "supervisions": [supervision],
        "recording": {
            "id": cut_id, "sources": [{"type": "shar", "channels": [0], "source": ""}],
            "sampling_rate": sample_rate, "num_samples": num_samples, "duration": duration,
            "channel_ids": [0],
        },
    }  # fmt: skip
    if custom:
        cut["custom"] = custom
    return cut | {"type": "MonoCut"}


def _cut_id(utterance_id: str) -> str:
    """The id, or a quoted one where it could not name a file below a folder."""
    path = PurePosixPath(utterance_id)
    is_plain = not path.is_absolute() and ".." not in path.parts and str(path) == utterance_id
    if is_plain and utterance_id.isprintable() and utterance_id != ".":
        cut_id = utterance_id
    else:
        cut_id = quote(utterance_id, safe="").replace(".", "%2E")  # else `..` would stay
    if len(cut_id.encode()) > MAX_ID_BYTES:
        raise ValueError(f"utterance id {cut_id[:60]}...: longer than {MAX_ID_BYTES} bytes")
    return cut_id


def _line(record: object) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
