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


def _make_tile(rows: int) -> Callable[..., None]:
    """The kernel for `rows` rows: `out += a @ panel` with `out` `(rows, 16)` held in registers.

    Addresses are in bytes: of the first element of `out` and `a` (rows `out_stride` and `a_stride`
    bytes apart) and of `panel` `(depth, 16)`, which is contiguous; `like` is any array of their
    dtype.
    """

    @intrinsic
    def tile(
        typing_context: Any, like: Any, out: Any, out_stride: Any, a: Any, a_stride: Any,
        panel: Any, depth: Any,
    ) -> Any:  # fmt: skip
        size = like.dtype.bitwidth // 8
        scalar = ir.FloatType() if size == 4 else ir.DoubleType()
        vector = ir.VectorType(scalar, COLUMNS)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, out, out_stride, a, a_stride, panel, depth = arguments

            def constant(value: int) -> Any:
                return ir.Constant(out.type, value)

            def address(base: Any, offset: Any, kind: Any) -> Any:
                return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

            def load(base: Any, offset: Any, kind: Any) -> Any:
                value = builder.load(address(base, offset, kind))
                value.align = size
                return value

            name = f"llvm.fma.v{COLUMNS}f{size * 8}"
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), name
            )
            out_rows = [builder.mul(out_stride, constant(row)) for row in range(rows)]
            a_rows = [builder.mul(a_stride, constant(row)) for row in range(rows)]
            # LLVM promotes these to registers: nothing else points at them.
            sums = [cgutils.alloca_once(builder, vector) for _ in range(rows)]
            for total, row in zip(sums, out_rows, strict=True):
                builder.store(load(out, row, vector), total)
            with cgutils.for_range(builder, depth) as loop:
                weights = load(panel, builder.mul(loop.index, constant(COLUMNS * size)), vector)
                step = builder.mul(loop.index, constant(size))
                for total, row in zip(sums, a_rows, strict=True):
                    factor = _splat(builder, load(a, builder.add(row, step), scalar), vector)
                    builder.store(builder.call(fma, [factor, weights, builder.load(total)]), total)
            for total, row in zip(sums, out_rows, strict=True):
                store = builder.store(builder.load(total), address(out, row, vector))
                store.align = size
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 6), codegen

    return tile


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of which every lane is `value`."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), [0] * COLUMNS)
    return builder.shuffle_vector(first, undefined, lanes)


# 6 rows of 2 vectors fill the 16 registers of AVX2, with 2 for weights and 1 for the factor.
_tile_6 = _make_tile(6)
_tile_4 = _make_tile(4)
_tile_3 = _make_tile(3)
_tile_2 = _make_tile(2)
_tile_1 = _make_tile(1)


@compiled
def add_product(out, a, panels, backwards):
    """`out += a @ weights`, with weights in panels of 16 columns.

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
    parts, count = (depth + DEPTH - 1) // DEPTH, panels.shape[0]
    for step in range(parts):
        start = DEPTH * (parts - 1 - step if backwards else step)
        part = min(DEPTH, depth - start)
        for q in range(count):
            p = count - 1 - q if backwards else q
            panel = panels.ctypes.data + p * panel_stride + start * COLUMNS * size
            to = out.ctypes.data + p * COLUMNS * size
            of = a.ctypes.data + start * size
            left = rows
            while left >= 6:
                _tile_6(out, to, out_stride, of, a_stride, panel, part)
                to += 6 * out_stride
                of += 6 * a_stride
                left -= 6
            if left >= 4:
                _tile_4(out, to, out_stride, of, a_stride, panel, part)
                to += 4 * out_stride
                of += 4 * a_stride
                left -= 4
            if left == 3:
                _tile_3(out, to, out_stride, of, a_stride, panel, part)
            elif left == 2:
                _tile_2(out, to, out_stride, of, a_stride, panel, part)
            elif left == 1:
                _tile_1(out, to, out_stride, of, a_stride, panel, part)
