"""Precision of float32 products on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from kernels.processor import features


def has_matrix_unit() -> bool:
    """Whether this processor has AMX, with which torch's own products of bfloat16 are faster than those in vectors."""
    return bool(torch.cpu._is_amx_tile_supported())


def multiplies_pairs() -> bool:
    """Whether `numba_bfloat16` can be compiled, and is worth it: AVX-512's dot products, and no matrix unit."""
    return bool(features().get("avx512bf16", False)) and not has_matrix_unit()


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware: AMX, or AVX-512's dot products; elsewhere it is no gain.

    Measured with a transformer of 2.9 M parameters on one core: 8,230 tokens/s of training against 4,620 in float32 on
    a Xeon with AMX, 9,300 against 4,100 on an EPYC with AVX-512's.
    """
    return bool(torch.cpu._is_avx512_bf16_supported()) or has_matrix_unit()


@contextlib.contextmanager
def bfloat16_products(on: bool = True) -> Iterator[None]:
    """Let the CPU's products of float32 tensors round their operands to bfloat16 (AMX); sums stay in float32.

    A machine without such units computes in float32 as before. Holds for backward passes that run inside as well.
    """
    if not on:
        yield
        return
    settings: Any = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before
