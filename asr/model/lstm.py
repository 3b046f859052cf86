"""The LSTM layer: torch.nn.LSTM's parameters and interface, lengths honoured, every cell, backends.

Stacking, dropout between layers, what recurrent dropout and zoneout draw, and the choice of a
backend are here; the cells' equations are in `lstm_cell`, the backends in `kernels`.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from asr.model.dropout import check_share, dropout
from asr.model.lstm_cell import CELLS, Noise, Weights

logger = logging.getLogger(__name__)

State = tuple[Tensor, Tensor]

BACKENDS = ("reference", "native", "fused_cpu", "fused_triton", "autograd_function")
# What "auto" takes is the first that serves: on a CPU, on a GPU in half precision, and elsewhere.
ON_CPU = ("fused_cpu", "native", "autograd_function")
IN_HALF = ("fused_triton", "native", "autograd_function")
ELSEWHERE = ("native", "fused_triton", "autograd_function")
_imported: dict[str, Any] = {}  # modules of backends


class LSTM(nn.Module):
    """Long short-term memory over padded batches; takes the place of torch.nn.LSTM.

    Parameters have torch.nn.LSTM's names, shapes and initial distribution, so state dicts go both
    ways; cells with more parameters have them beside these. Unlike there, `lengths` says where each
    sequence ends: outputs beyond are zero, the backward direction starts at each sequence's own
    end, and h_n and c_n are the states there.

    Args:
        input_size: width of the input.
        hidden_size: units H of a direction.
        num_layers: stacked layers.
        bias: whether the gates have biases.
        batch_first: True: `(B, T, in)`; False: `(T, B, in)`, as torch.nn.LSTM has it.
        dropout: share of the outputs of every layer but the last to drop in training.
        bidirectional: also run from the end to the start; outputs are concatenated.
        proj_size: width of the output and the recurrence of a direction, below H; 0 for H itself.
            As in torch.nn.LSTM it makes the cell "lstm" the cell "projection".
        cell: "lstm", "cell_recurrent", "peephole", "layer_norm" or "projection", see `lstm_cell`.
        backend: one of `BACKENDS`, or "auto" to let the first forward choose; `layer.backend` then
            holds the choice.
        recurrent_dropout: share of what the recurrent matrix reads to drop in training, the same
            units at all times of a sequence (Gal and Ghahramani, 2016).
        zoneout: share of h and c that keep their value from one time to the next in training, drawn
            anew each time; in evaluation their mean (Krueger et al., 2017).
        coupled_gates: the input gate is 1 - f, and has no parameters of its own (Greff et al.,
            "LSTM: a search space odyssey", 2017).
        forget_bias: what the forget gate's initial bias is above its random value; 1 lets a fresh
            layer remember longer (Jozefowicz, Zaremba and Sutskever, 2015).

    Raises:
        ValueError: an unknown cell or backend, a size below 1, a projection that does not fit the
            cell, a share outside 0 to 1, or a forget bias that is no number or has nowhere to go.
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
        proj_size: int = 0,
        *,
        cell: str = "lstm",
        backend: str = "auto",
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        coupled_gates: bool = False,
        forget_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell {cell!r}, expected one of {', '.join(CELLS)}")
        if backend not in ("auto", *BACKENDS):
            raise ValueError(f"backend {backend!r}, expected one of auto, {', '.join(BACKENDS)}")
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} {size}, expected 1 or more")
        if cell == "lstm" and proj_size:
            cell = "projection"
        _check_projection(cell, proj_size, hidden_size)
        shares = {"dropout": dropout, "recurrent_dropout": recurrent_dropout, "zoneout": zoneout}
        for name, share in shares.items():
            check_share(share, name)
        if not math.isfinite(forget_bias) or (forget_bias and not bias):
            raise ValueError(
                f"forget_bias {forget_bias} with bias={bias}, expected a number, 0 without bias"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.cell = cell
        self.backend = backend
        self.recurrent_dropout = recurrent_dropout
        self.zoneout = zoneout
        self.coupled_gates = coupled_gates
        self.forget_bias = forget_bias
        for layer in range(num_layers):
            width = input_size if layer == 0 else self.output_size
            for suffix in self._suffixes(layer):
                self._add_direction(suffix, width)

    @property
    def num_directions(self) -> int:
        """2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def recurrent_size(self) -> int:
        """R, the width of h in one direction."""
        return self.proj_size or self.hidden_size

    @property
    def output_size(self) -> int:
        """Width of the output, all directions."""
        return self.recurrent_size * self.num_directions

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: self.num_directions]

    def _add_direction(self, suffix: str, width: int) -> None:
        gates = 3 if self.coupled_gates else 4
        units, rows = self.hidden_size, gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, width),
            "weight_hh": (rows, self.recurrent_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        extra = {
            "weight_hr": (self.recurrent_size, units), "weight_ch": (gates - 1, units),
            "norm_ih": (rows,), "norm_hh": (rows,), "norm_c": (units,), "bias_c": (units,),
        }  # fmt: skip
        shapes |= {name: extra[name] for name in CELLS[self.cell].extra}
        bound = 1 / math.sqrt(units)
        for name, shape in shapes.items():
            value = torch.empty(shape).uniform_(-bound, bound)
            if name in ("norm_ih", "norm_hh", "norm_c"):
                value = torch.ones(shape)
            elif name == "bias_c":
                value = torch.zeros(shape)
            elif name == "bias_ih":
                value[rows - 3 * units : rows - 2 * units] += (
                    self.forget_bias
                )  # f comes before g, o
            self.register_parameter(f"{name}_{suffix}", nn.Parameter(value))

    def weights(self, suffix: str) -> Weights:
        """The parameters of one direction, `suffix` being l0, l0_reverse, l1 ..."""
        parameters = [getattr(self, f"{name}_{suffix}", None) for name in Weights._fields]
        return Weights(*parameters)  # type: ignore[arg-type]  # matrices are there, others may not

    def _draw(self, x: Tensor) -> Noise:
        """What one direction of a layer draws for an input `(B, T, in)`."""
        batch, frames, _ = x.shape
        noise = Noise()
        if self.recurrent_dropout and self.training:
            width = self.hidden_size if CELLS[self.cell].reads_c else self.recurrent_size
            ones = x.new_ones(batch, width)
            noise = noise._replace(recurrent=dropout(ones, self.recurrent_dropout))
        if self.zoneout:
            kept = [x.new_full((batch, frames, n), self.zoneout)
                    for n in (self.recurrent_size, self.hidden_size)]  # fmt: skip
            if self.training:
                kept = [torch.bernoulli(share) for share in kept]
            noise = noise._replace(zone_h=kept[0], zone_c=kept[1])
        return noise

    def forward(
        self, input: Tensor, state: State | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run all layers.

        Args:
            input: `(B, T, in)` if batch_first, else `(T, B, in)`; padding may hold anything.
            state: h_0 `(num_layers * num_directions, B, R)`, R being H or the projection's width,
                and c_0 `(num_layers * num_directions, B, H)`; None for zeros.
            lengths: `(B,)` int64 [frames]; None when all sequences fill T.

        Returns:
            output `(B, T, num_directions * R)` (time first if not batch_first), zero in the
            padding, and (h_n, c_n) at each sequence's own end, shaped like `state`.

        Raises:
            ValueError: an input or a state of another shape, no frame at all, or lengths of the
                wrong number or outside 0 to T; a backend that cannot serve the layer.
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
            h_shape, c_shape = self._state_shapes(batch)
            state = (x.new_zeros(h_shape), x.new_zeros(c_shape))
        self._check_state(state, batch)
        run = self._choose_backend().run
        finals: list[State] = []
        for layer in range(self.num_layers):
            weights = [self.weights(suffix) for suffix in self._suffixes(layer)]
            noise = [self._draw(x) for _ in weights]
            first = layer * self.num_directions
            h_0, c_0 = (part[first : first + self.num_directions] for part in state)
            x, h_n, c_n = run(x, lengths, CELLS[self.cell], weights, noise, h_0, c_0)
            finals.append((h_n, c_n))
            if self.training and layer < self.num_layers - 1:
                x = dropout(x, self.dropout)
        h_n, c_n = (torch.cat(final) for final in zip(*finals, strict=True))
        return (x if self.batch_first else x.transpose(0, 1)), (h_n, c_n)

    def _state_shapes(self, batch: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        count = self.num_layers * self.num_directions
        return (count, batch, self.recurrent_size), (count, batch, self.hidden_size)

    def _check_state(self, state: State, batch: int) -> None:
        # torch's kernel would read beyond the end of a smaller one.
        shapes = self._state_shapes(batch)
        for name, tensor, expected in zip(("h_0", "c_0"), state, shapes, strict=True):
            if tensor.shape != expected:
                raise ValueError(f"{name} of shape {tuple(tensor.shape)}, expected {expected}")

    def _choose_backend(self) -> Any:
        """The backend's module; "auto" is settled here, at the first forward."""
        weights, noisy = self.weights("l0"), bool(self.recurrent_dropout or self.zoneout)
        is_auto = self.backend == "auto"
        names = _preferred(weights.weight_hh) if is_auto else (self.backend,)
        refusals = []
        for name in names:
            if name not in _imported:  # at need, as Numba takes a second
                _imported[name] = import_module(f"asr.model.kernels.{name}")
            backend = _imported[name]
            refusal = backend.refusal(CELLS[self.cell], weights, noisy)
            if refusal is None:
                break
            refusals.append(f"{name}: {refusal}")
        else:
            raise ValueError(f"LSTM backend {'; '.join(refusals)}")
        if is_auto:
            self.backend = name
            _announce(self.cell, name, "; ".join((backend.ADVANTAGE, *refusals)))
        return backend

    def extra_repr(self) -> str:
        """What print(model) shows."""
        shown = {
            "num_layers": self.num_layers, "bidirectional": self.bidirectional,
            "proj_size": self.proj_size, "recurrent_dropout": self.recurrent_dropout,
            "zoneout": self.zoneout, "coupled_gates": self.coupled_gates,
            "forget_bias": self.forget_bias,
        }  # fmt: skip
        settings = [f"{name}={value}" for name, value in shown.items() if value]
        sizes = [str(self.input_size), str(self.hidden_size)]
        return ", ".join([*sizes, *settings, f"cell={self.cell}", f"backend={self.backend}"])


def _check_projection(cell: str, proj_size: int, hidden_size: int) -> None:
    if cell == "projection" and not 0 < proj_size < hidden_size:
        raise ValueError(f"proj_size {proj_size}, expected 1 to {hidden_size - 1}, below the units")
    if cell != "projection" and proj_size:
        raise ValueError(f"proj_size {proj_size} with cell {cell}, expected 0")


def _preferred(weight: Tensor) -> tuple[str, ...]:
    """The backends that "auto" asks, the fastest first."""
    device = weight.device.type
    if device == "cpu":
        return ON_CPU
    return IN_HALF if weight.itemsize == 2 or torch.is_autocast_enabled(device) else ELSEWHERE


@cache
def _announce(cell: str, backend: str, reason: str) -> None:
    """Say once, not once a layer, what was chosen."""
    logger.info("LSTM cell %s, backend %s: %s", cell, backend, reason)


def _check_lengths(lengths: Tensor, batch: int, frames: int) -> None:
    if lengths.shape != (batch,):
        raise ValueError(f"lengths of shape {tuple(lengths.shape)}, expected ({batch},)")
    if torch.compiler.is_compiling():  # the graph has no values yet, and checks them when it runs
        inside = ((lengths >= 0) & (lengths <= frames)).all()
        torch._assert_async(inside, f"lengths, expected 0 to T = {frames} frames")
        return
    low, high = torch.stack(lengths.aminmax()).tolist()
    if low < 0 or high > frames:
        raise ValueError(f"lengths from {low} to {high}, expected 0 to T = {frames} frames")
