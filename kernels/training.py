"""One training step of many separate networks, from the forward operations of a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import adam
from kernels.adam import AdamRule, AdamState
from kernels.checks import row_modules
from kernels.plan import Plan
from kernels.stacking import MLPStack


def row_losses(answers: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Loss of each row, [T], from answers [T, D]."""
    if loss == "mse":
        return (answers - targets).square().mean(1)
    if loss == "logistic":
        return F.binary_cross_entropy_with_logits(answers, targets, reduction="none").mean(1)
    return F.cross_entropy(answers, targets.long(), reduction="none")


def loss_gradient(answers: Tensor, targets: Tensor, loss: str, plan: Plan) -> Tensor:
    """Gradient [T, D] of every module's mean loss by its answers [T, D], without autograd."""
    share = (1 / plan.counts.clamp(min=1).to(answers.dtype)).index_select(0, row_modules(plan))[:, None]
    if loss == "mse":
        return (answers - targets) * (2 / answers.shape[1]) * share
    if loss == "logistic":
        return (torch.sigmoid(answers) - targets) / answers.shape[1] * share
    one_hot = F.one_hot(targets.long(), answers.shape[1]).to(answers.dtype)
    return (torch.softmax(answers, 1) - one_hot) * share


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
    leaves = [p.detach().requires_grad_() for p in stacked.params]
    queue = iter(leaves)
    pairs = [(next(queue), None if b is None else next(queue)) for b in stacked.biases]
    with torch.enable_grad():
        weights, biases = [w for w, _ in pairs], [b for _, b in pairs]
        answers = network(weights, biases)
        losses = row_losses(answers.reshape(plan.n_rows, answers.shape[-1]), targets, loss)
        share = 1 / plan.counts.clamp(min=1).to(answers.dtype)
        grads = torch.autograd.grad((losses * share.index_select(0, row_modules(plan))).sum(), leaves)
    adam.step_([p.detach() for p in stacked.params], list(grads), state, lr, rule, plan.touched)
    return losses.detach()
