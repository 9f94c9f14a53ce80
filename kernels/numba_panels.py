"""The matrix product of the CPU lane: Y += X W on small blocks, as vector code that LLVM is handed and does not guess.

A panel keeps `rows` x `vectors` accumulators in registers over the whole sum. X is read through two strides, so the
same panel does X W (forward) and X^T dY (weight gradient). Columns come in whole vectors: numba_mlp pads its buffers.
"""

# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_math import compiled, fused

SUM_LANES, LINES = 32, 4
LANE = 8  # all column counts are padded to a multiple of this
FLOAT, INDEX = ir.FloatType(), ir.IntType(64)
SIGNATURE = types.void(*[types.int64] * 10)


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """The float32 pointer at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.PointerType(FLOAT))

    return types.CPointer(types.float32)(types.int64), codegen


@numba.njit(inline="always")
def floats(address: Any, count: Any) -> Any:
    """A float32 array view [count] of the memory at an address."""
    return numba.carray(pointer(address), (count,))


def _mover(width: int) -> Any:
    """Copy `width` float32 from one address to another: no question of overlap to settle first."""
    kind = ir.VectorType(FLOAT, width) if width > 1 else FLOAT

    @intrinsic
    def move(typingctx: Any, source: Any, target: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source, target = (builder.inttoptr(a, ir.PointerType(kind)) for a in args)
            value = builder.load(source)
            value.align = 4
            builder.store(value, target).align = 4
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return move


_move_8, _move_1 = _mover(LANE), _mover(1)


@intrinsic
def _prefetch(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line of an address; any address may be asked for."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, kind = ir.IntType(32), ir.PointerType(ir.IntType(8))
        signature = ir.FunctionType(ir.VoidType(), [kind, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
        where = builder.inttoptr(args[0], kind)
        builder.call(ask, [where, ir.Constant(word, 0), ir.Constant(word, 3), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@numba.njit(inline="always")
def prefetch_row(address: Any, count: Any) -> None:
    """Ask for `count` float32 at an address, at most LINES lines of them: what is read in order follows by itself."""
    for line in range(min(LINES, (4 * count + 63) // 64)):
        _prefetch(address + 64 * line)


@numba.njit(inline="always")
def copy_row(source: Any, target: Any, count: Any) -> None:
    """Copy `count` float32 between two addresses that do not overlap."""
    whole = count // LANE
    for v in range(whole):
        _move_8(source + 4 * LANE * v, target + 4 * LANE * v)
    for j in range(LANE * whole, count):
        _move_1(source + 4 * j, target + 4 * j)


@intrinsic
def _add_8(typingctx: Any, source: Any, target: Any) -> Any:
    """Add LANE float32 at one address to those at another."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(FLOAT, LANE)
        source, target = (builder.inttoptr(a, ir.PointerType(kind)) for a in args)
        left, right = builder.load(target), builder.load(source)
        left.align = right.align = 4
        builder.store(builder.fadd(left, right), target).align = 4
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@numba.njit(inline="always")
def add_row(source: Any, target: Any, count: Any) -> None:
    """Add `count` float32, a multiple of LANE, at an address to those at another that does not overlap."""
    for v in range(count // LANE):
        _add_8(source + 4 * LANE * v, target + 4 * LANE * v)


@intrinsic
def sum_row(typingctx: Any, address: Any, count: Any) -> Any:
    """Sum of `count` float32 at an address: SUM_LANES running sums, added pairwise, then the rest in order."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, count = args
        vector = ir.VectorType(FLOAT, SUM_LANES)
        zero, step = ir.Constant(INDEX, 0), ir.Constant(INDEX, SUM_LANES)

        def load(at: Any, kind: Any) -> Any:
            place = builder.add(base, builder.mul(at, ir.Constant(INDEX, 4)))
            value = builder.load(builder.inttoptr(place, ir.PointerType(kind)))
            value.align = 4
            return value

        whole = builder.sub(count, builder.srem(count, step))

        def loop(start: Any, stop: Any, step: Any, first: Any) -> Any:
            before = builder.block
            body, after = builder.append_basic_block("sum.body"), builder.append_basic_block("sum.end")
            builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
            builder.position_at_end(body)
            at, total = builder.phi(INDEX), builder.phi(first.type)
            following, result = builder.add(at, step), builder.fadd(total, load(at, first.type))
            builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
            for phi, initial, later in ((at, start, following), (total, first, result)):
                phi.add_incoming(initial, before)
                phi.add_incoming(later, body)
            builder.position_at_end(after)
            end = builder.phi(first.type)
            end.add_incoming(first, before)
            end.add_incoming(result, body)
            return end

        lanes = loop(zero, whole, step, ir.Constant(vector, [0.0] * SUM_LANES))
        width = SUM_LANES
        while width > 1:
            width //= 2
            undefined = ir.Constant(lanes.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(
                    lanes, undefined, ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(at, at + width)))
                )
                for at in (0, width)
            ]
            lanes = builder.fadd(*halves)
        return loop(whole, count, ir.Constant(INDEX, 1), builder.extract_element(lanes, zero))

    return types.float32(types.int64, types.int64), codegen


def _panel(rows: int, vectors: int, width: int) -> Any:
    """Y[i, :] = S[i, :] + sum_p X[i, p] W[p, :] for `rows` rows and `vectors` x `width` columns.

    Arguments, int64: address of X, stride of i and of p in X (elements), address of W, its row stride, address of Y,
    its row stride, address of S, its row stride, length of the sum.
    """
    vector = ir.VectorType(FLOAT, width)

    @intrinsic
    def panel(
        typingctx: Any, x: Any, x_row: Any, x_sum: Any, w: Any, w_row: Any, y: Any, y_row: Any, s: Any, s_row: Any,
        length: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, x_row, x_sum, w, w_row, y, y_row, s, s_row, length = args
            four = ir.Constant(INDEX, 4)

            def at(base: Any, offset: Any, kind: Any) -> Any:
                place = builder.add(base, builder.mul(offset, four))
                return builder.inttoptr(place, ir.PointerType(kind))

            def load(base: Any, offset: Any, kind: Any) -> Any:
                value = builder.load(at(base, offset, kind))
                value.align = 4
                return value

            def number(value: int) -> Any:
                return ir.Constant(INDEX, value)

            def cell(i: int, v: int, row: Any) -> Any:
                return builder.add(builder.mul(number(i), row), number(v * width))

            start = [load(s, cell(i, v, s_row), vector) for i in range(rows) for v in range(vectors)]
            before = builder.block
            loop = builder.append_basic_block("panel.sum")
            after = builder.append_basic_block("panel.end")
            builder.cbranch(builder.icmp_signed(">", length, number(0)), loop, after)
            builder.position_at_end(loop)
            p = builder.phi(INDEX)
            sums = [builder.phi(vector) for _ in start]
            right = [load(w, builder.add(builder.mul(p, w_row), number(v * width)), vector) for v in range(vectors)]
            zero_lanes = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
            results = []
            for i in range(rows):
                offset = builder.add(builder.mul(number(i), x_row), builder.mul(p, x_sum))
                single = builder.insert_element(ir.Constant(vector, ir.Undefined), load(x, offset, FLOAT), number(0))
                left = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zero_lanes)
                for v in range(vectors):
                    results.append(fused(builder, left, right[v], sums[i * vectors + v]))
            following = builder.add(p, number(1))
            builder.cbranch(builder.icmp_signed("<", following, length), loop, after)
            p.add_incoming(number(0), before)
            p.add_incoming(following, loop)
            for phi, first, result in zip(sums, start, results, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(result, loop)
            builder.position_at_end(after)
            ends = []
            for first, result in zip(start, results, strict=True):
                phi = builder.phi(vector)
                phi.add_incoming(first, before)
                phi.add_incoming(result, loop)
                ends.append(phi)
            for i in range(rows):
                for v in range(vectors):
                    store = builder.store(ends[i * vectors + v], at(y, cell(i, v, y_row), vector))
                    store.align = 4
            return context.get_dummy_value()

        return SIGNATURE, codegen

    return panel


# As many rows as there are registers for: with 32 of them, each vector of W that is loaded serves twelve rows. Which
# panel makes a number does not change it: every sum runs over p in order.
_TALL = 12 if binding.get_host_cpu_features().get("avx512f", False) else 4
_tall_2_16, _panel_4_2_16, _panel_1_2_16 = _panel(_TALL, 2, 16), _panel(4, 2, 16), _panel(1, 2, 16)
_panel_8_1_16, _panel_4_1_16, _panel_1_1_16 = _panel(8, 1, 16), _panel(4, 1, 16), _panel(1, 1, 16)
_panel_8_1_8, _panel_4_1_8, _panel_1_1_8 = _panel(8, 1, 8), _panel(4, 1, 8), _panel(1, 1, 8)


@compiled("void(i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8)")
def multiply_from(
    s: int, s_row: int, x: int, x_row: int, x_sum: int, w: int, w_row: int, y: int, y_row: int, rows: int, columns: int,
    length: int,
) -> None:  # fmt: skip
    """Y[rows, columns] = S + X[rows, length] W[length, columns]; columns is a multiple of LANE; addresses are in bytes.

    S may be Y, or one row for all (s_row 0).
    """
    j = 0
    while j + 32 <= columns:
        right, i = w + 4 * j, 0
        while i + _TALL <= rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _tall_2_16(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += _TALL
        while i + 4 <= rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_4_2_16(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 4
        while i < rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_1_2_16(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 1
        j += 32
    if j + 16 <= columns:
        right, i = w + 4 * j, 0
        while i + 8 <= rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_8_1_16(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 8
        while i + 4 <= rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_4_1_16(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 4
        while i < rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_1_1_16(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 1
        j += 16
    if j + 8 <= columns:
        right, i = w + 4 * j, 0
        while i + 8 <= rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_8_1_8(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 8
        while i + 4 <= rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_4_1_8(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 4
        while i < rows:
            left, out, start = x + 4 * i * x_row, y + 4 * (i * y_row + j), s + 4 * (i * s_row + j)
            _panel_1_1_8(left, x_row, x_sum, right, w_row, out, y_row, start, s_row, length)
            i += 1


@compiled("void(i8, i8, i8, i8, i8, i8, i8, i8, i8, i8)")
def multiply(
    x: int, x_row: int, x_sum: int, w: int, w_row: int, y: int, y_row: int, rows: int, columns: int, length: int
) -> None:
    """Y[rows, columns] += X[rows, length] W[length, columns]."""
    multiply_from(y, y_row, x, x_row, x_sum, w, w_row, y, y_row, rows, columns, length)
