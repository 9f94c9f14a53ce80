"""The general backend: batched and looped matrix products of torch, any device and float dtype.

Rows are put in module order once, all layers run on that order, and the answers are put back. On a CPU few large
modules run as one product each, many small ones in buckets of about equal row count. Every element of every result and
gradient is written by exactly one product, so runs repeat bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.plan import Plan
from kernels.reference import ACTIVATION

LOOP_MODULES = 48  # at most so many busy modules: one product each costs less than padding
LOOP_ROWS = 256  # mean rows per busy module from which one product each keeps the cores busy


class _Sort(torch.autograd.Function):
    """Rows in pair order [T, D] or [T, K, D] -> position order [N, D]. The gradient is a gather too, no atomics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        ctx.plan, ctx.per_pair = plan, x.dim() == 3
        if ctx.per_pair:
            return x.reshape(plan.n_pairs, x.shape[2]).index_select(0, plan.order)
        return x.index_select(0, plan.rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, width = ctx.plan, grads[0].shape[1]
        pairs = grads[0].index_select(0, plan.inverse).reshape(plan.n_rows, plan.n_choices, width)
        return (pairs if ctx.per_pair else pairs[:, 0] if plan.n_choices == 1 else pairs.sum(1)), None


class _Unsort(torch.autograd.Function):
    """Position order [N, D] -> pair order [N, D]; the reverse of `_Sort`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        return x.index_select(0, plan.inverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].index_select(0, ctx.plan.order), None


def sort_rows(x: Tensor, plan: Plan) -> Tensor:
    return x if plan.identity and x.dim() == 2 else _Sort.apply(x, plan)  # pyright: ignore[reportReturnType]


def unsort_rows(x: Tensor, plan: Plan, combine: bool) -> Tensor:
    """Position order [N, D] -> [T, D] (combined, or one choice) or [T, K, D]."""
    pairs: Tensor = x if plan.identity else _Unsort.apply(x, plan)  # pyright: ignore[reportAssignmentType]
    return plan.shaped(pairs, combine)


def buckets(plan: Plan) -> list[tuple[Tensor, Tensor, Tensor, bool]]:
    """Modules of about equal row count: (module ids [B], positions [B, S], inside [B, S, 1], full).

    S is a power of two, so at most half of the padded rows are empty; `full` says that none is.
    """
    if "buckets" not in plan.cache:
        offsets = torch.tensor(plan.host_offsets(), dtype=torch.int64)
        counts = offsets[1:] - offsets[:-1]
        sizes = 2 ** torch.ceil(torch.log2(counts.clamp(min=1).double())).long()
        found = []
        for size in torch.unique(sizes[counts > 0]).tolist():
            ids = torch.nonzero((sizes == size) & (counts > 0))[:, 0]
            size = int(counts[ids].max())  # a bucket whose fullest module is smaller needs no padding up to the power
            step = torch.arange(size)
            inside = step[None, :] < counts[ids][:, None]
            positions = torch.where(inside, offsets[ids][:, None] + step, offsets[ids][:, None])
            full = bool(inside.all())
            found.append(tuple(t.to(plan.device) for t in (ids, positions, inside[:, :, None])) + (full,))
        plan.cache["buckets"] = found
    return plan.cache["buckets"]


def way(plan: Plan) -> str:
    """How this plan's products are run: "uniform", "loop" or "buckets"."""
    if "way" not in plan.cache:
        offsets = plan.host_offsets()
        counts = [b - a for a, b in zip(offsets, offsets[1:], strict=False)]
        busy = sum(c > 0 for c in counts)
        if busy and min(counts) == max(counts):
            plan.cache["way"] = "uniform"
        elif busy <= LOOP_MODULES or plan.n_pairs >= LOOP_ROWS * busy:
            plan.cache["way"] = "loop"
        else:
            plan.cache["way"] = "buckets"
    return plan.cache["way"]


def _busy(plan: Plan) -> list[tuple[int, int, int]]:
    offsets = plan.host_offsets()
    return [(m, a, b) for m, (a, b) in enumerate(zip(offsets, offsets[1:], strict=False)) if b > a]


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    """Rows in position order times their module's weight: x [N, Din], weight [M, Din, Dout] -> [N, Dout]."""
    y = x.new_empty(x.shape[0], weight.shape[2])
    kind = way(plan)
    if kind == "uniform":
        per_module = x.reshape(plan.n_modules, -1, x.shape[1])
        y = torch.bmm(per_module, weight) if bias is None else torch.baddbmm(bias[:, None], per_module, weight)
        return y.reshape(-1, weight.shape[2])
    if kind == "loop":
        for m, a, b in _busy(plan):
            if bias is None:
                torch.mm(x[a:b], weight[m], out=y[a:b])
            else:
                torch.addmm(bias[m], x[a:b], weight[m], out=y[a:b])
        return y
    for ids, positions, inside, full in buckets(plan):
        product = torch.bmm(x[positions], weight[ids])
        product = product if bias is None else product + bias[ids][:, None]
        if full:
            y[positions.reshape(-1)] = product.reshape(-1, y.shape[1])
        else:
            keep = inside[:, :, 0]
            y[positions[keep]] = product[keep]
    return y


def linear_backward(
    x: Tensor, weight: Tensor, dy: Tensor, plan: Plan, need: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients by x, weight and bias (those that are needed) of `linear_forward`, from dy [N, Dout]."""
    need_x, need_weight, need_bias = need
    dy = dy.contiguous()
    kind = way(plan)
    if kind == "uniform":
        shaped = dy.reshape(plan.n_modules, -1, dy.shape[1])
        rows = x.reshape(plan.n_modules, -1, x.shape[1])
        dx = torch.bmm(shaped, weight.transpose(1, 2)).reshape(x.shape) if need_x else None
        dw = torch.bmm(rows.transpose(1, 2), shaped) if need_weight else None
        return dx, dw, shaped.sum(1) if need_bias else None
    dx = torch.empty_like(x) if need_x else None
    dw = torch.zeros_like(weight) if need_weight else None  # a module without rows has a gradient of zero
    db = weight.new_zeros(weight.shape[0], weight.shape[2]) if need_bias else None
    if kind == "loop":
        for m, a, b in _busy(plan):
            if dx is not None:
                torch.mm(dy[a:b], weight[m].T, out=dx[a:b])
            if dw is not None:
                torch.mm(x[a:b].T, dy[a:b], out=dw[m])
            if db is not None:
                torch.sum(dy[a:b], 0, out=db[m])
        return dx, dw, db
    for ids, positions, inside, full in buckets(plan):
        part = dy[positions]
        part = part if full else part.masked_fill(~inside, 0)
        if dx is not None:
            product = torch.bmm(part, weight[ids].transpose(1, 2))
            keep = inside[:, :, 0]
            dx[positions[keep]] = product[keep]
        if dw is not None:
            dw[ids] = torch.bmm(x[positions].transpose(1, 2), part)
        if db is not None:
            db[ids] = part.sum(1)
    return dx, dw, db


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
        ctx.plan, ctx.has_bias = plan, bias is not None
        ctx.save_for_backward(x, weight)
        return linear_forward(x, weight, bias, plan)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        need = (need_x, need_weight, ctx.has_bias and need_bias)
        x, weight = ctx.saved_tensors
        return *linear_backward(x, weight, grads[0], ctx.plan, need), None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    return _Linear.apply(x, weight, bias, plan)  # pyright: ignore[reportReturnType]


def ragged_linear(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan) -> Tensor:
    return unsort_rows(_linear(sort_rows(x, plan), weight, bias, plan), plan, combine=False)


def ragged_mlp(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str, combine: bool
) -> Tensor:
    hidden = sort_rows(x, plan)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = hidden if layer == 0 else ACTIVATION[activation](hidden)
        hidden = _linear(hidden, weight, bias, plan)
    return unsort_rows(hidden, plan, combine)


# The same without autograd, for the registered operations (kernels/ops.py).


def pairs_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str
) -> Tensor:
    """x [T, D0], or [N, D0] in pair order -> answers [N, D] in pair order."""
    return _layers(x, weights, biases, plan, activation)[1].index_select(0, plan.inverse)


def _layers(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str
) -> tuple[list[Tensor], Tensor]:
    """(values before each activation, answers), in position order; the first value is x itself."""
    hidden = x.index_select(0, plan.order if len(x) == plan.n_pairs else plan.rows)
    before = [hidden]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = hidden if layer == 0 else ACTIVATION[activation](hidden)
        hidden = linear_forward(hidden, weight, bias, plan)
        before.append(hidden)
    return before[:-1], hidden


_SLOPE: dict[str, Any] = {
    "relu": lambda grad, z: torch.ops.aten.threshold_backward(grad, z, 0),
    "gelu": torch.ops.aten.gelu_backward,
    "silu": torch.ops.aten.silu_backward,
}


def pairs_backward(
    grad: Tensor, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan, activation: str
) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
    """Gradients by x (as x is), weights and biases, from the gradient of the answers [N, D] in pair order."""
    before, _ = _layers(x, weights, biases, plan, activation)
    dy = grad.index_select(0, plan.order)
    d_weights: list[Tensor] = []
    d_biases: list[Tensor | None] = []
    for layer in range(len(weights) - 1, -1, -1):
        source = before[layer] if layer == 0 else ACTIVATION[activation](before[layer])
        need = (True, True, biases[layer] is not None)
        dx, dw, db = linear_backward(source, weights[layer], dy, plan, need)
        assert dx is not None and dw is not None
        d_weights.insert(0, dw)
        d_biases.insert(0, db)
        dy = dx if layer == 0 else _SLOPE[activation](dx, before[layer])
    pairs = dy.index_select(0, plan.inverse)
    if len(x) != plan.n_pairs:
        pairs = plan.sum_choices(pairs)
    return pairs, d_weights, d_biases
