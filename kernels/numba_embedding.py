"""Scaled embeddings side by side, and their gradients, in one pass each (numba, float32 or bits of bfloat16)."""

# pyright: reportCallIssue=false, reportArgumentType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from kernels.numba_layers import padded
from kernels.numba_math import compiled, float_of, to_bfloat16
from kernels.numba_panels import LANE, add_row, copy_row

KINDS = {"float32": "f4", "bfloat16": "u2"}  # of the products' operands


def _stored(value: Any, like: Any) -> Any:
    """A float32 as an array of the dtype of `like` keeps it: itself, or its bits as bfloat16."""
    raise NotImplementedError


def _loaded(value: Any) -> Any:
    """The reverse of `_stored`."""
    raise NotImplementedError


@overload(_stored, inline="always", strict=False)
def _stored_by_type(value: Any, like: Any) -> Callable[..., Any]:
    return (lambda value, like: to_bfloat16(value)) if like == types.uint16 else (lambda value, like: value)


@overload(_loaded, inline="always", strict=False)
def _loaded_by_type(value: Any) -> Callable[..., Any]:
    if value == types.uint16:
        return lambda value: float_of(np.int32(value) << np.int32(16))
    return lambda value: value


def _gather(ids: Any, scale: Any, table: Any, padding: int, out: Any) -> None:
    """out [T, R d] = scale [T, R] times rows ids [T, R] of table [V, d]; zeros where the id is `padding`."""
    width, zero = table.shape[1], np.float32(0)
    for t in numba.prange(ids.shape[0]):
        for r in range(ids.shape[1]):
            row, factor, target = table[ids[t, r]], scale[t, r], out[t, r * width : (r + 1) * width]
            if ids[t, r] == padding:
                for j in range(width):
                    target[j] = _stored(zero, target[j])
            else:
                for j in range(width):
                    target[j] = _stored(row[j] * factor, target[j])


def _scatter(ids: Any, scale: Any, table: Any, padding: int, grad: Any, d_scale: Any, d_table: Any, parts: int) -> None:
    """Gradients of `_gather` from that of `out`: d_scale [T, R] is written, d_table [V, d] added to.

    A row of the table belongs to part id % parts: one thread adds it up, in the order of the positions.
    """
    width = table.shape[1]
    wide = padded(width)
    for part in numba.prange(parts):
        product = np.zeros(wide, np.float32)
        lanes = np.zeros(LANE, np.float32)
        for t in range(ids.shape[0]):
            for r in range(ids.shape[1]):
                at = ids[t, r]
                if at % parts != part:
                    continue
                if at == padding:
                    d_scale[t, r] = np.float32(0)
                    continue
                row, source, target = table[at], grad[t, r * width : (r + 1) * width], d_table[at]
                factor = scale[t, r]
                for j in range(width):
                    value = _loaded(source[j])
                    target[j] += value * factor
                    product[j] = value * row[j]
                copy_row(product.ctypes.data, lanes.ctypes.data, LANE)
                for j in range(LANE, wide, LANE):
                    add_row(product.ctypes.data + 4 * j, lanes.ctypes.data, LANE)
                half = lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]
                d_scale[t, r] = (half[0] + half[2]) + (half[1] + half[3])


def _both(function: Callable[..., None], signature: str) -> dict[str, Any]:
    return {name: compiled(signature.format(kind), parallel=True)(function) for name, kind in KINDS.items()}


gather = _both(_gather, "void(i8[:, ::1], f4[:, ::1], f4[:, ::1], i8, {}[:, ::1])")
scatter = _both(_scatter, "void(i8[:, ::1], f4[:, ::1], f4[:, ::1], i8, {}[:, ::1], f4[:, ::1], f4[:, ::1], i8)")
