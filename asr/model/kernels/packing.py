"""A padded batch without its padding, and its shares for the threads.

Frames are packed in order of time, and in each frame the utterances from longest to shortest: those
still running at any time are the first rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asr.model.kernels.threads import run_on_threads

Array = np.ndarray[Any, Any]


class Share(NamedTuple):
    """Of the work, for one thread: one direction of some utterances, as sorted.

    Attributes:
        direction: 0, or 1 for the one in which time runs backwards.
        low: first utterance.
        high: the one after the last.
    """

    direction: int
    low: int
    high: int


class Packing(NamedTuple):
    """Where the frames of a padded batch lie once packed.

    Attributes:
        order: `(B,)` int64, utterances from longest to shortest.
        lengths: `(B,)` int64, in that order [frames].
        starts: `(T + 1,)` int64, first packed row of each frame.
        rows: `(N,)` int64, places of the packed rows among the `B * T` padded ones.
    """

    order: Tensor
    lengths: Array
    starts: Array
    rows: Tensor

    @classmethod
    def of(cls, lengths: Tensor, frames: int) -> Packing:
        """Pack a batch of `(B,)` lengths, padded to `frames`."""
        order = np.argsort(-lengths.numpy(), kind="stable")
        ordered = lengths.numpy()[order]
        running = np.arange(frames)[:, None] < ordered  # (T, B)
        starts = np.concatenate(([0], running.sum(axis=1).cumsum()))
        rows = (order * frames + np.arange(frames)[:, None])[running]
        return cls(torch.from_numpy(order), ordered, starts, torch.from_numpy(rows))

    def shares(self, directions: int) -> list[Share]:
        """One a thread, alike in frames.

        A share holds the rows of at least one tile of the matrix product, six.
        """
        utterances = len(self.lengths)
        spans = max(1, min(torch.get_num_threads() // directions, utterances // 6))
        frames = self.lengths.cumsum()
        ends = np.searchsorted(frames, frames[-1] * np.arange(1, spans) / spans).tolist()
        bounds = [0, *ends, utterances]
        return [Share(d, *span) for d in range(directions) for span in pairwise(bounds)]


def spans(total: int, least: int) -> list[tuple[int, int]]:
    """Cut `total` rows evenly, so many to a thread, each of about `least` rows or fewer."""
    threads = torch.get_num_threads()
    count = min(max(1, total), threads * max(1, round(total / (threads * least))))
    bounds = [total * k // count for k in range(count + 1)]
    return list(pairwise(bounds))


def task(function: Callable[..., None], *arguments: Any) -> Callable[..., None]:
    """A call of a compiled function, to be run by `run_tasks`; tensors become arrays."""
    return partial(function, *map(arrays, arguments))


def run_tasks(tasks: Iterable[Callable[[], None]]) -> None:
    """Run them on as many threads as torch uses, begun in this order."""
    run_on_threads(lambda one: one(), tasks)


def arrays(argument: Any) -> Any:
    """NumPy's view of a tensor or of the tensors in a tuple; all else as it is."""
    if isinstance(argument, Tensor):
        return argument.detach().numpy()
    if isinstance(argument, tuple):
        return type(argument)(*map(arrays, argument))  # named tuples
    return argument
