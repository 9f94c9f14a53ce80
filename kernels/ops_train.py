"""The fused training step as a mutating torch.library custom op: torch.compile takes it whole (see kernels/ops.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.adam import AdamRule, AdamState
from kernels.backends import module_of
from kernels.checks import check_targets
from kernels.ops import NAMESPACE, backend_of, plan_of
from kernels.stacking import MLPStack, by_layer
from kernels.training import plain_step_


@torch.library.custom_op(f"{NAMESPACE}::train_step_", mutates_args=("params", "first", "second", "step"))
def train_step(
    x: Tensor,
    targets: Tensor,
    params: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    step: Tensor,
    rates: Tensor,
    biased: Sequence[int],
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    activation: str,
    loss: str,
    rule: Sequence[float],
    backend: str,
) -> Tensor:
    """Losses [T] before the update of params (weight, bias where `biased` is 1, next weight ...), moments and steps.

    rates: float64 [M]. rule: beta1, beta2, eps, weight decay.
    """
    stacked = MLPStack(*by_layer(params, biased), activation)
    state = AdamState(list(first), list(second), step)
    plan = plan_of(order, inverse, offsets, 1)
    check_targets(targets, loss, stacked.weights[-1].shape[2], x, plan)
    module = module_of(backend_of(plan, params, backend, "train"))
    if hasattr(module, "train_step_"):
        return module.train_step_(x, targets, stacked, plan, state, rates, loss, AdamRule(*rule))
    return plain_step_(module, x, targets, stacked, plan, state, rates, loss, AdamRule(*rule))


@train_step.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0])
