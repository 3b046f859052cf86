"""The Triton kernels of one time step, on the way there and back.

A program serves a tile of utterances of one direction and a tile of units. Arrays of all frames are
`(B, T, D, ...)`; where a row's frame lies at a step follows from its length, so the second
direction's time is never turned round in memory. Arrays of a step are `(D, B, ...)`; of h and c
there are two, as all programs read one while each writes its part of the other.

Every kernel takes a table of addresses and a `Kind`, see `fused_triton`; the number of the step is
the table's first entry and `offset` together, so a captured graph of launches serves any batch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _array(table, SLOT: tl.constexpr, DTYPE: tl.constexpr):
    address = tl.load(table + SLOT).to(tl.pointer_type(DTYPE))
    return tl.multiple_of(address, 16)


@triton.jit
def _load(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, columns, WIDTH: tl.constexpr, mask):
    """A tile of an array whose rows are WIDTH long; 0 outside of the mask."""
    where = _array(table, SLOT, KIND.FLOAT) + rows[:, None] * WIDTH + columns[None, :]
    return tl.load(where, mask=mask, other=0.0)


@triton.jit
def _store(
    table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, columns, WIDTH: tl.constexpr, mask, value
):
    where = _array(table, SLOT, KIND.FLOAT) + rows[:, None] * WIDTH + columns[None, :]
    tl.store(where, value, mask=mask)


@triton.jit
def _row(table, SLOT: tl.constexpr, KIND: tl.constexpr, first, columns, mask):
    """Some values of an array, from element `first` on, as a tile of one row."""
    where = _array(table, SLOT, KIND.FLOAT) + first + columns
    return tl.load(where, mask=mask, other=0.0)[None, :]


@triton.jit
def _tile(table, KIND: tl.constexpr, WIDTH: tl.constexpr):
    """Direction, rows, columns, the rows' places in `(D, B)`, and which elements there are."""
    place = tl.program_id(0)
    direction, batch = place % KIND.D, tl.load(table + KIND.AT.batch)
    rows = (place // KIND.D).to(tl.int64) * KIND.BLOCK_B + tl.arange(0, KIND.BLOCK_B)
    columns = tl.program_id(1) * KIND.BLOCK_N + tl.arange(0, KIND.BLOCK_N)
    mask = (rows < batch)[:, None] & (columns < WIDTH)[None, :]
    return direction, rows, columns, direction * batch + rows, mask


@triton.jit
def _frames(table, KIND: tl.constexpr, step, direction, rows):
    """Places of the rows' frames in `(B, T, D)`, and which rows have a frame at this step."""
    batch, frames = tl.load(table + KIND.AT.batch), tl.load(table + KIND.AT.frames)
    lengths = _array(table, KIND.AT.lengths, tl.int64)
    lengths = tl.load(lengths + rows, mask=rows < batch, other=0)
    time = tl.where(direction == 0, step, lengths - 1 - step)
    return (rows * frames + time) * KIND.D + direction, (step >= 0) & (step < lengths)


@triton.jit
def _before(table, KIND: tl.constexpr, step):
    """The first row of the states that a step reads, `(D * B)` rows each."""
    return (step % 2) * KIND.D * tl.load(table + KIND.AT.batch)


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _zeros(KIND: tl.constexpr):
    ROWS: tl.constexpr = KIND.BLOCK_B
    COLUMNS: tl.constexpr = KIND.BLOCK_N
    return tl.zeros((ROWS, COLUMNS), KIND.FLOAT)


@triton.jit
def _dot(KIND: tl.constexpr, total, left, weights, k, columns, ACROSS: tl.constexpr,
         DOWN: tl.constexpr, mask):  # fmt: skip
    """`total + left @ weights`, whose elements lie ACROSS and DOWN apart."""
    where = weights + k[:, None] * DOWN + columns[None, :] * ACROSS
    right = tl.load(where, mask=mask, other=0.0)
    return tl.dot(
        left.to(KIND.WEIGHT), right, total, input_precision=KIND.PRECISION, out_dtype=KIND.FLOAT
    )


@triton.jit
def _product(
    table, LEFT: tl.constexpr, KIND: tl.constexpr, rows, is_row, weights, columns,
    ACROSS: tl.constexpr, DOWN: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Rows of an array, K long, times columns of weights."""
    total = _zeros(KIND)
    for start in range(0, K, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = _load(table, LEFT, KIND, rows, k, K, is_row[:, None] & (k < K)[None, :])
        mask = (k < K)[:, None] & (columns < WIDTH)[None, :]
        total = _dot(KIND, total, left, weights, k, columns, ACROSS, DOWN, mask)
    return total


@triton.jit
def _read(table, KIND: tl.constexpr, step, at, columns, mask):
    """What the recurrent matrix reads at a step, after dropout."""
    STATE: tl.constexpr = KIND.AT.c if KIND.READS_C else KIND.AT.h
    value = _load(table, STATE, KIND, _before(table, KIND, step) + at, columns, KIND.R, mask)
    if KIND.MASKED:
        value *= _load(table, KIND.AT.mask, KIND, at, columns, KIND.R, mask)
    return value


@triton.jit
def _recurrent(table, KIND: tl.constexpr, direction):
    """The recurrent matrix of a direction, `(G * H, R)`."""
    weights = _array(table, KIND.AT.weight_hh, KIND.WEIGHT)
    return weights + direction * KIND.G * KIND.H * KIND.R


@triton.jit
def _projection(table, KIND: tl.constexpr, direction):
    """The projection of a direction, `(R, H)`."""
    return _array(table, KIND.AT.weight_hr, KIND.WEIGHT) + direction * KIND.R * KIND.H


@triton.jit(do_not_specialize=["offset"])
def product_forward(table, offset, KIND: tl.constexpr):
    """The recurrent product of a step, for a cell that needs whole rows of it."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    direction, rows, columns, at, mask = _tile(table, KIND, WIDTH)
    step = tl.load(table + KIND.AT.base) + offset
    weights = _recurrent(table, KIND, direction)
    real = rows < tl.load(table + KIND.AT.batch)
    total = _zeros(KIND)
    for start in range(0, KIND.R, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = _read(table, KIND, step, at, k, real[:, None] & (k < KIND.R)[None, :])
        there = (k < KIND.R)[:, None] & (columns < WIDTH)[None, :]
        total = _dot(KIND, total, left, weights, k, columns, KIND.R, 1, there)
    _store(table, KIND.AT.products, KIND, at, columns, WIDTH, mask, total)


@triton.jit
def _gate(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, GATE: tl.constexpr, mask):
    """A gate's tile of an array of all gates."""
    return _load(table, SLOT, KIND, rows, units + GATE * KIND.H, KIND.G * KIND.H, mask)


@triton.jit
def _keep_gates(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, mask, i, f, g, o):
    WIDTH: tl.constexpr = KIND.G * KIND.H
    if KIND.G == 4:
        _store(table, SLOT, KIND, rows, units, WIDTH, mask, i)
    _store(table, SLOT, KIND, rows, units + (KIND.G - 3) * KIND.H, WIDTH, mask, f)
    _store(table, SLOT, KIND, rows, units + (KIND.G - 2) * KIND.H, WIDTH, mask, g)
    _store(table, SLOT, KIND, rows, units + (KIND.G - 1) * KIND.H, WIDTH, mask, o)


@triton.jit
def _gates(table, SLOT: tl.constexpr, KIND: tl.constexpr, rows, units, mask):
    """The tiles of i, f, g and o; where gates are coupled, i is that of f."""
    f = _gate(table, SLOT, KIND, rows, units, KIND.G - 3, mask)
    g = _gate(table, SLOT, KIND, rows, units, KIND.G - 2, mask)
    o = _gate(table, SLOT, KIND, rows, units, KIND.G - 1, mask)
    i = f
    if KIND.G == 4:
        i = _gate(table, SLOT, KIND, rows, units, 0, mask)
    return i, f, g, o


@triton.jit
def _of_gates(table, SLOT: tl.constexpr, KIND: tl.constexpr, direction, units, is_unit):
    """A parameter's rows for i, f, g and o, as `_gates`."""
    first = direction * KIND.G * KIND.H
    f = _row(table, SLOT, KIND, first + (KIND.G - 3) * KIND.H, units, is_unit)
    g = _row(table, SLOT, KIND, first + (KIND.G - 2) * KIND.H, units, is_unit)
    o = _row(table, SLOT, KIND, first + (KIND.G - 1) * KIND.H, units, is_unit)
    i = f
    if KIND.G == 4:
        i = _row(table, SLOT, KIND, first, units, is_unit)
    return i, f, g, o


@triton.jit
def _peepholes(table, KIND: tl.constexpr, direction, units, is_unit):
    """Of i, f and o."""
    first = direction * (KIND.G - 1) * KIND.H
    f = _row(table, KIND.AT.weight_ch, KIND, first + (KIND.G - 3) * KIND.H, units, is_unit)
    o = _row(table, KIND.AT.weight_ch, KIND, first + (KIND.G - 2) * KIND.H, units, is_unit)
    i = f
    if KIND.G == 4:
        i = _row(table, KIND.AT.weight_ch, KIND, first, units, is_unit)
    return i, f, o


@triton.jit
def _over_gates(KIND: tl.constexpr, i, f, g, o):
    """Sums over the units of all gates."""
    total = f + g + o
    if KIND.G == 4:
        total += i
    return tl.sum(total, axis=1)


@triton.jit
def _normalized(table, KIND: tl.constexpr, direction, at, units, mask, place, inside):
    """The recurrent product normalised, times its gain."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    i, f, g, o = _gates(table, KIND.AT.products, KIND, at, units, mask)
    mean = (_over_gates(KIND, i, f, g, o) / WIDTH)[:, None]
    i, f = tl.where(mask, i - mean, 0), tl.where(mask, f - mean, 0)
    g, o = tl.where(mask, g - mean, 0), tl.where(mask, o - mean, 0)
    variance = _over_gates(KIND, i * i, f * f, g * g, o * o) / WIDTH
    scale = 1 / tl.sqrt(variance + KIND.EPSILON)
    wide = scale[:, None]
    i, f, g, o = i * wide, f * wide, g * wide, o * wide
    if KIND.KEEP:
        there = inside[:, None] & mask
        _keep_gates(table, KIND.AT.normed, KIND, place, units, there, i, f, g, o)
        tl.store(_array(table, KIND.AT.scales, KIND.FLOAT) + place, scale, mask=inside)
    gain = _of_gates(table, KIND.AT.norm_hh, KIND, direction, units, units < KIND.H)
    return i * gain[0], f * gain[1], g * gain[2], o * gain[3]


@triton.jit
def _products(table, KIND: tl.constexpr, step, direction, rows, at, units):
    """The recurrent product, gate by gate; the rows are read once for all."""
    SIZE: tl.constexpr = KIND.H * KIND.R  # of a gate's part of the matrix
    f = _zeros(KIND)
    i, g, o = f, f, f
    of_f = _recurrent(table, KIND, direction) + (KIND.G - 3) * SIZE
    real = rows < tl.load(table + KIND.AT.batch)
    for start in range(0, KIND.R, KIND.BLOCK_K):
        k = start + tl.arange(0, KIND.BLOCK_K)
        left = _read(table, KIND, step, at, k, real[:, None] & (k < KIND.R)[None, :])
        there = (k < KIND.R)[:, None] & (units < KIND.H)[None, :]
        f = _dot(KIND, f, left, of_f, k, units, KIND.R, 1, there)
        g = _dot(KIND, g, left, of_f + SIZE, k, units, KIND.R, 1, there)
        o = _dot(KIND, o, left, of_f + 2 * SIZE, k, units, KIND.R, 1, there)
        if KIND.G == 4:
            i = _dot(KIND, i, left, of_f - SIZE, k, units, KIND.R, 1, there)
    return i, f, g, o


@triton.jit
def _see(table, KIND: tl.constexpr, c, direction, units, mask):
    """tanh of c, normalised where the cell does; c normalised, and 1 over its deviation."""
    normed, scale = c, tl.sum(c, axis=1)
    if KIND.NORM:
        mean = tl.sum(tl.where(mask, c, 0), axis=1) / KIND.H
        normed = tl.where(mask, c - mean[:, None], 0)
        scale = 1 / tl.sqrt(tl.sum(normed * normed, axis=1) / KIND.H + KIND.EPSILON)
        normed *= scale[:, None]
        is_unit = units < KIND.H
        c = normed * _row(table, KIND.AT.norm_c, KIND, direction * KIND.H, units, is_unit)
        c += _row(table, KIND.AT.bias_c, KIND, direction * KIND.H, units, is_unit)
    return _tanh(c), normed, scale


@triton.jit
def _advance(
    table, STATE: tl.constexpr, ZONE: tl.constexpr, KIND: tl.constexpr, step, at, columns,
    WIDTH: tl.constexpr, mask, place, inside, fresh,
):  # fmt: skip
    """A state's new value, after zoneout, where the row has a frame, else the old: written."""
    first = _before(table, KIND, step)
    old = _load(table, STATE, KIND, first + at, columns, WIDTH, mask)
    if KIND.ZONED:
        zone = _load(table, ZONE, KIND, place, columns, WIDTH, inside[:, None] & mask)
        fresh += zone * (old - fresh)
    value = tl.where(inside[:, None], fresh, old)
    after = _before(table, KIND, step + 1)
    _store(table, STATE, KIND, after + at, columns, WIDTH, mask, value)
    return value


@triton.jit
def _give_h(table, KIND: tl.constexpr, step, at, columns, mask, place, inside, fresh):
    """h of a step: into the state and the output; and what was read is kept for the way back."""
    there = inside[:, None] & mask
    if KIND.KEEP:
        read = _read(table, KIND, step, at, columns, there)
        _store(table, KIND.AT.recurrent, KIND, place, columns, KIND.R, there, read)
    h = _advance(
        table, KIND.AT.h, KIND.AT.zone_h, KIND, step, at, columns, KIND.R, mask, place, inside,
        fresh,
    )  # fmt: skip
    _store(table, KIND.AT.output, KIND, place, columns, KIND.R, there, h)


@triton.jit(do_not_specialize=["offset"])
def cell_forward(table, offset, KIND: tl.constexpr):
    """The recurrent product and the gates of a step, up to h where nothing projects it."""
    direction, rows, units, at, mask = _tile(table, KIND, KIND.H)
    step = tl.load(table + KIND.AT.base) + offset
    place, inside = _frames(table, KIND, step, direction, rows)
    there = inside[:, None] & mask
    if KIND.NORM:
        i, f, g, o = _normalized(table, KIND, direction, at, units, mask, place, inside)
    else:
        i, f, g, o = _products(table, KIND, step, direction, rows, at, units)
    of_i, of_f, of_g, of_o = _gates(table, KIND.AT.sums, KIND, place, units, there)
    i, f, g, o = i + of_i, f + of_f, g + of_g, o + of_o
    c = _load(table, KIND.AT.c, KIND, _before(table, KIND, step) + at, units, KIND.H, mask)
    if KIND.PEEPHOLE:
        p_i, p_f, p_o = _peepholes(table, KIND, direction, units, units < KIND.H)
        i, f = i + p_i * c, f + p_f * c
    f, g = tl.sigmoid(f), _tanh(g)
    i = tl.sigmoid(i) if KIND.G == 4 else 1 - f
    c_next = f * c + i * g
    if KIND.PEEPHOLE:
        o += p_o * c_next
    o = tl.sigmoid(o)
    seen, _, _ = _see(table, KIND, c_next, direction, units, mask)
    if KIND.KEEP:
        _keep_gates(table, KIND.AT.gates, KIND, place, units, there, i, f, g, o)
        _store(table, KIND.AT.kept_c, KIND, place, units, KIND.H, there, c)
    if KIND.PROJECTED:
        _store(table, KIND.AT.unprojected, KIND, place, units, KIND.H, there, o * seen)
    else:
        _give_h(table, KIND, step, at, units, mask, place, inside, o * seen)
    _advance(
        table, KIND.AT.c, KIND.AT.zone_c, KIND, step, at, units, KIND.H, mask, place, inside,
        c_next,
    )  # fmt: skip


@triton.jit(do_not_specialize=["offset"])
def projection_forward(table, offset, KIND: tl.constexpr):
    """h of a step, the projection of what `cell_forward` left."""
    direction, rows, columns, at, mask = _tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) + offset
    place, inside = _frames(table, KIND, step, direction, rows)
    weights = _projection(table, KIND, direction)
    fresh = _product(
        table, KIND.AT.unprojected, KIND, place, inside, weights, columns, KIND.H, 1, KIND.H,
        KIND.R,
    )  # fmt: skip
    _give_h(table, KIND, step, at, columns, mask, place, inside, fresh)


@triton.jit
def _d_read(table, KIND: tl.constexpr, step, direction, rows, columns):
    """Gradient of what the recurrent matrix read at the following step, before dropout."""
    SUMS: tl.constexpr = KIND.AT.d_products if KIND.NORM else KIND.AT.d_sums
    place, inside = _frames(table, KIND, step + 1, direction, rows)
    weights = _recurrent(table, KIND, direction)
    total = _product(
        table, SUMS, KIND, place, inside, weights, columns, 1, KIND.R, KIND.G * KIND.H, KIND.R
    )
    if KIND.MASKED:
        at = direction * tl.load(table + KIND.AT.batch) + rows
        mask = inside[:, None] & (columns < KIND.R)[None, :]
        total *= _load(table, KIND.AT.mask, KIND, at, columns, KIND.R, mask)
    return total


@triton.jit(do_not_specialize=["offset"])
def product_backward(table, offset, KIND: tl.constexpr):
    """The gradient through the following step's product, for a cell that needs whole rows of it."""
    direction, rows, columns, at, mask = _tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) - offset
    total = _d_read(table, KIND, step, direction, rows, columns)
    _store(table, KIND.AT.d_read, KIND, at, columns, KIND.R, mask, total)


@triton.jit
def _d_fresh(table, KIND: tl.constexpr, at, columns, mask, place, inside, d_read):
    """Gradient of a step's h before zoneout; what passes the step by stays in d_h."""
    there = inside[:, None] & mask
    d_h = _load(table, KIND.AT.d_h, KIND, at, columns, KIND.R, mask) + d_read
    d_output = _load(table, KIND.AT.d_output, KIND, place, columns, KIND.R, there)
    fresh, passing = tl.where(there, d_h + d_output, 0), tl.where(there, 0, d_h)
    if KIND.ZONED:
        zone = _load(table, KIND.AT.zone_h, KIND, place, columns, KIND.R, there)
        passing += zone * fresh
        fresh *= 1 - zone
    _store(table, KIND.AT.d_h, KIND, at, columns, KIND.R, mask, passing)
    return fresh


@triton.jit(do_not_specialize=["offset"])
def projection_backward(table, offset, KIND: tl.constexpr):
    """Gradient of a projected h, which `cell_backward` takes through the projection."""
    direction, rows, columns, at, mask = _tile(table, KIND, KIND.R)
    step = tl.load(table + KIND.AT.base) - offset
    place, inside = _frames(table, KIND, step, direction, rows)
    d_read = _d_read(table, KIND, step, direction, rows, columns)
    fresh = _d_fresh(table, KIND, at, columns, mask, place, inside, d_read)
    there = inside[:, None] & mask
    _store(table, KIND.AT.d_projected, KIND, place, columns, KIND.R, there, fresh)


@triton.jit(do_not_specialize=["offset"])
def cell_backward(table, offset, KIND: tl.constexpr):
    """The way back through a step, from the following step's gradients to this one's."""
    direction, rows, units, at, mask = _tile(table, KIND, KIND.H)
    step = tl.load(table + KIND.AT.base) - offset
    place, inside = _frames(table, KIND, step, direction, rows)
    there = inside[:, None] & mask
    d_c = _load(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask)
    if KIND.PROJECTED:
        weights = _projection(table, KIND, direction)
        d_h = _product(
            table, KIND.AT.d_projected, KIND, place, inside, weights, units, 1, KIND.H, KIND.R,
            KIND.H,
        )  # fmt: skip
    else:
        if KIND.NORM:
            d_read = _load(table, KIND.AT.d_read, KIND, at, units, KIND.R, mask)
        else:
            d_read = _d_read(table, KIND, step, direction, rows, units)
        if KIND.READS_C:
            d_c += d_read
            d_read = tl.zeros_like(d_read)
        d_h = _d_fresh(table, KIND, at, units, mask, place, inside, d_read)
    d_c, passing = tl.where(there, d_c, 0), tl.where(there, 0, d_c)
    if KIND.ZONED:
        zone = _load(table, KIND.AT.zone_c, KIND, place, units, KIND.H, there)
        passing += zone * d_c
        d_c *= 1 - zone
    i, f, g, o = _gates(table, KIND.AT.gates, KIND, place, units, there)
    if KIND.G == 3:
        i = 1 - f
    c = _load(table, KIND.AT.kept_c, KIND, place, units, KIND.H, there)
    seen, normed, scale = _see(table, KIND, f * c + i * g, direction, units, mask)
    d_o = d_h * seen * o * (1 - o)
    d_seen = d_h * o * (1 - seen * seen)
    if KIND.NORM:
        _add_to(table, KIND.AT.d_norm_c, KIND, at, units, mask, d_seen * normed)
        _add_to(table, KIND.AT.d_bias_c, KIND, at, units, mask, d_seen)
        d_seen *= _row(table, KIND.AT.norm_c, KIND, direction * KIND.H, units, units < KIND.H)
        mean = (tl.sum(d_seen, axis=1) / KIND.H)[:, None]
        slope = (tl.sum(d_seen * normed, axis=1) / KIND.H)[:, None]
        d_seen = scale[:, None] * (d_seen - mean - normed * slope)
    d_c += d_seen
    if KIND.PEEPHOLE:
        p_i, p_f, p_o = _peepholes(table, KIND, direction, units, units < KIND.H)
        d_c += p_o * d_o
    d_i = d_c * g * i * (1 - i)
    d_f = d_c * (c if KIND.G == 4 else c - g) * f * (1 - f)
    d_g = d_c * i * (1 - g * g)
    passing += d_c * f
    if KIND.PEEPHOLE:
        passing += p_f * d_f
        if KIND.G == 4:
            passing += p_i * d_i
    _store(table, KIND.AT.d_c, KIND, at, units, KIND.H, mask, passing)
    _keep_gates(table, KIND.AT.d_sums, KIND, place, units, there, d_i, d_f, d_g, d_o)
    if KIND.NORM:
        _norm_backward(table, KIND, direction, place, inside, units, there, d_i, d_f, d_g, d_o)


@triton.jit
def _add_to(table, SLOT: tl.constexpr, KIND: tl.constexpr, at, units, mask, value):
    """Add to rows that no other program has."""
    value += _load(table, SLOT, KIND, at, units, KIND.H, mask)
    _store(table, SLOT, KIND, at, units, KIND.H, mask, value)


@triton.jit
def _norm_backward(
    table, KIND: tl.constexpr, direction, place, inside, units, mask, d_i, d_f, d_g, d_o
):
    """Through the normalisation of the recurrent product."""
    WIDTH: tl.constexpr = KIND.G * KIND.H
    gain = _of_gates(table, KIND.AT.norm_hh, KIND, direction, units, units < KIND.H)
    d_i, d_f, d_g, d_o = d_i * gain[0], d_f * gain[1], d_g * gain[2], d_o * gain[3]
    i, f, g, o = _gates(table, KIND.AT.normed, KIND, place, units, mask)
    mean = (_over_gates(KIND, d_i, d_f, d_g, d_o) / WIDTH)[:, None]
    slope = (_over_gates(KIND, d_i * i, d_f * f, d_g * g, d_o * o) / WIDTH)[:, None]
    scales = _array(table, KIND.AT.scales, KIND.FLOAT) + place
    scale = tl.load(scales, mask=inside, other=0.0)[:, None]
    d_i, d_f = scale * (d_i - mean - i * slope), scale * (d_f - mean - f * slope)
    d_g, d_o = scale * (d_g - mean - g * slope), scale * (d_o - mean - o * slope)
    _keep_gates(table, KIND.AT.d_products, KIND, place, units, mask, d_i, d_f, d_g, d_o)
