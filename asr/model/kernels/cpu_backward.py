"""The LSTM's backward pass on a CPU, compiled by Numba: the cell, and the loop over time.

Then the products over all frames: gradients of the input and of the matrices. Arrays and letters
are those of `cpu_launch`.
"""

from __future__ import annotations

import numpy as np

from asr.model.kernels.cpu_tile import (
    BLOCK,
    COLUMNS,
    add,
    add_product,
    add_products,
    borrowed,
    compiled,
    copy,
    multiply,
    normalize,
    normalize_backward,
    tanh,
)

DEPTH = 256  # frames that a weight's gradient sums up at once


@compiled
def _output_backward(
    c, o, d_h, parameters, gradients, utterance, direction, normed, d_o, d_c
):  # fmt: skip
    """The gradients of h = o * tanh(c), c normalised where the cell does so.

    Of the sums of o to `d_o`, of c to `d_c`; `normed` is scratch.
    """
    has_norm, one = len(parameters.norm_c) > 0, c.dtype.type(1)
    if not has_norm:
        for j in range(len(c)):
            value = tanh(c[j])
            d_o[j] = d_h[j] * value * o[j] * (one - o[j])
            d_c[j] = d_h[j] * o[j] * (one - value * value)
        return
    scale = normalize(normed, c)
    gain, bias = parameters.norm_c[direction], parameters.bias_c[direction]
    for j in range(len(c)):
        value = tanh(gain[j] * normed[j] + bias[j])
        d_o[j] = d_h[j] * value * o[j] * (one - o[j])
        d_c[j] = d_h[j] * o[j] * (one - value * value)
    add_products(gradients.norm_c[direction, utterance], d_c, normed)
    add(gradients.bias_c[direction, utterance], d_c)
    multiply(d_c, gain)
    normalize_backward(d_c, normed, scale)


@compiled
def cell_backward(
    frame, c, d_h, d_c, kind, parameters, gradients, place, utterance, direction, scratch
):
    """The gradients of `cell_forward`: of the sums to `gradients.input`, of c_{t-1} to `d_c`.

    Args:
        frame: values of the gates.
        c: c_{t-1}.
        d_h: gradient of o * tanh(c_t).
        d_c: gradient of c_t, which becomes that of c_{t-1}.
        kind: of the cell.
        parameters: of the recurrence.
        gradients: those of this frame are written, those of the parameters added to.
        place: packed row of the frame.
        utterance: its place in the batch as sorted.
        direction: 0 or 1.
        scratch: `(4, H)`.
    """
    units, first = len(c), (kind.gates - 2) * len(c)
    d_frame = gradients.input[place, direction]
    f, g = frame[first - units : first], frame[first : first + units]
    o = frame[first + units : first + 2 * units]
    d_f, d_g = d_frame[first - units : first], d_frame[first : first + units]
    d_o = d_frame[first + units : first + 2 * units]
    c_next, normed, d_seen, i = scratch[0], scratch[1], scratch[2], scratch[3]
    one = frame.dtype.type(1)
    if kind.gates == 4:
        i = frame[:units]
    else:
        for j in range(units):
            i[j] = one - f[j]
    for j in range(units):
        c_next[j] = f[j] * c[j] + i[j] * g[j]
    _output_backward(
        c_next, o, d_h, parameters, gradients, utterance, direction, normed, d_o, d_seen
    )
    add(d_c, d_seen)
    has_peepholes = len(parameters.weight_ch) > 0
    if has_peepholes:
        add_products(d_c, parameters.weight_ch[direction, kind.gates - 2], d_o)
        add_products(gradients.weight_ch[direction, utterance, kind.gates - 2], d_o, c_next)
    if kind.gates == 4:
        d_i = d_frame[:units]
        for j in range(units):
            d_i[j] = d_c[j] * g[j] * i[j] * (one - i[j])
        for j in range(units):
            d_f[j] = d_c[j] * c[j] * f[j] * (one - f[j])
    else:
        for j in range(units):
            d_f[j] = d_c[j] * (c[j] - g[j]) * f[j] * (one - f[j])
    for j in range(units):
        d_g[j] = d_c[j] * i[j] * (one - g[j] * g[j])
    multiply(d_c, f)
    if has_peepholes:
        for k in range(kind.gates - 2):
            d_sum = d_frame[k * units : (k + 1) * units]
            add_products(d_c, parameters.weight_ch[direction, k], d_sum)
            add_products(gradients.weight_ch[direction, utterance, k], d_sum, c)


@compiled
def _normalized_sums_backward(place, utterance, parameters, saved, gradients, direction):
    """From the gradient of a frame's sums, in `gradients.input`, to that of each share."""
    gain_ih, gain_hh = parameters.norm_ih[direction], parameters.norm_hh[direction]
    d_sums = gradients.input[place, direction, : len(gain_ih)]
    d_product = gradients.recurrent[place, direction, : len(gain_ih)]
    normed_ih = saved.normed_ih[place, direction, : len(gain_ih)]
    normed_hh = saved.normed_hh[place, direction, : len(gain_ih)]
    add_products(gradients.norm_ih[direction, utterance], d_sums, normed_ih)
    add_products(gradients.norm_hh[direction, utterance], d_sums, normed_hh)
    # Loops of few arrays each: the compiler makes no vectors of one that writes to three.
    for j in range(len(d_sums)):
        d_product[j] = d_sums[j] * gain_hh[j]
    multiply(d_sums, gain_ih)
    normalize_backward(d_sums, normed_ih, saved.scales[place, direction, 0])
    normalize_backward(d_product, normed_hh, saved.scales[place, direction, 1])


@compiled
def _gradient_of_h(given, d_output, d_h, masks, rows, first, share):
    """The gradient of the h that a frame gave; what zoneout let stay remains in `d_h`."""
    direction = share.direction
    for b in range(len(given)):
        own, d_h_b = given[b], d_h[direction, share.low + b]
        d_out = d_output[rows[first + b], direction]
        for j in range(len(own)):
            own[j] = d_h_b[j] + d_out[j]
            d_h_b[j] = 0
        if len(masks.zone_h) > 0:
            zone = masks.zone_h[first + b, direction]
            one = zone.dtype.type(1)
            for j in range(len(own)):
                d_h_b[j] = zone[j] * own[j]
                own[j] *= one - zone[j]


@compiled
def run_backward(
    kind, parameters, masks, saved, gradients, d_output, d_h, d_c, starts, rows, share
):  # fmt: skip
    """The gradients of `run_forward`, in the opposite order of time.

    Args:
        kind: of the cell.
        parameters: of the recurrence, for the backward pass.
        masks: as in the forward pass.
        saved: as it left them.
        gradients: written, those of parameters added to.
        d_output: `(B * T, D, R)`, gradient of h at its padded place.
        d_h: `(D, B, R)`, gradient of the final h, at the end that of the initial.
        d_c: `(D, B, H)`, likewise.
        starts: as in the forward pass, and the following too.
        rows: padded places.
        share: of this thread.
    """
    parameters, masks, saved = borrowed(parameters), borrowed(masks), borrowed(saved)
    gradients, d_output = borrowed(gradients), borrowed(d_output)
    d_h, d_c = borrowed(d_h), borrowed(d_c)
    frames, direction, low, most = (
        len(starts) - 1,
        share.direction,
        share.low,
        share.high - share.low,
    )
    units, dtype, sums = d_c.shape[2], d_c.dtype, kind.gates * d_c.shape[2]
    has_norm, has_projection = len(parameters.norm_hh) > 0, len(parameters.panels_hr) > 0
    has_zones = len(masks.zone_c) > 0
    # Scratch for a frame: gradients of the h that it gave, of what was projected, and of what the
    # recurrent matrix read.
    given = np.empty((most, d_h.shape[2]), dtype)
    columns = parameters.panels_hr.shape[1] * COLUMNS if has_projection else 0
    unprojected = np.empty((most, columns), dtype)
    read = np.empty((most, parameters.panels_hh.shape[1] * COLUMNS), dtype)
    zeros = np.zeros((1, max(columns, read.shape[1])), dtype)
    stay, scratch = np.empty(units, dtype), np.empty((4, units), dtype)
    for step in range(frames):
        t = step if direction else frames - 1 - step
        count = min(starts[t + 1] - starts[t], share.high) - low
        if count <= 0:
            continue
        first, turn = starts[t] + low, t % 2 == 1
        _gradient_of_h(given[:count], d_output, d_h, masks, rows, first, share)
        d_given = given
        if has_projection:
            for b in range(count):
                copy(gradients.projected[first + b, direction], given[b])
            panels = parameters.panels_hr[direction]
            add_product(unprojected[:count], zeros, given[:count], panels, turn)
            d_given = unprojected
        for b in range(count):
            place, d_c_b = first + b, d_c[direction, low + b]
            if has_zones:
                zone, one = masks.zone_c[place, direction], dtype.type(1)
                for j in range(units):
                    stay[j] = zone[j] * d_c_b[j]
                    d_c_b[j] *= one - zone[j]
            frame, c = saved.gates[place, direction], saved.c[place, direction]
            cell_backward(
                frame, c, d_given[b], d_c_b, kind, parameters, gradients, place, low + b, direction,
                scratch,
            )  # fmt: skip
            if has_zones:
                add(d_c_b, stay)
            add(gradients.bias[direction, low + b], gradients.input[place, direction, :sums])
            if has_norm:
                _normalized_sums_backward(place, low + b, parameters, saved, gradients, direction)
        d_sums = gradients.recurrent if has_norm else gradients.input
        panels, d_rows = (
            parameters.panels_hh[direction],
            d_sums[first : first + count, direction, :sums],
        )
        add_product(read[:count], zeros, d_rows, panels, turn)
        d_state = d_c if kind.reads_c else d_h
        for b in range(count):
            target = d_state[direction, low + b]
            if len(masks.recurrent) > 0:
                multiply(read[b, : len(target)], masks.recurrent[direction, low + b])
            add(target, read[b])


@compiled
def input_gradients(d_x, d_sums, panels, rows, low, high):
    """Gradient of x `(B * T, in)` at packed frames, from that of the sums `(N, D, W)`.

    `panels` are of the input's matrices, `(D, ceil(in / 16), G * H, 16)`. As the following, it does
    a span of the work: who calls it for all spans, in any order and on any threads, gets the same
    bits.
    """
    directions, count, depth, _ = panels.shape
    block = np.empty((min(BLOCK, high - low), count * COLUMNS), d_x.dtype)
    zeros = np.zeros((1, count * COLUMNS), d_x.dtype)
    for first in range(low, high, BLOCK):
        last = min(first + BLOCK, high)
        for direction in range(directions):
            to, of = block[: last - first], d_sums[first:last, direction, :depth]
            add_product(to, to if direction else zeros, of, panels[direction], False)
        for n in range(first, last):
            copy(d_x[rows[n]], block[n - first])


@compiled
def sum_outer_products(out, right, other_out, other_right, left, direction, low, high):
    """Rows `low` to `high` of `out = left[:, direction].T @ right`, and likewise of another.

    Args:
        out: `(m, panels * 16)`.
        right: in panels, `(panels, N, 16)`.
        other_out: a second product of the same left factor; none if it has no panels.
        other_right: its right factor.
        left: `(N, D, >= m)`.
        direction: 0 or 1.
        low: first row.
        high: the one after the last.
    """
    # 16 more than read, lest all rows fall into the same few sets of the cache.
    block = np.empty((DEPTH, high - low + COLUMNS), left.dtype)
    out[low:high] = 0
    other_out[low:high] = 0
    for first in range(0, len(left), DEPTH):
        count = min(DEPTH, len(left) - first)
        for k in range(count):
            copy(block[k, : high - low], left[first + k, direction, low:high])
        a, last = block[:count, : high - low].T, first + count
        add_product(out[low:high], out[low:high], a, right[:, first:last], False)
        if len(other_right) > 0:
            to = other_out[low:high]
            add_product(to, to, a, other_right[:, first:last], False)
