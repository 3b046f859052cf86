"""The LSTM's forward pass on a CPU, compiled by Numba: the cell, and the loop over time.

One loop serves every cell: what a cell lacks is an empty array. It runs without the interpreter's
lock, on one thread's share of the utterances. Arrays and letters are those of `cpu_launch`.
"""

from __future__ import annotations

import numpy as np

from asr.model.kernels.cpu_tile import (
    BLOCK,
    COLUMNS,
    add_product,
    add_products,
    borrowed,
    compiled,
    copy,
    mix,
    multiply,
    normalize,
    sigmoid_of,
    tanh,
    tanh_of,
    to_panels,
)


@compiled
def sum_inputs(saved, x, rows, parameters, low, high):
    """The input's share of the sums of packed frames, from x `(B * T, in)`, which is saved too."""
    gathered = np.empty((min(BLOCK, high - low), x.shape[1]), x.dtype)
    for first in range(low, high, BLOCK):
        last = min(first + BLOCK, high)
        for n in range(first, last):
            copy(gathered[n - first], x[rows[n]])
            if saved.inputs.shape[1] > 0:
                to_panels(saved.inputs, n, x[rows[n]])
        for direction in range(saved.gates.shape[1]):
            sums, panels = saved.gates[first:last, direction], parameters.panels_ih[direction]
            start = parameters.start[direction]
            add_product(sums, start, gathered[: last - first], panels, False)


@compiled
def cell_forward(frame, c, kind, parameters, direction, i, c_next, h):
    """One frame of one utterance: sums to gates in `frame`, c_t to `c_next`, h to `h`.

    `i` is where the input gate goes when it is coupled.
    """
    units, first = len(c), (kind.gates - 2) * len(c)
    # Slices first, then loops from 0: only these become vector instructions.
    g, o = frame[first : first + units], frame[first + units : first + 2 * units]
    f = frame[first - units : first]
    has_peepholes = len(parameters.weight_ch) > 0
    if has_peepholes:
        peepholes = parameters.weight_ch[direction]
        for k in range(kind.gates - 2):
            add_products(frame[k * units : (k + 1) * units], peepholes[k], c)
    sigmoid_of(frame[:first])
    tanh_of(g)
    if kind.gates == 4:
        i = frame[:units]
    else:
        one = frame.dtype.type(1)
        for j in range(units):
            i[j] = one - f[j]
    for j in range(units):
        c_next[j] = f[j] * c[j] + i[j] * g[j]
    if has_peepholes:
        add_products(o, parameters.weight_ch[direction, kind.gates - 2], c_next)
    sigmoid_of(o)
    if len(parameters.norm_c) > 0:
        normalize(h, c_next)
        gain, bias = parameters.norm_c[direction], parameters.bias_c[direction]
        for j in range(units):
            h[j] = o[j] * tanh(gain[j] * h[j] + bias[j])
    else:
        for j in range(units):
            h[j] = o[j] * tanh(c_next[j])


@compiled
def _add_normalized(gates, place, slot, products, scratch, saved, first, parameters, direction):
    """Normalise both shares of a frame's sums, and add them up in `gates`.

    Args:
        gates: at `place` and the following rows the input's share.
        place: first row of the frame.
        slot: its second index.
        products: the recurrent share, a row an utterance.
        scratch: `(2, W)`, for what no backward pass needs.
        saved: where both go, before their gains, with 1 over their deviations, if one does.
        first: first packed row of the frame.
        parameters: of the recurrence.
        direction: 0 or 1.
    """
    bias = parameters.bias[direction]
    gain_ih, gain_hh = parameters.norm_ih[direction], parameters.norm_hh[direction]
    for b in range(len(products)):
        sums, product = gates[place + b, slot, : len(bias)], products[b, : len(bias)]
        own, read = scratch[0, : len(bias)], scratch[1, : len(bias)]
        if len(saved.scales) > 0:
            own = saved.normed_ih[first + b, direction, : len(bias)]
            read = saved.normed_hh[first + b, direction, : len(bias)]
        scale_ih, scale_hh = normalize(own, sums), normalize(read, product)
        for j in range(len(bias)):
            sums[j] = gain_ih[j] * own[j] + gain_hh[j] * read[j] + bias[j]
        if len(saved.scales) > 0:
            scales = saved.scales[first + b, direction]
            scales[0], scales[1] = scale_ih, scale_hh


@compiled
def _sum_next_inputs(sums, offsets, gathered, t, inputs, parameters, starts, rows, share):
    """The input's share of the sums of the frames from `t` on, as many as there is room for."""
    count = 0
    for k in range(min(len(offsets), len(starts) - 1 - t)):
        start = starts[t + k]
        offsets[k] = count
        for b in range(share.low, min(starts[t + k + 1] - start, share.high)):
            copy(gathered[count], inputs[rows[start + b]])
            count += 1
    panels = parameters.panels_ih[share.direction]
    start = parameters.start[share.direction]
    add_product(sums[:count, 0], start, gathered[:count], panels, False)


@compiled
def _advance(kind, masks, state, h_next, c_next, output, rows, first, count, share):
    """From what a frame computed to the state after it, and to the output."""
    direction = share.direction
    for b in range(count):
        h, c = state.h[direction, share.low + b], state.c[direction, share.low + b]
        if len(masks.zone_h) > 0:
            mix(h, h_next[b], masks.zone_h[first + b, direction])
            mix(c, c_next[b], masks.zone_c[first + b, direction])
        else:
            copy(h, h_next[b])
            copy(c, c_next[b])
        copy(output[rows[first + b], direction], h)
        read = state.recurrent[direction, share.low + b]
        copy(read, c if kind.reads_c else h)
        if len(masks.recurrent) > 0:
            multiply(read, masks.recurrent[direction, share.low + b])


@compiled
def run_forward(kind, parameters, masks, saved, inputs, state, output, starts, rows, share):
    """The time loop of one direction for one share of the utterances.

    Args:
        kind: of the cell.
        parameters: of the recurrence.
        masks: of recurrent dropout and zoneout.
        saved: `gates` holds the input's share of the sums; all else is written.
        inputs: `(B * T, in)`, where that share is still to be computed, some frames at a time so
            that it stays in the cache; else no rows.
        state: the initial one, at the end the final one.
        output: `(B * T, D, R)`, h of each frame at its padded place.
        starts: `(T + 1,)` int64, first packed row of each frame.
        rows: `(N,)` int64, padded place of each packed row.
        share: of this thread, see `cpu_launch.Share`.
    """
    parameters, masks, saved = borrowed(parameters), borrowed(masks), borrowed(saved)
    inputs, state, output = borrowed(inputs), borrowed(state), borrowed(output)
    frames, direction, low, most = (
        len(starts) - 1,
        share.direction,
        share.low,
        share.high - share.low,
    )
    units, width, dtype = state.c.shape[2], parameters.panels_hh.shape[1] * COLUMNS, state.c.dtype
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0
    # Scratch for a frame.
    coupled_i, c_next = np.empty(units, dtype), np.empty((most, units), dtype)
    unprojected, zeros = np.empty((most, units), dtype), np.zeros((1, width), dtype)
    columns = parameters.panels_hr.shape[1] * COLUMNS if has_projection else 0
    projected = np.empty((most, columns), dtype)
    products = np.empty((most if has_norm else 0, width), dtype)
    normed = np.empty((2, width if has_norm else 0), dtype)
    # The input's share of so many frames that their rows fill the tiles and stay in the cache.
    span = max(1, BLOCK // most) if len(inputs) > 0 else 0
    ahead, offsets = np.empty((span * most, 1, width), dtype), np.zeros(span, np.int64)
    gathered, summed = np.empty((span * most, inputs.shape[1]), dtype), -1
    for step in range(frames):
        t = frames - 1 - step if direction else step
        count = min(starts[t + 1] - starts[t], share.high) - low
        if count <= 0:
            continue
        first, turn = starts[t] + low, t % 2 == 1
        gates, place, slot = saved.gates, first, direction
        if span > 0:
            if summed != t // span:
                summed = t // span
                _sum_next_inputs(
                    ahead, offsets, gathered, summed * span, inputs, parameters, starts, rows, share
                )
            gates, place, slot = ahead, offsets[t % span], 0
        if len(saved.c) > 0:
            for b in range(count):
                recurrent = state.recurrent[direction, low + b]
                to_panels(saved.recurrent[direction], first + b, recurrent)
                copy(saved.c[first + b, direction], state.c[direction, low + b])
        recurrent, panels = (
            state.recurrent[direction, low : low + count],
            parameters.panels_hh[direction],
        )
        if has_norm:
            add_product(products[:count], zeros, recurrent, panels, turn)
            _add_normalized(
                gates, place, slot, products[:count], normed, saved, first, parameters, direction
            )
        else:
            sums = gates[place : place + count, slot]
            add_product(sums, sums, recurrent, panels, turn)
        for b in range(count):
            frame, c = gates[place + b, slot], state.c[direction, low + b]
            cell_forward(
                frame, c, kind, parameters, direction, coupled_i, c_next[b], unprojected[b]
            )
        h_next = unprojected
        if has_projection:
            h_next, panels = projected, parameters.panels_hr[direction]
            add_product(projected[:count], zeros, unprojected[:count], panels, turn)
            if len(saved.unprojected) > 0:
                for b in range(count):
                    to_panels(saved.unprojected[direction], first + b, unprojected[b])
        _advance(kind, masks, state, h_next, c_next, output, rows, first, count, share)
