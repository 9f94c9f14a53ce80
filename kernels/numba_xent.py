"""The softmax pass of `ragged_softmax_xent` in one sweep over each row of logits (numba, float32)."""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_math import INLINE, compiled, exp_negative32, from_order_key, order_key, to_bfloat16
from kernels.numba_panels import sum_row


@numba.njit(**INLINE)
def _row(logits: Any, bias: Any, target: int) -> Any:
    """Turn a row of logits into exp(logit + bias - top); give the loss and 1 / sum."""
    key = np.int32(-0x80000000)
    for j in range(logits.shape[0]):
        value = logits[j] + bias[j]
        logits[j] = value
        key = max(key, order_key(value))
    top = from_order_key(key)
    at_target = logits[target]
    for j in range(logits.shape[0]):
        logits[j] = exp_negative32(logits[j] - top)
    total = sum_row(logits.ctypes.data, logits.shape[0])
    return top + np.log(total) - at_target, np.float32(1) / total


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
        row = logits[i]
        loss[i], scale = _row(row, bias, targets[i])
        at_target = row[targets[i]] * scale - np.float32(1)
        for j in range(row.shape[0]):
            excess[i, j] = to_bfloat16(row[j] * scale)
        excess[i, targets[i]] = to_bfloat16(at_target)
