"""The softmax pass of `ragged_softmax_xent` in one sweep over each row of logits (numba, float32)."""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_bfloat16 import multiply_pairs, pack_columns, round_row
from kernels.numba_math import INLINE, compiled, to_bfloat16
from kernels.numba_softmax import exp_row

ROWS = 24  # whose logits are made at a time: two panels, within a core's second cache at 8,192 tokens


@numba.njit(**INLINE)
def _row(logits: Any, bias: Any, target: int) -> Any:
    """Turn a row of logits into exp(logit + bias - top); give the loss and 1 / sum."""
    at_target = logits[target] + bias[target]
    top, total = exp_row(logits, bias)
    return top + np.log(total) - at_target, np.float32(1) / total


@numba.njit(**INLINE)
def excess_row(row: Any, bias: Any, target: Any, excess: Any) -> Any:
    """Turn a row of logits into the bits of softmax minus one-hot in bfloat16; give the loss. The row is used up."""
    loss, scale = _row(row, bias, target)
    at_target = row[target] * scale - np.float32(1)
    for j in range(row.shape[0]):
        excess[j] = to_bfloat16(row[j] * scale)
    excess[target] = to_bfloat16(at_target)
    return loss


@compiled("void(f4[:, ::1], f4[::1], i8[::1], f4[::1])", parallel=True)
def excess_float32(logits: Any, bias: Any, targets: Any, loss: Any) -> None:
    """In place: logits [R, V] -> softmax(logits + bias [V]) - onehot(targets [R]); loss [R] is written."""
    for i in numba.prange(logits.shape[0]):
        row = logits[i]
        loss[i], scale = _row(row, bias, targets[i])
        for j in range(row.shape[0]):
            row[j] *= scale
        row[targets[i]] -= np.float32(1)


@compiled(
    "void(f4[:, ::1], f4[::1], i8[::1], f4[::1], u2[:, ::1])",
    parallel=True,
)
def excess_bfloat16(logits: Any, bias: Any, targets: Any, loss: Any, excess: Any) -> None:
    """As excess_float32, with the result rounded to bfloat16 (its bits) in `excess`; the logits are used up."""
    for i in numba.prange(logits.shape[0]):
        loss[i] = excess_row(logits[i], bias, targets[i], excess[i])


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
