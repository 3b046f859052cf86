"""An utterance and what its examination found out about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.data.doctor.measure import Audio
from asr.data.manifest import Utterance


@dataclass(frozen=True)
class Examined:
    """One utterance.

    Attributes:
        utterance: as the manifest has it.
        text: normalised.
        audio: None where it cannot be read.
        duration_s: of the audio, or else what the manifest says; None where neither tells [s].
        frames: output frames at the fastest speed; None without a duration.
        needed: output frames that CTC needs; None where the text cannot be written.
        shortfall: of the text behind what a model hears; None where no model has listened
            [nats a frame].
    """

    utterance: Utterance
    text: str
    audio: Audio | None
    duration_s: float | None
    frames: int | None
    needed: int | None
    shortfall: float | None = None

    @property
    def characters_per_second(self) -> float | None:
        """None where there is no text or no duration [1/s]."""
        return len(self.text) / self.duration_s if self.text and self.duration_s else None

    @property
    def slack(self) -> float | None:
        """Output frames over those that CTC needs: below 1 it has no path."""
        if self.frames is None or not self.needed:
            return None
        return self.frames / self.needed

    @property
    def level_db(self) -> float | None:
        """None where the samples were not looked at [dB of full scale]."""
        return self.audio.signal.level_db if self.audio and self.audio.signal else None


@dataclass(frozen=True)
class ExaminedManifest:
    """One manifest.

    Attributes:
        manifest: the file.
        lines: how many it has, good and bad.
        utterances: those of its good lines, in order.
    """

    manifest: Path
    lines: int
    utterances: Sequence[Examined]

    @property
    def seconds(self) -> float:
        """Of audio, as far as it is known [s]."""
        return sum(each.duration_s or 0.0 for each in self.utterances)

    @property
    def speakers(self) -> set[str]:
        """Those that are named."""
        speakers = (each.utterance.speaker for each in self.utterances)
        return {speaker for speaker in speakers if speaker is not None}

    @property
    def sample_rates(self) -> Counter[int]:
        """Utterances by the rate of their file [Hz]."""
        return Counter(each.audio.sample_rate for each in self.utterances if each.audio)
