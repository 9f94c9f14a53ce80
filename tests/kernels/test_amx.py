"""Products on the matrix unit: as exact as in float32, and refused where they would not be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels import numba_amx, numba_amx_xent, processor
from kernels.numba_amx import bfloat16_bits, from_bfloat16_bits, pack_table, powers_of_product, takes

needs_unit = pytest.mark.skipif(not numba_amx.available(), reason="this machine has no AMX")


def rounded(*size: int, seed: int = 0) -> np.ndarray:
    values = 0.3 * np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    return from_bfloat16_bits(bfloat16_bits(values))


def test_rounding_is_torchs():
    values = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * np.float32(1e3)
    ties = np.float32(1.0) + np.arange(9, dtype=np.float32) * np.float32(2.0**-8)
    values = np.concatenate([values, ties, np.array([0.0, -0.0, 1e38, -1e-38], np.float32)])
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert from_bfloat16_bits(bfloat16_bits(values)).tobytes() == expected.tobytes()


def test_a_table_that_does_not_fit_is_left_to_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numba_amx, "available", lambda: True)
    assert pack_table(rounded(64, 64)) is not None
    assert pack_table(rounded(60, 64)) is None and pack_table(rounded(64, 60)) is None
    assert pack_table(rounded(64, 64) + np.float32(1e-6)) is None
    assert not takes(100, 64) and not takes(64, 20) and not takes(64, 0)
    monkeypatch.setattr(numba_amx, "available", lambda: False)
    assert pack_table(rounded(64, 64)) is None


@needs_unit
@pytest.mark.parametrize(("rows", "tokens", "width"), [(1, 64, 32), (16, 128, 64), (37, 1024, 96), (300, 4096, 64)])
def test_powers_are_those_of_float64(rows: int, tokens: int, width: int):
    random = np.random.default_rng(rows)
    answers, table = (3.0 * random.standard_normal((rows, width))).astype(np.float32), rounded(tokens, width)
    bias = random.standard_normal(tokens).astype(np.float32)
    packed = pack_table(table)
    assert packed is not None
    powers, sums = powers_of_product(answers, packed, bias)
    exact = answers.astype(np.float64) @ table.T.astype(np.float64) + bias
    exact = np.exp(exact - exact.max(1, keepdims=True))
    assert powers.shape == exact.shape and (powers.max(1) == 1.0).all()
    # Logits to 20 are rounded to 2e-6 in float32, whoever adds them up.
    np.testing.assert_allclose(powers, exact, atol=3e-5)
    np.testing.assert_allclose(sums, exact.sum(1), rtol=3e-5)


@needs_unit
def test_a_row_does_not_depend_on_its_neighbours():
    answers, packed = rounded(40, 64, seed=1), pack_table(rounded(512, 64))
    assert packed is not None
    bias = np.zeros(512, np.float32)
    together = powers_of_product(answers, packed, bias)
    alone = powers_of_product(answers[21:22], packed, bias)
    assert np.array_equal(together[0][21:22], alone[0]) and together[1][21] == alone[1][0]


@needs_unit
@pytest.mark.parametrize(("rows", "tokens", "width", "threads"), [(1, 64, 32, 1), (37, 256, 64, 2), (100, 1024, 96, 2)])
def test_the_pass_of_the_loss_is_that_of_float64(rows: int, tokens: int, width: int, threads: int):
    random = np.random.default_rng(rows)
    hidden, table = rounded(rows, width, seed=1), rounded(tokens, width, seed=2)
    bias = random.standard_normal(tokens).astype(np.float32)
    targets = random.integers(0, tokens, rows)
    loss, excess = np.empty(rows, np.float32), np.empty((rows, tokens), np.uint16)
    assert takes(tokens, width)
    numba_amx_xent.excess_of_product(hidden, table, bias, targets, loss, excess, threads)
    logits = hidden.astype(np.float64) @ table.T.astype(np.float64) + bias
    logits -= logits.max(1, keepdims=True)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(softmax[np.arange(rows), targets]), rtol=1e-5, atol=1e-5)
    softmax[np.arange(rows), targets] -= 1.0
    np.testing.assert_allclose(from_bfloat16_bits(excess), softmax, rtol=2**-8, atol=1e-6)


def test_numba_may_be_told_to_compile_for_another_processor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: {"amx-bf16": True, "amx-tile": True})
    assert processor.features()["amx-bf16"]
    monkeypatch.setattr("numba.core.config.CPU_NAME", "generic")
    assert not processor.features() and not numba_amx.available.__wrapped__()


def test_without_the_unit_nothing_runs_on_it(monkeypatch: pytest.MonkeyPatch):
    """Its first instruction would end the process."""
    monkeypatch.setattr(numba_amx, "available", lambda: False)
    with pytest.raises(RuntimeError, match="AMX"):
        powers_of_product(rounded(16, 64), np.zeros((1, 2, 4, 16, 32), np.uint16), np.zeros(64, np.float32))
