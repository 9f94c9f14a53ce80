"""The softmax pass of `ragged_softmax_xent` with AVX-512's products of bfloat16 (numba): imported only where they are.

Importing it compiles it, and LLVM ends the process over an instruction that the processor lacks.
"""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numba

from kernels.numba_bfloat16 import multiply_pairs, pack_columns, round_row
from kernels.numba_math import compiled
from kernels.numba_xent import excess_row

ROWS = 24  # whose logits are made at a time: two panels, within a core's second cache at 8,192 tokens


@compiled("void(f4[:, ::1], u4[:, ::1], f4[:, ::1], u4[:, :, ::1], i8)", parallel=True)
def pack(hidden: Any, pairs: Any, table: Any, packed: Any, parts: int) -> None:
    """hidden [R, D] and table [V, D] as the operands of `multiply_pairs`, shared out in `parts`."""
    for c in numba.prange(parts):
        for i in range(len(pairs) * c // parts, len(pairs) * (c + 1) // parts):
            round_row(hidden[i], pairs[i])
        pack_columns(table, packed, len(packed) * c // parts, len(packed) * (c + 1) // parts)


@compiled("void(u4[:, ::1], u4[:, :, ::1], f4[::1], i8[::1], f4[::1], u2[:, ::1], f4[:, ::1])", parallel=True)
def fused_bfloat16(pairs: Any, packed: Any, bias: Any, targets: Any, loss: Any, excess: Any, scratch: Any) -> None:
    """As excess_bfloat16 from the operands that `pack` made; scratch [threads, ROWS x columns]: a few rows' logits."""
    rows, words = pairs.shape
    columns, parts, width = packed.shape[0] * packed.shape[2], len(scratch), excess.shape[1]
    for c in numba.prange(parts):
        first, last = rows * c // parts, rows * (c + 1) // parts
        logits = scratch[c]
        for start in range(first, last, ROWS):
            count = min(ROWS, last - start)
            multiply_pairs(
                pairs[start:].ctypes.data, words, packed.ctypes.data, words * packed.shape[2], logits.ctypes.data,
                columns, count, columns,
            )  # fmt: skip
            for i in range(count):
                row, at = logits[i * columns : i * columns + width], start + i
                loss[at] = excess_row(row, bias, targets[at], excess[at])
