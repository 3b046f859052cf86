"""Examples to a padded batch, and the loader that makes batches ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from asr.data.dataset import Example, Failure, RequestDataset, SpeechDataset
from asr.data.doctor.findings import Finding
from asr.data.manifest import Utterance
from asr.data.workers import end_at_exit, end_workers, ignore_signals


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
        """The batch in page-locked memory, which the loader asks for."""
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


def collate(loaded: Sequence[Example | Finding | Failure]) -> Batch | Failure:
    """Pad examples to a batch, which also names what could not be loaded; or the first failure."""
    failure = next((item for item in loaded if isinstance(item, Failure)), None)
    return _padded(loaded) if failure is None else failure


def _padded(loaded: Sequence[Example | Finding | Failure]) -> Batch:
    examples = [item for item in loaded if isinstance(item, Example)]
    waveforms = [torch.from_numpy(example.waveform) for example in examples]
    tokens = [torch.tensor(example.tokens, dtype=torch.int64) for example in examples]
    return Batch(
        waveforms=_pad(waveforms, torch.float32),
        num_samples=torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64),
        tokens=_pad(tokens, torch.int64),
        token_lengths=torch.tensor([len(ids) for ids in tokens], dtype=torch.int64),
        seeds=tuple(example.seed for example in examples),
        utterances=tuple(example.utterance for example in examples),
        faults=tuple(item for item in loaded if isinstance(item, Finding)),
    )


def _pad(rows: list[Tensor], dtype: torch.dtype) -> Tensor:
    if not rows:  # a rank may have nothing to do in an epoch's last step
        return torch.zeros(0, 0, dtype=dtype)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class _Keys:
    """What the DataLoader takes for a sampler: the keys of batches that may change meanwhile."""

    def __init__(self) -> None:
        self.batches: Iterable[Sequence[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.batches:
            yield list(batch)


class BatchLoader:
    """Loads batches, ahead of the training where workers are given.

    Args:
        dataset: what to load from. A RequestDataset serves any number of windows: each request
            carries its encoded audio to the worker, so that workers are started once.
        num_workers: loading processes; 0 loads in this one, when asked.
        pin_memory: page-locked batches, for faster copies to a GPU.
    """

    def __init__(
        self,
        dataset: SpeechDataset | RequestDataset,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._keys = _Keys()
        self._loader: DataLoader[Batch | Failure] = DataLoader(
            dataset,  # type: ignore[arg-type]  # the loader yields batches, the dataset examples
            batch_sampler=self._keys,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=4 if num_workers else None,
            pin_memory=pin_memory,
            worker_init_fn=ignore_signals if num_workers else None,
        )

    def batches(self, epoch: int, plan: Iterable[tuple[int, ...]]) -> Iterator[Batch]:
        """Load the batches of a plan, or of the rest of it, from a SpeechDataset, in order."""
        return self.load([(epoch, position) for position in batch] for batch in plan)

    def load(self, keys: Iterable[Sequence[Any]]) -> Iterator[Batch]:
        """Load batches in the order of their keys, of which only the next few are taken.

        Args:
            keys: for each batch, what the dataset is asked for: requests of a RequestDataset.

        Raises:
            ValueError: a failure of the dataset, once its batch is asked for.
        """
        self._keys.batches = keys
        batches = iter(self._loader)
        if self._loader.num_workers:
            end_at_exit(batches)
        return _without_failure(batches)

    def start(self) -> None:
        """Start the loading processes now, before this one has a thread that reads ahead.

        A fork copies a lock that another thread holds, for ever locked.
        """
        for _ in self.load(()):
            pass

    def close(self) -> None:
        """End the loading processes; the next batches start new ones."""
        workers = self._loader._iterator
        self._loader._iterator = None
        if workers is not None:
            end_workers(workers)


def _without_failure(batches: Iterator[Batch | Failure]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, Failure):
            raise ValueError(batch.reason)
        yield batch
