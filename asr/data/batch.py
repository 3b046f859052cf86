"""Examples to a padded batch, and the loader that makes batches of an epoch plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from asr.data.dataset import Example, SpeechDataset
from asr.data.manifest import Utterance


@dataclass(frozen=True)
class Batch:
    """Padded utterances.

    Attributes:
        waveforms: `(B, N)` float32, zero padded.
        num_samples: `(B,)` int64.
        tokens: `(B, U)` int64, zero padded.
        token_lengths: `(B,)` int64.
        seeds: B seeds for draws on the features.
        utterances: where the rows come from.
    """

    waveforms: Tensor
    num_samples: Tensor
    tokens: Tensor
    token_lengths: Tensor
    seeds: tuple[int, ...]
    utterances: tuple[Utterance, ...]

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on another device."""
        return Batch(
            self.waveforms.to(device, non_blocking=True),
            self.num_samples.to(device, non_blocking=True),
            self.tokens.to(device, non_blocking=True),
            self.token_lengths.to(device, non_blocking=True),
            self.seeds,
            self.utterances,
        )

    def keep(self, rows: Tensor) -> Batch:
        """The batch without the rows where `(B,)` bool is False."""
        chosen = [row for row, kept in enumerate(rows.tolist()) if kept]
        return Batch(
            self.waveforms[chosen],
            self.num_samples[chosen],
            self.tokens[chosen],
            self.token_lengths[chosen],
            tuple(self.seeds[row] for row in chosen),
            tuple(self.utterances[row] for row in chosen),
        )


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples to a batch."""
    waveforms = [torch.from_numpy(example.waveform) for example in examples]
    tokens = [torch.tensor(example.tokens, dtype=torch.int64) for example in examples]
    return Batch(
        waveforms=torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
        num_samples=torch.tensor([len(waveform) for waveform in waveforms]),
        tokens=torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
        token_lengths=torch.tensor([len(ids) for ids in tokens]),
        seeds=tuple(example.seed for example in examples),
        utterances=tuple(example.utterance for example in examples),
    )


class EpochSampler:
    """The keys of an epoch's batches; `set` moves it to another epoch or position."""

    def __init__(self) -> None:
        self.epoch = 0
        self.batches: Sequence[tuple[int, ...]] = ()

    def set(self, epoch: int, batches: Sequence[tuple[int, ...]]) -> None:
        """Hold the batches that the next iteration yields."""
        self.epoch = epoch
        self.batches = batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches:
            yield [(self.epoch, position) for position in batch]

    def __len__(self) -> int:
        return len(self.batches)


class BatchLoader:
    """Loads the batches of epoch plans, ahead of the training where workers are given.

    Args:
        dataset: what to load from.
        num_workers: loading processes; 0 loads in this one, when asked.
        pin_memory: page-locked batches, for faster copies to a GPU.
    """

    def __init__(
        self, dataset: SpeechDataset, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.dataset = dataset
        self._sampler = EpochSampler()
        self._loader: DataLoader[Batch] = DataLoader(
            dataset,  # type: ignore[arg-type]  # the loader yields batches, the dataset examples
            batch_sampler=self._sampler,  # keys are (epoch, position)
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=4 if num_workers else None,
            pin_memory=pin_memory,
        )

    def batches(self, epoch: int, plan: Sequence[tuple[int, ...]]) -> Iterator[Batch]:
        """Load the batches of a plan, or of the rest of it, in order."""
        self._sampler.set(epoch, plan)
        return iter(self._loader)
