"""The LSTM layer: torch.nn.LSTM's parameters and interface, lengths honoured, every cell, backends.

First the layer: stacking, dropout between layers, the masks of recurrent dropout and zoneout. Then
the choice of a backend, and the two that torch alone can run: the readable reference, a loop over
the equations of `lstm_cell`, and torch's own kernel. The fast ones are in `kernels`.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from asr.model.dropout import check_share, dropout
from asr.model.lengths import length_mask, mask_padding, reverse_by_length
from asr.model.lstm_cell import CELLS, Cell, Masks, Weights, input_sums

logger = logging.getLogger(__name__)

State = tuple[Tensor, Tensor]

BACKENDS = ("reference", "native", "fused_cpu", "fused_triton")
# A backend of older settings and model files, plain torch operations with a backward pass of their
# own, which computed what all others do.
FORMER_BACKEND = "autograd_function"


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
            holds the choice. `FORMER_BACKEND` is taken as "auto", with a warning.
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
        if backend == FORMER_BACKEND:
            _warn_of_former_backend()
            backend = "auto"
        if backend not in ("auto", *BACKENDS):
            raise ValueError(f"backend {backend!r}, expected one of auto, {', '.join(BACKENDS)}")
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} {size}, expected 1 or more")
        if cell == "lstm" and proj_size:
            cell = "projection"
        if cell == "projection" and not 0 < proj_size < hidden_size:
            raise ValueError(
                f"proj_size {proj_size}, expected 1 to {hidden_size - 1}, below the units"
            )
        if cell != "projection" and proj_size:
            raise ValueError(f"proj_size {proj_size} with cell {cell}, expected 0")
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
                value[rows - 3 * units : rows - 2 * units] += self.forget_bias  # f, before g, o
            self.register_parameter(f"{name}_{suffix}", nn.Parameter(value))

    def weights(self, suffix: str) -> Weights:
        """The parameters of one direction, `suffix` being l0, l0_reverse, l1 ..."""
        parameters = [getattr(self, f"{name}_{suffix}", None) for name in Weights._fields]
        return Weights(*parameters)  # type: ignore[arg-type]  # matrices are there, others may not

    def draw_masks(self, x: Tensor) -> Masks:
        """What one direction of a layer draws for an input `(B, T, in)`."""
        batch, frames, _ = x.shape
        masks = Masks()
        if self.recurrent_dropout and self.training:
            width = self.hidden_size if CELLS[self.cell].reads_c else self.recurrent_size
            ones = x.new_ones(batch, width)
            masks = masks._replace(recurrent=dropout(ones, self.recurrent_dropout))
        if self.zoneout:
            shares = [x.new_full((batch, frames, width), self.zoneout)
                      for width in (self.recurrent_size, self.hidden_size)]  # fmt: skip
            if self.training:
                shares = [torch.bernoulli(share) for share in shares]
            masks = masks._replace(zone_h=shares[0], zone_c=shares[1])
        return masks

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
        count = self.num_layers * self.num_directions
        h_shape, c_shape = (count, batch, self.recurrent_size), (count, batch, self.hidden_size)
        if state is None:
            state = (x.new_zeros(h_shape), x.new_zeros(c_shape))
        # torch's kernel would read beyond the end of a smaller one.
        for name, part, shape in zip(("h_0", "c_0"), state, (h_shape, c_shape), strict=True):
            if part.shape != shape:
                raise ValueError(f"{name} of shape {tuple(part.shape)}, expected {shape}")
        run = self._choose_backend()
        finals: list[State] = []
        for layer in range(self.num_layers):
            weights = [self.weights(suffix) for suffix in self._suffixes(layer)]
            masks = [self.draw_masks(x) for _ in weights]
            first = layer * self.num_directions
            h_0, c_0 = (part[first : first + self.num_directions] for part in state)
            x, h_n, c_n = run(x, lengths, CELLS[self.cell], weights, masks, h_0, c_0)
            finals.append((h_n, c_n))
            if self.training and layer < self.num_layers - 1:
                x = dropout(x, self.dropout)
        h_n, c_n = (torch.cat(final) for final in zip(*finals, strict=True))
        return (x if self.batch_first else x.transpose(0, 1)), (h_n, c_n)

    def _choose_backend(self) -> Run:
        """The backend's function; "auto" is settled here, at the first forward."""
        weights, has_masks = self.weights("l0"), bool(self.recurrent_dropout or self.zoneout)
        is_auto = self.backend == "auto"
        names = preferred_backends(weights.weight_hh) if is_auto else (self.backend,)
        refusals = []
        for name in names:
            refusal = refusal_of(name, CELLS[self.cell], weights, has_masks)
            if refusal is None:
                break
            refusals.append(f"{name}: {refusal}")
        else:
            raise ValueError(f"LSTM backend {'; '.join(refusals)}")
        if is_auto:
            self.backend = name
            _announce(self.cell, name, "; ".join((ADVANTAGES[name], *refusals)))
        if name not in RUNS:
            # At need: Numba takes a second to import, and Triton is not there on every machine.
            if name == "fused_cpu":
                from asr.model.kernels.fused_cpu import run
            else:
                from asr.model.kernels.fused_triton import run
            RUNS[name] = run
        return RUNS[name]

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


# Which backend: what "auto" prefers, why one would take each, and what each cannot serve.

ADVANTAGES = {
    "reference": "the loop over a cell's step, serves every cell, dtype and device",
    "native": "torch's own kernel",
    "fused_cpu": "compiled for this CPU, skips padding",
    "fused_triton": "compiled for this GPU",
}


def preferred_backends(weight: Tensor) -> tuple[str, ...]:
    """The backends that "auto" asks for a layer with such weights, the fastest first."""
    device = weight.device.type
    if device == "cpu":
        return ("fused_cpu", "native", "reference")
    if weight.itemsize == 2 or torch.is_autocast_enabled(device):  # half precision
        return ("fused_triton", "native", "reference")
    return ("native", "fused_triton", "reference")


def refusal_of(backend: str, cell: Cell, weights: Weights, has_masks: bool) -> str | None:
    """Why a backend cannot serve a layer, or None.

    Args:
        backend: one of `BACKENDS`.
        cell: of the layer.
        weights: of one of its directions.
        has_masks: whether recurrent dropout or zoneout is on.
    """
    device, dtype = weights.weight_hh.device, weights.weight_hh.dtype
    if backend == "native":
        if cell not in (CELLS["lstm"], CELLS["projection"]) or weights.is_coupled:
            return "torch's kernel has the plain cell alone, with or without a projection"
        if has_masks:
            return "torch's kernel knows neither recurrent dropout nor zoneout"
    elif backend == "fused_cpu":
        if device.type != "cpu" or dtype not in (torch.float32, torch.float64):
            return f"{dtype} on {device}, expected torch.float32 or torch.float64 on a CPU"
    elif backend == "fused_triton":
        # Tests run Triton's kernels on a CPU, in its interpreter.
        is_interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
        if device.type != "cuda" and not is_interpreted:
            return f"on {device.type}, expected a CUDA device"
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed"
        if not dtype.is_floating_point:
            return f"{dtype}, expected floating point"
    return None


@cache
def _announce(cell: str, backend: str, reason: str) -> None:
    """Say once, not once a layer, what was chosen."""
    logger.info("LSTM cell %s, backend %s: %s", cell, backend, reason)


@cache
def _warn_of_former_backend() -> None:
    logger.warning('LSTM backend %s is no more, "auto" takes its place', FORMER_BACKEND)


# A backend is a function: one layer in its D directions, from x `(B, T, in)`, lengths `(B,)`, the
# cell, weights and masks of each direction, h_0 `(D, B, R)` and c_0 `(D, B, H)`, to output
# `(B, T, D * R)`, zero in the padding, and h_n and c_n at each sequence's own end.
Run = Callable[
    [Tensor, Tensor, Cell, Sequence[Weights], Sequence[Masks], Tensor, Tensor],
    tuple[Tensor, Tensor, Tensor],
]
RunDirection = Callable[
    [Tensor, Tensor, Cell, Weights, Masks, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]
]


def each_direction(run_direction: RunDirection) -> Run:
    """A layer, from a function for one direction: the second one's time is reversed, twice.

    What the function gets, x `(B, T, in)`, is zero in the padding.
    """

    def run(
        x: Tensor, lengths: Tensor, cell: Cell, weights: Sequence[Weights],
        masks: Sequence[Masks], h_0: Tensor, c_0: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        x = mask_padding(x, lengths)
        found = [run_direction(x, lengths, cell, weights[0], masks[0], h_0[0], c_0[0])]
        if len(weights) == 2:
            zones = [
                None if zone is None else reverse_by_length(zone, lengths) for zone in masks[1][1:]
            ]
            output, h_n, c_n = run_direction(
                reverse_by_length(x, lengths), lengths, cell, weights[1],
                Masks(masks[1].recurrent, *zones), h_0[1], c_0[1],
            )  # fmt: skip
            found.append((reverse_by_length(output, lengths), h_n, c_n))
        outputs, h, c = zip(*found, strict=True)
        return torch.cat(outputs, dim=-1), torch.stack(h), torch.stack(c)

    return run


@each_direction
def run_reference(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Weights, masks: Masks, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loop over a cell's step: the truth, for tests and odd devices."""
    inside = length_mask(lengths, x.shape[1])[..., None]
    zones_h, zones_c = (
        [None] * x.shape[1] if zone is None else zone.unbind(1)
        for zone in (masks.zone_h, masks.zone_c)
    )
    outputs = []
    # unbind, not indexing: the gradient of sums[:, t] would fill a whole (B, T, 4H) each step.
    sums = input_sums(x, weights).squeeze(2).unbind(1)
    frames = zip(sums, inside.unbind(1), zones_h, zones_c, strict=True)
    for sums_t, inside_t, zone_h, zone_c in frames:
        recurrent = c if cell.reads_c else h
        if masks.recurrent is not None:
            recurrent = recurrent * masks.recurrent
        h_next, c_next = cell.step(sums_t, recurrent, c, weights)
        if zone_h is not None and zone_c is not None:
            h_next, c_next = torch.lerp(h_next, h, zone_h), torch.lerp(c_next, c, zone_c)
        h, c = torch.where(inside_t, h_next, h), torch.where(inside_t, c_next, c)
        outputs.append(torch.where(inside_t, h, 0.0))
    return torch.stack(outputs, dim=1), h, c


@each_direction
def run_native(
    x: Tensor, lengths: Tensor, cell: Cell, weights: Weights, masks: Masks, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """torch's own kernel, cuDNN on a GPU and oneDNN on a CPU, over the padded batch, never packed.

    The kernel runs on through the padding, where one more input, 1 there and 0 elsewhere, closes
    the input gate and opens the forget gate: the cell keeps its value exactly, so c_n is that of
    each sequence's own end. h_n is read off at that end.
    """

    def kernel(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
        parameters = [weight for weight in weights[:5] if weight is not None]  # in torch's order
        has_biases, training = weights.bias_ih is not None, torch.is_grad_enabled()
        output, h_n, c_n = torch.lstm(
            x, (h[None], c[None]), parameters, has_biases, 1, 0.0, training, False, True
        )
        return output, h_n[0], c_n[0]

    # A graph is made before the lengths are known.
    if not torch.compiler.is_compiling() and not bool((lengths < x.shape[1]).any()):
        return kernel(x, weights)
    padding = ~length_mask(lengths, x.shape[1])[..., None]  # (B, T, 1)
    column = weights.weight_hh.new_zeros(4, weights.units)
    column[0], column[1] = -1e4, 1e4  # sigmoids of exactly 0 and 1
    with_flag = torch.cat((weights.weight_ih, column.reshape(-1, 1)), dim=1)
    output, _, c_n = kernel(
        torch.cat((x, padding.to(x)), dim=-1), weights._replace(weight_ih=with_flag)
    )
    last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, output.shape[-1])
    h_n = torch.where(lengths[:, None] > 0, output.gather(1, last).squeeze(1), h)
    return output.masked_fill(padding, 0.0), h_n, c_n


RUNS: dict[str, Run] = {"reference": run_reference, "native": run_native}
