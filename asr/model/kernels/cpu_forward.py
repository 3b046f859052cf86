"""The LSTM's loop over time, compiled by Numba; letters as in `cpu_arrays`.

It runs without the interpreter's lock, on one thread's share of the utterances.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.model.kernels.compiled import borrowed, compiled
from asr.model.kernels.cpu_arrays import Array
from asr.model.kernels.cpu_pointwise import cell, copy, mix, multiply, normalized_sums
from asr.model.kernels.cpu_products import BLOCK
from asr.model.kernels.cpu_tile import COLUMNS, add_product, to_panels


class Room(NamedTuple):
    """For what a share's forward pass computes in a frame, S utterances.

    Attributes:
        i: the input gate where it is coupled, `(H,)`.
        c: the fresh one, `(S, H)`.
        unprojected: the fresh o * tanh(c), `(S, H)`.
        projected: that times the projection, `(S, R rounded up to 16)`.
        products: the recurrent share of the sums where it is normalised, `(S, W)`.
        normed: both shares of a frame's sums normalised, where nothing is kept of them, `(2, W)`.
        zeros: for a product to start from, `(1, W)`.
    """

    i: Array
    c: Array
    unprojected: Array
    projected: Array
    products: Array
    normed: Array
    zeros: Array


class InputSums(NamedTuple):
    """The input's share of the sums of the next few frames, where it is computed within the loop.

    Attributes:
        sums: `(n, 1, W)`, one frame below the other.
        offsets: first row of each of these frames.
        gathered: their inputs, `(n, in)`.
    """

    sums: Array
    offsets: Array
    gathered: Array


@compiled
def _make_room(parameters, state, share):
    utterances, units, dtype = share.high - share.low, state.c.shape[2], state.c.dtype
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0
    columns = parameters.panels_hr.shape[1] * COLUMNS if has_projection else 0
    width = parameters.panels.shape[1] * COLUMNS
    return Room(
        np.empty(units, dtype),
        np.empty((utterances, units), dtype),
        np.empty((utterances, units), dtype),
        np.empty((utterances, columns), dtype),
        np.empty((utterances if has_norm else 0, width), dtype),
        np.empty((2, width if has_norm else 0), dtype),
        np.zeros((1, width), dtype),
    )


@compiled
def _make_input_sums(inputs, parameters, share):
    """For so many frames that their rows fill the tiles and stay in the cache."""
    utterances = share.high - share.low
    span = max(1, BLOCK // utterances) if len(inputs) > 0 else 0
    width = parameters.panels.shape[1] * COLUMNS
    return InputSums(
        np.empty((span * utterances, 1, width), inputs.dtype),
        np.zeros(span, np.int64),
        np.empty((span * utterances, inputs.shape[1]), inputs.dtype),
    )


@compiled
def _sum_inputs(to, t, inputs, parameters, starts, rows, share):
    """The input's share of the sums of the frames from `t` on, as many as there is room for."""
    count = 0
    for k in range(min(len(to.offsets), len(starts) - 1 - t)):
        start = starts[t + k]
        to.offsets[k] = count
        for b in range(share.low, min(starts[t + k + 1] - start, share.high)):
            copy(to.gathered[count], inputs[rows[start + b]])
            count += 1
    panels = parameters.panels_ih[share.direction]
    start = parameters.start[share.direction]
    add_product(to.sums[:count, 0], start, to.gathered[:count], panels, False)


@compiled
def run_forward(kind, parameters, drawn, kept, inputs, state, output, starts, rows, share):
    """The time loop of one direction for one share of the utterances.

    Args:
        kind: of the cell.
        parameters: of the recurrence.
        drawn: for dropout and zoneout.
        kept: `gates` holds the input's share of the sums; all else is written.
        inputs: `(B * T, in)`, where that share is still to be computed, some frames at a time so
            that it stays in the cache; else no rows.
        state: the initial one, at the end the final one.
        output: `(B * T, D, R)`, h of each frame at its padded place.
        starts: `(T + 1,)` int64, first packed row of each frame.
        rows: `(N,)` int64, padded place of each packed row.
        share: of this thread, see `packing.Share`.
    """
    parameters, drawn, kept = borrowed(parameters), borrowed(drawn), borrowed(kept)
    inputs, state, output = borrowed(inputs), borrowed(state), borrowed(output)
    frames, direction, low = len(starts) - 1, share.direction, share.low
    has_projection = len(parameters.panels_hr) > 0
    room, ahead = _make_room(parameters, state, share), _make_input_sums(inputs, parameters, share)
    summed = -1  # which span of frames `ahead` holds
    for step in range(frames):
        t = frames - 1 - step if direction else step
        running = min(starts[t + 1] - starts[t], share.high)
        if running <= low:
            continue
        count, first, turn = running - low, starts[t] + low, t % 2 == 1
        gates, place, slot = kept.gates, first, direction
        if len(inputs) > 0:
            span = len(ahead.offsets)
            if summed != t // span:
                summed = t // span
                _sum_inputs(ahead, summed * span, inputs, parameters, starts, rows, share)
            gates, place, slot = ahead.sums, ahead.offsets[t % span], 0
        sums = gates[place : place + count, slot]
        _keep_state(kept, state, first, count, share)
        _add_recurrent(sums, parameters, state, room, turn, share)
        if len(parameters.norm_hh) > 0:
            _normalize(gates, place, slot, count, kind, parameters, kept, room, first, share)
        for b in range(count):
            frame, c, fresh = gates[place + b, slot], state.c[direction, low + b], room.c[b]
            cell(frame, c, kind, parameters, direction, room.i, fresh, room.unprojected[b])
        if has_projection:
            panels, of = parameters.panels_hr[direction], room.unprojected[:count]
            add_product(room.projected[:count], room.zeros, of, panels, turn)
        _advance(kind, drawn, kept, state, room, output, rows, first, count, share)


@compiled
def _keep_state(kept, state, first, count, share):
    """The state before a frame, for the backward pass if there is one."""
    if len(kept.c) > 0:
        for b in range(count):
            recurrent = state.recurrent[share.direction, share.low + b]
            to_panels(kept.recurrent[share.direction], first + b, recurrent)
            copy(kept.c[first + b, share.direction], state.c[share.direction, share.low + b])


@compiled
def _add_recurrent(sums, parameters, state, room, turn, share):
    """The recurrent share of a frame's sums, kept apart where it is to be normalised."""
    read = state.recurrent[share.direction, share.low : share.low + len(sums)]
    panels = parameters.panels[share.direction]
    if len(parameters.norm_hh) == 0:
        add_product(sums, sums, read, panels, turn)
    else:
        add_product(room.products[: len(sums)], room.zeros, read, panels, turn)


@compiled
def _normalize(gates, place, slot, count, kind, parameters, kept, room, first, share):
    """Both shares of a frame's sums, normalised and added up."""
    keep, direction = len(kept.c) > 0, share.direction
    for b in range(count):
        own, read = room.normed[0], room.normed[1]
        if keep:
            own = kept.normed_ih[first + b, direction]
            read = kept.normed_hh[first + b, direction]
        frame = gates[place + b, slot]
        scales = normalized_sums(frame, room.products[b], own, read, kind, parameters, direction)
        if keep:
            kept.scales[first + b, direction, 0], kept.scales[first + b, direction, 1] = scales


@compiled
def _advance(kind, drawn, kept, state, room, output, rows, first, count, share):
    """From what a frame computed to the state after it, and to the output."""
    direction, has_projection = share.direction, room.projected.shape[1] > 0
    for b in range(count):
        h, c = state.h[direction, share.low + b], state.c[direction, share.low + b]
        fresh = room.projected[b] if has_projection else room.unprojected[b]
        if len(drawn.zone_h) > 0:
            mix(h, fresh, drawn.zone_h[first + b, direction])
            mix(c, room.c[b], drawn.zone_c[first + b, direction])
        else:
            copy(h, fresh)
            copy(c, room.c[b])
        copy(output[rows[first + b], direction], h)
        read = state.recurrent[direction, share.low + b]
        copy(read, c if kind.reads_c else h)
        if len(drawn.mask) > 0:
            multiply(read, drawn.mask[direction, share.low + b])
        if len(kept.unprojected) > 0:
            to_panels(kept.unprojected[direction], first + b, room.unprojected[b])
