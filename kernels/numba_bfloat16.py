"""Products of bfloat16 pairs with sums in float32 on processors that have them (AVX512-BF16), as LLVM vector code.

Two numbers side by side along the sum are one 32-bit word: a row of X is read as words, W is packed so that one vector
holds the words of LANES columns. torch's products of bfloat16 give bfloat16, those of float32 tensors convert both
operands at every call; here the answers are float32 and the operands converted once. To be imported only where
`precision.multiplies_pairs` says so: importing it compiles it.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_math import NamedType, compiled, to_bfloat16
from kernels.numba_panels import FLOAT, INDEX

LANES = 16
COLUMNS = 32  # of one panel: W's columns are padded to a multiple of this


_WORDS, _FLOATS = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(FLOAT, LANES)
_PAIRS = ir.VectorType(NamedType("bfloat"), 2 * LANES)


def _panel(rows: int) -> Any:
    """Y[i, :] = sum over p of the pairs X[i, p] W[p, :] for `rows` rows and COLUMNS columns.

    Arguments, int64: address of X, its row stride (words), address of W, stride of a group of LANES columns in W
    (words), address of Y, its row stride (floats), length of the sum (words).
    """
    vectors = COLUMNS // LANES

    @intrinsic
    def panel(typingctx: Any, x: Any, x_row: Any, w: Any, w_group: Any, y: Any, y_row: Any, length: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, x_row, w, w_group, y, y_row, length = args
            four = ir.Constant(INDEX, 4)
            signature = ir.FunctionType(_FLOATS, [_FLOATS, _PAIRS, _PAIRS])
            dot = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx512bf16.dpbf16ps.512")

            def number(value: int) -> Any:
                return ir.Constant(INDEX, value)

            def at(base: Any, offset: Any, kind: Any) -> Any:
                return builder.inttoptr(builder.add(base, builder.mul(offset, four)), ir.PointerType(kind))

            def load(base: Any, offset: Any, kind: Any) -> Any:
                value = builder.load(at(base, offset, kind))
                value.align = 4
                return value

            before = builder.block
            loop, after = builder.append_basic_block("pairs.sum"), builder.append_basic_block("pairs.end")
            builder.branch(loop)
            builder.position_at_end(loop)
            p = builder.phi(INDEX)
            sums = [builder.phi(_FLOATS) for _ in range(rows * vectors)]
            right = [
                builder.bitcast(
                    load(w, builder.add(builder.mul(number(v), w_group), builder.mul(p, number(LANES))), _WORDS), _PAIRS
                )
                for v in range(vectors)
            ]
            undefined, zeros = ir.Constant(_WORDS, ir.Undefined), ir.Constant(_WORDS, [0] * LANES)
            results = []
            for i in range(rows):
                word = load(x, builder.add(builder.mul(number(i), x_row), p), ir.IntType(32))
                one = builder.insert_element(undefined, word, number(0))
                left = builder.bitcast(builder.shuffle_vector(one, undefined, zeros), _PAIRS)
                results += [builder.call(dot, [sums[i * vectors + v], left, right[v]]) for v in range(vectors)]
            following = builder.add(p, number(1))
            builder.cbranch(builder.icmp_signed("<", following, length), loop, after)
            p.add_incoming(number(0), before)
            p.add_incoming(following, loop)
            for phi, result in zip(sums, results, strict=True):
                phi.add_incoming(ir.Constant(_FLOATS, [0.0] * LANES), before)
                phi.add_incoming(result, loop)
            builder.position_at_end(after)
            for i in range(rows):
                for v in range(vectors):
                    place = builder.add(builder.mul(number(i), y_row), number(v * LANES))
                    builder.store(results[i * vectors + v], at(y, place, _FLOATS)).align = 4
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return panel


_panel_12, _panel_4, _panel_1 = _panel(12), _panel(4), _panel(1)


@compiled("void(f4[::1], u4[::1])")
def round_row(values: Any, words: Any) -> None:
    """values [D] -> words [at least ceil(D / 2)]: pairs of bfloat16, zeros behind."""
    whole = len(values) // 2
    for k in range(whole):
        low, high = to_bfloat16(values[2 * k]), to_bfloat16(values[2 * k + 1])
        words[k] = np.uint32(low) | (np.uint32(high) << np.uint32(16))
    for k in range(whole, len(words)):
        words[k] = np.uint32(to_bfloat16(values[2 * k])) if 2 * k < len(values) else np.uint32(0)


@compiled("void(f4[:, ::1], u4[:, :, ::1], i8, i8)")
def pack_columns(table: Any, packed: Any, first: int, last: int) -> None:
    """Groups first .. last - 1 of the rows of table [V, D] as the columns of W: packed [groups, ceil(D / 2), LANES]."""
    depth = table.shape[1]
    for group in range(first, last):
        for lane in range(LANES):
            row = group * LANES + lane
            for k in range(packed.shape[1]):
                word = np.uint32(0)
                if row < table.shape[0]:
                    word = np.uint32(to_bfloat16(table[row, 2 * k]))
                    if 2 * k + 1 < depth:
                        word |= np.uint32(to_bfloat16(table[row, 2 * k + 1])) << np.uint32(16)
                packed[group, k, lane] = word


@compiled("void(i8, i8, i8, i8, i8, i8, i8, i8)")
def multiply_pairs(x: int, x_row: int, w: int, w_group: int, y: int, y_row: int, rows: int, columns: int) -> None:
    """Y[rows, columns] = X W; columns is a multiple of COLUMNS, w_group (words) LANES times the length of the sum."""
    length = w_group // LANES
    for j in range(0, columns, COLUMNS):
        part = w + 4 * (j // LANES) * w_group
        i = 0
        while i + 12 <= rows:
            _panel_12(x + 4 * i * x_row, x_row, part, w_group, y + 4 * (i * y_row + j), y_row, length)
            i += 12
        while i + 4 <= rows:
            _panel_4(x + 4 * i * x_row, x_row, part, w_group, y + 4 * (i * y_row + j), y_row, length)
            i += 4
        while i < rows:
            _panel_1(x + 4 * i * x_row, x_row, part, w_group, y + 4 * (i * y_row + j), y_row, length)
            i += 1
