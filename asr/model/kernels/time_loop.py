"""The LSTM's loop over time, forward and backward, compiled by Numba.

The functions here run without the interpreter's lock, each on its share of the utterances.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from asr.model.kernels.compiled import compiled
from asr.model.kernels.tile import add_product

TANH_NUMERATOR = (
    4.89352455891786e-3, 6.37261928875436e-4, 1.48572235717979e-5, 5.12229709037114e-8,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
TANH_DENOMINATOR = (
    4.89352518554385e-3, 2.26843463243900e-3, 1.18534705686654e-4, 1.19825839466702e-6,
)  # fmt: skip


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, in compiled code only."""
    raise NotImplementedError


@overload(tanh)
def _compiled_tanh(x):
    if x != types.float32:
        return lambda x: math.tanh(x)
    # A ratio of polynomials becomes vector instructions, libm's function would not. Coefficients of
    # Eigen's float tanh, odd powers over even ones: within 2e-7.
    bound = np.float32(7.90531110763549805)
    a: Any = tuple(map(np.float32, TANH_NUMERATOR))
    b: Any = tuple(map(np.float32, TANH_DENOMINATOR))

    def ratio(x):
        x = bound if x > bound else x  # written so that NaN stays NaN
        x = -bound if x < -bound else x
        s = x * x
        top = a[0] + s * (a[1] + s * (a[2] + s * (a[3] + s * (a[4] + s * (a[5] + s * a[6])))))
        return x * top / (b[0] + s * (b[1] + s * (b[2] + s * b[3])))

    return ratio


@compiled
def _activate(gates, units):
    """Gates i, f, g, o of one frame, in place: from sums to values."""
    half = gates.dtype.type(0.5)
    # Slices first, then loops from 0: only these become vector instructions.
    input_forget, candidate = gates[: 2 * units], gates[2 * units : 3 * units]
    output = gates[3 * units : 4 * units]
    for j in range(2 * units):
        input_forget[j] = half + half * tanh(half * input_forget[j])
    for j in range(units):
        candidate[j] = tanh(candidate[j])
    for j in range(units):
        output[j] = half + half * tanh(half * output[j])


@compiled
def run_forward(
    gates, panels, h, c, output, h_before, c_before, starts, rows, direction, low, high
):
    """The time loop of one direction for the utterances `low` to `high`, as sorted.

    Args:
        gates: `(N, D, W)`, the input's share of the sums; holds the gates afterwards.
        panels: the recurrent weights, `(D, W / 16, H, 16)`.
        h: `(D, B, H)` state, at the end the final one; an utterance's row is left alone before
            its first frame and after its last.
        c: likewise.
        output: `(B * T, D, H)`, h of each frame at its padded place.
        h_before: `(N, D, H)`, h before each frame, for the backward pass; or no rows, not wanted.
        c_before: likewise.
        starts: `(T + 1,)` int64, first packed row of each frame.
        rows: `(N,)` int64, padded place of each packed row.
        direction: 0, or 1 for the one in which time runs backwards.
        low: first utterance.
        high: the one after the last.
    """
    frames, units = len(starts) - 1, h.shape[2]
    keep = len(c_before) > 0
    for step in range(frames):
        t = frames - 1 - step if direction else step
        start = starts[t]
        running = min(starts[t + 1] - start, high)
        if running <= low:
            continue
        sums = gates[start + low : start + running, direction]
        add_product(sums, h[direction, low:running], panels[direction])
        for b in range(low, running):
            frame = gates[start + b, direction]
            _activate(frame, units)
            i, f = frame[:units], frame[units : 2 * units]
            g, o = frame[2 * units : 3 * units], frame[3 * units : 4 * units]
            h_b, c_b = h[direction, b], c[direction, b]
            out = output[rows[start + b], direction]
            if keep:
                h_kept = h_before[start + b, direction]
                c_kept = c_before[start + b, direction]
                for j in range(units):
                    h_kept[j] = h_b[j]
                    c_kept[j] = c_b[j]
            for j in range(units):
                c_b[j] = f[j] * c_b[j] + i[j] * g[j]
            for j in range(units):
                h_b[j] = o[j] * tanh(c_b[j])
                out[j] = h_b[j]


@compiled
def run_backward(
    d_output, gates, c_before, panels, d_gates, d_h, d_c, starts, rows, direction, low, high
):
    """The time loop's gradients, in the opposite order of `run_forward`.

    Args:
        d_output: `(B * T, D, H)`, gradient of h at its padded place.
        gates: `(N, D, W)`, as the forward pass left them.
        c_before: `(N, D, H)`.
        panels: the recurrent weights for the way back, `(D, ceil(H / 16), 4H, 16)`.
        d_gates: `(N, D, W)`, the sums' gradients are written here.
        d_h: `(D, B, ceil(H / 16) * 16)`, gradient of the final h, at the end that of the initial.
        d_c: `(D, B, H)`, likewise.
        starts: as in the forward pass, and the following too.
        rows: padded places.
        direction: 0, or 1 where the forward pass ran backwards in time.
        low: first utterance.
        high: the one after the last.
    """
    frames, units = len(starts) - 1, c_before.shape[2]
    one = gates.dtype.type(1.0)
    c_tanh = np.empty(units, gates.dtype)
    for step in range(frames):
        t = step if direction else frames - 1 - step
        start = starts[t]
        running = min(starts[t + 1] - start, high)
        if running <= low:
            continue
        for b in range(low, running):
            frame, d_frame = gates[start + b, direction], d_gates[start + b, direction]
            i, f = frame[:units], frame[units : 2 * units]
            g, o = frame[2 * units : 3 * units], frame[3 * units : 4 * units]
            d_i, d_f = d_frame[:units], d_frame[units : 2 * units]
            d_g, d_o = d_frame[2 * units : 3 * units], d_frame[3 * units : 4 * units]
            d_out, before = d_output[rows[start + b], direction], c_before[start + b, direction]
            d_h_b, d_c_b = d_h[direction, b], d_c[direction, b]
            for j in range(units):
                c_tanh[j] = tanh(f[j] * before[j] + i[j] * g[j])
            for j in range(units):
                d = d_h_b[j] + d_out[j]
                d_o[j] = d * c_tanh[j] * o[j] * (one - o[j])
                d_c_b[j] += d * o[j] * (one - c_tanh[j] * c_tanh[j])
            for j in range(units):
                d_i[j] = d_c_b[j] * g[j] * i[j] * (one - i[j])
                d_g[j] = d_c_b[j] * i[j] * (one - g[j] * g[j])
            for j in range(units):
                d_f[j] = d_c_b[j] * before[j] * f[j] * (one - f[j])
                d_c_b[j] *= f[j]
            for j in range(len(d_h_b)):
                d_h_b[j] = 0
        sums = d_gates[start + low : start + running, direction, : 4 * units]
        add_product(d_h[direction, low:running], sums, panels[direction])
