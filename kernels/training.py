"""One training step of many separate networks, from the forward operations of a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import adam
from kernels.adam import AdamRule, AdamState
from kernels.checks import row_modules
from kernels.plan import Plan
from kernels.stacking import MLPStack, by_layer


def row_losses(answers: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Loss of each row, [T], from answers [T, D]."""
    if loss == "mse":
        return (answers - targets).square().mean(1)
    if loss == "logistic":
        return F.binary_cross_entropy_with_logits(answers, targets, reduction="none").mean(1)
    return F.cross_entropy(answers, targets.long(), reduction="none")


def _share(plan: Plan, answers: Tensor) -> Tensor:
    """[T], in the answers' dtype: what a row counts for in the mean over its module's rows."""
    return (1 / plan.counts.clamp(min=1).to(answers.dtype)).index_select(0, row_modules(plan))


def loss_gradient(answers: Tensor, targets: Tensor, loss: str, plan: Plan) -> Tensor:
    """Gradient [T, D] of every module's mean loss by its answers [T, D], without autograd."""
    share = _share(plan, answers)[:, None]
    if loss == "mse":
        return (answers - targets) * (2 / answers.shape[1]) * share
    if loss == "logistic":
        return (torch.sigmoid(answers) - targets) / answers.shape[1] * share
    one_hot = F.one_hot(targets.long(), answers.shape[1]).to(answers.dtype)
    return (torch.softmax(answers, 1) - one_hot) * share


def groups_in_place(stacked: MLPStack, state: AdamState, backend: str) -> list[list[Any]]:
    """Weights and biases, then those of both moments, for a backend that writes to their memory as it lies.

    Raises:
        ValueError: one of them is not contiguous.
    """
    groups: list[list[Any]] = []
    for tensors in (stacked.params, state.first, state.second):
        if not all(t.is_contiguous() for t in tensors):
            raise ValueError(f"the {backend} backend updates in place: parameters and moments must be contiguous")
        groups += by_layer(tensors, stacked.biased)
    return groups


@torch.no_grad()
def plain_step_(
    backend: ModuleType,
    x: Tensor,
    targets: Tensor,
    stacked: MLPStack,
    plan: Plan,
    state: AdamState,
    lr: float | Tensor,
    loss: str,
    rule: AdamRule,
) -> Tensor:
    """As `step_`, from a backend's forward and backward over pairs: inside a registered operation no graph is kept."""
    weights, biases = stacked.weights, stacked.biases
    answers = backend.pairs_forward(x, weights, biases, plan, stacked.activation)
    grad = loss_gradient(answers, targets, loss, plan)
    _, d_weights, d_biases = backend.pairs_backward(grad, x, weights, biases, plan, stacked.activation)
    grads = [g for pair in zip(d_weights, d_biases, strict=True) for g in pair if g is not None]
    adam.step_(stacked.params, grads, state, lr, rule, plan.touched)
    return row_losses(answers, targets, loss)


def step_(
    network: Callable[[Sequence[Tensor], Sequence[Tensor | None]], Tensor],
    targets: Tensor,
    stacked: MLPStack,
    plan: Plan,
    state: AdamState,
    lr: float | Tensor,
    loss: str,
    rule: AdamRule,
) -> Tensor:
    """Forward and backward by autograd, then Adam; network: (weights, biases) -> answers [T, D]."""
    leaves = [p.detach().requires_grad_() for p in stacked.params]
    with torch.enable_grad():
        answers = network(*by_layer(leaves, stacked.biased))
        losses = row_losses(answers.reshape(plan.n_rows, answers.shape[-1]), targets, loss)
        grads = torch.autograd.grad((losses * _share(plan, answers)).sum(), leaves)
    adam.step_([p.detach() for p in stacked.params], list(grads), state, lr, rule, plan.touched)
    return losses.detach()
