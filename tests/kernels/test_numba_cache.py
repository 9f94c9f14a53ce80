"""Machine code that was just compiled and machine code from the cache must give the same bits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from kernels.numba_cache import fingerprint
from tests.support import ROOT


def digest() -> str:
    """Every CPU kernel that adds numbers up, on odd sizes."""
    import torch

    import kernels
    from kernels import numba_xent

    generator = np.random.default_rng(0)
    parts = []
    for rows, width in ((130, 333), (7, 31), (64, 64)):
        logits = 3 * generator.normal(size=(rows, width)).astype(np.float32)
        bias, labels = generator.normal(size=width).astype(np.float32), generator.integers(0, width, rows)
        loss, rounded = np.empty(rows, np.float32), np.empty((rows, width), np.uint16)
        twice = logits.copy()
        numba_xent.excess_bfloat16(twice, bias, labels, loss, rounded)
        parts += [loss.copy(), rounded]
        numba_xent.excess_float32(logits, bias, labels, loss)
        parts += [loss, logits]
    torch.manual_seed(0)
    n_modules, rows = 5, 300
    plan = kernels.route(torch.randint(0, n_modules, (rows, 1)), n_modules=n_modules)
    for activation in ("gelu", "silu"):
        weights = [torch.randn(n_modules, 13, 21), torch.randn(n_modules, 21, 9)]
        biases = [torch.randn(n_modules, 21), torch.randn(n_modules, 9)]
        leaves = [tensor.requires_grad_() for tensor in (*weights, *biases)]
        out = kernels.ragged_mlp(torch.randn(rows, 13), weights, biases, plan, activation, backend="cpu")
        gradients = torch.autograd.grad(out.square().sum(), leaves)
        parts += [out.detach().numpy(), *(gradient.numpy() for gradient in gradients)]
    for kernel in (1, 3):
        shapes = ((5, 4, kernel), (9, 5, 3), (1, 9, 3))
        weights = [torch.randn(n_modules, o, i, k, k).requires_grad_() for o, i, k in shapes]
        biases = [torch.randn(n_modules, o).requires_grad_() for o, _, _ in shapes]
        leaves = [*weights, *biases]
        out = kernels.module_cnn(
            torch.randn(3, 4, 11, 8), weights, biases, strides=(1, 2, 1), activation="gelu", backend="cpu"
        )
        gradients = torch.autograd.grad(out.square().sum(), leaves)
        parts += [out.detach().numpy(), *(gradient.numpy() for gradient in gradients)]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_compiled_and_loaded_code_give_the_same_bits(tmp_path: Path):
    command = [sys.executable, "-c", "from tests.kernels.test_numba_cache import digest; print(digest())"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = []
    for _ in range(2):
        runs.append(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True))
        assert list(tmp_path.rglob("*.nbi"))  # the first compiled into this folder, the second loaded from it
    assert runs[0].stdout == runs[1].stdout


def test_the_fingerprint_follows_the_sources(tmp_path: Path):
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for file in files:
        file.write_text(file.name)
    before = fingerprint(files)
    files[1].write_text("changed")
    assert fingerprint(files) != before
