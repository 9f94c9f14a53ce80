"""Precision of float32 products on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


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
