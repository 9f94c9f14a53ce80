"""The operations as torch.library custom ops, so that torch.compile takes them whole (one graph, forward and backward).

Eager calls do not come through here: api.py hands them to the backends with the plan and all that it has cached. Under
torch.compile the plan's tensors are the arguments, and the backend is chosen when the compiled code runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels import torch_xent, triton_xent
from kernels.backends import choose
from kernels.checks import check_xent_values
from kernels.plan import Plan
from kernels.vocabulary import Vocabulary

NAMESPACE = "constructible"


def _plan(order: Tensor, inverse: Tensor, offsets: Tensor, n_choices: int) -> Plan:
    rows = order // n_choices if n_choices > 1 else order
    n_rows = order.shape[0] // n_choices
    return Plan(n_rows, n_choices, offsets.shape[0] - 1, n_choices > 1, order, inverse, rows, offsets, None)


def _backend(plan: Plan, params: Sequence[Tensor], backend: str, operation: str = "mlp") -> ModuleType:
    name, _ = choose(plan, params, backend or None, operation)
    if name == "reference":
        raise ValueError("the backend reference has no registered operation: use torch, cpu or triton")
    return importlib.import_module(f"kernels.{name}_backend")


def _split(params: Sequence[Tensor], biased: Sequence[int]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights, then the biases there are -> (weights, biases with None where there is none)."""
    rest = iter(params[len(biased) :])
    return list(params[: len(biased)]), [next(rest) if has else None for has in biased]


@torch.library.custom_op(f"{NAMESPACE}::ragged_mlp", mutates_args=())
def mlp(
    x: Tensor,
    params: Sequence[Tensor],
    biased: Sequence[int],
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    n_choices: int,
    activation: str,
    backend: str,
) -> Tensor:
    """x [T, D0] or [N, D0] -> answers [N, D] in pair order; params: weights, then a bias where `biased` is 1."""
    weights, biases = _split(params, biased)
    plan = _plan(order, inverse, offsets, n_choices)
    return _backend(plan, weights, backend).pairs_forward(x, weights, biases, plan, activation)


@mlp.register_fake
def _(
    x: Tensor,
    params: Sequence[Tensor],
    biased: Sequence[int],
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    n_choices: int,
    activation: str,
    backend: str,
) -> Tensor:
    return x.new_empty(order.shape[0], params[len(biased) - 1].shape[2])


@torch.library.custom_op(f"{NAMESPACE}::ragged_mlp_backward", mutates_args=())
def mlp_backward(
    grad: Tensor,
    x: Tensor,
    params: Sequence[Tensor],
    biased: Sequence[int],
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    n_choices: int,
    activation: str,
    backend: str,
) -> list[Tensor]:
    """Gradients by x and each of params."""
    weights, biases = _split(params, biased)
    plan = _plan(order, inverse, offsets, n_choices)
    module = _backend(plan, weights, backend)
    d_x, d_weights, d_biases = module.pairs_backward(grad, x, weights, biases, plan, activation)
    return [d_x, *d_weights, *(b for b in d_biases if b is not None)]


@mlp_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    params: Sequence[Tensor],
    biased: Sequence[int],
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    n_choices: int,
    activation: str,
    backend: str,
) -> list[Tensor]:
    return [x.new_empty(x.shape), *(p.new_empty(p.shape) for p in params)]


def _mlp_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, params, biased, order, inverse, offsets, *rest = inputs
    ctx.save_for_backward(x, order, inverse, offsets, *params)
    ctx.biased, ctx.rest = biased, rest


def _mlp_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, order, inverse, offsets, *params = ctx.saved_tensors
    d_x, *d_params = mlp_backward(grad, x, params, ctx.biased, order, inverse, offsets, *ctx.rest)
    return d_x, d_params, None, None, None, None, None, None, None


mlp.register_autograd(_mlp_gradient, setup_context=_mlp_setup)


def _vocabulary(starts: Tensor, ids: Tensor | None, n_tokens: int) -> Vocabulary:
    """Without the checks: they ran when the caller's own vocabulary was made."""
    vocabulary = object.__new__(Vocabulary)
    for name, value in (("offsets", starts), ("ids", ids), ("n_tokens", n_tokens)):
        object.__setattr__(vocabulary, name, value)
    object.__setattr__(vocabulary, "cache", {"offsets": starts.tolist()})
    return vocabulary


def _one_pass(plan: Plan, output: Tensor, backend: str) -> torch_xent.Pass | None:
    """A backend's softmax pass; None: triton, which makes no logits."""
    name, _ = choose(plan, [output], backend or None, "xent")
    if name == "reference":
        raise ValueError("the backend reference has no registered operation: use torch, cpu or triton")
    if name == "triton":
        return None
    return torch_xent.numba_pass if name == "cpu" else torch_xent.torch_pass


@torch.library.custom_op(f"{NAMESPACE}::ragged_softmax_xent", mutates_args=())
def xent(
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ids: Tensor | None,
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    low: bool,
    backend: str,
) -> Tensor:
    """Loss [T] in the order of the rows; starts, ids: the vocabulary."""
    plan = _plan(order, inverse, offsets, 1)
    vocabulary = _vocabulary(starts, ids, output.shape[0])
    check_xent_values(targets, vocabulary, plan)
    one_pass = _one_pass(plan, output, backend)
    if one_pass is None:
        return triton_xent.losses(hidden.contiguous(), targets.long(), output, bias, vocabulary, plan, low)[0]
    rows, goals = hidden.index_select(0, order), targets.long().index_select(0, order)
    loss, _ = torch_xent.losses(rows, goals, output, bias, vocabulary, plan, low, one_pass, keep=False)
    return loss.index_select(0, inverse)


@xent.register_fake
def _(
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ids: Tensor | None,
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    low: bool,
    backend: str,
) -> Tensor:
    return hidden.new_empty(hidden.shape[0])


@torch.library.custom_op(f"{NAMESPACE}::ragged_softmax_xent_backward", mutates_args=())
def xent_backward(
    grad: Tensor,
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ids: Tensor | None,
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    low: bool,
    backend: str,
) -> list[Tensor]:
    """Gradients by hidden, output and, where there is one, bias."""
    plan = _plan(order, inverse, offsets, 1)
    vocabulary = _vocabulary(starts, ids, output.shape[0])
    one_pass, need = _one_pass(plan, output, backend), (True, True, bias is not None)
    if one_pass is None:
        given = hidden.contiguous(), targets.long(), output, bias, vocabulary, plan, low
        _, peak = triton_xent.losses(*given)
        return [g for g in triton_xent.gradients(grad.contiguous(), *given, peak, need) if g is not None]
    rows, goals, scale = (t.index_select(0, order) for t in (hidden, targets.long(), grad))
    found = torch_xent.gradients(scale, rows, goals, output, bias, vocabulary, plan, low, one_pass, None, need)
    d_hidden, *rest = (g for g in found if g is not None)
    return [d_hidden.index_select(0, inverse), *rest]


@xent_backward.register_fake
def _(
    grad: Tensor,
    hidden: Tensor,
    targets: Tensor,
    output: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    ids: Tensor | None,
    order: Tensor,
    inverse: Tensor,
    offsets: Tensor,
    low: bool,
    backend: str,
) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (hidden, output, bias) if t is not None]


def _xent_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, low, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.low, ctx.backend = low, backend


def _xent_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found = xent_backward(grad, *ctx.saved_tensors, ctx.low, ctx.backend)
    d_bias = found[2] if len(found) > 2 else None
    return found[0], None, found[1], d_bias, None, None, None, None, None, None, None


xent.register_autograd(_xent_gradient, setup_context=_xent_setup)
