"""What the CPU kernels share between a layer's product and the next: start from the bias, activate (numba, float32)."""

# pyright: reportCallIssue=false, reportArgumentType=false
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_math import HALF, INLINE, ONE, compiled, exp32, normal_cdf32, sigmoid32
from kernels.numba_panels import LANE, copy_row, floats

LINE = 64  # bytes of a cache line
NONE, RELU, GELU, SILU = 0, 1, 2, 3
CODES = {"none": NONE, "relu": RELU, "gelu": GELU, "silu": SILU}
DENSITY = np.float32(0.3989422804014327)  # 1 / sqrt(2 pi)


@numba.njit(**INLINE)
def aligned(address: Any) -> Any:
    """The next address that starts a cache line: vectors across two lines cost a product a third of its speed."""
    return (address + LINE - 1) // LINE * LINE


@numba.njit(**INLINE)
def padded(width: Any) -> Any:
    return (width + LANE - 1) // LANE * LANE


@compiled("void(f4[::1], i8)")
def activate(z: Any, kind: int) -> None:
    """In place."""
    if kind == RELU:
        for j in range(len(z)):
            z[j] = z[j] if z[j] > 0 else np.float32(0)
    elif kind == GELU:
        for j in range(len(z)):
            z[j] = z[j] * normal_cdf32(z[j])
    elif kind == SILU:
        for j in range(len(z)):
            z[j] = z[j] * sigmoid32(z[j])


@compiled("void(f4[::1], f4[::1], i8)")
def activate_gradient(z: Any, gradient: Any, kind: int) -> None:
    """gradient *= derivative of the activation at z."""
    if kind == RELU:
        for j in range(len(z)):
            gradient[j] = gradient[j] if z[j] > 0 else np.float32(0)
    elif kind == GELU:
        for j in range(len(z)):
            gradient[j] *= normal_cdf32(z[j]) + z[j] * DENSITY * exp32(-HALF * z[j] * z[j])
    elif kind == SILU:
        for j in range(len(z)):
            s = sigmoid32(z[j])
            gradient[j] *= s * (ONE + z[j] * (ONE - s))


@numba.njit(**INLINE)
def fill_bias(bias: Any, target: Any, rows: Any, columns: Any) -> None:
    """Start a product from the bias (address 0: from zero)."""
    wide = padded(columns)
    out = floats(target, rows * wide)
    if bias == 0:
        for j in range(rows * wide):
            out[j] = np.float32(0)
        return
    for i in range(rows):
        copy_row(bias, target + 4 * i * wide, columns)
        for j in range(columns, wide):
            out[i * wide + j] = np.float32(0)
