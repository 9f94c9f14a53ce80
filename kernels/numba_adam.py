"""Adam in one pass over parameter, gradient and moments (numba, float32)."""

# pyright: reportCallIssue=false
# (an intrinsic's first parameter is filled in by numba)
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_math import ONE, compiled, fma
from kernels.numba_panels import floats


@compiled("void(i8, i8, i8, i8, i8, i8, f8, f8[::1])")
def adam(param: int, gradient: int, first: int, second: int, count: int, step: int, lr: float, rule: Any) -> None:
    """Update `count` numbers at these addresses in place, for the step-th time (from 1).

    rule: beta1, beta2, eps, weight decay. The powers are taken in float64.
    """
    beta1, beta2, eps = np.float32(rule[0]), np.float32(rule[1]), np.float32(rule[2])
    rate = np.float32(lr / (1.0 - rule[0] ** step))
    scale = np.float32(1.0 / np.sqrt(1.0 - rule[1] ** step))
    keep = np.float32(1.0 - lr * rule[3])
    p, g, m, v = floats(param, count), floats(gradient, count), floats(first, count), floats(second, count)
    for j in range(count):
        mean = fma(beta1, m[j], (ONE - beta1) * g[j])
        square = fma(beta2, v[j], (ONE - beta2) * g[j] * g[j])
        m[j], v[j] = mean, square
        p[j] = fma(p[j], keep, -rate * mean / fma(np.sqrt(square), scale, eps))


@compiled("void(i8[::1], i8, i8, i8, i8, i8, b1[::1], i8[::1], f8[::1], f8[::1])", parallel=True)
def adam_stacked(
    borders: Any,
    param: int,
    gradient: int,
    first: int,
    second: int,
    per_module: int,
    active: Any,
    steps: Any,
    rates: Any,
    rule: Any,
) -> None:
    """Update the active modules of a stacked parameter; borders: ranges of its numbers, one per thread."""
    for c in numba.prange(len(borders) - 1):
        at, end = borders[c], borders[c + 1]
        while at < end:
            module = at // per_module
            count = min(end, (module + 1) * per_module) - at
            if active[module]:
                shift = 4 * at
                adam(
                    param + shift, gradient + shift, first + shift, second + shift, count, steps[module],
                    rates[module], rule,
                )  # fmt: skip
            at += count
