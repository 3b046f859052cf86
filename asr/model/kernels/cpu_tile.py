"""The inner loop of a matrix product, written in LLVM's vectors so that sums stay in registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from asr.model.kernels.compiled import compiled

COLUMNS = 16  # of a tile: two vectors of AVX2, one of AVX-512, four of NEON
DEPTH = 256  # products summed before the next panel: the panel's 16 KiB stay in the L1 cache


def _make_tile(rows: int, panels: int) -> Callable[..., None]:
    """The kernel of so many rows and panels: `out += a @ weights`, with `out` held in registers.

    Addresses are in bytes: of the first element of `out` and `a`
    (rows `out_stride` and `a_stride` bytes apart) and of the first panel `(depth, 16)`, which is
    contiguous, the next one `panel_stride` bytes after; `like` is any array of their dtype.
    """

    @intrinsic
    def tile(
        typing_context: Any, like: Any, out: Any, out_stride: Any, a: Any, a_stride: Any,
        panel: Any, panel_stride: Any, depth: Any,
    ) -> Any:  # fmt: skip
        size = like.dtype.bitwidth // 8
        scalar = ir.FloatType() if size == 4 else ir.DoubleType()
        vector = ir.VectorType(scalar, COLUMNS)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, out, out_stride, a, a_stride, panel, panel_stride, depth = arguments

            def address(base: Any, offset: Any, kind: Any) -> Any:
                return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

            def load(base: Any, offset: Any, kind: Any) -> Any:
                value = builder.load(address(base, offset, kind))
                value.align = size
                return value

            def times(stride: Any, count: int) -> Any:
                return builder.mul(stride, ir.Constant(out.type, count))

            name = f"llvm.fma.v{COLUMNS}f{size * 8}"
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), name
            )
            # LLVM promotes these to registers: nothing else points at them.
            sums = {
                (row, p): cgutils.alloca_once(builder, vector)
                for row in range(rows)
                for p in range(panels)
            }
            places = {
                (row, p): builder.add(
                    times(out_stride, row), ir.Constant(out.type, p * COLUMNS * size)
                )
                for row, p in sums
            }
            for key, total in sums.items():
                builder.store(load(out, places[key], vector), total)
            a_rows = [times(a_stride, row) for row in range(rows)]
            starts = [times(panel_stride, p) for p in range(panels)]
            with cgutils.for_range(builder, depth) as loop:
                across, down = times(loop.index, size), times(loop.index, COLUMNS * size)
                weights = [load(panel, builder.add(start, down), vector) for start in starts]
                for row in range(rows):
                    value = load(a, builder.add(a_rows[row], across), scalar)
                    factor = _splat(builder, value, vector)
                    for p in range(panels):
                        total = sums[row, p]
                        grown = builder.call(fma, [factor, weights[p], builder.load(total)])
                        builder.store(grown, total)
            for key, total in sums.items():
                store = builder.store(builder.load(total), address(out, places[key], vector))
                store.align = size
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 7), codegen

    return tile


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of which every lane is `value`."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), [0] * COLUMNS)
    return builder.shuffle_vector(first, undefined, lanes)


# Sums in AVX2's 16 registers, two a row and panel, with 2 for weights and 1 for the factor: as many
# as go in, because a sum's next addition waits some five cycles for its last. So where there are
# few rows several panels are taken at once.
_tile_6 = _make_tile(6, 1)
_tile_5 = _make_tile(5, 1)
_tile_4 = _make_tile(4, 1)
_tile_3 = _make_tile(3, 1)
_tile_2 = _make_tile(2, 1)
_tile_1 = _make_tile(1, 1)
_tile_2_wide = _make_tile(2, 2)
_tile_1_wide = _make_tile(1, 4)
AT_ONCE = (1, 4, 2)  # panels for so many rows


@compiled
def add_product(out, a, panels, backwards):
    """`out += a @ weights`, with weights in panels of 16 columns.

    Rows are cut into tiles of at most 6, alike in size; a row is the same number in any company.

    Args:
        out: `(n, panels * 16)`, rows contiguous.
        a: `(n, K)`, rows contiguous, of the same dtype.
        panels: `(panels, K, 16)`, contiguous: `panels[p, k, j]` is `weights[k, 16 * p + j]`.
        backwards: go through the weights from their end. Who alternates finds in the cache what
            the last product left there, where going round in the same order would find nothing.
    """
    rows, depth = a.shape
    size = out.itemsize
    out_stride, a_stride, panel_stride = out.strides[0], a.strides[0], panels.strides[0]
    parts, count, tiles = (depth + DEPTH - 1) // DEPTH, panels.shape[0], (rows + 5) // 6
    least = rows // max(1, tiles)
    larger = rows - least * tiles  # tiles of one row more
    for step in range(parts):
        start = DEPTH * (parts - 1 - step if backwards else step)
        part = min(DEPTH, depth - start)
        done = 0
        while done < count:
            at_once = AT_ONCE[rows] if rows <= 2 else 1
            if at_once > count - done:
                at_once = 1
            p = count - done - at_once if backwards else done
            done += at_once
            panel = panels.ctypes.data + p * panel_stride + start * COLUMNS * size
            to = out.ctypes.data + p * COLUMNS * size
            of = a.ctypes.data + start * size
            # A function of its own for this choice would cost a tenth of the time.
            for tile in range(tiles):
                own = least + 1 if tile < larger else least
                if own == 6:
                    _tile_6(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                elif own == 5:
                    _tile_5(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                elif own == 4:
                    _tile_4(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                elif own == 3:
                    _tile_3(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                elif own == 2 and at_once == 2:
                    _tile_2_wide(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                elif own == 2:
                    _tile_2(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                elif at_once == 4:
                    _tile_1_wide(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                else:
                    _tile_1(out, to, out_stride, of, a_stride, panel, panel_stride, part)
                to += own * out_stride
                of += own * a_stride
