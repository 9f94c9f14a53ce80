"""First layers as sums of table rows (numba, float32): the same few values stand in the same places again and again.

What a value comes to in its place is multiplied out once for all rows that have it there, and a row is a weighted sum.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
from __future__ import annotations

from typing import Any

import numpy as np

from kernels.numba_math import compiled_when_called, sigmoid32


def _distinct(values: Any, size: int, place: Any, kept: Any, starts: Any) -> None:
    last = np.full(size, -1, np.int64)
    at = 0
    for c in range(values.shape[1]):
        starts[c] = at
        for i in range(values.shape[0]):
            value = values[i, c]
            if last[value] < starts[c]:
                last[value] = at
                kept[at] = value
                at += 1
            place[i, c] = last[value]
    starts[values.shape[1]] = at


def _silu_of_sums(
    place: Any, columns: Any, scale: Any, bias: Any, more: Any, more_scale: Any, more_bias: Any, terms: Any, out: Any
) -> None:
    zero = np.float32(0)
    for i in range(place.shape[0]):
        row = out[i]
        extra = more[i]
        for j in range(row.shape[0]):
            row[j] = bias[j] + (more_bias[extra, j] if extra >= 0 else zero)
        for c in columns:
            factor = scale[c] + (more_scale[extra, c] if extra >= 0 else zero)
            term = terms[place[i, c]]
            for j in range(row.shape[0]):
                row[j] += factor * term[j]
        for j in range(row.shape[0]):
            row[j] *= sigmoid32(row[j])


_distinct_compiled, _silu_of_sums_compiled = compiled_when_called(_distinct), compiled_when_called(_silu_of_sums)


def distinct(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which values stand in each column of `values` uint16[N, C], all below `size`.

    Returns (place int32[N, C], kept uint16[P], starts int64[C + 1]): `kept[starts[c] : starts[c + 1]]` are the values
    of column c in the order in which they come, and `kept[place]` is `values`.
    """
    place, kept = np.empty(values.shape, np.int32), np.empty(values.size, np.uint16)
    starts = np.empty(values.shape[1] + 1, np.int64)
    _distinct_compiled(values, size, place, kept, starts)
    return place, kept[: starts[-1]].copy(), starts


def silu_of_sums(
    place: np.ndarray, columns: np.ndarray, scale: np.ndarray, bias: np.ndarray, more: np.ndarray,
    more_scale: np.ndarray, more_bias: np.ndarray, terms: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """float32[N, H]: silu(bias + sum over `columns` c of scale[c] * terms[place[row, c]]), added up in that order.

    `place` int32[N, C]; `scale` float32[C]; `bias` float32[H]; `terms` float32[P, H]. Where `more` int64[N] is not
    negative, that row of `more_scale` float32[S, C] and `more_bias` float32[S, H] is added to scale and bias.
    """
    out = np.empty((len(place), len(bias)), np.float32)
    _silu_of_sums_compiled(place, columns, scale, bias, more, more_scale, more_bias, terms, out)
    return out
