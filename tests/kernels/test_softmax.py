"""Rows of powers: against float64, for any width, and the same from a bias that may not be written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.numba_softmax import powers_


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(1, 300), st.floats(0.1, 30.0), st.integers(0, 2**32 - 1))
def test_powers_are_those_of_float64(rows: int, width: int, spread: float, seed: int):
    random = np.random.default_rng(seed)
    logits = (spread * random.standard_normal((rows, width))).astype(np.float32)
    bias = random.standard_normal(width).astype(np.float32)
    exact = (logits + bias).astype(np.float64)
    exact = np.exp(exact - exact.max(1, keepdims=True)) if rows else exact
    sums = powers_(logits, bias)
    np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(sums, exact.sum(1), rtol=1e-5)
    assert rows == 0 or (logits.max(1) == 1.0).all()


def test_a_bias_that_is_mapped_read_only_gives_the_same_bits():
    random = np.random.default_rng(0)
    logits, bias = random.standard_normal((7, 1000)).astype(np.float32), random.standard_normal(1000).astype(np.float32)
    locked = bias.copy()
    locked.flags.writeable = False
    one, two = logits.copy(), logits.copy()
    assert powers_(one, bias).tobytes() == powers_(two, locked).tobytes() and one.tobytes() == two.tobytes()


@pytest.mark.parametrize("gap", [80.0, 100.0, 1e30])
def test_what_is_far_below_the_first_choice_stays_above_nothing(gap: float):
    logits = np.array([[0.0, -gap]], dtype=np.float32)
    sums = powers_(logits, np.zeros(2, np.float32))
    assert logits[0, 0] == 1.0 and 0.0 < logits[0, 1] < 1e-30 and sums[0] == 1.0
