"""Weights of a model that runs forward in time, out of those of a bidirectional one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

REVERSE = "_reverse"  # how the weights of the backward direction end
RECURRENT = "weight_hh"


def one_way(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put both directions of every LSTM layer side by side, as one layer of twice the units.

    The units of the backward direction then run forward, too. What a unit makes of its input stays,
    and so do the widths of all that lies between the layers, and the head; what the backward units
    remember is of the past in place of the future. It is not the same function, but a start from
    which the training need not find out anew what a frame sounds like.

    Args:
        weights: of a bidirectional model of the cell lstm; matrices are `(G * H, ...)` for G gates
            and H units.

    Returns:
        Those of the model with `bidirectional` false and a `hidden_size` of 2 H.
    """
    made = {name: value for name, value in weights.items() if f"{name}{REVERSE}" not in weights}
    for name, backward in weights.items():
        if not name.endswith(REVERSE):
            continue
        del made[name]
        forward_name = name.removesuffix(REVERSE)
        kind, forward = forward_name.split(".")[-1], weights[forward_name]
        if kind.startswith(RECURRENT):
            nothing = torch.zeros_like(forward)
            forward = torch.cat([forward, nothing], dim=1)
            backward = torch.cat([nothing, backward], dim=1)
        hidden_size = weights[_recurrent(forward_name)].shape[1]
        gates = zip(*(torch.split(own, hidden_size) for own in (forward, backward)), strict=True)
        made[forward_name] = torch.cat([rows for both in gates for rows in both])
    return made


def _recurrent(name: str) -> str:
    """The recurrent matrix of the layer that a weight is of."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.{RECURRENT}{kind[kind.rindex('_l') :]}"
