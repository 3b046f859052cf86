"""Utterances to examples: waveform and tokens, loaded and varied reproducibly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asr.audio import load_audio
from asr.augment.waveform import WaveformAugment
from asr.data.doctor.findings import Finding, Kind
from asr.data.manifest import Utterance


@dataclass(frozen=True)
class Example:
    """One utterance, ready for a batch.

    Attributes:
        waveform: `(num_samples,)` float32.
        tokens: label ids, without blanks.
        seed: of whatever is still to be drawn for it in this epoch.
        utterance: where it comes from.
    """

    waveform: NDArray[np.float32]
    tokens: tuple[int, ...]
    seed: int
    utterance: Utterance


def draw_seed(seed: int, epoch: int, utterance_id: str) -> int:
    """A 63-bit seed for one utterance in one epoch, whichever process or order asks for it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{utterance_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def load_utterance(utterance: Utterance, sample_rate: int) -> NDArray[np.float32]:
    """An utterance's waveform, `(num_samples,)` float32 at `sample_rate` [Hz]."""
    return load_audio(
        utterance.audio_filepath,
        sample_rate,
        offset=utterance.offset,
        duration=utterance.duration,
    )


class SpeechDataset(Dataset[Example | Finding]):
    """Loads utterances by (epoch, position), the keys that an epoch plan is made of.

    Args:
        utterances: a manifest.
        tokens: label ids of each utterance.
        sample_rate: of the waveforms [Hz].
        seed: of the run.
        augment: variation of the waveform, None for none.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        tokens: Sequence[Sequence[int]],
        sample_rate: int,
        seed: int = 0,
        augment: WaveformAugment | None = None,
    ) -> None:
        assert len(utterances) == len(tokens)
        self.utterances = utterances
        self.tokens = [tuple(ids) for ids in tokens]
        self.sample_rate = sample_rate
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, key: tuple[int, int]) -> Example | Finding:
        """Load one utterance.

        Args:
            key: epoch and position in the manifest.

        Returns:
            The example, or what is wrong with its audio: whether that stops anything is not decided
            in a loading process.
        """
        epoch, position = key
        utterance = self.utterances[position]
        try:
            waveform = load_utterance(utterance, self.sample_rate)
        except OSError as error:
            reason = f"{utterance.audio_filepath}: {error.strerror or error}"
            return Finding(Kind.UNREADABLE_AUDIO, reason, utterance.id)
        except ValueError as error:
            return Finding(Kind.UNREADABLE_AUDIO, str(error), utterance.id)
        seed = draw_seed(self.seed, epoch, utterance.id)
        generator = np.random.default_rng(seed)
        if self.augment is not None:
            waveform = self.augment(waveform, self.sample_rate, generator)
        leftover = int(generator.integers(2**63 - 1))
        return Example(waveform, self.tokens[position], leftover, utterance)
