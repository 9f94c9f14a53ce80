"""The polynomials of the CPU lane against the C library in double precision."""

from __future__ import annotations

import math

import numba
import numpy as np

from kernels import numba_math as nm


@numba.njit(error_model="numpy")
def _all(x, out, bits):
    for i in range(len(x)):
        out[0, i] = nm.exp32(x[i])
        out[1, i] = nm.exp_negative32(min(x[i], np.float32(0)))
        out[2, i] = nm.sigmoid32(x[i])
        out[3, i] = nm.normal_cdf32(x[i])
        out[4, i] = nm.from_order_key(nm.order_key(x[i]))
        bits[i] = nm.to_bfloat16(x[i])


def _run(x):
    out, bits = np.empty((5, len(x)), np.float32), np.empty(len(x), np.uint16)
    _all(x, out, bits)
    return out, bits


def test_errors_stay_within_a_few_units_in_the_last_place():
    x = np.linspace(-87, 88.3, 400_001, dtype=np.float32)
    out, _ = _run(x)
    double = x.astype(np.float64)
    exp = np.exp(double)
    assert np.max(np.abs(out[0] - exp) / exp) < 4e-7
    negative = np.exp(np.minimum(double, 0))
    assert np.max(np.abs(out[1] - negative) / negative) < 4e-7
    assert np.max(np.abs(out[2] - 1 / (1 + np.exp(-double)))) < 2e-7
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in np.linspace(-9, 9, 50_001, dtype=np.float32).tolist()])
    assert np.max(np.abs(_run(np.linspace(-9, 9, 50_001, dtype=np.float32))[0][3] - cdf)) < 3e-7


def test_special_values():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 200.0, -200.0], np.float32)
    out, _ = _run(x)
    assert np.isnan(out[0, 0]) and np.isnan(out[2, 0]) and np.isnan(out[3, 0])
    assert out[0, 2] == 0 and out[0, 3] == 1 and out[0, 4] == 1 and out[0, 6] == 0
    assert out[0, 1] == out[0, 5] > 2e38 and np.isfinite(out[0, 1])
    for row in (2, 3):
        assert np.allclose(out[row, 1:], [1, 0, 0.5, 0.5, 1, 0], rtol=0, atol=1e-37)


def test_bfloat16_and_order_agree_with_torch():
    import torch

    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(size=5000) * 10.0 ** generator.integers(-30, 30, 5000), [0.0, -0.0]])
    x = np.sort(x.astype(np.float32))
    out, bits = _run(x)
    assert np.array_equal(out[4], x)
    want = torch.from_numpy(x).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bits, want)
