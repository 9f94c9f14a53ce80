"""The softmax pass of `ragged_softmax_xent` in one sweep over each row of logits (numba, float32)."""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_math import INLINE, compiled, to_bfloat16
from kernels.numba_softmax import exp_row


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
