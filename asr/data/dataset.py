"""Utterances to examples: waveform and tokens, loaded and varied reproducibly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.audio import load_audio
from asr.augment.waveform import WaveformAugment
from asr.data.manifest import Utterance
from asr.finding import Finding, Kind, describe_error


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
    tokens: Sequence[int]
    seed: int
    utterance: Utterance


@dataclass(frozen=True)
class Request:
    """All that a loading process needs to make one example, wherever that process runs.

    Attributes:
        epoch: from 0.
        utterance: what to load.
        tokens: its label ids.
        audio: the encoded bytes; None where `utterance.audio_filepath` is to be read.
    """

    epoch: int
    utterance: Utterance
    tokens: Sequence[int]
    audio: bytes | None = None


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


def load_request(request: Request, sample_rate: int) -> NDArray[np.float32]:
    """The waveform asked for, `(num_samples,)` float32 at `sample_rate` [Hz].

    Raises:
        ValueError: audio that cannot be used; the message says where it lies.
        OSError: missing or unreadable.
    """
    utterance, audio = request.utterance, request.audio
    if audio is None:
        return load_utterance(utterance, sample_rate)
    try:
        return load_audio(audio, sample_rate, offset=utterance.offset, duration=utterance.duration)
    except ValueError as error:
        raise ValueError(f"{utterance.audio_filepath}: {error}") from error


class RequestDataset:
    """Makes examples of requests, and holds no data of its own.

    Args:
        sample_rate: of the waveforms [Hz].
        seed: of the run.
        augment: variation of the waveform, None for none.
    """

    def __init__(
        self, sample_rate: int, seed: int = 0, augment: WaveformAugment | None = None
    ) -> None:
        self.sample_rate = sample_rate
        self.seed = seed
        self.augment = augment

    def name(self, request: Request) -> str:
        """The id of an utterance."""
        return request.utterance.id

    def __getitem__(self, request: Request) -> Example | Finding:
        """Load one utterance.

        Returns:
            The example, or what is wrong with its audio: whether that stops anything is not decided
            in a loading process, which an error that leaves it would end. NOT_VARIED where the
            audio is good and a noise, say, cannot be read.
        """
        utterance = request.utterance
        try:
            waveform = load_request(request, self.sample_rate)
        except OSError as error:
            reason = f"{utterance.audio_filepath}: {error.strerror or error}"
            return utterance.finding(Kind.UNREADABLE_AUDIO, reason)
        except ValueError as error:
            return utterance.finding(Kind.UNREADABLE_AUDIO, str(error))
        generator = np.random.default_rng(draw_seed(self.seed, request.epoch, utterance.id))
        if self.augment is not None:
            try:
                waveform = self.augment(waveform, self.sample_rate, generator)
            except (OSError, ValueError) as error:
                reason = f"cannot vary {utterance.id}: {describe_error(error)}"
                return utterance.finding(Kind.NOT_VARIED, reason)
        leftover = int(generator.integers(2**63 - 1))
        return Example(waveform, request.tokens, leftover, utterance)


class SpeechDataset:
    """Loads the utterances of a manifest by (epoch, position).

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
        self.tokens = tokens
        self._examples = RequestDataset(sample_rate, seed, augment)

    def __len__(self) -> int:
        return len(self.utterances)

    def name(self, key: tuple[int, int]) -> str:
        """The id of an utterance."""
        return self.utterances[key[1]].id

    def __getitem__(self, key: tuple[int, int]) -> Example | Finding:
        """Load one utterance, as `RequestDataset` does.

        Args:
            key: epoch and position in the manifest.
        """
        epoch, position = key
        return self._examples[Request(epoch, self.utterances[position], self.tokens[position])]
