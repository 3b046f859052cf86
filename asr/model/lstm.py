"""The LSTM layer: torch.nn.LSTM's parameters and interface, lengths honoured, several backends.

A backend runs one layer in all its directions: `(input (B, T, in), lengths (B,), weights of each
direction, h_0 and c_0 (D, B, H)) -> (output (B, T, D * H), h_n, c_n)`. Stacking and dropout are the
layer's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr.model.dropout import check_share, dropout
from asr.model.lengths import length_mask, mask_padding, reverse_by_length
from asr.model.lstm_cell import lstm_step

logger = logging.getLogger(__name__)

State = tuple[Tensor, Tensor]


class Weights(NamedTuple):
    """Parameters of one direction of one layer, gate order i, f, g, o as in torch.nn.LSTM.

    Attributes:
        weight_ih: `(4H, in)`.
        weight_hh: `(4H, H)`.
        bias_ih: `(4H,)`, or None for a layer without biases.
        bias_hh: `(4H,)`, or None.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None


def _reference(
    x: Tensor, lengths: Tensor, weights: Weights, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loop over `lstm_step`: the truth, for tests and odd devices."""
    gates_x = x @ weights.weight_ih.T
    if weights.bias_ih is not None and weights.bias_hh is not None:
        gates_x = gates_x + weights.bias_ih + weights.bias_hh
    valid = length_mask(lengths, x.shape[1])
    outputs = []
    # unbind, not indexing: the gradient of gates_x[:, t] would fill a whole (B, T, 4H) each step.
    for step, inside in zip(gates_x.unbind(1), valid.unbind(1), strict=True):
        h_next, c_next = lstm_step(step, h, c, weights.weight_hh)
        h = torch.where(inside[:, None], h_next, h)
        c = torch.where(inside[:, None], c_next, c)
        outputs.append(torch.where(inside[:, None], h, 0.0))
    return torch.stack(outputs, dim=1), h, c


def _native(
    x: Tensor, lengths: Tensor, weights: Weights, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """torch's own kernel (cuDNN on a GPU, oneDNN on a CPU) over the padded batch, never packed.

    The kernel runs on through the padding, where one more input, 1 there and 0 elsewhere, closes
    the input gate and opens the forget gate: the cell keeps its value exactly, so c_n is that of
    each utterance's own end. h_n is read off at that end.
    """
    ragged = bool((lengths < x.shape[1]).any())
    if not ragged:
        output, h_n, c_n = _native_kernel(x, weights, h, c)
        return output, h_n, c_n
    padding = ~length_mask(lengths, x.shape[1])[..., None]  # (B, T, 1)
    frozen = _freezing_column(weights.weight_hh)
    with_flag = weights._replace(weight_ih=torch.cat((weights.weight_ih, frozen), dim=1))
    output, _, c_n = _native_kernel(torch.cat((x, padding.to(x)), dim=-1), with_flag, h, c)
    last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, output.shape[-1])
    h_n = torch.where(lengths[:, None] > 0, output.gather(1, last).squeeze(1), h)
    return output.masked_fill(padding, 0.0), h_n, c_n


def _native_kernel(
    x: Tensor, weights: Weights, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    params = [weight for weight in weights if weight is not None]
    has_biases = weights.bias_ih is not None
    training = torch.is_grad_enabled()
    output, h_n, c_n = torch.lstm(
        x, (h[None], c[None]), params, has_biases, 1, 0.0, training, False, True
    )
    return output, h_n[0], c_n[0]


def _freezing_column(weight_hh: Tensor) -> Tensor:
    """`(4H, 1)`: input gate to 0 and forget gate to 1, exactly; the rest untouched."""
    saturated = 1e4
    column = weight_hh.new_zeros(4, weight_hh.shape[1])
    column[0], column[1] = -saturated, saturated
    return column.reshape(-1, 1)


def _fused_cpu(
    x: Tensor, lengths: Tensor, weights: Sequence[Weights], h_0: Tensor, c_0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compiled for the CPU, see `asr.model.kernels.fused_cpu`."""
    weight = weights[0].weight_hh
    if not _fused_cpu_serves(weight):
        raise ValueError(
            f"LSTM backend fused_cpu: {weight.dtype} on {weight.device}, "
            "expected torch.float32 or torch.float64 on a CPU"
        )
    from asr.model.kernels.fused_cpu import fused_cpu  # Numba takes a second to import

    weight_ih = torch.stack([direction.weight_ih for direction in weights])
    weight_hh = torch.stack([direction.weight_hh for direction in weights])
    biases = [
        direction.bias_ih + direction.bias_hh
        for direction in weights
        if direction.bias_ih is not None and direction.bias_hh is not None
    ]
    bias = torch.stack(biases) if biases else weight_hh.new_zeros(weight_hh.shape[:2])
    return fused_cpu(x, lengths, weight_ih, weight_hh, bias, h_0, c_0)


def _fused_cpu_serves(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)


OneDirection = Callable[[Tensor, Tensor, Weights, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Backend = Callable[
    [Tensor, Tensor, Sequence[Weights], Tensor, Tensor], tuple[Tensor, Tensor, Tensor]
]


def _each_direction(run: OneDirection) -> Backend:
    """A backend from the run of one direction: the second one's time is reversed by length."""

    def run_all(
        x: Tensor, lengths: Tensor, weights: Sequence[Weights], h_0: Tensor, c_0: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = mask_padding(x, lengths)
        output, h_n, c_n = run(x, lengths, weights[0], h_0[0], c_0[0])
        if len(weights) == 1:
            return output, h_n[None], c_n[None]
        mirrored = reverse_by_length(x, lengths)
        back, *finals = run(mirrored, lengths, weights[1], h_0[1], c_0[1])
        output = torch.cat((output, reverse_by_length(back, lengths)), dim=-1)
        return output, torch.stack((h_n, finals[0])), torch.stack((c_n, finals[1]))

    return run_all


BACKENDS: dict[str, Backend] = {
    "reference": _each_direction(_reference),
    "native": _each_direction(_native),
    "fused_cpu": _fused_cpu,
}


class LSTM(nn.Module):
    """Long short-term memory over padded batches; takes the place of torch.nn.LSTM.

    Parameters have torch.nn.LSTM's names, shapes and initial distribution, so state dicts go both
    ways. Unlike there, `lengths` says where each sequence ends: outputs beyond are zero, the
    backward direction starts at each sequence's own end, and h_n and c_n are the states there.

    Args:
        input_size: width of the input.
        hidden_size: units H of a direction.
        num_layers: stacked layers.
        bias: whether the gates have biases.
        batch_first: True: `(B, T, in)`; False: `(T, B, in)`, as torch.nn.LSTM has it.
        dropout: share of the outputs of every layer but the last to drop in training.
        bidirectional: also run from the end to the start; outputs are concatenated.
        backend: "reference", "native", "fused_cpu", or "auto" to let the first forward choose;
            `layer.backend` then holds the choice.

    Raises:
        ValueError: an unknown backend, a size below 1 or a dropout outside 0 to 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if backend not in ("auto", *BACKENDS):
            raise ValueError(f"backend {backend!r}, expected one of auto, {', '.join(BACKENDS)}")
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} {size}, expected 1 or more")
        check_share(dropout)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.backend = backend
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * self.num_directions
            for suffix in self._suffixes(layer):
                self._add_direction(suffix, width)

    @property
    def num_directions(self) -> int:
        """2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: self.num_directions]

    def _add_direction(self, suffix: str, width: int) -> None:
        rows = 4 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, width),
            "weight_hh": (rows, self.hidden_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        bound = 1 / math.sqrt(self.hidden_size)
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            self.register_parameter(f"{name}_{suffix}", parameter)

    def weights(self, suffix: str) -> Weights:
        """The parameters of one direction, `suffix` being l0, l0_reverse, l1 ..."""
        parameters = [getattr(self, f"{name}_{suffix}", None) for name in Weights._fields]
        return Weights(*parameters)  # type: ignore[arg-type]  # the weights are there, biases may not

    def forward(
        self, input: Tensor, state: State | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all layers.

        Args:
            input: `(B, T, in)` if batch_first, else `(T, B, in)`; padding may hold anything.
            state: h_0 and c_0, each `(num_layers * num_directions, B, H)`; None for zeros.
            lengths: `(B,)` int64 [frames]; None when all sequences fill T.

        Returns:
            output `(B, T, num_directions * H)` (time first if not batch_first), zero in the
            padding, and (h_n, c_n) at each sequence's own end, shaped like `state`.

        Raises:
            ValueError: an input or a state of another shape, no frame at all, or lengths of the
                wrong number or outside 0 to T.
        """
        if input.ndim != 3 or input.shape[-1] != self.input_size or not input.numel():
            raise ValueError(
                f"input of shape {tuple(input.shape)}, expected batch, frames and "
                f"{self.input_size} values, at least one of each"
            )
        x = input if self.batch_first else input.transpose(0, 1)  # time first -> batch first
        batch, frames, _ = x.shape
        if lengths is None:
            lengths = torch.full((batch,), frames, device=x.device)
        else:
            _check_lengths(lengths, batch, frames)
        if state is None:
            zeros = x.new_zeros(self.num_layers * self.num_directions, batch, self.hidden_size)
            state = (zeros, zeros)
        self._check_state(state, batch)
        run = BACKENDS[self._choose_backend()]
        finals: list[State] = []
        for layer in range(self.num_layers):
            weights = [self.weights(suffix) for suffix in self._suffixes(layer)]
            first = layer * self.num_directions
            h_0, c_0 = (part[first : first + self.num_directions] for part in state)
            x, h_n, c_n = run(x, lengths, weights, h_0, c_0)
            finals.append((h_n, c_n))
            if self.training and layer < self.num_layers - 1:
                x = dropout(x, self.dropout)
        h_n, c_n = (torch.cat(final) for final in zip(*finals, strict=True))
        return (x if self.batch_first else x.transpose(0, 1)), (h_n, c_n)

    def _check_state(self, state: State, batch: int) -> None:
        # torch's kernel would read beyond the end of a smaller one.
        expected = (self.num_layers * self.num_directions, batch, self.hidden_size)
        for name, tensor in zip(("h_0", "c_0"), state, strict=True):
            if tensor.shape != expected:
                raise ValueError(f"{name} of shape {tuple(tensor.shape)}, expected {expected}")

    def _choose_backend(self) -> str:
        if self.backend == "auto":
            weight = self.weights("l0").weight_hh
            if _fused_cpu_serves(weight):
                self.backend, reason = "fused_cpu", "compiled for this CPU, skips padding"
            else:
                reason = f"torch's own kernel serves {weight.dtype} on {weight.device.type}"
                self.backend = "native"
            _announce(self.backend, reason)
        return self.backend

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, backend={self.backend}"
        )


@cache
def _announce(backend: str, reason: str) -> None:
    """Say once, not once a layer, what was chosen."""
    logger.info("LSTM backend %s: %s", backend, reason)


def _check_lengths(lengths: Tensor, batch: int, frames: int) -> None:
    if lengths.shape != (batch,):
        raise ValueError(f"lengths of shape {tuple(lengths.shape)}, expected ({batch},)")
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0 or high > frames:
        raise ValueError(f"lengths from {low} to {high}, expected 0 to T = {frames} frames")
