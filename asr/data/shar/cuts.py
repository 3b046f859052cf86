"""The cuts of a shard: what is said in it, as utterances."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from asr.data.manifest import MAX_SECONDS, BadLineError, Record, Utterance, json_records
from asr.data.shar.folder import SharFolder
from asr.finding import Finding, Kind
from asr.untrusted import HasLines, lines, read_stream, shown, unpacked

# What a forged shard can cost is bounded; an hour has some 300 to 1,000 cuts of 600 bytes.
MAX_CUTS = 200_000
MAX_CUTS_BYTES = 1 << 28  # 256 MiB, packed or not
KINDS = ("MonoCut", "MultiCut", "Cut")  # one recording; channels are averaged as in any file
SLACK_S = 0.05  # [s] by which a text may reach beyond its cut: times are rounded
UTTERANCE_ID = "utterance_id"  # in `custom`, where an id cannot be a file's name in the tar


def read_cuts(
    folder: SharFolder, name: str, recording: str, sha256: str | None = None
) -> list[tuple[str, Utterance | Finding]]:
    """Read the cuts of a shard.

    Args:
        folder: where it lies.
        name: of the file of cuts.
        recording: name of the tar with their audio; utterances are located in it.
        sha256: of the file; None does not check.

    Returns:
        In the file's order, the cut's id and its utterance, text as it is; or why it is none: a
        cut made of several recordings, without audio or text, with several supervisions.

    Raises:
        ValueError: damaged, changed, or no cuts; the message names file and line.
        OSError: missing or unreadable.
    """
    where = folder.where(name)
    with folder.open(name) as file:
        packed = read_stream(file, where, "a shard's cuts", MAX_CUTS_BYTES)
    check_sha256(where, hashlib.sha256(packed).hexdigest(), sha256)
    file = io.BufferedReader(io.BytesIO(packed))
    return _parse(where, unpacked(file, where), folder.where(recording))


def check_sha256(where: str, actual: str, expected: str | None) -> None:
    """Refuse a file that is not the one an index was made of.

    Raises:
        ValueError: it is another.
    """
    if expected is not None and actual != expected:
        raise ValueError(
            f"{where}: sha256 {actual[:12]}..., expected {expected[:12]}...: the file is damaged, "
            "or it was changed after its index was made"
        )


def _parse(where: str, file: HasLines, recording: str) -> list[tuple[str, Utterance | Finding]]:
    cuts: dict[str, Utterance | Finding] = {}
    for line, record in json_records(lines(file, where, MAX_CUTS_BYTES)):
        if len(cuts) == MAX_CUTS:
            raise ValueError(f"{where}: more than {MAX_CUTS} cuts, expected fewer in a shard")
        try:
            if isinstance(record, BadLineError):
                raise record
            cut_id = _text(record, "id")
            if cut_id in cuts:
                raise BadLineError(f"id {shown(cut_id)} occurs twice, expected once")
            cuts[cut_id] = _utterance(cut_id, record, recording)
        except BadLineError as error:
            raise ValueError(f"{where}:{line}: {error}") from error
    return list(cuts.items())


def _utterance(cut_id: str, record: Record, recording: str) -> Utterance | Finding:
    custom = record.get("custom") or {}
    if not isinstance(custom, dict):
        raise BadLineError(f"custom is {shown(custom)}, expected {{...}}")
    custom = dict(custom)
    utterance_id = str(custom.pop(UTTERANCE_ID, cut_id))
    start, duration = _seconds(record, "start"), _seconds(record, "duration")
    reason = _unusable(record, duration)
    if reason is not None:
        return Finding(Kind.BAD_LINE, reason, utterance_id)
    (supervision,) = record["supervisions"]
    speaker = supervision.get("speaker")
    return Utterance(
        audio_filepath=Path(f"{recording}/{cut_id}"),
        text=supervision["text"],
        duration=duration,
        id=utterance_id,
        speaker=None if speaker is None else str(speaker),
        offset=start,
        extra=custom,
    )


def _unusable(record: Record, duration: float) -> str | None:
    """Why a cut is no utterance."""
    kind = record.get("type", "MonoCut")
    if kind not in KINDS:
        return f"is a {shown(kind)}, expected a MonoCut: export mixed cuts as audio first"
    recording = record.get("recording")
    if not isinstance(recording, dict):
        return "has no recording, expected one"
    if recording.get("transforms"):
        return "its recording has transforms, expected audio as it is"
    supervisions = record.get("supervisions") or []
    if not isinstance(supervisions, list) or len(supervisions) != 1:
        return f"has {len(supervisions)} supervisions, expected 1: trim_to_supervisions makes it so"
    supervision = supervisions[0]
    if not isinstance(supervision, dict) or not isinstance(supervision.get("text"), str):
        return "its supervision has no text, expected a transcript"
    start, length = _seconds(supervision, "start", -MAX_SECONDS), _seconds(supervision, "duration")
    if start < -SLACK_S or start + length > duration + SLACK_S:
        return (
            f"its text spans {start:g} to {start + length:g} s, expected 0 to {duration:g} s as "
            "the cut does"
        )
    return None


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise BadLineError(f"{name} is {shown(value)}, expected a text")
    return value


def _seconds(record: Record, name: str, least: float = 0.0) -> float:
    value = record.get(name)
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not least <= value <= MAX_SECONDS
    ):
        raise BadLineError(f"{name} is {shown(value)}, expected a number of seconds")
    return float(value)
