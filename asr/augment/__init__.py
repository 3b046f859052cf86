"""Variations of training utterances; every draw comes from a generator that the caller seeds."""

from dataclasses import dataclass

from asr.augment.channel import Channel
from asr.augment.noise import Noise, NoiseFiles, SyntheticNoise
from asr.augment.pause import Pauses
from asr.augment.room import Reverberation, RoomFiles, SimulatedRooms
from asr.augment.spec_augment import SpecAugment
from asr.augment.waveform import WaveformAugment


@dataclass(frozen=True)
class Augment:
    """How training utterances are varied.

    Attributes:
        waveform: variation of the waveform, None for none.
        spec: masks on the features, None for none.
    """

    waveform: WaveformAugment | None = None
    spec: SpecAugment | None = None


__all__ = [
    "Augment",
    "Channel",
    "Noise",
    "NoiseFiles",
    "Pauses",
    "Reverberation",
    "RoomFiles",
    "SimulatedRooms",
    "SpecAugment",
    "SyntheticNoise",
    "WaveformAugment",
]
