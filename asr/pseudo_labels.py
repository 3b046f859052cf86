"""What of a transcript is sure enough to learn from: its segments, as lines of a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asr.transcript import Transcript

SMALLEST_OFFSET_S = 0.001  # [s]


class PseudoLabels:
    """Makes utterances of the segments that are sure enough, and counts them.

    A segment's confidence is that of its least sure word. See docs/results.md for how it compares
    with the mean of all.

    Args:
        min_confidence: that a segment needs, 0 to 1.
        has_speakers: the speakers of the transcripts are people that somebody named: "channel 0" of
            two recordings is not one voice.
    """

    def __init__(self, min_confidence: float, has_speakers: bool) -> None:
        self.min_confidence = min_confidence
        self.has_speakers = has_speakers
        self.num_segments = self.num_kept = 0
        self.seconds = self.kept_seconds = 0.0
        self.surest = 0.0

    def manifest(self, name: str, transcript: Transcript, path: Path | None) -> str:
        """Write the lines of a recording.

        Args:
            name: path of the recording.
            transcript: what was recognised.
            path: of the manifest, whose audio is written relative to its folder; None for a
                manifest without one, in which every path is absolute.
        """
        from asr.data.manifest import Utterance, manifest_bytes

        kept = []
        for segment in transcript.segments:
            # A line without an offset is all of its file: this tells a part at the beginning.
            is_beginning = segment.start == 0 and segment.end < round(transcript.duration, 3)
            start = SMALLEST_OFFSET_S if is_beginning else segment.start
            duration, confidence = round(segment.end - start, 3), segment.confidence
            self.num_segments += 1
            self.seconds += duration
            self.surest = max(self.surest, confidence)
            if confidence < self.min_confidence:
                continue
            self.num_kept += 1
            self.kept_seconds += duration
            channel = "" if segment.channel is None else f"#{segment.channel}"
            kept.append(
                Utterance(
                    Path(name),
                    segment.text,
                    duration,
                    f"{name}{channel}@{start!r}",
                    segment.speaker if self.has_speakers else None,
                    start,
                    segment.channel,
                    {"confidence": confidence},
                )
            )
        return manifest_bytes(path, kept).decode()

    def summary(self) -> str:
        """Tell how much was kept of how much.

        Raises:
            ValueError: nothing was.
        """
        from asr.report.wording import length

        if not self.num_segments:
            raise ValueError("no words were recognised, so there is no manifest")
        at_least = f"a confidence of at least {self.min_confidence:g}"
        if not self.num_kept:
            raise ValueError(
                f"none of {self.num_segments:,} segments has {at_least}, so there is no manifest; "
                f"the surest has {self.surest:g}"
            )
        kept, of = (
            length(each).replace("\u202f", " ") for each in (self.kept_seconds, self.seconds)
        )
        counts = f"{self.num_kept:,} of {self.num_segments:,} segments"
        return f"kept {counts}, {kept} of {of}, with {at_least}"
