"""Variations of training utterances; every draw comes from a generator that the caller seeds."""

from dataclasses import dataclass

from asr.augment.noise import Noise
from asr.augment.room import Reverberation
from asr.augment.shoebox import SimulatedRooms
from asr.augment.spec_augment import SpecAugment
from asr.augment.synthetic_noise import SyntheticNoise
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
    "Noise",
    "Reverberation",
    "SimulatedRooms",
    "SpecAugment",
    "SyntheticNoise",
    "WaveformAugment",
]
