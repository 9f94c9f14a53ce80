"""Products with a table of bfloat16 values on the matrix unit of Intel's server cores (AMX), as exact as in float32.

The unit multiplies bfloat16 and adds up in float32. A float32 is the sum of three bfloat16, and products of bfloat16
are exact in float32, so three passes give what float32 arithmetic gives. LLVM's `*.internal` intrinsics are used, which
set the unit up by themselves; Linux gives it to a process that asks (Documentation/arch/x86/xstate.rst).
"""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_math import NamedType, compiled_when_called
from kernels.numba_softmax import exp_row
from kernels.processor import features

ROWS, STEP, GROUP = 16, 32, 4
"""Rows of a tile, products of bfloat16 in one instruction, tiles of the output that are worked on at once."""
PARTS = 3
_TILE_BYTES = 1024
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


@functools.cache
def available() -> bool:
    """Whether this process may use the unit; asks the system for it, once."""
    has = features()
    if not (sys.platform == "linux" and has.get("amx-bf16", False) and has.get("amx-tile", False)):
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0


def need_unit() -> None:
    """Before anything runs on the unit: without the system's leave its first instruction ends the process."""
    if not available():
        raise RuntimeError("this process cannot use AMX")


def takes(tokens: int, width: int) -> bool:
    """Whether the unit is available and a table of `tokens` rows of this width goes into its tiles."""
    return tokens % (GROUP * ROWS) == 0 and width % STEP == 0 and tokens * width > 0 and available()


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """uint16 of float32: the upper bits, rounded to the nearest, ties to even. Not for NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16_bits(bits: np.ndarray) -> np.ndarray:
    """The reverse of `bfloat16_bits`."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


_TILE, _I16, _I64, _POINTER = NamedType("x86_amx"), ir.IntType(16), ir.IntType(64), ir.IntType(8).as_pointer()


@intrinsic(prefer_literal=True)
def multiply_tiles(
    typingctx: Any, answers: Any, table: Any, out: Any, stride: Any, steps: Any, parts: Any
) -> Any:  # fmt: skip
    """GROUP tiles of `out`, `stride` bytes from row to row: all parts of 16 rows of answers with as many of the table.

    Addresses are of packed tiles: `answers` [steps, parts], `table` [steps, GROUP]; the two numbers are constants.
    """
    n_steps, n_parts = steps.literal_value, parts.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        answers, table, out, stride, *_ = args
        rows, columns, line = ir.Constant(_I16, ROWS), ir.Constant(_I16, 64), ir.Constant(_I64, 64)

        def call(name: str, kinds: list[ir.Type], given: list[Any], result: ir.Type = _TILE) -> Any:
            kind = ir.FunctionType(result, kinds)
            name = f"llvm.x86.{name}.internal"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)

        def at(base: Any, offset: int) -> Any:
            return builder.inttoptr(builder.add(base, ir.Constant(_I64, offset)), _POINTER)

        def load(base: Any, index: int) -> Any:
            given = [rows, columns, at(base, index * _TILE_BYTES), line]
            return call("tileloadd64", [_I16, _I16, _POINTER, _I64], given)

        sums = [call("tilezero", [_I16, _I16], [rows, columns]) for _ in range(GROUP)]
        for step in range(n_steps):
            # With the sums, one tile of the table and three parts these are all eight registers; each is loaded once.
            lefts = [load(answers, step * n_parts + part) for part in range(n_parts)]
            for k in range(GROUP):
                right = load(table, step * GROUP + k)
                for left in lefts:
                    given = [rows, columns, columns, sums[k], left, right]
                    sums[k] = call("tdpbf16ps", [_I16, _I16, _I16, _TILE, _TILE, _TILE], given)
        for k in range(GROUP):
            given = [rows, columns, at(out, k * 64), stride, sums[k]]
            call("tilestored64", [_I16, _I16, _POINTER, _I64, _TILE], given, ir.VoidType())
        return context.get_dummy_value()

    return types.void(answers, table, out, stride, steps, parts), codegen


@intrinsic
def wide_vectors(typingctx: Any) -> Any:
    """Let LLVM use 512-bit vectors in the function that calls this; by itself it spares older cores than these."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # llvmlite's own `add` takes only names that it knows.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


@functools.cache
def _powers(steps: int) -> Any:
    """The compiled loop for a width of `steps` x STEP."""

    def powers(answers: Any, table: Any, bias: Any, out: Any, sums: Any) -> None:
        wide_vectors()
        size = np.int64(out.shape[1])
        for block in range(answers.shape[0]):
            left, first = np.int64(answers[block].ctypes.data), np.int64(out[block * ROWS].ctypes.data)
            for group in range(table.shape[0]):
                right, target = np.int64(table[group].ctypes.data), first + group * GROUP * ROWS * 4
                multiply_tiles(left, right, target, size * 4, steps, PARTS)
            for row in range(block * ROWS, min((block + 1) * ROWS, len(sums))):
                _, sums[row] = exp_row(out[row], bias)

    return compiled_when_called(powers, constants=str(steps))


def pack_table(table: np.ndarray) -> np.ndarray | None:
    """uint16[V / 64, K / 32, GROUP, 16, 32] of `table` float32[V, K] as the unit reads it, or None: it cannot be.

    It can where the unit is available, all values are bfloat16, and V and K are multiples of 64 and 32.
    """
    v, k = table.shape
    if not takes(v, k):
        return None
    bits = bfloat16_bits(table)
    if not np.array_equal(from_bfloat16_bits(bits), table):
        return None
    tiles = bits.reshape(v // (GROUP * ROWS), GROUP, ROWS, k // STEP, ROWS, 2)
    return np.ascontiguousarray(tiles.transpose(0, 3, 1, 4, 2, 5)).reshape(len(tiles), k // STEP, GROUP, ROWS, STEP)


def powers_of_product(answers: np.ndarray, packed: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `numba_softmax.powers_` of `answers @ table.T`: (float32[N, V], float64[N]).

    `answers` float32[N, K]; `packed` from `pack_table`; `bias` float32[V].

    Raises:
        RuntimeError: this process cannot use the unit (`packed` was made by another).
    """
    need_unit()
    n, k = answers.shape
    blocks = -(-n // ROWS)
    padded = np.zeros((blocks * ROWS, k), np.float32)
    padded[:n] = answers
    parts = []
    for _ in range(PARTS):
        parts.append(bfloat16_bits(padded))
        padded = padded - from_bfloat16_bits(parts[-1])
    tiles = np.stack(parts).reshape(PARTS, blocks, ROWS, k // STEP, STEP)
    tiles = np.ascontiguousarray(tiles.transpose(1, 3, 0, 2, 4))
    out, sums = np.empty((blocks * ROWS, len(bias)), np.float32), np.empty(n, np.float64)
    _powers(k // STEP)(tiles, packed, bias, out, sums)
    return out[:n], sums
