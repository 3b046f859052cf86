"""The gradients of the LSTM's loop over time, compiled by Numba; letters as in `cpu_arrays`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.model.kernels.compiled import borrowed, compiled
from asr.model.kernels.cpu_arrays import Array
from asr.model.kernels.cpu_pointwise import (
    add,
    cell_backward,
    copy,
    multiply,
    normalized_sums_backward,
)
from asr.model.kernels.cpu_tile import COLUMNS, add_product


class BackRoom(NamedTuple):
    """For what a share's backward pass computes in a frame, S utterances.

    Attributes:
        fresh: gradient of the h that the frame gave, `(S, R)`.
        unprojected: of what was projected, `(S, H rounded up to 16)`.
        read: of what the recurrent matrix read, `(S, R rounded up to 16)`.
        stay: of the former c as far as zoneout let it stay, `(H,)`.
        cell: `(4, H)`, for `cell_backward`.
        zeros: `(1, R or H rounded up to 16)`, for a product to start from.
    """

    fresh: Array
    unprojected: Array
    read: Array
    stay: Array
    cell: Array
    zeros: Array


@compiled
def _make_back_room(parameters, d_h, d_c, share):
    utterances, units, dtype = share.high - share.low, d_c.shape[2], d_c.dtype
    has_projection = len(parameters.panels_hr) > 0
    columns = parameters.panels_hr.shape[1] * COLUMNS if has_projection else 0
    widest = max(parameters.panels.shape[1], parameters.panels_hr.shape[1])
    return BackRoom(
        np.empty((utterances, d_h.shape[2]), dtype),
        np.empty((utterances, columns), dtype),
        np.empty((utterances, parameters.panels.shape[1] * COLUMNS), dtype),
        np.empty(units, dtype),
        np.empty((4, units), dtype),
        np.zeros((1, widest * COLUMNS), dtype),
    )


@compiled
def run_backward(
    kind, parameters, drawn, kept, gradients, d_output, d_h, d_c, starts, rows, share
):  # fmt: skip
    """The time loop's gradients, in the opposite order of `run_forward`.

    Args:
        kind: of the cell.
        parameters: of the recurrence, on the way back.
        drawn: as in the forward pass.
        kept: as it left them.
        gradients: written, those of parameters added to.
        d_output: `(B * T, D, R)`, gradient of h at its padded place.
        d_h: `(D, B, R)`, gradient of the final h, at the end that of the initial.
        d_c: `(D, B, H)`, likewise.
        starts: as in the forward pass, and the following too.
        rows: padded places.
        share: of this thread.
    """
    parameters, drawn, kept = borrowed(parameters), borrowed(drawn), borrowed(kept)
    gradients, d_output = borrowed(gradients), borrowed(d_output)
    d_h, d_c = borrowed(d_h), borrowed(d_c)
    frames, direction, low = len(starts) - 1, share.direction, share.low
    sums = kind.gates * d_c.shape[2]
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0
    room = _make_back_room(parameters, d_h, d_c, share)
    for step in range(frames):
        t = step if direction else frames - 1 - step
        running = min(starts[t + 1] - starts[t], share.high)
        if running <= low:
            continue
        count, first, turn = running - low, starts[t] + low, t % 2 == 1
        _take_fresh(room.fresh[:count], drawn, d_output, d_h, rows, first, share)
        d_fresh = room.fresh[:count]
        if has_projection:
            for b in range(count):
                copy(gradients.projected[first + b, direction], d_fresh[b])
            panels, to = parameters.panels_hr[direction], room.unprojected[:count]
            add_product(to, room.zeros, d_fresh, panels, turn)
            d_fresh = to
        for b in range(count):
            _cell_backward(
                d_fresh[b], kind, parameters, drawn, kept, gradients, d_c, room, first + b, low + b,
                direction,
            )  # fmt: skip
        d_sums = gradients.input[first : first + count, direction, :sums]
        if has_norm:
            d_sums = gradients.recurrent[first : first + count, direction, :sums]
        for b in range(count):
            own = gradients.input[first + b, direction, :sums]
            add(gradients.bias[direction, low + b], own)
            if has_norm:
                place = first + b
                normalized_sums_backward(place, low + b, parameters, kept, gradients, direction)
        panels = parameters.panels[direction]
        add_product(room.read[:count], room.zeros, d_sums, panels, turn)
        d_state = (d_c if kind.reads_c else d_h)[direction, low:running]
        _add_read(d_state, room, drawn, share)


@compiled
def _take_fresh(fresh, drawn, d_output, d_h, rows, first, share):
    """The gradient of the h that a frame gave; what zoneout let stay remains in `d_h`."""
    direction = share.direction
    for b in range(len(fresh)):
        own, d_h_b = fresh[b], d_h[direction, share.low + b]
        d_out = d_output[rows[first + b], direction]
        for j in range(len(own)):
            own[j] = d_h_b[j] + d_out[j]
            d_h_b[j] = 0
        if len(drawn.zone_h) > 0:
            zone = drawn.zone_h[first + b, direction]
            one = zone.dtype.type(1)
            for j in range(len(own)):
                d_h_b[j] = zone[j] * own[j]
                own[j] *= one - zone[j]


@compiled
def _cell_backward(
    d_h, kind, parameters, drawn, kept, gradients, d_c, room, place, utterance, direction
):  # fmt: skip
    """`cell_backward`, and the way around the cell that zoneout lets c take."""
    d_c_b, stay, has_zones = d_c[direction, utterance], room.stay, len(drawn.zone_c) > 0
    if has_zones:
        zone = drawn.zone_c[place, direction]
        one = zone.dtype.type(1)
        for j in range(len(stay)):
            stay[j] = zone[j] * d_c_b[j]
            d_c_b[j] *= one - zone[j]
    frame, c = kept.gates[place, direction], kept.c[place, direction]
    cell_backward(
        frame, c, d_h, d_c_b, kind, parameters, gradients, place, utterance, direction, room.cell
    )
    if has_zones:
        for j in range(len(stay)):
            d_c_b[j] += stay[j]


@compiled
def _add_read(d_state, room, drawn, share):
    """The gradient of what the recurrent matrix read, added to that of the state it read."""
    for b in range(len(d_state)):
        own, target = room.read[b], d_state[b]
        if len(drawn.mask) > 0:
            multiply(own[: len(target)], drawn.mask[share.direction, share.low + b])
        for j in range(len(target)):
            target[j] += own[j]
