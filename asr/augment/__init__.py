"""Variations of training utterances; every draw comes from a generator that the caller seeds."""

from collections.abc import Mapping
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

    Raises:
        ValueError: settings in place of what they are the settings of.
    """

    waveform: WaveformAugment | None = None
    spec: SpecAugment | None = None

    def __post_init__(self) -> None:
        # An experiment's settings for masks, say, where augment=none has nothing they belong to.
        for name in ("waveform", "spec"):
            part = getattr(self, name)
            if isinstance(part, Mapping):
                raise ValueError(
                    f"augment.{name} has settings ({', '.join(part)}) of nothing, expected an "
                    f"augment= that has it, or augment.{name}=null"
                )


__all__ = [
    "Augment",
    "Noise",
    "Reverberation",
    "SimulatedRooms",
    "SpecAugment",
    "SyntheticNoise",
    "WaveformAugment",
]
