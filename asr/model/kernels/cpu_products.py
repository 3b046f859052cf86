"""The matrix products over all frames of a layer, in blocks that stay in the cache; compiled.

Letters as in `cpu_arrays`. Each function does a span of the work: who calls it for all spans, in
any order and on any threads, gets the same bits.
"""

from __future__ import annotations

import numpy as np

from asr.model.kernels.compiled import compiled
from asr.model.kernels.cpu_pointwise import copy
from asr.model.kernels.cpu_tile import COLUMNS, add_product, to_panels, turn_square

BLOCK = 96  # rows of frames multiplied at once: they and their sums stay in the L2 cache
DEPTH = 256  # frames that a weight's gradient sums up at once


@compiled
def pack(panels, matrix):
    """A matrix `(K, columns)` in panels of `add_product`, `(ceil(columns / 16), K, 16)`."""
    panels[matrix.shape[1] // COLUMNS :] = 0
    for k in range(len(matrix)):
        to_panels(panels, k, matrix[k])


@compiled
def pack_transposed(panels, matrix):
    """The transpose of a matrix `(columns, K)` in panels, `(ceil(columns / 16), K, 16)`."""
    columns, depth = matrix.shape
    whole, squares = columns // COLUMNS, depth // COLUMNS
    for p in range(whole):
        of = matrix.ctypes.data + p * COLUMNS * matrix.strides[0]
        to = panels.ctypes.data + p * panels.strides[0]
        for k in range(squares):
            start = k * COLUMNS
            place = to + start * panels.strides[1]
            turn_square(matrix, place, of + start * matrix.itemsize, matrix.strides[0])
        for k in range(squares * COLUMNS, depth):
            for j in range(COLUMNS):
                panels[p, k, j] = matrix[p * COLUMNS + j, k]
    panels[whole:] = 0
    for j in range(columns - whole * COLUMNS):
        for k in range(depth):
            panels[whole, k, j] = matrix[whole * COLUMNS + j, k]


@compiled
def sum_inputs(kept, x, rows, parameters, low, high):
    """The input's share of the sums of packed frames, from x `(B * T, in)`, which is kept too."""
    gathered = np.empty((min(BLOCK, high - low), x.shape[1]), x.dtype)
    for first in range(low, high, BLOCK):
        last = min(first + BLOCK, high)
        for n in range(first, last):
            copy(gathered[n - first], x[rows[n]])
            if kept.inputs.shape[1] > 0:
                to_panels(kept.inputs, n, x[rows[n]])
        for direction in range(kept.gates.shape[1]):
            sums, panels = kept.gates[first:last, direction], parameters.panels_ih[direction]
            start = parameters.start[direction]
            add_product(sums, start, gathered[: last - first], panels, False)


@compiled
def input_gradients(d_x, d_sums, panels, rows, low, high):
    """Gradient of x `(B * T, in)` at packed frames, from that of the sums `(N, D, W)`.

    `panels` are of the input's matrices, `(D, ceil(in / 16), G * H, 16)`.
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
            target = d_x[rows[n]]
            copy(target, block[n - first, : len(target)])


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
