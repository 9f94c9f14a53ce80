"""The CPU backend: each module's whole network while its weights are in cache, parallel over modules (float32)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kernels import numba_mlp as nm
from kernels.adam import AdamRule, AdamState, rates
from kernels.numba_layers import CODES
from kernels.plan import Plan
from kernels.stacking import MLPStack
from kernels.threads import threads_for
from kernels.training import groups_in_place

LOSS = {"mse": nm.MSE, "logistic": nm.LOGISTIC, "softmax": nm.SOFTMAX}
SMALL_WORK = 200_000  # multiply-adds below which waking a second thread costs more than it brings
NO_LABELS, NO_FLOATS = np.zeros(0, np.int64), np.zeros(0, np.float32)
NO_DOUBLES = np.zeros(4, np.float64)


def largest_share(plan: Plan) -> float:
    """Part of all rows that the fullest module has."""
    if "share" not in plan.cache:
        plan.cache["share"] = int(plan.counts.max()) / max(1, plan.n_pairs)
    return plan.cache["share"]


def _borders(plan: Plan, widths: Sequence[int]) -> np.ndarray:
    """int64 [threads + 1]: module ranges of about equal work."""
    per_row = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
    threads = threads_for(plan.n_pairs * per_row, SMALL_WORK)
    key = ("borders", threads)
    if key not in plan.cache:
        offsets = plan.offsets.numpy().astype(np.int64)
        # Loading and updating a module costs about as much as eight rows of it.
        cost = offsets + 8 * np.concatenate([[0], np.cumsum(offsets[1:] > offsets[:-1])])
        inner = np.searchsorted(cost, cost[-1] * np.arange(1, threads) / threads)
        plan.cache[key] = np.concatenate([[0], inner, [plan.n_modules]]).astype(np.int64)
    return plan.cache[key]


def _scratch(borders: np.ndarray, widths: np.ndarray) -> np.ndarray:
    return np.empty((len(borders) - 1, nm.scratch_size(widths)), np.float32)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


def _widths(weights: Sequence[Tensor]) -> np.ndarray:
    return np.array([weights[0].shape[1], *[w.shape[2] for w in weights]], np.int64)


def _table(rows: dict[int, Sequence[Tensor | None]]) -> np.ndarray:
    table = np.zeros((nm.TABLE, nm.LAYERS), np.int64)
    for row, tensors in rows.items():
        table[row, : len(tensors)] = [_address(t) for t in tensors]
    return table


def _indices(plan: Plan, per_pair: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """(row of x, row of the result) of each position, and whether they are needed at all."""
    source = plan.order if per_pair else plan.rows
    return source.numpy(), plan.order.numpy(), 0 if plan.identity else 1


def pairs_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str
) -> Tensor:
    """x [T, D0], or [N, D0] in pair order -> answers [N, D] in pair order."""
    x, weights = x.contiguous(), [w.contiguous() for w in weights]
    biases = [None if b is None else b.contiguous() for b in biases]
    widths = _widths(weights)
    out = x.new_empty(plan.n_pairs, int(widths[-1]))
    source, target, gather = _indices(plan, len(x) == plan.n_pairs)
    borders = _borders(plan, widths.tolist())
    nm.forward(
        borders, plan.offsets.numpy(), source, target, x.data_ptr(), gather,
        _table({nm.WEIGHT: weights, nm.BIAS: biases}), widths, CODES[activation], out.data_ptr(),
        _scratch(borders, widths),
    )  # fmt: skip
    return out


def pairs_backward(
    grad: Tensor,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    plan: Plan,
    activation: str,
    need_x: bool = True,
    need: Sequence[bool] | None = None,
) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
    """Gradients by x (as x is), weights and biases, from the gradient of the answers [N, D] in pair order.

    need: for each weight, then each bias, whether its gradient is wanted (None: all).
    """
    x, given, weights = x.contiguous(), grad.contiguous(), [w.contiguous() for w in weights]
    biases = [None if b is None else b.contiguous() for b in biases]
    layers = len(weights)
    all_busy = bool((plan.counts > 0).all())

    def room(param: Tensor | None, place: int) -> Tensor | None:
        # A module without rows has a gradient of zero; the kernel writes the others in full.
        if param is None or (need is not None and not need[place]):
            return None
        return torch.empty_like(param) if all_busy else torch.zeros_like(param)

    d_weights = [room(w, i) for i, w in enumerate(weights)]
    d_biases = [room(b, layers + i) for i, b in enumerate(biases)]
    d_pairs = x.new_empty(plan.n_pairs, x.shape[1]) if need_x else None
    widths = _widths(weights)
    source, target, gather = _indices(plan, len(x) == plan.n_pairs)
    borders = _borders(plan, widths.tolist())
    nm.backward(
        borders, plan.offsets.numpy(), source, target, x.data_ptr(), gather,
        _table({nm.WEIGHT: weights, nm.BIAS: biases, nm.D_WEIGHT: d_weights, nm.D_BIAS: d_biases}),
        widths, CODES[activation], _address(d_pairs), _scratch(borders, widths), nm.GIVEN, given.data_ptr(),
        NO_LABELS, NO_FLOATS, NO_LABELS, NO_DOUBLES, NO_DOUBLES,
    )  # fmt: skip
    if d_pairs is not None and len(x) != plan.n_pairs:
        d_pairs = plan.sum_choices(d_pairs)
    return d_pairs, d_weights, d_biases


@torch.no_grad()
def train_step_(
    x: Tensor,
    targets: Tensor,
    stacked: MLPStack,
    plan: Plan,
    state: AdamState,
    lr: float | Tensor,
    loss: str,
    rule: AdamRule,
) -> Tensor:
    """Forward, loss, backward and Adam of each module in one visit."""
    groups = groups_in_place(stacked, state, "cpu")
    x, targets = x.detach().contiguous(), targets.contiguous()
    labels, given = (targets.long().numpy(), 0) if loss == "softmax" else (NO_LABELS, targets.data_ptr())
    losses = x.new_empty(plan.n_rows)
    widths = _widths(stacked.weights)
    source, target, gather = _indices(plan, True)
    borders = _borders(plan, widths.tolist())
    names = (nm.WEIGHT, nm.BIAS, nm.FIRST_WEIGHT, nm.FIRST_BIAS, nm.SECOND_WEIGHT, nm.SECOND_BIAS)
    nm.backward(
        borders, plan.offsets.numpy(), source, target, x.data_ptr(), gather,
        _table(dict(zip(names, groups, strict=True))), widths, CODES[stacked.activation], 0,
        _scratch(borders, widths), LOSS[loss], given, labels, losses.numpy(), state.step.numpy(),
        rates(lr, state.step).contiguous().numpy(), np.array(rule.numbers),
    )  # fmt: skip
    return losses
