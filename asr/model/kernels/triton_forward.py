"""The LSTM's forward pass in Triton: kernels of one step, and one of all steps.

`triton_tile` says how tiles and arrays are laid out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asr.model.kernels.triton_tile import (
    add_dot,
    array_at,
    arrive,
    load,
    load_gate_rows,
    load_gates,
    own_frames,
    own_tile,
    projection_matrix,
    recurrent_matrix,
    rows_times,
    shown_at,
    states_before,
    steps_of_group,
    store,
    store_gates,
    sum_over_gates,
    tanh,
    tanh_of_c,
    wait,
    zeros,
)


@triton.jit
def _load_read(table, KIND: tl.constexpr, step, at, columns, mask):
    """What the recurrent matrix reads at a step, after dropout."""
    STATE: tl.constexpr = KIND.AT.c if KIND.READS_C else KIND.AT.h
    value = load(table, STATE, KIND, states_before(table, KIND, step) + at, columns, KIND.R, mask)
    if KIND.MASKED:
        value *= load(table, KIND.AT.recurrent, KIND, at, columns, KIND.R, mask)
    return value


@triton.jit(do_not_specialize=["offset"])
def product_forward(table, offset, KIND: tl.constexpr):
    """The recurrent product of a step, for a cell that needs whole rows of it."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    direction, rows, columns, at, mask = own_tile(table, KIND, WIDTH)
    step = tl.load(table + KIND.AT.base) + offset
    weights = recurrent_matrix(table, KIND, direction)
    is_row = rows < tl.load(table + KIND.AT.batch)
    total = zeros(KIND)
    for start in range(0, KIND.R, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = _load_read(table, KIND, step, at, k, is_row[:, None] & (k < KIND.R)[None, :])
        is_weight = (k < KIND.R)[:, None] & (columns < WIDTH)[None, :]
        total = add_dot(KIND, total, left, weights, k, columns, KIND.R, 1, is_weight)
    store(table, KIND.AT.products, KIND, at, columns, WIDTH, mask, total)


@triton.jit
def _normalized(table, KIND: tl.constexpr, direction, at, units, mask, place, inside):
    """The recurrent product normalised, times its gain."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    i, f, g, o = load_gates(table, KIND.AT.products, KIND, at, units, mask)
    mean = (sum_over_gates(KIND, i, f, g, o) / WIDTH)[:, None]
    i, f = tl.where(mask, i - mean, 0), tl.where(mask, f - mean, 0)
    g, o = tl.where(mask, g - mean, 0), tl.where(mask, o - mean, 0)
    variance = sum_over_gates(KIND, i * i, f * f, g * g, o * o) / WIDTH
    scale = 1 / tl.sqrt(variance + KIND.EPSILON)
    wide = scale[:, None]
    i, f, g, o = i * wide, f * wide, g * wide, o * wide
    if KIND.KEEP:
        valid = inside[:, None] & mask
        store_gates(table, KIND.AT.normed, KIND, place, units, valid, i, f, g, o)
        tl.store(array_at(table, KIND.AT.scales, KIND.FLOAT) + place, scale, mask=inside)
    gain = load_gate_rows(table, KIND.AT.norm_hh, KIND, direction, units)
    return i * gain[0], f * gain[1], g * gain[2], o * gain[3]


@triton.jit
def _products(table, KIND: tl.constexpr, step, direction, rows, at, units):
    """The recurrent product, gate by gate; the rows are read once for all."""
    SIZE: tl.constexpr = KIND.H * KIND.R  # of a gate's part of the matrix
    f = zeros(KIND)
    i, g, o = f, f, f
    of_f = recurrent_matrix(table, KIND, direction) + (KIND.G - 3) * SIZE
    is_row = rows < tl.load(table + KIND.AT.batch)
    for start in range(0, KIND.R, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = _load_read(table, KIND, step, at, k, is_row[:, None] & (k < KIND.R)[None, :])
        is_weight = (k < KIND.R)[:, None] & (units < KIND.H)[None, :]
        f = add_dot(KIND, f, left, of_f, k, units, KIND.R, 1, is_weight)
        g = add_dot(KIND, g, left, of_f + SIZE, k, units, KIND.R, 1, is_weight)
        o = add_dot(KIND, o, left, of_f + 2 * SIZE, k, units, KIND.R, 1, is_weight)
        if KIND.G == 4:
            i = add_dot(KIND, i, left, of_f - SIZE, k, units, KIND.R, 1, is_weight)
    return i, f, g, o


@triton.jit
def _gate_values(table, KIND: tl.constexpr, direction, units, i, f, g, o, c):
    """The gates of a tile and c_t, from the gates' sums and c_{t-1}."""
    if KIND.PEEPHOLE:
        p_i, p_f, _, p_o = load_gate_rows(table, KIND.AT.weight_ch, KIND, direction, units)
        i, f = i + p_i * c, f + p_f * c
    f, g = tl.sigmoid(f), tanh(g)
    i = tl.sigmoid(i) if KIND.G == 4 else 1 - f
    c_next = f * c + i * g
    if KIND.PEEPHOLE:
        o += p_o * c_next
    return i, f, g, tl.sigmoid(o), c_next


@triton.jit
def _state_after(
    table, ZONE: tl.constexpr, KIND: tl.constexpr, place, columns, WIDTH: tl.constexpr, mask,
    inside, fresh, old,
):  # fmt: skip
    """A state's new value, after zoneout, where the row has a frame, else the old."""
    if KIND.ZONED:
        zone = load(table, ZONE, KIND, place, columns, WIDTH, inside[:, None] & mask)
        fresh += zone * (old - fresh)
    return tl.where(inside[:, None], fresh, old)


@triton.jit
def _advance(
    table, STATE: tl.constexpr, ZONE: tl.constexpr, KIND: tl.constexpr, step, at, columns,
    WIDTH: tl.constexpr, mask, place, inside, fresh,
):  # fmt: skip
    """`_state_after` of a state in memory: written, and given."""
    first = states_before(table, KIND, step)
    old = load(table, STATE, KIND, first + at, columns, WIDTH, mask)
    value = _state_after(table, ZONE, KIND, place, columns, WIDTH, mask, inside, fresh, old)
    after = states_before(table, KIND, step + 1)
    store(table, STATE, KIND, after + at, columns, WIDTH, mask, value)
    return value


@triton.jit
def _advance_h(table, KIND: tl.constexpr, step, at, columns, mask, place, inside, fresh):
    """h of a step: into the state and the output; what was read is saved for the backward pass."""
    valid = inside[:, None] & mask
    if KIND.KEEP:
        read = _load_read(table, KIND, step, at, columns, valid)
        store(table, KIND.AT.read, KIND, place, columns, KIND.R, valid, read)
    h = _advance(
        table, KIND.AT.h, KIND.AT.zone_h, KIND, step, at, columns, KIND.R, mask, place, inside,
        fresh,
    )  # fmt: skip
    store(table, KIND.AT.output, KIND, place, columns, KIND.R, valid, h)


@triton.jit(do_not_specialize=["offset"])
def cell_forward(table, offset, KIND: tl.constexpr):
    """The recurrent product and the gates of a step, up to h where nothing projects it."""
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    step = tl.load(table + KIND.AT.base) + offset
    place, inside = own_frames(table, KIND, step, direction, rows)
    valid = inside[:, None] & mask
    if KIND.NORM:
        i, f, g, o = _normalized(table, KIND, direction, at, units, mask, place, inside)
    else:
        i, f, g, o = _products(table, KIND, step, direction, rows, at, units)
    of_i, of_f, of_g, of_o = load_gates(table, KIND.AT.sums, KIND, place, units, valid)
    i, f, g, o = i + of_i, f + of_f, g + of_g, o + of_o
    c = load(table, KIND.AT.c, KIND, states_before(table, KIND, step) + at, units, KIND.H, mask)
    i, f, g, o, c_next = _gate_values(table, KIND, direction, units, i, f, g, o, c)
    tanh_c, _, _ = tanh_of_c(table, KIND, c_next, direction, units, mask)
    if KIND.KEEP:
        store_gates(table, KIND.AT.gates, KIND, place, units, valid, i, f, g, o)
        store(table, KIND.AT.saved_c, KIND, place, units, KIND.H, valid, c)
    if KIND.PROJECTED:
        store(table, KIND.AT.unprojected, KIND, place, units, KIND.H, valid, o * tanh_c)
    else:
        _advance_h(table, KIND, step, at, units, mask, place, inside, o * tanh_c)
    _advance(
        table, KIND.AT.c, KIND.AT.zone_c, KIND, step, at, units, KIND.H, mask, place, inside,
        c_next,
    )  # fmt: skip


@triton.jit(do_not_specialize=["offset"])
def projection_forward(table, offset, KIND: tl.constexpr):
    """h of a step, the projection of what `cell_forward` left."""
    direction, rows, columns, at, mask = own_tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) + offset
    place, inside = own_frames(table, KIND, step, direction, rows)
    weights = projection_matrix(table, KIND, direction)
    fresh = rows_times(
        table, KIND.AT.unprojected, KIND, place, inside, weights, columns, KIND.H, 1, KIND.H,
        KIND.R,
    )  # fmt: skip
    _advance_h(table, KIND, step, at, columns, mask, place, inside, fresh)


# All steps in one launch.


@triton.jit
def _gate_columns(KIND: tl.constexpr):
    """Columns of an array of all gates, a unit's four side by side, and which of them there are."""
    j = tl.arange(0, 4 * KIND.BLOCK_N)
    units, gates = tl.program_id(1) * KIND.BLOCK_N + j // 4, j % 4 - (4 - KIND.G)
    return gates * KIND.H + units, (units < KIND.H) & (gates >= 0)


@triton.jit
def _by_gate(KIND: tl.constexpr, sums):
    """Columns as of `_gate_columns` to the tiles of i, f, g and o."""
    i_and_g, f_and_o = tl.split(tl.reshape(sums, (KIND.BLOCK_B, KIND.BLOCK_N, 2, 2)))
    i, g = tl.split(i_and_g)
    f, o = tl.split(f_and_o)
    return i, f, g, o


@triton.jit
def _chunk(KIND: tl.constexpr, n: tl.constexpr):
    """Places of a product's chunk of terms, and which of them there are."""
    k = KIND.CHUNKS[n][0] + tl.arange(0, KIND.CHUNKS[n][1])
    return k, k < KIND.R


@triton.jit
def _own_weights(table, KIND: tl.constexpr, direction):
    """The recurrent matrix's columns of this program, a chunk `(K, 4 * BLOCK_N)` each."""
    columns, is_column = _gate_columns(KIND)
    weights = recurrent_matrix(table, KIND, direction)
    chunks = tl.tuple([])
    for n in tl.static_range(len(KIND.CHUNKS)):
        k, is_term = _chunk(KIND, n)
        where = weights + columns[None, :] * KIND.R + k[:, None]
        chunks = chunks + (tl.load(where, mask=is_term[:, None] & is_column[None, :], other=0.0),)
    return chunks


@triton.jit
def _load_shown(table, KIND: tl.constexpr, step, at, is_row, n: tl.constexpr):
    """A chunk of what the recurrent matrix reads, past the L1 cache, which others do not write."""
    k, is_term = _chunk(KIND, n)
    where = shown_at(table, KIND, step, at, KIND.R)[:, None] + k[None, :]
    mask = is_row[:, None] & is_term[None, :]
    return tl.load(where, mask=mask, other=0.0, cache_modifier=".cg")


@triton.jit
def _add_product(table, KIND: tl.constexpr, step, at, is_row, weights, total):
    """`total` and the product; a chunk is on its way while the last is multiplied."""
    left = _load_shown(table, KIND, step, at, is_row, 0)
    for n in tl.static_range(len(KIND.CHUNKS)):
        if n + 1 < len(KIND.CHUNKS):
            following = _load_shown(table, KIND, step, at, is_row, n + 1)
        total = tl.dot(
            left, weights[n], total, input_precision=KIND.PRECISION, out_dtype=KIND.FLOAT
        )
        if n + 1 < len(KIND.CHUNKS):
            left = following
    return total


@triton.jit
def loop_forward(table, KIND: tl.constexpr):
    """All steps of the forward pass."""
    direction, rows, units, at, mask = own_tile(table, KIND, KIND.H)
    weights = _own_weights(table, KIND, direction)
    columns, is_column = _gate_columns(KIND)
    batch = tl.load(table + KIND.AT.batch)
    is_row = rows < batch
    h = load(table, KIND.AT.h, KIND, at, units, KIND.R, mask)
    c = load(table, KIND.AT.c, KIND, at, units, KIND.H, mask)
    for step in range(steps_of_group(table, KIND, rows)):
        place, inside = own_frames(table, KIND, step, direction, rows)
        valid = inside[:, None] & mask
        read = c if KIND.READS_C else h
        if KIND.MASKED:
            read *= load(table, KIND.AT.recurrent, KIND, at, units, KIND.R, mask)
        shown = shown_at(table, KIND, step, at, KIND.R)[:, None] + units[None, :]
        tl.store(shown, read.to(KIND.WEIGHT), mask=mask)
        arrive(table, KIND)
        if KIND.KEEP:
            store(table, KIND.AT.read, KIND, place, units, KIND.R, valid, read)
            store(table, KIND.AT.saved_c, KIND, place, units, KIND.H, valid, c)
        is_sum = inside[:, None] & is_column[None, :]
        sums = load(table, KIND.AT.sums, KIND, place, columns, KIND.G * KIND.H, is_sum)
        wait(table, KIND, step + 1)
        sums = _add_product(table, KIND, step, at, is_row, weights, sums)
        i, f, g, o = _by_gate(KIND, sums)
        i, f, g, o, c_next = _gate_values(table, KIND, direction, units, i, f, g, o, c)
        if KIND.KEEP:
            store_gates(table, KIND.AT.gates, KIND, place, units, valid, i, f, g, o)
        tanh_c, _, _ = tanh_of_c(table, KIND, c_next, direction, units, mask)
        h = _state_after(
            table, KIND.AT.zone_h, KIND, place, units, KIND.R, mask, inside, o * tanh_c, h
        )
        c = _state_after(table, KIND.AT.zone_c, KIND, place, units, KIND.H, mask, inside, c_next, c)
        store(table, KIND.AT.output, KIND, place, units, KIND.R, valid, h)
    store(table, KIND.AT.h, KIND, KIND.D * batch + at, units, KIND.R, mask, h)
    store(table, KIND.AT.c, KIND, KIND.D * batch + at, units, KIND.H, mask, c)
