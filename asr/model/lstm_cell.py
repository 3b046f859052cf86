"""One step of the LSTM cell, readable: the reference that every fast backend must equal."""

from __future__ import annotations

import torch
from torch import Tensor


def lstm_step(gates_x: Tensor, h: Tensor, c: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
    """One time step of the long short-term memory.

    With sigma the logistic function and * the elementwise product,

        i, f, o = sigma(W x_t + U h_{t-1} + b)      input, forget and output gate
        g       = tanh (W x_t + U h_{t-1} + b)      candidate
        c_t     = f * c_{t-1} + i * g
        h_t     = o * tanh(c_t)

    (Hochreiter and Schmidhuber, 1997; forget gate: Gers, Schmidhuber and Cummins, 2000). Rows of W,
    U and b are in torch.nn.LSTM's order i, f, g, o.

    Args:
        gates_x: W x_t + b of this step, both bias vectors included, `(B, 4H)`.
        h: h_{t-1}, `(B, H)`.
        c: c_{t-1}, `(B, H)`.
        weight_hh: U, `(4H, H)`.

    Returns:
        h_t and c_t, each `(B, H)`.
    """
    gates = gates_x + h @ weight_hh.T
    i, f, g, o = gates.chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, c
