"""The Triton kernels of a step on the way back; `triton_tile` says how they are laid out."""

from __future__ import annotations

import triton
import triton.language as tl

from asr.model.kernels.triton_tile import (
    array_at,
    load,
    load_gate_rows,
    load_gates,
    load_row,
    own_frames,
    own_tile,
    projection_matrix,
    recurrent_matrix,
    rows_times,
    see,
    store,
    store_gates,
    sum_over_gates,
    zeros,
)


@triton.jit
def _d_read(table, KIND: tl.constexpr, step, direction, rows, columns):
    """Gradient of what the recurrent matrix read at the following step, before dropout."""
    SUMS: tl.constexpr = KIND.AT.d_products if KIND.NORM else KIND.AT.d_sums
    place, inside = own_frames(table, KIND, step + 1, direction, rows)
    weights = recurrent_matrix(table, KIND, direction)
    total = rows_times(
        table, SUMS, KIND, place, inside, weights, columns, 1, KIND.R, KIND.G * KIND.H, KIND.R
    )
    if KIND.MASKED:
        at = direction * tl.load(table + KIND.AT.batch) + rows
        mask = inside[:, None] & (columns < KIND.R)[None, :]
        total *= load(table, KIND.AT.mask, KIND, at, columns, KIND.R, mask)
    return total


@triton.jit(do_not_specialize=["offset"])
def product_backward(table, offset, KIND: tl.constexpr):
    """The gradient through the following step's product, for a cell that needs whole rows of it."""
    direction, rows, columns, at, mask = own_tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) - offset
    total = _d_read(table, KIND, step, direction, rows, columns)
    store(table, KIND.AT.d_read, KIND, at, columns, KIND.R, mask, total)


@triton.jit
def before_zoneout(
    table, ZONE: tl.constexpr, KIND: tl.constexpr, place, columns, WIDTH: tl.constexpr, there, given
):
    """From the gradient of a state to that of its fresh value, and what passes the step by."""
    fresh, passing = tl.where(there, given, 0), tl.where(there, 0, given)
    if KIND.ZONED:
        zone = load(table, ZONE, KIND, place, columns, WIDTH, there)
        passing += zone * fresh
        fresh *= 1 - zone
    return fresh, passing


@triton.jit
def _d_fresh(table, KIND: tl.constexpr, at, columns, mask, place, inside, d_read):
    """Gradient of a step's h before zoneout; what passes the step by stays in d_h."""
    there = inside[:, None] & mask
    d_h = load(table, KIND.AT.d_h, KIND, at, columns, KIND.R, mask) + d_read
    d_h += load(table, KIND.AT.d_output, KIND, place, columns, KIND.R, there)
    fresh, passing = before_zoneout(table, KIND.AT.zone_h, KIND, place, columns, KIND.R, there, d_h)
    store(table, KIND.AT.d_h, KIND, at, columns, KIND.R, mask, passing)
    return fresh


@triton.jit(do_not_specialize=["offset"])
def projection_backward(table, offset, KIND: tl.constexpr):
    """Gradient of a projected h, which `cell_backward` takes through the projection."""
    direction, rows, columns, at, mask = own_tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) - offset
    place, inside = own_frames(table, KIND, step, direction, rows)
    d_read = _d_read(table, KIND, step, direction, rows, columns)
    fresh = _d_fresh(table, KIND, at, columns, mask, place, inside, d_read)
    there = inside[:, None] & mask
    store(table, KIND.AT.d_projected, KIND, place, columns, KIND.R, there, fresh)


@triton.jit
def _add_to(table, SLOT: tl.constexpr, KIND: tl.constexpr, at, units, mask, value):
    """Add to rows that no other program has."""
    value += load(table, SLOT, KIND, at, units, KIND.H, mask)
    store(table, SLOT, KIND, at, units, KIND.H, mask, value)


@triton.jit
def _norm_backward(
    table, KIND: tl.constexpr, direction, place, inside, units, mask, d_i, d_f, d_g, d_o
):
    """Through the normalisation of the recurrent product."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    gain = load_gate_rows(table, KIND.AT.norm_hh, KIND, direction, units, units < KIND.H)
    d_i, d_f, d_g, d_o = d_i * gain[0], d_f * gain[1], d_g * gain[2], d_o * gain[3]
    i, f, g, o = load_gates(table, KIND.AT.normed, KIND, place, units, mask)
    mean = (sum_over_gates(KIND, d_i, d_f, d_g, d_o) / WIDTH)[:, None]
    slope = (sum_over_gates(KIND, d_i * i, d_f * f, d_g * g, d_o * o) / WIDTH)[:, None]
    scales = array_at(table, KIND.AT.scales, KIND.FLOAT) + place
    scale = tl.load(scales, mask=inside, other=0.0)[:, None]
    d_i, d_f = scale * (d_i - mean - i * slope), scale * (d_f - mean - f * slope)
    d_g, d_o = scale * (d_g - mean - g * slope), scale * (d_o - mean - o * slope)
    store_gates(table, KIND.AT.d_products, KIND, place, units, mask, d_i, d_f, d_g, d_o)


@triton.jit
def _d_given(table, KIND: tl.constexpr, step, direction, rows, at, units, mask, place, inside):
    """Gradient of o * tanh(c), and what c gets through the following step's product."""
    d_c = zeros(KIND)
    if KIND.PROJECTED:
        weights = projection_matrix(table, KIND, direction)
        d_h = rows_times(
            table, KIND.AT.d_projected, KIND, place, inside, weights, units, 1, KIND.H, KIND.R,
            KIND.H,
        )  # fmt: skip
    else:
        if KIND.NORM:
            d_read = load(table, KIND.AT.d_read, KIND, at, units, KIND.R, mask)
        else:
            d_read = _d_read(table, KIND, step, direction, rows, units)
        if KIND.READS_C:
            d_c, d_read = d_read, d_c
        d_h = _d_fresh(table, KIND, at, units, mask, place, inside, d_read)
    return d_h, d_c


@triton.jit
def _d_normed_c(table, KIND: tl.constexpr, direction, at, units, mask, d_seen, normed, scale):
    """Through the normalisation of c; gradients of its gain and bias are added up by utterance."""
    _add_to(table, KIND.AT.d_norm_c, KIND, at, units, mask, d_seen * normed)
    _add_to(table, KIND.AT.d_bias_c, KIND, at, units, mask, d_seen)
    d_seen *= load_row(table, KIND.AT.norm_c, KIND, direction * KIND.H, units, units < KIND.H)
    mean = (tl.sum(d_seen, axis=1) / KIND.H)[:, None]
    slope = (tl.sum(d_seen * normed, axis=1) / KIND.H)[:, None]
    return scale[:, None] * (d_seen - mean - normed * slope)


@triton.jit
def load_kept(table, KIND: tl.constexpr, place, units, there):
    """The gates of a tile and c_{t-1}, as the way there left them."""
    i, f, g, o = load_gates(table, KIND.AT.gates, KIND, place, units, there)
    c = load(table, KIND.AT.kept_c, KIND, place, units, KIND.H, there)
    return i, f, g, o, c


@triton.jit
def gates_backward(
    table, KIND: tl.constexpr, direction, at, units, mask, place, there, kept, d_h, d_c
):  # fmt: skip
    """The way back through a tile's gates.

    Gradients of o * tanh(c_t) and of c_t to those of c_{t-1} and of the sums of i, f, g and o.
    """
    i, f, g, o, c = kept
    d_c, passing = before_zoneout(table, KIND.AT.zone_c, KIND, place, units, KIND.H, there, d_c)
    if KIND.G == 3:
        i = 1 - f
    seen, normed, scale = see(table, KIND, f * c + i * g, direction, units, mask)
    d_o = d_h * seen * o * (1 - o)
    d_seen = d_h * o * (1 - seen * seen)
    if KIND.NORM:
        d_seen = _d_normed_c(table, KIND, direction, at, units, mask, d_seen, normed, scale)
    d_c += d_seen
    if KIND.PEEPHOLE:
        p_i, p_f, _, p_o = load_gate_rows(
            table, KIND.AT.weight_ch, KIND, direction, units, units < KIND.H
        )
        d_c += p_o * d_o
    d_i = d_c * g * i * (1 - i)
    d_f = d_c * (c if KIND.G == 4 else c - g) * f * (1 - f)
    d_g = d_c * i * (1 - g * g)
    passing += d_c * f
    if KIND.PEEPHOLE:
        passing += p_f * d_f
        if KIND.G == 4:
            passing += p_i * d_i
    return passing, d_i, d_f, d_g, d_o


@triton.jit(do_not_specialize=["offset"])
def cell_backward(table, offset, KIND: tl.constexpr):
    """The way back through a step, from the following step's gradients to this one's."""
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    step = tl.load(table + KIND.AT.base) - offset
    place, inside = own_frames(table, KIND, step, direction, rows)
    there = inside[:, None] & mask
    d_c = load(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask)
    d_h, more = _d_given(table, KIND, step, direction, rows, at, units, mask, place, inside)
    kept = load_kept(table, KIND, place, units, there)
    d_c, d_i, d_f, d_g, d_o = gates_backward(
        table, KIND, direction, at, units, mask, place, there, kept, d_h, d_c + more
    )
    store(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask, d_c)
    store_gates(table, KIND.AT.d_sums, KIND, place, units, there, d_i, d_f, d_g, d_o)
    if KIND.NORM:
        _norm_backward(table, KIND, direction, place, inside, units, there, d_i, d_f, d_g, d_o)
