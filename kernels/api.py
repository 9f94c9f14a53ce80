"""The public operations: check the arguments, choose a backend, hand over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import adam, checks, function, ops, training
from kernels.adam import AdamRule, AdamState
from kernels.backends import choose, module_of
from kernels.plan import Plan
from kernels.stacking import MLPStack
from kernels.vocabulary import Vocabulary


def _run(
    name: str,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    plan: Plan,
    activation: str,
    combine: bool,
) -> Tensor:
    module = module_of(name)
    if name in ("cpu", "triton"):
        return function.run(module, x, weights, biases, plan, activation, combine)
    if activation == "none":
        return module.ragged_linear(x, weights[0], biases[0], plan)
    return module.ragged_mlp(x, list(weights), list(biases), plan, activation, combine)


def _compiled(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    plan: Plan,
    activation: str,
    combine: bool,
    backend: str | None,
) -> Tensor:
    """The registered operation, which torch.compile puts into its graph as one node."""
    rows = x.reshape(plan.n_pairs, x.shape[2]) if x.dim() == 3 else x
    places = plan.order, plan.inverse, plan.offsets
    flat = ops.mlp(rows, *ops.joined(weights, biases), *places, plan.n_choices, activation, backend or "")
    return plan.shaped(flat, combine)


def ragged_linear(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, *, backend: str | None = None) -> Tensor:
    """y = x @ weight[module of the row] + bias[module of the row].

    Args:
        x: float [T, Din]; or [T, K, Din] if the plan has K choices per row.
        weight: [M, Din, Dout], same dtype and device.
        bias: [M, Dout] or None.
        plan: made by `route`; its gate is not used here.
        backend: name of a backend; None chooses.

    Returns:
        [T, Dout], or [T, K, Dout] if the choice was [T, K]. Differentiable in x, weight and bias.

    Raises:
        TypeError, ValueError: dtypes, devices or shapes do not fit, or the backend cannot take them.
    """
    checks.check_linear(x, weight, bias, plan)
    if torch.compiler.is_compiling():
        return _compiled(x, [weight], [bias], plan, "relu", False, backend)
    name, _ = choose(plan, [weight], backend, "mlp")
    return _run(name, x, [weight], [bias], plan, "none", False)


def ragged_mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    plan: Plan,
    activation: str = "relu",
    *,
    combine: bool | None = None,
    backend: str | None = None,
) -> Tensor:
    """A small network per module: linear, activation, linear (2 to 4 layers, none after the last).

    Args:
        x: float [T, D0]; or [T, K, D0] if the plan has K choices per row.
        weights: 2 to 4 tensors [M, D(l), D(l+1)].
        biases: as many, [M, D(l+1)] or None.
        plan: made by `route`.
        activation: "relu", "gelu" (exact) or "silu".
        combine: sum the K answers of a row, weighted by the plan's gate. None: if the plan has a gate.
        backend: name of a backend; None chooses.

    Returns:
        [T, D_last] when combined or when the choice was [T]; [T, K, D_last] otherwise. Differentiable in x, weights,
        biases and gate.

    Raises:
        TypeError, ValueError: dtypes, devices or shapes do not fit, or the backend cannot take them.
    """
    checks.check_mlp(x, weights, biases, plan, activation)
    combine = plan.gate is not None if combine is None else combine
    checks.check_gate(plan, x, combine)
    if torch.compiler.is_compiling():
        return _compiled(x, weights, biases, plan, activation, combine, backend)
    name, _ = choose(plan, weights, backend, "mlp")
    return _run(name, x, weights, biases, plan, activation, combine)


def ragged_softmax_xent(
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    vocabulary: Vocabulary,
    plan: Plan,
    *,
    precision: str = "float32",
    backend: str | None = None,
) -> Tensor:
    """Cross-entropy of each row over the vocabulary of its own module, in nats.

    loss[t] = -log_softmax(hidden[t] @ output[ids of m].T + bias of m)[targets[t]], with m the module of row t.

    Args:
        hidden: float [T, D].
        targets: integer [T], index into the row's module's own vocabulary (`Vocabulary.locate` finds it).
        output: [V, D] table shared by the modules, or one row per vocabulary entry if vocabulary.ids is None.
        bias: [vocabulary.offsets[M]], one per vocabulary entry, or None.
        vocabulary: M vocabularies of any size.
        plan: made by `route` with one choice per row.
        precision: "float32": IEEE products; "bfloat16": operands of the three products are rounded to bfloat16, sums,
            softmax and loss stay in float32 (only for float32 tensors; ignored by the reference backend).
        backend: name of a backend; None chooses.

    Returns:
        loss [T] in the order of the rows. Differentiable in hidden, output and bias.

    Raises:
        TypeError, ValueError, IndexError: dtypes, devices, shapes or targets do not fit.
    """
    checks.check_xent(hidden, targets, output, bias, vocabulary, plan)
    checks.check_precision(precision)
    low = precision == "bfloat16" and hidden.dtype == torch.float32
    if torch.compiler.is_compiling():
        places = vocabulary.offsets, vocabulary.ids, plan.order, plan.inverse, plan.offsets
        return ops.xent(hidden, targets, output, bias, *places, low, backend or "")
    name, _ = choose(plan, [output], backend, "xent")
    if name == "reference":
        return module_of(name).ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan)
    if name == "triton":
        from kernels import triton_xent

        return triton_xent.ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan, low)
    from kernels import torch_xent

    one_pass = torch_xent.PASSES[name]
    return torch_xent.ragged_softmax_xent(hidden, targets, output, bias, vocabulary, plan, low, one_pass)


def adam_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    state: AdamState,
    lr: float | Tensor,
    *,
    active: Tensor | None = None,
    rule: AdamRule | None = None,
) -> None:
    """One Adam update of stacked parameters, in place.

    The rule for untouched modules: where active[m] is False, nothing of module m changes, neither weights nor moments
    nor its step count, as if the module had its own optimizer and that had not been called. Pass `plan.touched`.

    Args:
        params: tensors [M, ...].
        grads: as many, same shapes and dtypes.
        state: `AdamState.of(params)`, changed in place.
        lr: one learning rate, or float [M], one per module.
        active: bool [M]; None updates all.
        rule: betas, eps, weight decay (decoupled).

    Raises:
        TypeError, ValueError: shapes, dtypes or devices do not fit.
    """
    adam.check(params, grads, state, lr, active)
    adam.step_(params, grads, state, lr, rule or AdamRule(), active)


def train_step_(
    x: Tensor,
    targets: Tensor,
    stacked: MLPStack,
    plan: Plan,
    state: AdamState,
    lr: float | Tensor,
    *,
    loss: str = "mse",
    rule: AdamRule | None = None,
    backend: str | None = None,
) -> Tensor:
    """Forward, loss, backward and Adam for every module that has rows, in place: one step of M separate trainings.

    A module's loss is the mean over its own rows, so its step does not depend on which other modules are in the batch.
    Modules without rows are left exactly as they are (see `adam_step_`).

    Args:
        x: float [T, D0].
        targets: float [T, D_last] for "mse" and "logistic"; integer [T] for "softmax".
        stacked: M networks, changed in place.
        plan: made by `route` with one choice per row.
        state: `AdamState.of(stacked.params)`, changed in place.
        lr: one learning rate, or float [M], one per module.
        loss: per row "mse" (mean of the squared differences), "logistic" (mean binary cross-entropy of logits),
            "softmax" (cross-entropy of logits), in nats.
        rule: betas, eps, weight decay.
        backend: name of a backend; None chooses.

    Returns:
        loss of each row before the update, [T].

    Raises:
        TypeError, ValueError, IndexError: dtypes, devices, shapes or targets do not fit.
    """
    params, rule = stacked.params, rule or AdamRule()
    checks.check_mlp(x, stacked.weights, stacked.biases, plan, stacked.activation)
    checks.check_targets(targets, loss, stacked.weights[-1].shape[2], x, plan)
    adam.check(params, params, state, lr, None)
    if torch.compiler.is_compiling():
        from kernels import ops_train

        return ops_train.train_step(
            x, targets, params, state.first, state.second, state.step, adam.rates(lr, state.step),
            [int(has) for has in stacked.biased], plan.order, plan.inverse, plan.offsets, stacked.activation, loss,
            rule.numbers, backend or "",
        )  # fmt: skip
    name, _ = choose(plan, params, backend, "train")
    if name in ("cpu", "triton"):
        return module_of(name).train_step_(x, targets, stacked, plan, state, lr, loss, rule)

    def forward(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
        return _run(name, x.detach(), weights, biases, plan, stacked.activation, False)

    return training.step_(forward, targets, stacked, plan, state, lr, loss, rule)
