"""Softmax of rows of logits without its last division (numba, float32): what a mixture of distributions starts from."""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_math import INLINE, compiled_when_called, exp_negative32, from_order_key, order_key
from kernels.numba_panels import sum_row


@numba.njit(**INLINE)
def exp_row(row: Any, bias: Any) -> Any:
    """Turn a row of logits into exp(logit + bias - top), top being the greatest of the sums; give (top, sum)."""
    key = np.int32(-0x80000000)
    for j in range(row.shape[0]):
        value = row[j] + bias[j]
        row[j] = value
        key = max(key, order_key(value))
    top = from_order_key(key)
    for j in range(row.shape[0]):
        row[j] = exp_negative32(row[j] - top)
    return top, sum_row(row.ctypes.data, row.shape[0])


def _powers(logits: Any, bias: Any, sums: Any) -> None:
    for i in range(logits.shape[0]):
        _, sums[i] = exp_row(logits[i], bias)


_compiled = compiled_when_called(_powers)


def powers_(logits: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """In place: `logits` float32[R, V], contiguous, become exp(logits + bias - greatest), so 1 at the first choice.

    `bias` float32[V]. Returns float64[R], the sums of the rows, added up in float32. What is more than 87 below the
    greatest is held at 1e-38.
    """
    sums = np.empty(len(logits), dtype=np.float64)
    _compiled(logits, bias, sums)
    return sums
