"""The softmax pass of `ragged_softmax_xent` in bfloat16 on the matrix unit (numba), as `numba_pairs_xent`.

A few rows' logits at a time are made and used up in the cache.
"""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from kernels.numba_amx import GROUP, ROWS, STEP, multiply_tiles, need_unit, wide_vectors
from kernels.numba_math import compiled_when_called, to_bfloat16
from kernels.numba_xent import excess_row


def _pack(hidden: Any, table: Any, left: Any, right: Any, parts: int) -> None:
    for c in numba.prange(parts):
        for block in range(left.shape[0] * c // parts, left.shape[0] * (c + 1) // parts):
            for i in range(ROWS):
                row = block * ROWS + i
                for k in range(hidden.shape[1]):
                    value = to_bfloat16(hidden[row, k]) if row < hidden.shape[0] else np.uint16(0)
                    left[block, k // STEP, i, k % STEP] = value
        for group in range(right.shape[0] * c // parts, right.shape[0] * (c + 1) // parts):
            for tile in range(GROUP):
                for column in range(ROWS):
                    token = (group * GROUP + tile) * ROWS + column
                    for k in range(table.shape[1]):
                        place = 2 * column + k % 2
                        right[group, k // STEP, tile, k % STEP // 2, place] = to_bfloat16(table[token, k])


_pack_compiled = compiled_when_called(_pack, parallel=True)


@functools.cache
def _pass(steps: int) -> Any:
    """The compiled pass for a width of `steps` x STEP."""

    def excess(left: Any, right: Any, bias: Any, targets: Any, loss: Any, out: Any, scratch: Any) -> None:
        blocks, parts, size = left.shape[0], scratch.shape[0], np.int64(out.shape[1])
        for c in numba.prange(parts):
            wide_vectors()
            logits = scratch[c]
            for block in range(blocks * c // parts, blocks * (c + 1) // parts):
                for group in range(right.shape[0]):
                    multiply_tiles(
                        np.int64(left[block].ctypes.data), np.int64(right[group].ctypes.data),
                        np.int64(logits.ctypes.data) + group * GROUP * ROWS * 4, size * 4, steps, 1,
                    )  # fmt: skip
                for i in range(min(ROWS, len(targets) - block * ROWS)):
                    at = block * ROWS + i
                    loss[at] = excess_row(logits[i], bias, targets[at], out[at])

    return compiled_when_called(excess, parallel=True, constants=str(steps))


def excess_of_product(
    hidden: np.ndarray, table: np.ndarray, bias: np.ndarray, targets: np.ndarray, loss: np.ndarray, excess: np.ndarray,
    threads: int,
) -> None:  # fmt: skip
    """Write softmax(hidden @ table.T + bias) - onehot(targets) as bits of bfloat16, and the loss of each row.

    `hidden` float32[R, D] and `table` float32[V, D] are rounded to bfloat16, `numba_amx.takes` V and D; `bias`
    float32[V], `targets` int64[R], `loss` float32[R], `excess` uint16[R, V]. RuntimeError without the unit.
    """
    need_unit()
    steps, tokens = hidden.shape[1] // STEP, len(table)
    left = np.empty((-(-len(hidden) // ROWS), steps, ROWS, STEP), np.uint16)
    right = np.empty((tokens // (GROUP * ROWS), steps, GROUP, ROWS, STEP), np.uint16)
    _pack_compiled(hidden, table, left, right, threads)
    _pass(steps)(left, right, bias, targets, loss, excess, np.empty((threads, ROWS, tokens), np.float32))
