"""The softmax pass of `ragged_softmax_xent` in bfloat16 on the matrix unit (numba), as `numba_xent.fused_bfloat16`.

A few rows' logits at a time are made and used up in the cache.
"""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numba
import numpy as np

from kernels.numba_amx import GROUP, ROWS, STEP, available, multiply_tiles, need_unit, wide_vectors
from kernels.numba_cache import cache_by_sources, fingerprint
from kernels.numba_math import to_bfloat16
from kernels.numba_xent import excess_row


def fits(tokens: int, width: int) -> bool:
    """Whether the unit is available and takes a table of this size."""
    return tokens % (GROUP * ROWS) == 0 and width % STEP == 0 and width > 0 and available()


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


@functools.cache
def _compiled(steps: int) -> tuple[Any, Any]:
    """(`_pack`, the pass) for a width of `steps` x STEP."""

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

    sources = fingerprint(sorted(Path(__file__).parent.glob("numba_*.py"))) + str(steps)
    pack, one_pass = (numba.njit(error_model="numpy", nogil=True, parallel=True)(f) for f in (_pack, excess))
    return cache_by_sources(pack, sources), cache_by_sources(one_pass, sources)


def excess_bfloat16(
    hidden: np.ndarray, table: np.ndarray, bias: np.ndarray, targets: np.ndarray, loss: np.ndarray, excess: np.ndarray,
    threads: int,
) -> None:  # fmt: skip
    """Write softmax(hidden @ table.T + bias) - onehot(targets) as bits of bfloat16, and the loss of each row.

    `hidden` float32[R, D] and `table` float32[V, D] (rounded to bfloat16; V and D as `fits` wants them), `bias`
    float32[V], `targets` int64[R], `loss` float32[R], `excess` uint16[R, V]. RuntimeError without the unit.
    """
    need_unit()
    steps, tokens = hidden.shape[1] // STEP, len(table)
    left = np.empty((-(-len(hidden) // ROWS), steps, ROWS, STEP), np.uint16)
    right = np.empty((tokens // (GROUP * ROWS), steps, GROUP, ROWS, STEP), np.uint16)
    pack, one_pass = _compiled(steps)
    pack(hidden, table, left, right, threads)
    one_pass(left, right, bias, targets, loss, excess, np.empty((threads, ROWS, tokens), np.float32))
