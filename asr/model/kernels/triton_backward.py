"""The LSTM's backward pass in Triton: kernels of one step, and one of all steps.

`triton_tile` says how tiles and arrays are laid out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asr.model.kernels.triton_tile import (
    array_at,
    arrive,
    load,
    load_gate_rows,
    load_gates,
    load_row,
    own_frames,
    own_tile,
    projection_matrix,
    recurrent_matrix,
    rows_times,
    shown_at,
    steps_of_group,
    store,
    store_gates,
    sum_over_gates,
    tanh_of_c,
    wait,
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
        total *= load(table, KIND.AT.recurrent, KIND, at, columns, KIND.R, mask)
    return total


@triton.jit(do_not_specialize=["offset"])
def product_backward(table, offset, KIND: tl.constexpr):
    """The gradient through the following step's product, for a cell that needs whole rows of it."""
    direction, rows, columns, at, mask = own_tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) - offset
    total = _d_read(table, KIND, step, direction, rows, columns)
    store(table, KIND.AT.d_read, KIND, at, columns, KIND.R, mask, total)


@triton.jit
def _before_zoneout(
    table, ZONE: tl.constexpr, KIND: tl.constexpr, place, columns, WIDTH: tl.constexpr, valid, given
):
    """From the gradient of a state to that of its fresh value, and what passes the step by."""
    fresh, passing = tl.where(valid, given, 0), tl.where(valid, 0, given)
    if KIND.ZONED:
        zone = load(table, ZONE, KIND, place, columns, WIDTH, valid)
        passing += zone * fresh
        fresh *= 1 - zone
    return fresh, passing


@triton.jit
def _d_fresh(table, KIND: tl.constexpr, at, columns, mask, place, inside, d_read):
    """Gradient of a step's h before zoneout; what passes the step by stays in d_h."""
    valid = inside[:, None] & mask
    d_h = load(table, KIND.AT.d_h, KIND, at, columns, KIND.R, mask) + d_read
    d_h += load(table, KIND.AT.d_output, KIND, place, columns, KIND.R, valid)
    fresh, passing = _before_zoneout(
        table, KIND.AT.zone_h, KIND, place, columns, KIND.R, valid, d_h
    )
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
    valid = inside[:, None] & mask
    store(table, KIND.AT.d_projected, KIND, place, columns, KIND.R, valid, fresh)


@triton.jit
def _norm_backward(
    table, KIND: tl.constexpr, direction, place, inside, units, mask, d_i, d_f, d_g, d_o
):
    """Through the normalisation of the recurrent product."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    gain = load_gate_rows(table, KIND.AT.norm_hh, KIND, direction, units)
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
def _d_unprojected(
    table, KIND: tl.constexpr, step, direction, rows, at, units, mask, place, inside
):
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
def _add_to(table, SLOT: tl.constexpr, KIND: tl.constexpr, at, units, mask, value):
    """Add to rows that no other program has."""
    value += load(table, SLOT, KIND, at, units, KIND.H, mask)
    store(table, SLOT, KIND, at, units, KIND.H, mask, value)


@triton.jit
def _d_normed_c(table, KIND: tl.constexpr, direction, at, units, mask, d_c, normed, scale):
    """Through the normalisation of c; gradients of its gain and bias are added up by utterance."""
    _add_to(table, KIND.AT.d_norm_c, KIND, at, units, mask, d_c * normed)
    _add_to(table, KIND.AT.d_bias_c, KIND, at, units, mask, d_c)
    d_c *= load_row(table, KIND.AT.norm_c, KIND, direction * KIND.H, units, units < KIND.H)
    mean = (tl.sum(d_c, axis=1) / KIND.H)[:, None]
    slope = (tl.sum(d_c * normed, axis=1) / KIND.H)[:, None]
    return scale[:, None] * (d_c - mean - normed * slope)


@triton.jit
def _load_saved(table, KIND: tl.constexpr, place, units, valid):
    """The gates of a tile and c_{t-1}, as the forward pass left them."""
    i, f, g, o = load_gates(table, KIND.AT.gates, KIND, place, units, valid)
    c = load(table, KIND.AT.saved_c, KIND, place, units, KIND.H, valid)
    return i, f, g, o, c


@triton.jit
def _gates_backward(
    table, KIND: tl.constexpr, direction, at, units, mask, place, valid, saved, d_h, d_c
):  # fmt: skip
    """Through a tile's gates.

    Gradients of o * tanh(c_t) and of c_t to those of c_{t-1} and of the sums of i, f, g and o.
    """
    i, f, g, o, c = saved
    d_c, passing = _before_zoneout(table, KIND.AT.zone_c, KIND, place, units, KIND.H, valid, d_c)
    if KIND.G == 3:
        i = 1 - f
    tanh_c, normed, scale = tanh_of_c(table, KIND, f * c + i * g, direction, units, mask)
    d_o = d_h * tanh_c * o * (1 - o)
    d_through_h = d_h * o * (1 - tanh_c * tanh_c)
    if KIND.NORM:
        d_through_h = _d_normed_c(
            table, KIND, direction, at, units, mask, d_through_h, normed, scale
        )
    d_c += d_through_h
    if KIND.PEEPHOLE:
        p_i, p_f, _, p_o = load_gate_rows(table, KIND.AT.weight_ch, KIND, direction, units)
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
    """Through a step, from the following step's gradients to this one's."""
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    step = tl.load(table + KIND.AT.base) - offset
    place, inside = own_frames(table, KIND, step, direction, rows)
    valid = inside[:, None] & mask
    d_c = load(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask)
    d_h, more = _d_unprojected(table, KIND, step, direction, rows, at, units, mask, place, inside)
    saved = _load_saved(table, KIND, place, units, valid)
    d_c, d_i, d_f, d_g, d_o = _gates_backward(
        table, KIND, direction, at, units, mask, place, valid, saved, d_h, d_c + more
    )
    store(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask, d_c)
    store_gates(table, KIND.AT.d_sums, KIND, place, units, valid, d_i, d_f, d_g, d_o)
    if KIND.NORM:
        _norm_backward(table, KIND, direction, place, inside, units, valid, d_i, d_f, d_g, d_o)


# All steps in one launch.


@triton.jit
def _terms(KIND: tl.constexpr, n: tl.constexpr):
    """A chunk of the product's terms, 4 * PARTS by K: gates and terms, and which there are.

    Each gate's terms are cut in PARTS, so that as many warps work on one tile.
    """
    LENGTH: tl.constexpr = KIND.CHUNKS[n][1] // KIND.PARTS
    b = tl.arange(0, 4 * KIND.PARTS)
    gates = (b // KIND.PARTS - (4 - KIND.G))[:, None]
    k = KIND.CHUNKS[n][0] + (b % KIND.PARTS)[:, None] * LENGTH + tl.arange(0, LENGTH)[None, :]
    return gates * KIND.H + k, (gates >= 0) & (k < KIND.H)


@triton.jit
def _own_weights(table, KIND: tl.constexpr, direction, units):
    """The recurrent matrix's columns of this program, chunks `(4 * PARTS, K, BLOCK_N)`."""
    weights = recurrent_matrix(table, KIND, direction)
    chunks = tl.tuple([])
    for n in tl.static_range(len(KIND.CHUNKS)):
        k, is_term = _terms(KIND, n)
        where = weights + k[:, :, None] * KIND.R + units[None, None, :]
        mask = is_term[:, :, None] & (units < KIND.R)[None, None, :]
        chunks = chunks + (tl.load(where, mask=mask, other=0.0),)
    return chunks


@triton.jit
def _load_shown(table, KIND: tl.constexpr, turn, at, is_row, n: tl.constexpr):
    """A chunk of the following step's gradients, `(4 * PARTS, BLOCK_B, K)`, past the L1 cache."""
    k, is_term = _terms(KIND, n)
    where = shown_at(table, KIND, turn, at, KIND.G * KIND.H)[None, :, None] + k[:, None, :]
    mask = is_row[None, :, None] & is_term[:, None, :]
    return tl.load(where, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _add_product(table, KIND: tl.constexpr, turn, at, is_row, weights, total):
    """`total` and the product; a chunk is on its way while the last is multiplied."""
    left = _load_shown(table, KIND, turn, at, is_row, 0)
    for n in tl.static_range(len(KIND.CHUNKS)):
        if n + 1 < len(KIND.CHUNKS):
            following = _load_shown(table, KIND, turn, at, is_row, n + 1)
        total = tl.dot(
            left, weights[n], total, input_precision=KIND.PRECISION, out_dtype=KIND.FLOAT
        )
        if n + 1 < len(KIND.CHUNKS):
            left = following
    return total


@triton.jit
def _show_gates(table, KIND: tl.constexpr, turn, at, units, mask, i, f, g, o):
    """Show the group the gradients of a step's sums."""
    shown = shown_at(table, KIND, turn, at, KIND.G * KIND.H)[:, None] + units[None, :]
    if KIND.G == 4:
        tl.store(shown, i.to(KIND.WEIGHT), mask=mask)
    tl.store(shown + (KIND.G - 3) * KIND.H, f.to(KIND.WEIGHT), mask=mask)
    tl.store(shown + (KIND.G - 2) * KIND.H, g.to(KIND.WEIGHT), mask=mask)
    tl.store(shown + (KIND.G - 1) * KIND.H, o.to(KIND.WEIGHT), mask=mask)


@triton.jit
def loop_backward(table, KIND: tl.constexpr):
    """All steps of the backward pass, and the first step's product."""
    PARTS: tl.constexpr = 4 * KIND.PARTS
    ROWS: tl.constexpr = KIND.BLOCK_B
    COLUMNS: tl.constexpr = KIND.BLOCK_N
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    weights = _own_weights(table, KIND, direction, units)
    is_row = rows < tl.load(table + KIND.AT.batch)
    d_h = load(table, KIND.AT.d_h, KIND, at, units, KIND.R, mask)
    d_c = load(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask)
    steps = steps_of_group(table, KIND, rows)
    for turn in range(steps + 1):
        place, inside = own_frames(table, KIND, steps - 1 - turn, direction, rows)
        valid = inside[:, None] & mask
        d_h += load(table, KIND.AT.d_output, KIND, place, units, KIND.R, valid)
        saved = _load_saved(table, KIND, place, units, valid)
        wait(table, KIND, turn)
        parts = tl.zeros((PARTS, ROWS, COLUMNS), KIND.FLOAT)
        parts = _add_product(table, KIND, turn + 1, at, is_row, weights, parts)
        d_read = tl.sum(parts, axis=0)
        if KIND.MASKED:
            d_read *= load(table, KIND.AT.recurrent, KIND, at, units, KIND.R, mask)
        if KIND.READS_C:
            d_c += d_read
        else:
            d_h += d_read
        fresh, d_h = _before_zoneout(table, KIND.AT.zone_h, KIND, place, units, KIND.R, valid, d_h)
        d_c, d_i, d_f, d_g, d_o = _gates_backward(
            table, KIND, direction, at, units, mask, place, valid, saved, fresh, d_c
        )
        _show_gates(table, KIND, turn, at, units, mask, d_i, d_f, d_g, d_o)
        arrive(table, KIND)
        store_gates(table, KIND.AT.d_sums, KIND, place, units, valid, d_i, d_f, d_g, d_o)
    store(table, KIND.AT.d_h, KIND, at, units, KIND.R, mask, d_h)
    store(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask, d_c)
