"""One time step of every LSTM cell, readable: the reference that all fast backends must equal.

With sigma the logistic function and * the elementwise product, all cells share

    i, f, o = sigma(...)        input, forget and output gate
    g       = tanh (...)        candidate
    c_t     = f * c_{t-1} + i * g
    h_t     = o * tanh(c_t)

(Hochreiter and Schmidhuber, "Long short-term memory", 1997; forget gate: Gers, Schmidhuber and
Cummins, "Learning to forget", 2000) and differ in what stands in the brackets. Rows of the matrices
are in torch.nn.LSTM's order i, f, g, o; with coupled gates, i = 1 - f, in the order f, g, o.

A step takes the input's share of the sums, `x` `(B, 4H)` or `(B, 3H)`, which `input_sums` computes
for all frames at once; `recurrent`, what the recurrent matrix reads, h_{t-1} or c_{t-1}, after
dropout; and c_{t-1} `(B, H)`. It gives h_t and c_t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

NORM_EPSILON = 1e-5  # torch's and Ba et al.'s


class Weights(NamedTuple):
    """Parameters of one direction of one layer; None for those that a cell does not have.

    G gates, 4 or 3 when coupled; R is the width of what the recurrent matrix reads, H, or the
    projection's. As in torch.nn.LSTM there are two bias vectors.

    Attributes:
        weight_ih: `(G * H, in)`.
        weight_hh: `(G * H, R)`.
        bias_ih: `(G * H,)`, or None for a layer without biases, as bias_hh.
        bias_hh: `(G * H,)`.
        weight_hr: `(R, H)`, the projection.
        weight_ch: `(G - 1, H)`, peepholes of i, f, o, or of f, o.
        norm_ih: `(G * H,)`, gain of the normalised input share.
        norm_hh: `(G * H,)`, gain of the normalised recurrent share.
        norm_c: `(H,)`, gain of the normalised cell state.
        bias_c: `(H,)`, its bias; the sums' are bias_ih and bias_hh.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    weight_hr: Tensor | None = None
    weight_ch: Tensor | None = None
    norm_ih: Tensor | None = None
    norm_hh: Tensor | None = None
    norm_c: Tensor | None = None
    bias_c: Tensor | None = None

    @property
    def units(self) -> int:
        """H."""
        return self.weight_hh.shape[1] if self.weight_hr is None else self.weight_hr.shape[1]

    @property
    def is_coupled(self) -> bool:
        """Whether i = 1 - f."""
        return self.weight_hh.shape[0] == 3 * self.units


class Masks(NamedTuple):
    """What one direction of a layer draws for a batch; None for what is off.

    Attributes:
        recurrent: `(B, R)`, factors on what the recurrent matrix reads, the same at all times (Gal
            and Ghahramani, "A theoretically grounded application of dropout in recurrent neural
            networks", 2016).
        zone_h: `(B, T, R)`, the share of h_{t-1} that h_t keeps: in training 0 or 1, else the mean
            (Krueger et al., "Zoneout", 2017).
        zone_c: `(B, T, H)`, likewise for c.
    """

    recurrent: Tensor | None = None
    zone_h: Tensor | None = None
    zone_c: Tensor | None = None


Step = Callable[[Tensor, Tensor, Tensor, Weights], tuple[Tensor, Tensor]]


def input_sums(x: Tensor, *directions: Weights) -> Tensor:
    """The input's share of the sums and both biases: `(..., in)` to `(..., D, G * H)`."""
    first = directions[0]
    matrix = torch.cat([w.weight_ih for w in directions])
    sums = (x @ matrix.T).view(*x.shape[:-1], len(directions), -1)
    biases = [
        w.bias_ih + w.bias_hh for w in directions if w.bias_ih is not None and w.bias_hh is not None
    ]
    bias = torch.stack(biases) if biases else matrix.new_zeros(())
    if first.norm_ih is None:
        return sums + bias if biases else sums
    gain = torch.stack([cast(Tensor, w.norm_ih) for w in directions])
    normed = functional.layer_norm(sums, sums.shape[-1:], None, None, NORM_EPSILON)
    return torch.addcmul(bias, normed, gain)


def lstm_step(x: Tensor, recurrent: Tensor, c: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
    """The standard cell: every gate reads W x_t + U h_{t-1} + b."""
    i, f, g, o = _gates(x + recurrent @ w.weight_hh.T, w)
    c = f * c + i * g
    return o * torch.tanh(c), c


def cell_recurrent_step(
    x: Tensor, recurrent: Tensor, c: Tensor, w: Weights
) -> tuple[Tensor, Tensor]:
    """Every gate and the candidate read W x_t + U c_{t-1} + b: full matrices on the cell state.

    Nothing reads h_{t-1}, which is an output alone. So the formula is the standard one, and what
    differs is that `recurrent` is c_{t-1}.
    """
    return lstm_step(x, recurrent, c, w)


def peephole_step(x: Tensor, recurrent: Tensor, c: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
    """The gates also see the cell state, each unit its own: i and f p * c_{t-1}, o p * c_t.

    Gers and Schmidhuber, "Recurrent nets that time and count", 2000; Graves, "Generating sequences
    with recurrent neural networks", 2013.
    """
    assert w.weight_ch is not None
    *before, p_o = w.weight_ch
    *sums, g, o = (x + recurrent @ w.weight_hh.T).chunk(len(before) + 2, dim=-1)
    *i, f = (torch.sigmoid(s + p * c) for s, p in zip(sums, before, strict=True))
    c = f * c + (i[0] if i else 1 - f) * torch.tanh(g)
    return torch.sigmoid(o + p_o * c) * torch.tanh(c), c


def layer_norm_step(x: Tensor, recurrent: Tensor, c: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
    """W x_t, U h_{t-1} and, before its tanh, c_t are normalised over their units.

    Ba, Kiros and Hinton, "Layer normalization", 2016.
    """
    sums = recurrent @ w.weight_hh.T
    sums = functional.layer_norm(sums, sums.shape[-1:], w.norm_hh, None, NORM_EPSILON)
    i, f, g, o = _gates(x + sums, w)
    c = f * c + i * g
    normed = functional.layer_norm(c, c.shape[-1:], w.norm_c, w.bias_c, NORM_EPSILON)
    return o * torch.tanh(normed), c


def projection_step(x: Tensor, recurrent: Tensor, c: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
    """The standard cell whose output and recurrence are a projection of it, h_t = P (o * tanh c_t).

    Sak, Senior and Beaufays, "Long short-term memory recurrent neural network architectures for
    large scale acoustic modeling", 2014; torch.nn.LSTM with `proj_size`.
    """
    assert w.weight_hr is not None
    h, c = lstm_step(x, recurrent, c, w)
    return h @ w.weight_hr.T, c


def _gates(sums: Tensor, w: Weights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums `(B, G * H)` to the values of i, f, g and o, each `(B, H)`."""
    *i, f, g, o = sums.chunk(3 if w.is_coupled else 4, dim=-1)
    f = torch.sigmoid(f)
    return (torch.sigmoid(i[0]) if i else 1 - f), f, torch.tanh(g), torch.sigmoid(o)


class Cell(NamedTuple):
    """A kind of cell.

    Attributes:
        step: its equations.
        reads_c: whether the recurrent matrix reads c_{t-1} instead of h_{t-1}.
        extra: its parameters beside matrices and biases.
    """

    step: Step
    reads_c: bool = False
    extra: tuple[str, ...] = ()


CELLS = {
    "lstm": Cell(lstm_step),
    "cell_recurrent": Cell(cell_recurrent_step, reads_c=True),
    "peephole": Cell(peephole_step, extra=("weight_ch",)),
    "layer_norm": Cell(layer_norm_step, extra=("norm_ih", "norm_hh", "norm_c", "bias_c")),
    "projection": Cell(projection_step, extra=("weight_hr",)),
}
