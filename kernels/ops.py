"""The operations as torch.library custom ops, so that torch.compile takes them whole (one graph, forward and backward).

Here are the network and the loss; ops_cnn.py, ops_embedding.py and ops_train.py have the others. Eager calls do not go
through them: api.py hands them to the backends with the plan and all that it has cached. Under torch.compile the plan's
tensors are the arguments, and the backend is chosen when the compiled code runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels import torch_xent, triton_xent
from kernels.backends import choose, module_of
from kernels.checks import check_xent_values
from kernels.plan import Plan
from kernels.torch_xent import PASSES
from kernels.vocabulary import Vocabulary

NAMESPACE = "constructible"


def plan_of(order: Tensor, inverse: Tensor, offsets: Tensor, n_choices: int) -> Plan:
    rows = order // n_choices if n_choices > 1 else order
    n_rows = order.shape[0] // n_choices
    return Plan(n_rows, n_choices, offsets.shape[0] - 1, n_choices > 1, order, inverse, rows, offsets, None)


def backend_of(plan: Plan, params: Sequence[Tensor], backend: str, operation: str = "mlp") -> str:
    """The backend that takes the work now that it runs; "" chooses."""
    name, _ = choose(plan, params, backend or None, operation)
    if name == "reference":
        raise ValueError("the backend reference has no registered operation: use torch, cpu or triton")
    return name


def split(params: Sequence[Tensor], biased: Sequence[int]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights, then the biases there are -> (weights, biases with None where there is none)."""
    rest = iter(params[len(biased) :])
    return list(params[: len(biased)]), [next(rest) if has else None for has in biased]


def joined(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> tuple[list[Tensor], list[int]]:
    """The reverse of `split`: (params, biased)."""
    return [*weights, *(b for b in biases if b is not None)], [int(b is not None) for b in biases]


def like(*tensors: Tensor | None) -> list[Tensor]:
    """What stands for the gradients by these tensors while a graph is captured."""
    return [t.new_empty(t.shape) for t in tensors if t is not None]


# The functions registered as fake say what comes out, from shapes alone; they take what their operation takes.


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
    weights, biases = split(params, biased)
    plan = plan_of(order, inverse, offsets, n_choices)
    return module_of(backend_of(plan, weights, backend)).pairs_forward(x, weights, biases, plan, activation)


@mlp.register_fake
def _(x: Tensor, params: Sequence[Tensor], biased: Sequence[int], order: Tensor, *_: Any) -> Tensor:
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
    weights, biases = split(params, biased)
    plan = plan_of(order, inverse, offsets, n_choices)
    module = module_of(backend_of(plan, weights, backend))
    d_x, d_weights, d_biases = module.pairs_backward(grad, x, weights, biases, plan, activation)
    return [d_x, *d_weights, *(b for b in d_biases if b is not None)]


@mlp_backward.register_fake
def _(grad: Tensor, x: Tensor, params: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return like(x, *params)


def _mlp_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, params, biased, order, inverse, offsets, *rest = inputs
    ctx.save_for_backward(x, order, inverse, offsets, *params)
    ctx.biased, ctx.rest = biased, rest


def _mlp_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, order, inverse, offsets, *params = ctx.saved_tensors
    d_x, *d_params = mlp_backward(grad, x, params, ctx.biased, order, inverse, offsets, *ctx.rest)
    return d_x, d_params, *[None] * 7


mlp.register_autograd(_mlp_gradient, setup_context=_mlp_setup)


def _vocabulary(starts: Tensor, ids: Tensor | None, n_tokens: int) -> Vocabulary:
    """Without the checks: they ran when the caller's own vocabulary was made."""
    vocabulary = object.__new__(Vocabulary)
    for name, value in (("offsets", starts), ("ids", ids), ("n_tokens", n_tokens)):
        object.__setattr__(vocabulary, name, value)
    object.__setattr__(vocabulary, "cache", {"offsets": starts.tolist()})
    return vocabulary


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
    plan, vocabulary = plan_of(order, inverse, offsets, 1), _vocabulary(starts, ids, output.shape[0])
    check_xent_values(targets, vocabulary, plan)
    name = backend_of(plan, [output], backend, "xent")
    if name == "triton":
        return triton_xent.losses(hidden.contiguous(), targets.long(), output, bias, vocabulary, plan, low)[0]
    rows, goals = hidden.index_select(0, order), targets.long().index_select(0, order)
    loss, _ = torch_xent.losses(rows, goals, output, bias, vocabulary, plan, low, PASSES[name], keep=False)
    return loss.index_select(0, inverse)


@xent.register_fake
def _(hidden: Tensor, *_: Any) -> Tensor:
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
    plan, vocabulary = plan_of(order, inverse, offsets, 1), _vocabulary(starts, ids, output.shape[0])
    name, need = backend_of(plan, [output], backend, "xent"), (True, True, bias is not None)
    if name == "triton":
        given = hidden.contiguous(), targets.long(), output, bias, vocabulary, plan, low
        _, peak = triton_xent.losses(*given)
        return [g for g in triton_xent.gradients(grad.contiguous(), *given, peak, need) if g is not None]
    rows, goals, scale = (t.index_select(0, order) for t in (hidden, targets.long(), grad))
    found = torch_xent.gradients(scale, rows, goals, output, bias, vocabulary, plan, low, PASSES[name], None, need)
    d_hidden, *rest = (g for g in found if g is not None)
    return [d_hidden.index_select(0, inverse), *rest]


@xent_backward.register_fake
def _(grad: Tensor, hidden: Tensor, targets: Tensor, output: Tensor, bias: Tensor | None, *_: Any) -> list[Tensor]:
    return like(hidden, output, bias)


def _xent_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, low, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.low, ctx.backend = low, backend


def _xent_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    d_hidden, d_output, *d_bias = xent_backward(grad, *ctx.saved_tensors, ctx.low, ctx.backend)
    return d_hidden, None, d_output, d_bias[0] if d_bias else None, *[None] * 7


xent.register_autograd(_xent_gradient, setup_context=_xent_setup)
