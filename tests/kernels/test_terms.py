"""First layers as sums of table rows: against the plain sums, with and without additions of a row's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.numba_terms import distinct, silu_of_sums

SIZE = 50


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 6), st.integers(1, SIZE), st.integers(0, 2**32 - 1))
def test_every_column_has_each_of_its_values_once(rows: int, columns: int, top: int, seed: int):
    values = np.random.default_rng(seed).integers(0, top, (rows, columns)).astype(np.uint16)
    place, kept, starts = distinct(values, SIZE)
    assert len(starts) == columns + 1 and starts[0] == 0 and starts[-1] == len(kept)
    assert np.array_equal(kept[place], values)
    for c in range(columns):
        here = kept[starts[c] : starts[c + 1]]
        assert len(set(here.tolist())) == len(here) and set(here.tolist()) == set(values[:, c].tolist())
        assert rows == 0 or (starts[c] <= place[:, c]).all() and (place[:, c] < starts[c + 1]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 5), st.integers(1, 70), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_float64(rows: int, columns: int, width: int, extras: int, seed: int):
    random = np.random.default_rng(seed)

    def floats(*size: int) -> np.ndarray:
        return random.standard_normal(size).astype(np.float32)

    terms, place = floats(9, width), random.integers(0, 9, (rows, columns)).astype(np.int32)
    scale, bias, more_scale, more_bias = floats(columns), floats(width), floats(extras, columns), floats(extras, width)
    more = random.integers(-1, extras, rows)
    used = np.flatnonzero(random.random(columns) < 0.7)
    made = silu_of_sums(place, used, scale, bias, more, more_scale, more_bias, terms)
    assert made.shape == (rows, width) and made.dtype == np.float32
    for i in range(rows):
        own, factor = bias.astype(np.float64), scale.astype(np.float64)
        if more[i] >= 0:
            own, factor = own + more_bias[more[i]], factor + more_scale[more[i]]
        x = own + (factor[used, None] * terms[place[i, used]]).sum(0)
        np.testing.assert_allclose(made[i], x / (1.0 + np.exp(-x)), atol=2e-6, rtol=1e-5)
