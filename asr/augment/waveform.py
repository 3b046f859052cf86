"""Variations of a waveform: speed, tempo, pauses, room, noise, channel and gain, in this order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asr.augment.bounds import checked_db
from asr.augment.channel import Channel
from asr.augment.noise import Noise
from asr.augment.pause import Pauses
from asr.augment.room import Reverberation

WINDOW_S = 0.035  # [s] of a change of tempo; the next power of two
OVERLAP = 4  # windows over each sample


class WaveformAugment:
    """Plays an utterance faster or slower, between pauses, in a room, in noise, through a channel.

    A gain makes it louder or softer. Speed changes tempo and pitch together by resampling (Ko et
    al., "Audio augmentation for speech recognition", Interspeech 2015). Noise comes after the room,
    for it has a place of its own; the channel, a microphone or a line, hears both.

    Args:
        speeds: factors, one drawn an utterance; 1.1 is 10 % faster and so 10 % shorter.
        tempos: factors as well, that leave the pitch where it is.
        pauses: around utterances, and between those that a batch joins; None for none.
        room: reverberation, None for none.
        noise: what is added, None for nothing.
        channel: what it is heard through, None for nothing.
        gain_db: range (lowest, highest) of a gain drawn evenly [dB].

    Raises:
        ValueError: a speed or a tempo outside 0.5 to 2, or a range the wrong way round or absurd.
    """

    def __init__(
        self,
        speeds: Sequence[float] = (1.0,),
        pauses: Pauses | None = None,
        room: Reverberation | None = None,
        noise: Noise | None = None,
        channel: Channel | None = None,
        gain_db: Sequence[float] = (0.0, 0.0),
        tempos: Sequence[float] = (1.0,),
    ) -> None:
        for name, factors in (("speeds", speeds), ("tempos", tempos)):
            if not factors or not all(0.5 <= factor <= 2.0 for factor in factors):
                raise ValueError(f"{name} {list(factors)}, expected factors from 0.5 to 2")
        self.speeds = tuple(speeds)
        self.tempos = tuple(tempos)
        self.pauses = pauses
        self.room = room
        self.noise = noise
        self.channel = channel
        self.gain_db = checked_db("gain_db", gain_db)

    @property
    def fastest(self) -> float:
        """The largest factor of speed and tempo: it leaves the fewest frames."""
        return max(self.speeds) * max(self.tempos)

    @property
    def slowest(self) -> float:
        """The smallest factor of speed and tempo: it makes the longest waveforms."""
        return min(self.speeds) * min(self.tempos)

    @property
    def longest_pauses_s(self) -> float:
        """What pauses add to a waveform at most [s]: before it, behind it, and to the next one."""
        if self.pauses is None:
            return 0.0
        most = 2 * (self.pauses.around > 0) + (self.pauses.joined > 0)
        return most * self.pauses.longest_s

    @property
    def adds_row(self) -> bool:
        """Whether a batch may get a row more than it has utterances."""
        return self.pauses is not None and self.pauses.empty > 0

    def __call__(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Vary one waveform.

        Args:
            waveform: `(num_samples,)` float32.
            sample_rate: [Hz].
            generator: source of the draws; the same state gives the same result.

        Returns:
            `(about num_samples / speed / tempo,)` float32.

        Raises:
            ValueError, OSError: a recording of a noise or a room that turns out unreadable.
        """
        speed = self.speeds[generator.integers(len(self.speeds))]
        if speed != 1.0:
            waveform = change_speed(waveform, speed, sample_rate)
        # A draw from one alone would change what a seed gives to the draws behind it.
        tempo = self.tempos[generator.integers(len(self.tempos)) if len(self.tempos) > 1 else 0]
        if tempo != 1.0:
            waveform = change_tempo(waveform, tempo, sample_rate)
        if self.pauses is not None:
            waveform = self.pauses.pad(waveform, sample_rate, generator)
        if self.room is not None:
            waveform = self.room(waveform, sample_rate, generator)
        if self.noise is not None:
            waveform = self.noise(waveform, sample_rate, generator)
        if self.channel is not None:
            waveform = self.channel(waveform, sample_rate, generator)
        gain = generator.uniform(*self.gain_db)
        return (waveform * np.float32(10 ** (gain / 20))).astype(np.float32, copy=False)


def change_speed(
    waveform: NDArray[np.float32], speed: float, sample_rate: int
) -> NDArray[np.float32]:
    """Resample so that the waveform, played at the same rate, runs `speed` times as fast."""
    import soxr

    return np.asarray(soxr.resample(waveform, sample_rate * speed, sample_rate, "HQ"), np.float32)


def change_tempo(
    waveform: NDArray[np.float32], tempo: float, sample_rate: int
) -> NDArray[np.float32]:
    """Stretch in time, at the same pitch, so that the waveform runs `tempo` times as fast.

    By a phase vocoder (Flanagan and Golden, 1966) in windows of two or three periods of a voice. It
    is librosa's `time_stretch`, which goes frame by frame, in half of its time.
    """
    window = 1 << round(np.log2(WINDOW_S * sample_rate))
    hop = window // OVERLAP
    if len(waveform) < window:
        return waveform
    shape = np.hanning(window + 1)[:-1].astype(np.float32)
    padded = np.pad(waveform, window // 2)
    spectra = np.fft.rfft(sliding_window_view(padded, window)[::hop] * shape)
    places = np.arange(0, len(spectra), tempo)
    spectra = np.pad(spectra, ((0, 2), (0, 0)))
    begins = places.astype(np.int64)
    share = (places - begins)[:, None]
    sizes, angles = np.abs(spectra), np.angle(spectra)
    steps = angles[begins + 1] - angles[begins]
    phases = angles[0] + np.cumsum(steps, axis=0) - steps
    mixed = (1 - share) * sizes[begins] + share * sizes[begins + 1]
    frames = np.fft.irfft(mixed * np.exp(1j * phases), window) * shape
    summed = np.zeros((len(frames) + OVERLAP - 1, hop))
    weights = np.full_like(summed, 1e-8)
    for part in range(OVERLAP):
        here = slice(part * hop, (part + 1) * hop)
        summed[part : part + len(frames)] += frames[:, here]
        weights[part : part + len(frames)] += np.square(shape[here])
    stretched = (summed / weights).ravel()[window // 2 :][: round(len(waveform) / tempo)]
    return stretched.astype(np.float32)
