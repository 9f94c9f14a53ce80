"""Autograd around a backend's forward and backward over (row, choice) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels.plan import Plan


class _Network(torch.autograd.Function):
    """x [T, D0] or pairs [N, D0] -> answers [N, D] in pair order; params: weights, then biases."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, backend: ModuleType, plan: Plan, activation: str, *params: Tensor | None
    ) -> Tensor:
        ctx.backend, ctx.plan, ctx.activation, layers = backend, plan, activation, len(params) // 2
        ctx.save_for_backward(x, *params)
        weights = [w for w in params[:layers] if w is not None]
        return backend.pairs_forward(x, weights, params[layers:], plan, activation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *params = ctx.saved_tensors
        layers = len(params) // 2
        need_x, _, _, _, *need = ctx.needs_input_grad
        d_x, d_weights, d_biases = ctx.backend.pairs_backward(
            grads[0], x, params[:layers], params[layers:], ctx.plan, ctx.activation, need_x, need
        )
        return d_x, None, None, None, *d_weights, *d_biases


def run(
    backend: ModuleType,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    plan: Plan,
    activation: str,
    combine: bool,
) -> Tensor:
    """x [T, D0] or [T, K, D0] -> [T, D] (combined, or one choice) or [T, K, D]."""
    rows = x.reshape(plan.n_pairs, x.shape[2]) if x.dim() == 3 else x
    flat: Tensor = _Network.apply(  # pyright: ignore[reportAssignmentType]
        rows, backend, plan, activation, *weights, *biases
    )
    return plan.shaped(flat, combine)
