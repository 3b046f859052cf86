"""Requests to batches: examples loaded and varied reproducibly, in this process or in others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from asr.audio import load_audio
from asr.augment.waveform import WaveformAugment
from asr.data.batch import Batch, collate
from asr.data.dataset import Example, draw_seed
from asr.data.window import Request


class ExampleDataset(Dataset[Example]):
    """Makes examples of requests, which carry all it needs.

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

    def __getitem__(self, request: Request) -> Example:
        """Load one utterance.

        Raises:
            ValueError: audio that cannot be used; the message says where it lies.
            OSError: audio that is missing or unreadable.
        """
        utterance = request.utterance
        waveform = load_request(request, self.sample_rate)
        generator = np.random.default_rng(draw_seed(self.seed, request.epoch, utterance.id))
        if self.augment is not None:
            waveform = self.augment(waveform, self.sample_rate, generator)
        leftover = int(generator.integers(2**63 - 1))
        return Example(waveform, request.tokens, leftover, utterance)


def load_request(request: Request, sample_rate: int) -> NDArray[np.float32]:
    """The waveform asked for, `(num_samples,)` float32 at `sample_rate` [Hz]."""
    utterance, audio = request.utterance, request.audio
    source = utterance.audio_filepath if audio is None else audio
    try:
        return load_audio(source, sample_rate, offset=utterance.offset, duration=utterance.duration)
    except ValueError as error:
        if audio is None:
            raise
        raise ValueError(f"{utterance.audio_filepath}: {error}") from error


class RequestLoader:
    """Loads batches, ahead of the training where workers are given.

    One loader serves any number of windows: a request carries its encoded audio to the worker, so
    that workers are started once, and hold nothing.

    Args:
        dataset: makes the examples.
        num_workers: loading processes; 0 loads in this one, when asked.
        pin_memory: page-locked batches, for faster copies to a GPU.
    """

    def __init__(
        self, dataset: ExampleDataset, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self._requests = _Requests()
        self._loader: DataLoader[Batch] = DataLoader(
            dataset,  # type: ignore[arg-type]  # the loader yields batches, the dataset examples
            batch_sampler=self._requests,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=4 if num_workers else None,
            pin_memory=pin_memory,
        )
        # Workers are forked here: later, a thread that reads ahead might hold a lock for ever in
        # the copy of this process.
        list(self._loader)

    def batches(self, requests: Iterable[list[Request]]) -> Iterator[Batch]:
        """Load batches in the order of the requests, of which only the next few are taken."""
        self._requests.batches = requests
        return iter(self._loader)


class _Requests:
    """What the DataLoader takes for a sampler."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Request]] = ()

    def __iter__(self) -> Iterator[list[Request]]:
        return iter(self.batches)
