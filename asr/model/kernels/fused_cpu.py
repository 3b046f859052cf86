"""An LSTM layer on a CPU: each core runs the whole time loop of its share, compiled by Numba.

Frames are packed in order of time, and in each frame the utterances from longest to shortest: those
still running at any time are the first rows, and padding is never computed. The product with the
input and the gradients of the weights are torch's matrix products over all frames at once; the
recurrence, a matrix product and the gates for each frame, is what is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from asr.model.kernels.tile import COLUMNS
from asr.model.kernels.time_loop import run_backward, run_forward

Array = np.ndarray[Any, Any]


class _Packing(NamedTuple):
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
    def of(cls, lengths: Tensor, frames: int) -> _Packing:
        """Pack a batch of `(B,)` lengths, padded to `frames`."""
        order = np.argsort(-lengths.numpy(), kind="stable")
        ordered = lengths.numpy()[order]
        running = np.arange(frames)[:, None] < ordered  # (T, B)
        starts = np.concatenate(([0], running.sum(axis=1).cumsum()))
        rows = (order * frames + np.arange(frames)[:, None])[running]
        return cls(torch.from_numpy(order), ordered, starts, torch.from_numpy(rows))

    def shares(self, directions: int) -> list[tuple[int, int, int]]:
        """(direction, first utterance, the one after the last): one a thread, alike in frames.

        A share holds the rows of at least one tile of the matrix product, six.
        """
        utterances = len(self.lengths)
        spans = max(1, min(torch.get_num_threads() // directions, utterances // 6))
        frames = self.lengths.cumsum()
        ends = np.searchsorted(frames, frames[-1] * np.arange(1, spans) / spans).tolist()
        bounds = [0, *ends, utterances]
        return [(d, *span) for d in range(directions) for span in pairwise(bounds)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lstm")


def _run_shares(
    loop: Callable[..., None], tensors: Sequence[Tensor], packing: _Packing, directions: int
) -> None:
    """Run a time loop over all directions, shared out to as many threads as torch uses."""
    arrays = [tensor.numpy() for tensor in (*tensors, packing.rows)]

    def run(share: tuple[int, int, int]) -> None:
        loop(*arrays[:-1], packing.starts, arrays[-1], *share)

    shares = packing.shares(directions)
    threads = torch.get_num_threads()
    for _ in map(run, shares) if threads == 1 else _pool(threads).map(run, shares):
        pass


def _panels(weights: Tensor) -> Tensor:
    """`(D, K, columns)` weights as contiguous panels of 16 columns, `(D, panels, K, 16)`."""
    padded = nn.functional.pad(weights, (0, -weights.shape[2] % COLUMNS))
    return padded.unflatten(2, (-1, COLUMNS)).transpose(1, 2).contiguous()


def _padded(weights: Tensor) -> Tensor:
    """`(D, 4H, K)` with zeros up to the whole panels' W rows, flat: `(D * W, K)`."""
    return nn.functional.pad(weights, (0, 0, 0, -weights.shape[1] % COLUMNS)).flatten(0, 1)


torch.library.define(
    "asr::lstm_fused_cpu",
    "(Tensor x, Tensor lengths, Tensor weight_ih, Tensor weight_hh, Tensor bias, Tensor h_0, "
    "Tensor c_0, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "asr::lstm_fused_cpu_backward",
    "(Tensor d_output, Tensor d_h_n, Tensor d_c_n, Tensor lengths, Tensor weight_ih, "
    "Tensor weight_hh, Tensor packed, Tensor gates, Tensor h_before, Tensor c_before) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("asr::lstm_fused_cpu", "cpu")
def _forward(
    x: Tensor, lengths: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor,
    h_0: Tensor, c_0: Tensor, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer: D directions, 1 or 2, W = 4H rounded up to 16, N frames inside the lengths.

    Args:
        x: `(B, T, in)`, float32 or float64, as all the following.
        lengths: `(B,)` int64.
        weight_ih: `(D, 4H, in)`.
        weight_hh: `(D, 4H, H)`.
        bias: `(D, 4H)`.
        h_0: `(D, B, H)`.
        c_0: `(D, B, H)`.
        keep: whether a backward pass follows.

    Returns:
        output `(B, T, D * H)`, h_n and c_n `(D, B, H)`; and for the backward pass x packed
        `(N, in)`, the gates `(N, D * W)`, h and c before each frame `(N, D, H)`.
    """
    batch, frames, _ = x.shape
    directions, _, units = h_0.shape
    packing = _Packing.of(lengths, frames)
    packed = x.flatten(0, 1).index_select(0, packing.rows)
    gates = torch.addmm(_padded(bias[..., None]).T, packed, _padded(weight_ih).T)
    kept = (len(packed) if keep else 0, directions, units)
    h_before, c_before = x.new_empty(kept), x.new_empty(kept)
    output = x.new_zeros(batch * frames, directions, units)
    h, c = h_0[:, packing.order], c_0[:, packing.order]
    panels = _panels(weight_hh.transpose(1, 2))
    by_direction = gates.unflatten(1, (directions, -1))
    tensors = (by_direction, panels, h, c, output, h_before, c_before)
    _run_shares(run_forward, tensors, packing, directions)
    h_n, c_n = torch.empty_like(h), torch.empty_like(c)
    h_n[:, packing.order], c_n[:, packing.order] = h, c
    return output.view(batch, frames, -1), h_n, c_n, packed, gates, h_before, c_before


@torch.library.impl("asr::lstm_fused_cpu_backward", "cpu")
def _backward(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weight_ih: Tensor,
    weight_hh: Tensor, packed: Tensor, gates: Tensor, h_before: Tensor, c_before: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight_ih, weight_hh, bias, h_0 and c_0 of `_forward`, shaped like these."""
    batch, frames, _ = d_output.shape
    directions, rows, units = weight_hh.shape
    packing = _Packing.of(lengths, frames)
    d_outputs = d_output.contiguous().view(batch * frames, directions, units)
    d_h = nn.functional.pad(d_h_n[:, packing.order], (0, -units % COLUMNS)).contiguous()
    d_c = d_c_n[:, packing.order]
    is_padded = gates.shape[1] > directions * rows
    d_gates = torch.zeros_like(gates) if is_padded else torch.empty_like(gates)
    by_direction = gates.unflatten(1, (directions, -1))
    d_by_direction = d_gates.unflatten(1, (directions, -1))
    tensors = (d_outputs, by_direction, c_before, _panels(weight_hh), d_by_direction, d_h, d_c)
    _run_shares(run_backward, tensors, packing, directions)
    d_x = packed.new_zeros(batch * frames, packed.shape[1])
    d_x[packing.rows] = d_gates @ _padded(weight_ih)
    d_weight_ih = (d_gates.T @ packed).unflatten(0, (directions, -1))[:, :rows]
    d_weight_hh = torch.stack([
        d_by_direction[:, d, :rows].T @ h_before[:, d] for d in range(directions)
    ])  # fmt: skip
    d_bias = d_by_direction[..., :rows].sum(dim=0)
    d_h_0, d_c_0 = torch.empty_like(d_c), torch.empty_like(d_c)
    d_h_0[:, packing.order], d_c_0[:, packing.order] = d_h[..., :units], d_c
    return d_x.view(batch, frames, -1), d_weight_ih.contiguous(), d_weight_hh, d_bias, d_h_0, d_c_0


@torch.library.register_fake("asr::lstm_fused_cpu")
def _forward_shapes(
    x: Tensor, lengths: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor,
    h_0: Tensor, c_0: Tensor, keep: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, frames, width = x.shape
    directions, rows, units = weight_hh.shape
    packed = torch.library.get_ctx().new_dynamic_size()
    kept = (packed if keep else 0, directions, units)
    return (
        x.new_empty(batch, frames, directions * units), torch.empty_like(h_0),
        torch.empty_like(c_0), x.new_empty(packed, width),
        x.new_empty(packed, directions * (rows + -rows % COLUMNS)),
        x.new_empty(kept), x.new_empty(kept),
    )  # fmt: skip


@torch.library.register_fake("asr::lstm_fused_cpu_backward")
def _backward_shapes(
    d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, lengths: Tensor, weight_ih: Tensor,
    weight_hh: Tensor, packed: Tensor, gates: Tensor, h_before: Tensor, c_before: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, frames, _ = d_output.shape
    d_x = d_output.new_empty(batch, frames, packed.shape[1])
    bias = weight_hh.new_empty(weight_hh.shape[:2])
    like = (weight_ih, weight_hh, bias, d_h_n, d_c_n)
    return (d_x, *(torch.empty_like(tensor) for tensor in like))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, lengths, weight_ih, weight_hh, *_ = inputs
    ctx.mark_non_differentiable(*output[3:])
    ctx.save_for_backward(lengths, weight_ih, weight_hh, *output[3:])


def _gradients(ctx: Any, d_output: Tensor, d_h_n: Tensor, d_c_n: Tensor, *_: Tensor) -> Any:
    d_x, *d_weights_and_state = torch.ops.asr.lstm_fused_cpu_backward(
        d_output, d_h_n, d_c_n, *ctx.saved_tensors
    )
    return d_x, None, *d_weights_and_state, None


torch.library.register_autograd("asr::lstm_fused_cpu", _gradients, setup_context=_setup_context)


def fused_cpu(
    x: Tensor, lengths: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor,
    h_0: Tensor, c_0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One layer in its D directions, on a CPU in float32 or float64.

    Args:
        x: `(B, T, in)`, padding may hold anything.
        lengths: `(B,)` int64 [frames].
        weight_ih: `(D, 4H, in)`, gate order i, f, g, o.
        weight_hh: `(D, 4H, H)`.
        bias: `(D, 4H)`, the sum of both.
        h_0: `(D, B, H)`.
        c_0: `(D, B, H)`.

    Returns:
        output `(B, T, D * H)`, zero in the padding, and h_n and c_n `(D, B, H)`.
    """
    tensors = (x.to(weight_hh.dtype), weight_ih, weight_hh, bias, h_0, c_0)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    x, *others = tensors
    output, h_n, c_n, *_ = torch.ops.asr.lstm_fused_cpu(x, lengths.cpu(), *others, keep)
    return output, h_n, c_n
