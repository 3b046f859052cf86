"""Examples to a padded batch, and the loader that makes batches ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.data.dataset import Example, RequestDataset, SpeechDataset
from asr.data.manifest import Utterance
from asr.data.workers import SILENCE_S, Workers
from asr.finding import Finding, Kind


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
        faults: utterances that should be here and cannot be used; they have no rows.
    """

    waveforms: Tensor
    num_samples: Tensor
    tokens: Tensor
    token_lengths: Tensor
    seeds: tuple[int, ...]
    utterances: tuple[Utterance, ...]
    faults: tuple[Finding, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on another device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return self._with_tensors(Tensor.pin_memory)

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half of the rows, each padded to its own longest."""
        rows = torch.arange(len(self.utterances))
        first = rows < (len(rows) + 1) // 2
        return self.keep(first).trimmed(), self.keep(~first).trimmed()

    def trimmed(self) -> Batch:
        """The batch without samples that are padding in every row."""
        longest = int(self.num_samples.max()) if len(self.num_samples) else 0
        return replace(self, waveforms=self.waveforms[:, :longest])

    def keep(self, rows: Tensor) -> Batch:
        """The batch without the rows where `(B,)` bool is False, nor its faults."""
        chosen = [row for row, kept in enumerate(rows.tolist()) if kept]
        return replace(
            self._with_tensors(lambda tensor: tensor[chosen]),
            seeds=tuple(self.seeds[row] for row in chosen),
            utterances=tuple(self.utterances[row] for row in chosen),
            faults=(),
        )

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            waveforms=change(self.waveforms),
            num_samples=change(self.num_samples),
            tokens=change(self.tokens),
            token_lengths=change(self.token_lengths),
        )


def collate(loaded: Sequence[Example | Finding]) -> Batch:
    """Pad examples to a batch, which also names what could not be loaded.

    Raises:
        ValueError: one that could not be varied among them.
    """
    for item in loaded:
        if isinstance(item, Finding) and item.kind is Kind.NOT_VARIED:
            raise ValueError(item.reason)
    examples = [item for item in loaded if isinstance(item, Example)]
    waveforms = [example.waveform for example in examples]
    tokens = [np.asarray(example.tokens, dtype=np.int64) for example in examples]
    return Batch(
        waveforms=_pad(waveforms, np.float32),
        num_samples=torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64),
        tokens=_pad(tokens, np.int64),
        token_lengths=torch.tensor([len(ids) for ids in tokens], dtype=torch.int64),
        seeds=tuple(example.seed for example in examples),
        utterances=tuple(example.utterance for example in examples),
        faults=tuple(item for item in loaded if isinstance(item, Finding)),
    )


def _pad(rows: Sequence[NDArray[Any]], dtype: type[np.generic]) -> Tensor:
    # By NumPy: torch would copy in several threads, and take them from the training.
    padded = np.zeros((len(rows), max(map(len, rows), default=0)), dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


class BatchLoader:
    """Loads batches, ahead of the training where workers are given.

    Args:
        dataset: what to load from. A RequestDataset serves any number of windows: each request
            carries its encoded audio to the worker, so that workers are started once.
        num_workers: loading processes; 0 loads in this one, when asked.
        pin_memory: page-locked batches, for faster copies to a GPU.
        is_stop: asked while a batch does not come; True gives up waiting for it.
        silence_s: time that a worker may take for an utterance [s]; then another one replaces it.
    """

    def __init__(
        self,
        dataset: SpeechDataset | RequestDataset,
        num_workers: int = 0,
        pin_memory: bool = False,
        is_stop: Callable[[], bool] = lambda: False,
        silence_s: float = SILENCE_S,
    ) -> None:
        finish = _pinned if pin_memory else collate
        self.workers: Workers[Any, Batch] = Workers(
            dataset.__getitem__, finish, dataset.name, num_workers, is_stop, silence_s
        )

    def batches(self, epoch: int, plan: Iterable[tuple[int, ...]]) -> Iterator[Batch]:
        """Load the batches of a plan, or of the rest of it, from a SpeechDataset, in order."""
        return self.load([(epoch, position) for position in batch] for batch in plan)

    def load(self, keys: Iterable[Sequence[Any]]) -> Iterator[Batch]:
        """Load batches in the order of their keys, of which only the next few are taken.

        Args:
            keys: for each batch, what the dataset is asked for: requests of a RequestDataset.

        Raises:
            Interrupted: a batch did not come, and `is_stop` was true.
            ValueError: a failure of the dataset, once its batch is asked for; two workers were lost
                at the same batch.
        """
        return self.workers.load(keys)

    def start(self) -> None:
        """Start the loading processes now, before this one has a thread that reads ahead.

        A fork copies a lock that another thread holds, for ever locked.
        """
        self.workers.start()

    def close(self) -> None:
        """End the loading processes; the next batches start new ones."""
        self.workers.close()


def _pinned(loaded: Sequence[Example | Finding]) -> Batch:
    return collate(loaded).pin_memory()
